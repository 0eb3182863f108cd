//! `gc`: what nothing names goes, and nothing else.

use std::fs;
use std::path::PathBuf;

use crate::common::sandbox::{READY, Sandbox};
use crate::needs_firecracker;
use sisforge::sys::tiny_guest::AfterText;

fn names(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_built_before_goes_and_what_is_in_use_stays() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("build");
    let before = names(sandbox.path("out/image"));
    sandbox.document("gc --dry-run", "gc");
    sandbox.run("gc --yes").fails(0, &["nothing to remove"]);
    // Another image of the same name: the one before has no name any more.
    let text = sandbox.read("fleet.toml");
    sandbox.write(
        "fleet.toml",
        text.replace("[image.i]\n", "[image.i]\nfiles = { \"/etc/motd\" = { content = \"x\" } }\n"),
    );
    sandbox.run("gc --yes").fails(0, &["nothing to remove"]);
    sandbox.done("build");
    assert!(names(sandbox.path("out/image")).len() > before.len());
    sandbox.run("gc").fails(2, &["no terminal to ask", "help: add --yes"]);
    sandbox.run("gc --dry-run").fails(0, &[]);
    let garbage = sandbox.document("gc --yes", "gc");
    assert_eq!(
        (garbage["removed"].as_bool(), garbage["leftovers"][0]["place"].as_str()),
        (Some(true), Some("out"))
    );
    assert_eq!(names(sandbox.path("out/image")).len(), before.len());
    sandbox.run("gc --yes").fails(0, &["nothing to remove"]);
    // All that is needed is there.
    sandbox.done("build --locked --offline");
}

#[test]
fn a_download_is_kept_for_its_digest_and_not_for_where_its_name_is_found() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("build");
    let lock: toml::Table = sandbox.read("fleet.lock").parse().unwrap();
    let pinned = lock["kernel"]["sha256"].as_str().unwrap();
    let key = lock["artifact"].as_table().unwrap().values().next().unwrap()["key"].as_str().unwrap();
    for name in [pinned, key, "sha256", &pinned[..8]] {
        for folder in ["sha256", "partial"] {
            sandbox.write(&format!("cache/{folder}/{name}"), "x");
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    sandbox.run("gc --yes --keep-read-within 1s").fails(0, &[]);
    for folder in ["sha256", "partial"] {
        let kept = names(sandbox.path(&format!("cache/{folder}")));
        assert!(kept.iter().any(|name| name == pinned), "{kept:?}");
        assert!(!kept.iter().any(|name| [key, "sha256", &pinned[..8]].contains(&name.as_str())), "{kept:?}");
    }
}

#[test]
fn of_the_store_goes_what_no_guest_and_no_snapshot_has() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let a = sandbox.guest('a');
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --name kept --stop"));
    let old = names(sandbox.path("store/files"));
    // Both guests are of another kernel from now on; the snapshot needs that of before.
    sandbox.kernel(READY, AfterText::Tick);
    sandbox.run("gc --yes").fails(2, &["fleet.lock"]);
    sandbox.done("up");
    sandbox.run("gc --yes").fails(0, &[]);
    let kept = names(sandbox.path("store/files"));
    assert!(old.iter().all(|name| kept.contains(name)), "{old:?} {kept:?}");
    sandbox.done("snapshot rm kept --yes");
    let garbage = sandbox.document("gc --yes", "gc");
    let places: Vec<_> =
        garbage["leftovers"].as_array().unwrap().iter().map(|one| one["place"].as_str()).collect();
    assert!(places.contains(&Some("store")), "{garbage}");
    assert!(names(sandbox.path("store/files")).len() < kept.len());
    // Nobody noticed.
    assert!(sandbox.done("plan").contains("nothing to do"));
    sandbox.done("down");
    sandbox.done("up");
    sandbox.done("down --purge --yes");
}
