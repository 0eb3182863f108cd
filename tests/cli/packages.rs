//! `apk solve`, `apk verify` and `apk ls`.

use std::fs;

use serde_json::Value;

use crate::common::sandbox::Sandbox;

/// The package's file in the repository.
const TINY: &str = "repository/x86_64/tiny-1.0-r0.apk";

#[test]
fn solve_prints_what_apk_would_install() {
    let sandbox = Sandbox::new();
    sandbox.document(
        "apk pack files --name app --pkgver 2.0-r1 --arch x86_64 --depends tiny>=1 --to repository/x86_64",
        "apk-pack",
    );
    sandbox.index();
    let solve = "apk solve --repository repository --arch x86_64 --keys keys";
    let run = sandbox.run(&format!("{solve} app"));
    run.fails(0, &["2 packages"]);
    assert_eq!(run.out, "(1/2) Installing tiny (1.0-r0)\n(2/2) Installing app (2.0-r1)\n");
    assert_eq!(sandbox.run(&format!("{solve} app -q")).err, "");
    let solved = sandbox.document(&format!("{solve} app"), "apk-solve");
    assert_eq!(solved["packages"][1]["name"], "app");
    assert_eq!(solved["packages"][1]["repository"], "repository");
}

#[test]
fn solve_takes_packages_of_a_tagged_repository_for_wishes_with_its_tag() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("edge/x86_64")).unwrap();
    sandbox.done("apk pack files --name tiny --pkgver 2.0-r0 --arch x86_64 --to edge/x86_64");
    sandbox.done("apk index edge/x86_64 --key me.rsa");
    let solve = |wish: &str| {
        let args = ["apk", "solve", "-q", "-X", "repository", "-X", "@edge edge", "--keys", "keys", wish];
        crate::common::sandbox::Run::of(sandbox.command().args(args))
    };
    assert_eq!(solve("tiny").out, "(1/1) Installing tiny (1.0-r0)\n");
    assert_eq!(solve("tiny@edge").out, "(1/1) Installing tiny@edge (2.0-r0)\n");
    solve("tiny>1.0-r0")
        .fails(2, &["tiny-2.0-r0 is only in the repository with the tag edge", "write tiny@edge"]);
    solve("tiny@egde").fails(2, &["no repository has the tag egde; there are edge"]);
}

#[test]
fn solve_says_why_there_is_no_answer() {
    let sandbox = Sandbox::new();
    let solve = "apk solve --repository repository --keys keys";
    let words =
        ["error: these packages cannot be installed", "because: tinny: no such package; did you mean tiny?"];
    sandbox.run(&format!("{solve} tinny")).fails(2, &words);
    let told = sandbox.document(&format!("{solve} tinny tiny>3"), "apk-solve");
    assert_eq!(told["problems"][0]["hint"], "did you mean tiny?", "{told}");
    assert_eq!(told["problems"].as_array().unwrap().len(), 2, "{told}");
    sandbox.run(&format!("{solve} tiny=b")).fails(2, &["'tiny=b' is not a dependency"]);
    sandbox.run(&format!("{solve} --arch ../x tiny")).fails(2, &["'../x' is not an architecture"]);
    sandbox.run("apk solve -X nowhere --keys keys tiny").fails(2, &["nowhere/x86_64/APKINDEX.tar.gz"]);
    sandbox.run("apk solve -X ftp://x --keys keys tiny").fails(2, &["must begin with http:// or https://"]);
    let offline = "apk solve -X http://127.0.0.1:1/x --keys keys --offline tiny";
    sandbox.run(offline).fails(1, &["this run is offline", "run once without --offline"]);
    sandbox
        .run("apk solve -X http://127.0.0.1:1/x --keys keys tiny")
        .fails(1, &["cannot get", "127.0.0.1:1"]);
}

#[test]
fn verify_looks_at_packages_and_indexes_down_to_each_file() {
    let sandbox = Sandbox::new();
    let verify = "apk verify repository --keys keys";
    let run = sandbox.run(verify);
    run.fails(0, &["2 of 2 are intact"]);
    assert!(run.out.contains("APKINDEX.tar.gz: OK (1 package, signed by me.rsa.pub)"), "{run}");
    assert!(run.out.contains("signed by me.rsa.pub, as the index says)"), "{run}");
    let good = fs::read(sandbox.path(TINY)).unwrap();

    // A package of the right name, rightly signed, that is another one than the index lists.
    sandbox.write("files/etc/tiny", "other\n");
    sandbox.pack("tiny", "1.0-r0");
    let run = sandbox.run(verify);
    assert_eq!(run.code, 1, "{run}");
    assert!(run.out.contains("tiny-1.0-r0.apk: package tiny-1.0-r0: "), "{run}");
    assert!(run.out.contains("the index says"), "{run}");
    sandbox.run(&format!("apk verify {TINY} --keys keys")).fails(0, &["1 of 1"]);

    let mut changed = good.clone();
    let place = changed.len() - 20;
    changed[place] ^= 1;
    sandbox.write(TINY, changed);
    let (code, told) = sandbox.documents(verify, "apk-verify");
    let told = &told[0];
    assert_eq!(code, 1, "{told}");
    assert_eq!((&told[0]["ok"], &told[1]["ok"]), (&Value::Bool(true), &Value::Bool(false)), "{told}");
    assert!(told[1]["reason"].as_str().unwrap().contains("data member: its SHA-256"), "{told}");

    sandbox.write(TINY, good);
    sandbox.done("apk key keys2/other.rsa");
    let run = sandbox.run("apk verify repository --keys keys2");
    assert_eq!((run.code, run.out.matches("not among the trusted keys").count()), (1, 2), "{run}");
    sandbox.run("apk verify nowhere.apk --keys keys").fails(1, &["0 of 1"]);
    sandbox.run("apk verify files --keys keys").fails(2, &["neither a package nor an index"]);
}

#[test]
fn ls_shows_what_is_in_packages_and_indexes() {
    let sandbox = Sandbox::new();
    let text = sandbox.done(&format!("apk ls {TINY}"));
    assert!(text.starts_with("tiny-1.0-r0  x86_64\n"), "{text}");
    assert!(text.contains("-0644  root:root  5  etc/tiny"), "{text}");
    assert!(sandbox.done("apk ls repository/x86_64/APKINDEX.tar.gz").starts_with("tiny-1.0-r0  "));
    let told = sandbox.document("apk ls repository", "apk-ls");
    assert_eq!(told[0]["packages"][0]["name"], "tiny");
    assert_eq!(told[1]["entries"][1]["path"], "etc/tiny");
    sandbox.write("broken.apk", "no package");
    sandbox.run("apk ls broken.apk").fails(2, &["broken.apk: ", "not gzip"]);
}
