//! Repositories over a network that breaks connections, lies and changes, through the program itself.

use std::fs;
use std::path::Path;

use crate::common::sandbox::{Run, Sandbox};
use crate::common::server::{Fault, Server};

const TINY: &str = "tiny-1.0-r0.apk";
const INDEX: &str = "APKINDEX.tar.gz";

/// A fleet whose repository is served, and the server.
fn served() -> (Sandbox, Server) {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.path(""));
    served_by(&sandbox, &server, "");
    (sandbox, server)
}

/// A fleet whose repository is at a server, with more about it.
fn served_by(sandbox: &Sandbox, server: &Server, more: &str) {
    let url = format!("url = \"{}\"\n{more}", server.url("repository"));
    sandbox.write("fleet.toml", sandbox.fleet_text("a", "").replace("url = \"repository\"", &url));
}

/// Puts a larger package into the repository, so that it comes in pieces.
fn large(sandbox: &Sandbox, name: &str) -> String {
    let mut seed = 1u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    });
    sandbox.write(&format!("{name}/etc/{name}"), noise.take(300_000).collect::<Vec<u8>>());
    let to = "--to repository/x86_64 --arch x86_64 --key me.rsa";
    sandbox.done(&format!("apk pack {name} --name {name} --pkgver 1.0-r0 {to}"));
    sandbox.index();
    format!("{name}-1.0-r0.apk")
}

fn forget_downloads(sandbox: &Sandbox) {
    let cache = sandbox.path("cache");
    // Nothing is there where every process before was killed too early.
    if cache.exists() {
        fs::remove_dir_all(cache).unwrap();
    }
}

/// Asserts that every whole download in the cache is what its name says.
#[track_caller]
fn cache_is_right(sandbox: &Sandbox) -> usize {
    let files: Vec<_> = fs::read_dir(sandbox.path("cache/sha256")).into_iter().flatten().flatten().collect();
    for file in &files {
        let found = sisforge::base::Sha256::of(fs::read(file.path()).unwrap()).to_string();
        assert_eq!(file.file_name().to_str(), Some(found.as_str()), "the cache has a wrong file");
    }
    files.len()
}

fn image(sandbox: &Sandbox) -> Vec<u8> {
    fs::read(sandbox.path("out/image/i/rootfs.ext4")).unwrap()
}

#[test]
fn fetch_brings_everything_that_a_build_without_network_needs() {
    let (sandbox, server) = served();
    sandbox.run("fetch --locked").fails(2, &["there is no fleet.lock"]);
    sandbox.done("lock");
    forget_downloads(&sandbox);
    sandbox.run("build image i --offline --locked").fails(
        1,
        &[
            "cannot get tiny-1.0-r0 from the repository http://127.0.0.1:",
            "this run is offline",
            "run once without --offline",
        ],
    );
    sandbox.run("fetch --locked").fails(0, &["here: 1 file, "]);
    let fetched = sandbox.done("fetch --json");
    let last: serde_json::Value = serde_json::from_str(fetched.lines().last().unwrap()).unwrap();
    assert_eq!(last["files"][0]["url"], server.url(&format!("repository/x86_64/{TINY}")));
    assert!(Path::new(last["files"][0]["path"].as_str().unwrap()).exists(), "{last}");
    assert_eq!(server.requests(TINY).len(), 2, "once for the lock, once for fetch, never twice");
    let quiet = sandbox.run("fetch -q");
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (0, "", ""));
    drop(server);
    sandbox.done("build image i --offline --locked");
}

#[test]
fn what_is_vendored_builds_the_same_bytes_with_no_server_and_no_cache() {
    let (sandbox, server) = served();
    sandbox.done("lock");
    let lock = sandbox.read("fleet.lock");
    sandbox.done("build image i");
    let built = image(&sandbox);
    sandbox.run("vendor").fails(0, &["3 files, ", ", in vendor; 0 removed"]);
    let host = server.url("").trim_start_matches("http://").to_owned();
    let listed = sandbox.read("vendor/SHA256SUMS");
    for file in [
        &format!("{host}repository/x86_64/{TINY}"),
        &format!("{host}repository/x86_64/{INDEX}"),
        "keys/me.rsa.pub",
    ] {
        assert!(listed.contains(&format!("  {file}\n")), "{file} is not in\n{listed}");
    }
    let mut check = std::process::Command::new("sha256sum");
    Run::of(check.args(["-c", "--quiet", "SHA256SUMS"]).current_dir(sandbox.path("vendor"))).fails(0, &[]);

    drop(server);
    forget_downloads(&sandbox);
    fs::remove_dir_all(sandbox.path("out")).unwrap();
    sandbox.done("build image i --offline --locked");
    assert_eq!(image(&sandbox), built);
    let fetch = sandbox.run("fetch --offline --locked");
    fetch.fails(0, &["here: 1 file,"]);

    // Also where nothing is locked yet, and from another directory.
    fs::remove_file(sandbox.path("fleet.lock")).unwrap();
    sandbox
        .run("lock --offline")
        .fails(0, &["note: offline: the index of the repository http", "is that in vendor/"]);
    assert_eq!(sandbox.read("fleet.lock"), lock);
    fs::rename(sandbox.path("vendor"), sandbox.path("elsewhere")).unwrap();
    fs::remove_dir_all(sandbox.path("out")).unwrap();
    sandbox.run("build image i --offline --locked").fails(1, &["this run is offline"]);
    sandbox.done("build image i --offline --locked --vendor-dir elsewhere");
    assert_eq!(image(&sandbox), built);
}

#[test]
fn the_genuine_apk_installs_from_a_vendor_directory() {
    let Some(apk) = crate::apk::oracle::Apk::find() else { return };
    let (sandbox, server) = served();
    sandbox.done("vendor");
    let repository = server.url("repository").replace("http://", "vendor/");
    let root = sandbox.path("root").display().to_string();
    let (repository, keys) = (sandbox.path(&repository), sandbox.path("vendor/keys"));
    drop(server);
    let (repository, keys) = (repository.display().to_string(), keys.display().to_string());
    let to = ["--root", &root, "--initdb", "--usermode", "--arch", "x86_64", "--no-cache", "--no-network"];
    let from = ["--keys-dir", &keys, "--repository", &repository, "add", "tiny"];
    let said = apk.text(to.iter().chain(&from));
    assert!(said.contains("(1/1) Installing tiny (1.0-r0)"), "{said}");
    assert_eq!(sandbox.read("root/etc/tiny"), "tiny\n");
}

#[test]
fn a_kernel_source_is_fetched_from_a_mirror_and_vendored() {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.path(""));
    sandbox.write("linux.tar", vec![b'k'; 100_000]);
    sandbox.write("mirror/linux.tar", vec![b'k'; 100_000]);
    let (url, mirror) = (server.url("linux.tar"), server.url("mirror/linux.tar"));
    let kernel = format!("source = \"{url}\"\nmirrors = [\"{mirror}\"]\nbase = \"microvm-6.1-x86_64\"");
    sandbox.write("fleet.toml", sandbox.fleet_text("a", "").replace("image = \"tiny.elf\"", &kernel));
    server.next("linux.tar", &[Fault::Status(404, ""), Fault::Cut(60_000)]);
    sandbox.run("lock").fails(0, &["answers 404", "trying the next mirror"]);
    assert_eq!(server.requests("linux.tar").len(), 3);
    assert!(!sandbox.read("fleet.lock").contains("mirror"));
    sandbox.run("vendor").fails(0, &["1 file, 97.7 KiB, in vendor"]);
    drop(server);
    forget_downloads(&sandbox);
    // It is no kernel; what matters is that it was looked into.
    let vendored = format!("vendor/{}", url.trim_start_matches("http://"));
    sandbox.run("build kernel --offline --locked").fails(1, &["cannot unpack", &vendored]);
    sandbox.write(&vendored, vec![b'x'; 100_000]);
    sandbox
        .run("build kernel --offline --locked")
        .fails(1, &["cannot get the kernel source", &vendored, "has the SHA-256"]);
}

#[test]
fn a_vendor_that_was_killed_is_completed_by_the_next() {
    let (sandbox, server) = served();
    for number in 0..4 {
        let name = large(&sandbox, &format!("noise{number}"));
        server.always(&name, Fault::Slow(30_000));
    }
    let wishes = "[\"tiny\", \"noise0\", \"noise1\", \"noise2\", \"noise3\"]";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("[\"tiny\"]", wishes));
    sandbox.done("lock");
    for round in 0..12u64 {
        let mut run = sandbox.command();
        let mut run = run.args(["vendor", "-q"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5 + round * 11));
        run.kill().unwrap();
        run.wait().unwrap();
    }
    sandbox.run("vendor").fails(0, &["7 files, "]);
    let find = Run::of(std::process::Command::new("find").arg(sandbox.path("vendor")).args(["-type", "f"]));
    assert_eq!(find.out.lines().count(), 8, "those and their list, and nothing half-written\n{find}");
    let mut check = std::process::Command::new("sha256sum");
    Run::of(check.args(["-c", "--quiet", "SHA256SUMS"]).current_dir(sandbox.path("vendor"))).fails(0, &[]);
}

#[test]
fn vendor_keeps_what_is_needed_and_removes_what_it_brought_itself_alone() {
    let (sandbox, server) = served();
    sandbox.write("mine/notes", "mine");
    sandbox.run("vendor mine").fails(2, &["mine contains other files but no SHA256SUMS", "help: "]);
    assert_eq!(fs::read_dir(sandbox.path("mine")).unwrap().count(), 1);
    sandbox.run("vendor v").fails(0, &["--vendor-dir v or SISFORGE_VENDOR_DIR=v"]);
    sandbox.write("v/notes", "mine");
    sandbox.pack("tiny", "1.1-r0");
    sandbox.index();
    sandbox.done("lock --update");
    let run = sandbox.run("vendor v --locked");
    run.fails(0, &["3 files, ", "1 removed"]);
    let host = server.url("").trim_start_matches("http://").to_owned();
    let packages = format!("v/{host}repository/x86_64");
    assert!(!sandbox.path(&format!("{packages}/{TINY}")).exists());
    assert!(
        sandbox.path(&format!("{packages}/tiny-1.1-r0.apk")).exists() && sandbox.path("v/notes").exists()
    );

    // A file that was changed is refused offline, and made right by the next run.
    let path = format!("{packages}/tiny-1.1-r0.apk");
    let mut bytes = fs::read(sandbox.path(&path)).unwrap();
    bytes[100] ^= 1;
    sandbox.write(&path, &bytes);
    // Also where it is remembered what the package holds.
    fs::remove_dir_all(sandbox.path("cache/sha256")).unwrap();
    let run = sandbox.run("build image i --offline --vendor-dir v");
    assert!(run.code == 2 && run.err.contains("package tiny-1.1-r0"), "{run}");
    forget_downloads(&sandbox);
    sandbox.run("build image i --offline --vendor-dir v").fails(
        2,
        &["package tiny-1.1-r0: its SHA-256 is ", "was expected", "help: fleet.lock pins a different file"],
    );
    sandbox.write(&path, &bytes[..50]);
    sandbox.run("build image i --offline --vendor-dir v").fails(1, &[&path, "has the SHA-256", "tampered"]);
    sandbox.run("build image i --vendor-dir v").fails(0, &["note: ", &path, "downloaded instead"]);
    sandbox.done("vendor v");
    forget_downloads(&sandbox);
    sandbox.done("vendor v --offline");
    assert_eq!(fs::read(sandbox.path(&path)).unwrap().len(), bytes.len());
}

#[test]
fn a_mirror_is_asked_where_the_repository_fails() {
    let sandbox = Sandbox::new();
    let (first, second) = (Server::of(&sandbox.path("")), Server::of(&sandbox.path("")));
    let mirrors = format!("mirrors = [\"{}\", \"{}\"]", first.url("nothing-here"), second.url("repository"));
    served_by(&sandbox, &first, &mirrors);
    let faults = [
        ("404", Fault::Status(404, "")),
        ("503", Fault::Status(503, "")),
        ("no answer", Fault::Hangup),
        ("wrong bytes", Fault::Garbled),
        ("a cut", Fault::Cut(20)),
        ("a lie", Fault::Lie(-7)),
    ];
    let mut locks = Vec::new();
    for (what, fault) in faults {
        let _ = fs::remove_dir_all(sandbox.path("cache"));
        let _ = fs::remove_file(sandbox.path("fleet.lock"));
        first.always("*", fault);
        let run = sandbox.run("lock");
        assert_eq!(run.code, 0, "{what}\n{run}");
        assert!(run.err.contains("trying the next mirror"), "{what}\n{run}");
        let lock = sandbox.read("fleet.lock");
        assert!(lock.contains(&first.url("repository")) && !lock.contains(&second.url("")), "{lock}");
        locks.push(lock);
        fs::remove_dir_all(sandbox.path("cache")).unwrap();
        let run = sandbox.run("fetch --locked");
        assert_eq!(run.code, 0, "{what}\n{run}");
        cache_is_right(&sandbox);
    }
    locks.dedup();
    assert_eq!(locks.len(), 1, "mirrors change nothing in a lock");

    second.always("*", Fault::Status(404, ""));
    fs::remove_dir_all(sandbox.path("cache")).unwrap();
    first.always("*", Fault::Garbled);
    sandbox.run("fetch --locked").fails(
        1,
        &[
            "cannot get tiny-1.0-r0 from the repository",
            "none of 3 URLs has it",
            "has the SHA-256",
            "answers 404",
        ],
    );
    fs::remove_file(sandbox.path("fleet.lock")).unwrap();
    sandbox.run("lock").fails(1, &["none of the 3 URLs of the repository http", "is refused", "answers 404"]);
}

#[test]
fn a_server_that_is_down_is_asked_last() {
    let sandbox = Sandbox::new();
    let (down, up) = (Server::of(&sandbox.path("")), Server::of(&sandbox.path("")));
    for number in 0..6 {
        sandbox.pack(&format!("p{number}"), "1.0-r0");
    }
    sandbox.index();
    served_by(&sandbox, &down, &format!("mirrors = [\"{}\"]", up.url("repository")));
    let all = "packages = [\"tiny\", \"p0\", \"p1\", \"p2\", \"p3\", \"p4\", \"p5\"]";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("packages = [\"tiny\"]", all));
    down.always("*", Fault::Status(500, ""));
    let run = sandbox.run("lock");
    assert_eq!(run.code, 0, "{run}");
    assert_eq!(down.answers(500), 1, "a server that failed once is not asked while another one serves");
}

#[test]
fn what_breaks_on_the_way_is_resumed_or_tried_again() {
    let (sandbox, server) = served();
    let noise = large(&sandbox, "noise");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("[\"tiny\"]", "[\"tiny\", \"noise\"]"));
    sandbox.done("lock");
    sandbox.done("build image i");
    let built = image(&sandbox);
    let rounds: [(&str, Vec<Fault>); 7] = [
        ("cuts", vec![Fault::Cut(1000), Fault::Cut(100_000), Fault::Hangup, Fault::Cut(3)]),
        ("busy", vec![Fault::Status(429, "Retry-After: 1"), Fault::Status(503, "")]),
        ("a fault of the server", vec![Fault::Status(500, ""), Fault::Status(502, "")]),
        ("more is promised than comes", vec![Fault::Cut(90_000), Fault::Hangup]),
        ("no length, and an end too early", vec![Fault::Unmeasured(70_000)]),
        ("elsewhere", vec![Fault::Redirect(server.url(&format!("moved/{noise}")))]),
        ("slow", vec![Fault::Slow(30_000)]),
    ];
    fs::create_dir(sandbox.path("moved")).unwrap();
    fs::copy(sandbox.path("repository/x86_64").join(&noise), sandbox.path("moved").join(&noise)).unwrap();
    for (what, faults) in rounds {
        forget_downloads(&sandbox);
        server.heal();
        server.next(&noise, &faults);
        let run = sandbox.run("fetch --locked");
        assert_eq!(run.code, 0, "{what}\n{run}");
        assert_eq!(cache_is_right(&sandbox), 2, "{what}");
        if what == "cuts" {
            let at: Vec<_> = server
                .requests(&noise)
                .iter()
                .map(|r| r.split(' ').nth(1).unwrap_or("").to_owned())
                .collect();
            assert_eq!(
                at,
                ["", "1000-", "101000-", "101000-", "101003-"],
                "what came is not asked for again"
            );
        }
    }
    sandbox.done("build image i --offline --locked --out-dir again");
    assert_eq!(fs::read(sandbox.path("again/image/i/rootfs.ext4")).unwrap(), built);
}

#[test]
fn a_server_that_lies_or_changed_a_package_is_refused_and_the_cache_stays_right() {
    let (sandbox, server) = served();
    sandbox.done("lock");
    let lock = sandbox.read("fleet.lock");
    let cases: [(&str, Fault, &[&str]); 6] = [
        ("too short", Fault::Lie(-9), &["bytes, but", "are expected"]),
        ("too long", Fault::Lie(9), &["bytes, but", "are expected"]),
        ("other bytes", Fault::Garbled, &["has the SHA-256", "the file was replaced or tampered with"]),
        ("gone", Fault::Status(404, ""), &["the server answers 404", "repositories remove old versions"]),
        ("forbidden", Fault::Status(403, ""), &["the server answers 403"]),
        ("in a circle", Fault::Redirect(server.url(TINY)), &["cannot reach the server of", "because: "]),
    ];
    for (what, fault, words) in cases {
        forget_downloads(&sandbox);
        server.heal();
        server.always(TINY, fault);
        let run = sandbox.run("fetch --locked");
        assert_eq!(run.code, 1, "{what}\n{run}");
        for word in words.iter().chain(&["cannot get tiny-1.0-r0 from the repository http"]) {
            assert!(run.err.contains(word), "{what}: not said: {word:?}\n{run}");
        }
        assert_eq!(cache_is_right(&sandbox), 0, "{what}");
        sandbox.run("build image i --locked").fails(1, &["tiny-1.0-r0"]);
        assert!(!sandbox.path("out/image/i").exists(), "{what}");
    }
    // Somebody made the package anew under the same name, and signed the index.
    server.heal();
    forget_downloads(&sandbox);
    sandbox.write("files/etc/tiny", "another");
    sandbox.pack("tiny", "1.0-r0");
    sandbox.index();
    let changed = sandbox.run("fetch --locked");
    assert!(changed.code == 1 && changed.err.contains("tiny-1.0-r0"), "{changed}");
    assert_eq!(sandbox.read("fleet.lock"), lock);
    let update = sandbox.done("lock --update");
    assert!(update.contains("rebuild tiny 1.0-r0: another package with the same version"), "{update}");
    sandbox.done("fetch --locked");
}

#[test]
fn an_index_is_sent_once_and_remembered_for_when_there_is_no_network() {
    let (sandbox, server) = served();
    sandbox
        .run("lock --offline")
        .fails(1, &["the index of the repository http", "is not in the cache,", "help: run once without"]);
    sandbox.done("lock");
    sandbox.done("lock --update");
    assert_eq!((server.answers(304), server.requests(INDEX).len()), (1, 2));
    sandbox.pack("tiny", "1.1-r0");
    sandbox.index();
    assert!(sandbox.done("lock --update").contains("update tiny 1.0-r0 -> 1.1-r0"));
    let lock = sandbox.read("fleet.lock");

    drop(server);
    fs::remove_file(sandbox.path("fleet.lock")).unwrap();
    sandbox
        .run("lock --offline")
        .fails(0, &["note: offline: the index of the repository http", "the one last seen, ", " ago"]);
    assert_eq!(sandbox.read("fleet.lock"), lock);
    let (_, events) = sandbox.documents("lock --offline --update", "event");
    let note = events.iter().find(|event| event["event"] == "note").unwrap();
    assert_eq!(note["severity"], "note", "{note}");
    assert!(note["text"].as_str().unwrap().starts_with("offline: the index"), "{note}");
    // Trust is not remembered with it.
    fs::rename(sandbox.path("keys/me.rsa.pub"), sandbox.path("keys/other.rsa.pub")).unwrap();
    sandbox.run("lock --offline --update").fails(2, &["is refused", "not among the trusted keys"]);
}

#[test]
fn an_index_that_is_cut_or_garbled_is_never_remembered() {
    let (sandbox, server) = served();
    for (fault, code, words) in [
        (Fault::Garbled, 2, "the repository http"),
        (Fault::Unmeasured(100), 2, "is refused"),
        (Fault::Status(404, ""), 1, "the server answers 404"),
    ] {
        server.always(INDEX, fault);
        sandbox.run("lock").fails(code, &[words]);
        sandbox.run("lock --offline").fails(1, &["is not in the cache, and this run is offline"]);
    }
    // A server that fails is no mistake of fleet.toml: whoever follows it tries again.
    server.always(INDEX, Fault::Status(503, ""));
    sandbox.run("lock").fails(1, &["the server answers 503"]);
    server.heal();
    server.next(INDEX, &[Fault::Cut(200), Fault::Hangup]);
    sandbox.done("lock");
}

#[test]
fn fetches_that_are_killed_and_fetches_at_once_leave_a_right_cache() {
    let (sandbox, server) = served();
    let noises: Vec<_> = (0..4).map(|number| large(&sandbox, &format!("noise{number}"))).collect();
    let wishes = "[\"tiny\", \"noise0\", \"noise1\", \"noise2\", \"noise3\"]";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("[\"tiny\"]", wishes));
    sandbox.done("lock");
    let start = || {
        let mut command = sandbox.command();
        command.args(["fetch", "--locked", "-q"]).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    for name in &noises {
        server.always(name, Fault::Slow(20_000));
    }
    for round in 0..20u64 {
        if round % 4 == 0 {
            forget_downloads(&sandbox);
        }
        let mut runs = [start(), start()];
        std::thread::sleep(std::time::Duration::from_millis(2 + round * 13 % 60));
        for run in &mut runs {
            run.kill().unwrap();
            run.wait().unwrap();
        }
        cache_is_right(&sandbox);
    }
    forget_downloads(&sandbox);
    let runs: Vec<_> = (0..4).map(|_| start()).collect();
    for run in runs {
        let run = Run::from(run.wait_with_output().unwrap());
        assert_eq!(run.code, 0, "{run}");
    }
    assert_eq!(cache_is_right(&sandbox), 5);
    assert_eq!(fs::read_dir(sandbox.path("cache/partial")).unwrap().count(), 0);
    drop(server);
    sandbox.done("build image i --offline --locked");
}
