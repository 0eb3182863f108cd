//! Packages and repositories that are not what they should be, and locks that do not fit.

use std::fs;

use crate::common::sandbox::{Run, Sandbox};
use crate::common::server::{Fault, Server};

/// The package's file in the repository.
const TINY: &str = "repository/x86_64/tiny-1.0-r0.apk";

const INDEX: &str = "repository/x86_64/APKINDEX.tar.gz";

/// A sandbox with one guest, and nothing locked.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox
}

/// Turns one bit of a file over, some bytes before its end.
fn change(sandbox: &Sandbox, path: &str) {
    let mut bytes = fs::read(sandbox.path(path)).unwrap();
    let place = bytes.len() - 20;
    bytes[place] ^= 1;
    sandbox.write(path, bytes);
}

#[test]
fn a_package_that_does_not_exist_is_shown_with_the_nearest_one() {
    let sandbox = sandbox();
    sandbox.done("lock");
    let lock = sandbox.read("fleet.lock");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("\"tiny\"", "\"tinny\""));
    for command in ["lock", "build"] {
        let words = ["the packages of the image i", "tinny: no such package; did you mean tiny?", "help: "];
        sandbox.run(command).fails(2, &words);
    }
    assert_eq!(sandbox.read("fleet.lock"), lock, "a lock is written whole or not at all");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("\"tinny\"", "\"tiny~2\""));
    sandbox.run("lock").fails(2, &["tiny~2", "tiny 1.0-r0"]);
}

#[test]
fn a_repository_whose_key_is_not_trusted_is_refused() {
    let sandbox = sandbox();
    fs::remove_dir_all(sandbox.path("keys")).unwrap();
    sandbox.run("check").fails(2, &["there are no keys in ", "fleet.toml:7:1", "*.rsa.pub"]);
    fs::create_dir(sandbox.path("keys")).unwrap();
    sandbox.done("apk key keys/other.rsa");
    let run = sandbox.run("lock");
    run.fails(
        2,
        &["the repository repository is refused", "signed by me.rsa.pub", "(other.rsa.pub)", "help: "],
    );
    assert_eq!(run.err.matches("not among the trusted keys").count(), 1, "a cause is said once\n{run}");
    // A key of the right name and other content.
    fs::rename(sandbox.path("keys/other.rsa.pub"), sandbox.path("keys/me.rsa.pub")).unwrap();
    sandbox.run("lock").fails(2, &["the signature by me.rsa.pub is wrong"]);
    assert!(!sandbox.path("fleet.lock").exists());
}

#[test]
fn a_package_with_one_bit_changed_is_refused_by_name() {
    let sandbox = sandbox();
    let good = fs::read(sandbox.path(TINY)).unwrap();
    change(&sandbox, TINY);
    sandbox
        .run("lock")
        .fails(2, &["a package of the repository repository is refused", "tiny-1.0-r0", "help: "]);
    assert!(!sandbox.path("fleet.lock").exists());

    sandbox.write(TINY, good);
    sandbox.done("lock");
    change(&sandbox, TINY);
    let words = [
        "a package of the repository repository is refused",
        "package tiny-1.0-r0: its SHA-256 is",
        "help: fleet.lock pins a different file",
        "indexed again",
    ];
    sandbox.run("build").fails(2, &words);
    sandbox.run("build --locked").fails(2, &words);
    assert!(!sandbox.path("out/image/i").exists());

    // What the help says leads out of it.
    sandbox.write("files/etc/tiny", "another\n");
    sandbox.pack("tiny", "1.0-r0");
    sandbox.run("build").fails(2, &words);
    sandbox.index();
    sandbox.done("lock --update");
    sandbox.done("build");
}

#[test]
fn an_index_that_was_changed_or_cut_is_refused() {
    let sandbox = sandbox();
    let index = INDEX;
    let good = fs::read(sandbox.path(index)).unwrap();
    change(&sandbox, index);
    sandbox
        .run("lock")
        .fails(2, &["the repository repository is refused", "signature by me.rsa.pub is wrong"]);
    sandbox.write(index, &good[..good.len() / 3]);
    sandbox.run("lock").fails(2, &["the repository repository is refused"]);
    fs::remove_file(sandbox.path(index)).unwrap();
    sandbox.run("lock").fails(2, &["APKINDEX.tar.gz", "No such file"]);
}

/// What is wrong with a repository, how that is brought about, and what is said of it.
struct Cause(&'static str, fn(&Sandbox), &'static str);

/// Of its index and of what is wished for.
const CAUSES: &[Cause] = &[
    Cause("no such package", |sandbox| wish(sandbox, "tinny"), "tinny: no such package"),
    Cause("no such version", |sandbox| wish(sandbox, "tiny~2"), "tiny~2"),
    Cause("a bad signature", |sandbox| change(sandbox, INDEX), "the signature by me.rsa.pub is wrong"),
    Cause(
        "an unknown key",
        |sandbox| {
            fs::remove_file(sandbox.path("keys/me.rsa.pub")).unwrap();
            sandbox.done("apk key keys/other.rsa");
        },
        "not among the trusted keys",
    ),
    Cause("no index", |sandbox| fs::remove_file(sandbox.path(INDEX)).unwrap(), "APKINDEX.tar.gz"),
    Cause("a page instead of an index", |sandbox| sandbox.write(INDEX, "<html>log in</html>\n"), "HTML page"),
    Cause("nothing for an index", |sandbox| sandbox.write(INDEX, ""), "repository"),
    Cause("an index of apk 3", |sandbox| sandbox.write(INDEX, b"ADBdxxxxxxxxxxxxxxxx"), "repository"),
];

/// Of the package's file: whoever has locked it before must be told the same.
const OF_PACKAGES: &[Cause] = &[
    Cause("a damaged package", |sandbox| change(sandbox, TINY), "tiny-1.0-r0"),
    Cause("a cut package", |sandbox| cut(sandbox, TINY), "tiny-1.0-r0"),
    Cause("a package that is gone", |sandbox| fs::remove_file(sandbox.path(TINY)).unwrap(), "tiny-1.0-r0"),
    Cause(
        "a page instead of a package",
        |sandbox| sandbox.write(TINY, "<html>log in</html>\n"),
        "tiny-1.0-r0",
    ),
    Cause("a package of apk 3", |sandbox| sandbox.write(TINY, b"ADBdxxxxxxxxxxxxxxxx"), "tiny-1.0-r0"),
];

fn wish(sandbox: &Sandbox, package: &str) {
    sandbox
        .write("fleet.toml", sandbox.read("fleet.toml").replace("[\"tiny\"]", &format!("[\"{package}\"]")));
}

fn cut(sandbox: &Sandbox, path: &str) {
    let bytes = fs::read(sandbox.path(path)).unwrap();
    sandbox.write(path, &bytes[..bytes.len() / 2]);
}

#[test]
fn lock_and_build_end_alike_for_the_same_cause() {
    let mut unlike = Vec::new();
    for served in [false, true] {
        let all =
            CAUSES.iter().map(|cause| (cause, false)).chain(OF_PACKAGES.iter().map(|cause| (cause, true)));
        for (Cause(what, spoil, said), is_of_package) in all {
            let sandbox = sandbox();
            let server = Server::of(&sandbox.path(""));
            if served {
                let url = format!("url = \"{}\"", server.url("repository"));
                sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("url = \"repository\"", &url));
            }
            if is_of_package {
                sandbox.done("lock");
                let _ = fs::remove_dir_all(sandbox.path("cache"));
            }
            spoil(&sandbox);
            let locked = is_of_package.then(|| sandbox.run("build image i --locked"));
            let _ = fs::remove_file(sandbox.path("fleet.lock"));
            let _ = fs::remove_dir_all(sandbox.path("cache"));
            let [lock, build] = ["lock", "build image i"].map(|command| sandbox.run(command));
            let runs: Vec<_> = [Some(&lock), Some(&build), locked.as_ref()].into_iter().flatten().collect();
            for run in &runs {
                assert!(
                    run.code != 0 && run.err.contains(said),
                    "{what}, served: {served}: not said: {said}\n{run}"
                );
            }
            if runs.iter().any(|run| run.code != lock.code) {
                let told = runs.iter().map(ToString::to_string).collect::<String>();
                unlike.push(format!("{what}, served: {served}\n{told}"));
            }
        }
    }
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

#[test]
fn what_stands_in_the_place_of_a_package_is_named_with_what_to_do() {
    let sandbox = sandbox();
    sandbox.done("lock");
    let good = fs::read(sandbox.path(TINY)).unwrap();
    fs::remove_file(sandbox.path(TINY)).unwrap();
    let run = sandbox.run("build image i --locked");
    run.fails(2, &["the repository repository has no ", TINY, "`sisforge lock --update tiny`"]);
    assert!(!run.err.contains("damaged"), "{run}");
    sandbox.write(TINY, "");
    sandbox.run("build image i --locked").fails(2, &["tiny-1.0-r0: it is empty", "help: "]);
    sandbox.write(TINY, &good);
    let index = fs::read(sandbox.path(INDEX)).unwrap();
    sandbox.write(INDEX, "");
    sandbox.run("lock --update").fails(2, &["the index: it is empty", "help: get it again"]);
    sandbox.write(INDEX, index);

    let server = Server::of(&sandbox.path(""));
    let url = format!("url = \"{}\"", server.url("repository"));
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("url = \"repository\"", &url));
    sandbox.done("lock");
    let told = |words: &[&str]| {
        let _ = fs::remove_dir_all(sandbox.path("cache"));
        let run = sandbox.run("build image i --locked");
        run.fails(1, words);
        assert!(!run.err.contains("pin its new digest"), "{run}");
    };
    let page = b"<!DOCTYPE html><title>log in</title>".repeat(200);
    for length in [100, good.len(), page.len()] {
        sandbox.write(TINY, &page[..length]);
        told(&["tiny-1.0-r0.apk is an HTML page", "with a browser"]);
    }
    sandbox.write(TINY, &good[..good.len() / 2]);
    told(&["cut off or replaced", "where it is served", "`sisforge lock --update`"]);
    sandbox.write(TINY, vec![7; good.len()]);
    told(&["has the SHA-256", "`sisforge lock --update`"]);
    fs::remove_file(sandbox.path(TINY)).unwrap();
    told(&["answers 404", "`sisforge lock --update`"]);
}

#[test]
fn a_locked_build_says_exactly_why_a_lock_does_not_fit() {
    let sandbox = sandbox();
    let help = "help: run `sisforge lock` and commit the file";
    sandbox.run("build --locked").fails(2, &["there is no fleet.lock", help]);
    sandbox.done("lock");
    sandbox.run("build --locked").fails(0, &[]);
    sandbox.pack("more", "2.0-r0");
    sandbox.index();
    sandbox.fleet("b");
    let added = sandbox.read("fleet.toml").replace("[\"tiny\"]", "[\"tiny\", \"more\"]");
    sandbox.write("fleet.toml", added);
    let lock = sandbox.read("fleet.lock");
    let come = format!("the guest {} is not in fleet.lock", sandbox.guest('b'));
    let gone = format!("the guest {} is no longer in fleet.toml", sandbox.guest('a'));
    let words = ["fleet.lock does not fit fleet.toml", &come, &gone, "more", help];
    sandbox.run("build --locked").fails(2, &words);
    assert_eq!(sandbox.read("fleet.lock"), lock);
    sandbox.run("check").fails(0, &["note: fleet.lock: ", &come]);
    sandbox.write("fleet.lock", "version = 99\n");
    sandbox.run("build --locked").fails(2, &["fleet.lock"]);
}

#[test]
fn a_repository_that_wants_a_login_gets_it_and_only_then() {
    let sandbox = sandbox();
    let server = Server::of(&sandbox.path(""));
    let url = format!("url = \"{}\"", server.url("repository"));
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("url = \"repository\"", &url));
    let wants = |times: usize| {
        server.heal();
        let fault = Fault::Status(401, "WWW-Authenticate: Basic realm=\"x\"");
        server.next("APKINDEX.tar.gz", &vec![fault; times]);
    };
    let lock = |variables: &[(&str, &str)]| {
        let _ = fs::remove_file(sandbox.path("fleet.lock"));
        let mut command = sandbox.command();
        command.env_remove("HTTP_AUTH").env_remove("NETRC").env("HOME", sandbox.path("home"));
        Run::of(command.envs(variables.iter().copied()).arg("lock"))
    };
    wants(1);
    lock(&[]).fails(1, &["answers 401", "~/.netrc", "HTTP_AUTH"]);
    wants(1);
    lock(&[("HTTP_AUTH", "basic:*:ann:secret")]).fails(0, &[]);
    assert_eq!(server.authorizations()[..2], ["-", "Basic YW5uOnNlY3JldA=="]);
    sandbox.write("home/.netrc", "machine 127.0.0.1 login bob password b\n");
    wants(1);
    lock(&[("HTTP_AUTH", "basic:*:ann:secret")]).fails(0, &[]);
    assert_eq!(server.authorizations()[..2], ["-", "Basic Ym9iOmI="]);
    wants(2);
    lock(&[]).fails(1, &["answers 401"]);
    server.heal();
    lock(&[]).fails(0, &[]);
    assert!(server.authorizations().iter().all(|said| said == "-"), "nobody asked for a name");
}

#[test]
fn no_key_is_written_over() {
    let sandbox = Sandbox::new();
    sandbox.done("apk key keys/other.rsa");
    let both = || [sandbox.read("keys/other.rsa"), sandbox.read("keys/other.rsa.pub")];
    let before = both();
    sandbox.run("apk key keys/other.rsa").fails(2, &["other.rsa is there already", "help: "]);
    std::fs::remove_file(sandbox.path("keys/other.rsa")).unwrap();
    sandbox.run("apk key keys/other.rsa").fails(2, &["other.rsa.pub is there already"]);
    assert!(!sandbox.path("keys/other.rsa").exists());
    sandbox.write("keys/other.rsa", &before[0]);
    assert_eq!(both(), before);
}
