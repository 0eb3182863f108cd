//! The ledger of snapshots: what was restored stays so, whatever a backup, a copy or an editor does to the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sisforge::sys::digest::verity_digest;

use crate::common::sandbox::{Run, SISFORGE, Sandbox};

/// A recipient whose private half nobody has here.
pub const STRANGER: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

/// A path of the fleet's part of the store.
pub fn stored(sandbox: &Sandbox, path: &str) -> PathBuf {
    sandbox.path(&format!("store/{}/{path}", sandbox.name))
}

/// A snapshot as a sisforge of before there were ledgers made it, in `ready` or `consumed`.
pub fn plant(sandbox: &Sandbox, place: &str, name: &str, created: &str) {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apply/records/qemu/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(old).unwrap()).unwrap();
    manifest["guest"] = sandbox.guest('a').into();
    manifest["created"] = created.into();
    manifest["files"] = serde_json::json!({});
    let dir = stored(sandbox, &format!("snapshots/{place}/{name}"));
    fs::create_dir_all(&dir).unwrap();
    // Holes and bytes, and no two alike.
    let mut disk = vec![0; 3 << 20];
    disk[1 << 20..][..name.len()].copy_from_slice(name.as_bytes());
    for (file, bytes) in [("state", format!("state of {name}").into_bytes()), ("disk.ext4", disk)] {
        let path = dir.join(file);
        fs::write(&path, &bytes).unwrap();
        let (digest, size) = verity_digest(&path).unwrap();
        manifest["files"][file] = serde_json::json!({ "size": size, "digest": digest.to_string() });
    }
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    let parent = dir.parent().unwrap();
    fs::set_permissions(parent, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

/// A fleet with one of them, called `one`.
pub fn planted() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    plant(&sandbox, "ready", "one", "2026-11-25T17:53:16Z");
    sandbox
}

pub fn witness(sandbox: &Sandbox) -> PathBuf {
    PathBuf::from(format!("/var/lib/sisforge-host/{}.ledger", sandbox.name))
}

pub fn recipient(sandbox: &Sandbox) -> String {
    sandbox.done("snapshot recipient").trim().to_owned()
}

fn copy(from: &Path, to: &Path) {
    let run = Run::of(Command::new("cp").arg("-a").args([from, to]));
    run.fails(0, &[]);
}

/// Asserts that a restore is refused, and that `inspect` says so too.
pub fn is_refused(sandbox: &Sandbox, name: &str, words: &[&str]) {
    sandbox.run(&format!("snapshot restore {name}")).fails(1, words);
    let view = sandbox.document(&format!("snapshot inspect {name}"), "snapshot-inspect");
    let refusals = view["refusals"].to_string();
    // What comes after is a hint.
    assert!(refusals.contains(words[0]), "{words:?}: {view:#}");
}

#[test]
fn a_store_of_before_there_was_a_ledger_keeps_what_it_restored_and_what_it_did_not() {
    let sandbox = planted();
    plant(&sandbox, "consumed", "two", "2026-11-25T18:00:00Z");
    let restored = r#"{ "guest": "bob", "at": "2026-11-26T08:00:00Z" }"#;
    fs::write(stored(&sandbox, "snapshots/consumed/two/restored.json"), restored).unwrap();
    let lines = sandbox.document("snapshot ledger", "snapshot-ledger");
    let told: Vec<_> = lines.as_array().unwrap().iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!(told[0], "begun, version 1");
    assert!(told[1].ends_with("there before the ledger was") && told[2] == "restored as bob", "{told:?}");
    assert!(!stored(&sandbox, "snapshots.ledger").exists(), "a look changes nothing");

    // A backup brings it back, and it is as restored as before.
    copy(&stored(&sandbox, "snapshots/consumed/two"), &stored(&sandbox, "snapshots/ready/back"));
    fs::remove_file(stored(&sandbox, "snapshots/ready/back/restored.json")).unwrap();
    sandbox.done(&format!("snapshot export one --to {}", recipient(&sandbox)));
    is_refused(
        &sandbox,
        "back",
        &["snapshot back is gone: it was restored as bob", "when it was called two"],
    );
    // Nor does it stand for a newer one, in whose favour another is not kept.
    sandbox.done("lock");
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", format!("{text}\n[snapshots]\nkeep = {{ count = 1 }}\n"));
    sandbox.done("gc --yes");
    assert_eq!(sandbox.done("snapshot ls -q"), "back\none\n");

    // One that was planted later is no older sisforge's.
    plant(&sandbox, "ready", "late", "2026-11-27T17:53:16Z");
    is_refused(&sandbox, "late", &["snapshot late was not made on this host", "snapshot import"]);
    let view = sandbox.document("snapshot inspect one --verify", "snapshot-inspect");
    assert!(!view["refusals"].to_string().contains("gone"), "{view:#}");
    assert_eq!(view["ledger"], format!("of {}, there before the ledger was", sandbox.guest('a')));
}

#[test]
fn a_store_that_went_back_is_seen_and_restores_nothing_until_somebody_says_so() {
    let sandbox = planted();
    plant(&sandbox, "ready", "two", "2026-11-25T18:00:00Z");
    sandbox.done(&format!("snapshot export one --to {}", recipient(&sandbox)));
    copy(&stored(&sandbox, ""), &sandbox.path("backup"));
    sandbox.done(&format!("snapshot export two --to {STRANGER}"));
    is_refused(&sandbox, "two", &["snapshot two is gone: it was exported", STRANGER]);

    fs::remove_dir_all(stored(&sandbox, "")).unwrap();
    copy(&sandbox.path("backup"), &stored(&sandbox, ""));
    for name in ["one", "two"] {
        let went_back =
            format!("the ledger of the snapshots of {} went back: its last 1 of 4 lines", sandbox.name);
        is_refused(&sandbox, name, &[&went_back, "snapshot ledger --accept"]);
    }
    let listed = sandbox.done("snapshot ls");
    assert_eq!(listed.matches("not restored while the ledger is not whole").count(), 2, "{listed}");
    sandbox.run(&format!("snapshot export two --to {STRANGER} --out b.age")).fails(1, &["went back"]);
    assert!(!sandbox.path("b.age").exists());
    sandbox.run("snapshot ledger").fails(1, &["went back"]);
    sandbox.run("snapshot ledger --accept").fails(2, &["there is no terminal", "--yes"]);
    let accepted = sandbox.document("snapshot ledger --accept --yes", "snapshot-ledger-accept");
    assert_eq!((&accepted["completed"], accepted["voided"].as_array().unwrap().len()), (&1.into(), 0));
    is_refused(&sandbox, "two", &["snapshot two is gone: it was exported to"]);
    let view = sandbox.document("snapshot inspect one", "snapshot-inspect");
    assert!(!view["refusals"].to_string().contains("gone"), "{view:#}");
    let again = sandbox.document("snapshot ledger --accept --yes", "snapshot-ledger-accept");
    assert_eq!(again["was_whole"], true);

    // One that is made anew goes on where the other ended, and tells nobody to do anything.
    fs::remove_dir_all(stored(&sandbox, "")).unwrap();
    plant(&sandbox, "ready", "three", "2026-11-27T17:53:16Z");
    is_refused(&sandbox, "three", &["went back", "snapshot ledger --accept"]);
    fs::remove_dir_all(stored(&sandbox, "")).unwrap();
    sandbox.run(&format!("snapshot import one.snapshot.age --name {}", "x".repeat(65))).fails(2, &["64"]);
    sandbox.done("snapshot import one.snapshot.age");
    assert_eq!(
        fs::read_to_string(stored(&sandbox, "snapshots.ledger")).unwrap(),
        fs::read_to_string(witness(&sandbox)).unwrap()
    );
}

#[test]
fn a_ledger_that_was_changed_or_has_no_witness_voids_what_nobody_knows_about() {
    let sandbox = planted();
    plant(&sandbox, "ready", "two", "2026-11-25T18:00:00Z");
    sandbox.done(&format!("snapshot export two --to {STRANGER}"));
    let ledger = stored(&sandbox, "snapshots.ledger");
    let whole = fs::read_to_string(&ledger).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&ledger).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(whole, fs::read_to_string(witness(&sandbox)).unwrap());
    let changes: [(&Path, String, &str); 5] = [
        (&ledger, whole.replacen("\"two\"", "\"owt\"", 1), "was changed"),
        (&ledger, whole.lines().skip(1).map(|line| format!("{line}\n")).collect(), "was changed"),
        (&ledger, whole.replacen("exported", "restored", 1), "was changed"),
        (&ledger, whole.replacen(&STRANGER[4..], &STRANGER[5..], 1), "differ from line 4 on"),
        (&witness(&sandbox), String::new(), "has no witness"),
    ];
    for (path, text, word) in changes {
        let sound = fs::read(path).unwrap();
        fs::write(path, text).unwrap();
        is_refused(&sandbox, "one", &[word, "voids every snapshot"]);
        fs::write(path, sound).unwrap();
    }
    // Half a line is what the power took, in either place; so is a line that the witness did not get.
    for path in [&ledger, &witness(&sandbox)] {
        fs::write(path, format!("{whole}{{\"number\":5,\"at")).unwrap();
        sandbox.done("snapshot ledger --accept");
        assert_eq!(fs::read_to_string(path).unwrap(), whole);
    }
    let shorter = whole.trim_end().rfind('\n').unwrap() + 1;
    fs::write(witness(&sandbox), &whole[..shorter]).unwrap();
    sandbox.done("snapshot ledger --accept");
    assert_eq!(fs::read_to_string(witness(&sandbox)).unwrap(), whole);

    fs::remove_file(witness(&sandbox)).unwrap();
    let accepted = sandbox.document("snapshot ledger --accept --yes", "snapshot-ledger-accept");
    assert_eq!(accepted["voided"], serde_json::json!(["one"]), "{accepted:#}");
    assert_eq!(fs::read_to_string(accepted["kept"][0].as_str().unwrap()).unwrap(), whole);
    is_refused(&sandbox, "one", &["snapshot one is gone: it was void"]);
    is_refused(&sandbox, "two", &["snapshot two is gone: it was exported"]);
}

#[test]
fn a_copy_of_a_snapshot_or_of_a_store_is_no_second_one() {
    let sandbox = planted();
    copy(&stored(&sandbox, "snapshots/ready/one"), &stored(&sandbox, "snapshots/ready/copy"));
    copy(&sandbox.path("store"), &sandbox.path("other"));
    sandbox.done(&format!("snapshot export one --to {STRANGER}"));
    is_refused(&sandbox, "copy", &["snapshot copy is gone: it was exported", "when it was called one"]);
    assert!(sandbox.done("snapshot ls").contains(&format!("exported to {STRANGER}")), "a copy is not ready");
    // A store at another place is the same fleet's.
    let text = sandbox.read("fleet.toml").replace("/store\"", "/other\"");
    sandbox.write("fleet.toml", text);
    sandbox.run("snapshot restore one").fails(1, &["went back", "snapshot ledger --accept"]);
    sandbox.done("snapshot ledger --accept --yes");
    sandbox.run("snapshot restore one").fails(1, &["snapshot one is gone: it was exported"]);
    // On another host, it has no witness.
    let run = elsewhere(&sandbox, "snapshot restore one");
    run.fails(1, &["has no witness", "copied from another host"]);
}

/// The program as on another host: with nothing of what this one has outside of the store. That is kept in `elsewhere/`.
pub fn elsewhere(sandbox: &Sandbox, args: &str) -> Run {
    fs::create_dir_all(sandbox.path("elsewhere")).unwrap();
    fs::create_dir_all("/var/lib/sisforge-host").unwrap();
    let script = format!(
        "mount --bind {} /var/lib/sisforge-host && exec {SISFORGE} {args}",
        sandbox.path("elsewhere").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    sandbox.surround(&mut command);
    Run::of(&mut command)
}
