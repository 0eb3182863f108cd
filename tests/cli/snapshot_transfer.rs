//! Snapshots go from one host to another, for whose key they are encrypted, and never are at both.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use sisforge::sys::age::{AgeRecipient, encrypt};

use super::snapshot_ledger::{STRANGER, elsewhere, is_refused, plant, planted, recipient, stored, witness};
use crate::common::archive::{Member, packed};
use crate::common::sandbox::{Run, SISFORGE, Sandbox};

/// The same fleet on another host: another store, and another key.
fn other_host(sandbox: &Sandbox, args: &str) -> Run {
    let text = sandbox.read("fleet.toml").replace("/store\"", "/there\"");
    sandbox.write("there.toml", text);
    elsewhere(sandbox, &format!("--file there.toml {args}"))
}

fn done(run: &Run) -> String {
    run.fails(0, &[]);
    run.out.trim().to_owned()
}

/// What of a snapshot stands in a store.
fn names(sandbox: &Sandbox, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path(dir)).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_host_has_one_key_for_root_alone_and_prints_its_public_half() {
    let sandbox = planted();
    let first = done(&other_host(&sandbox, "snapshot recipient"));
    assert!(first.starts_with("age1"), "{first}");
    assert_eq!(done(&other_host(&sandbox, "snapshot recipient")), first);
    assert_ne!(recipient(&sandbox), first);
    let key = sandbox.path("elsewhere/key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(
        fs::metadata(sandbox.path("elsewhere")).unwrap().permissions().mode() & 0o077,
        0o055,
        "that of the test"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    other_host(&sandbox, "snapshot recipient").fails(1, &["others than root may read", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "nothing\n").unwrap();
    other_host(&sandbox, "snapshot recipient").fails(1, &["key is no key of age", "help: "]);
    assert_eq!(fs::read_to_string(&key).unwrap(), "nothing\n", "none is made over it");
    let document = sandbox.document("snapshot recipient", "snapshot-recipient");
    assert_eq!(document["recipient"], recipient(&sandbox));
}

#[test]
fn a_snapshot_goes_to_another_host_and_comes_back_and_is_at_one_of_them() {
    let sandbox = planted();
    let there = done(&other_host(&sandbox, "snapshot recipient"));
    let document = sandbox.document(&format!("snapshot export one --to {there}"), "snapshot-export");
    assert_eq!((&document["handed_over"], &document["wrote"]), (&true.into(), &"one.snapshot.age".into()));
    let file = sandbox.path("one.snapshot.age");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(fs::read(&file).unwrap().starts_with(b"age-encryption.org/v1\n"));
    is_refused(&sandbox, "one", &["snapshot one is gone: it was exported", &there]);
    assert_eq!(sandbox.done("snapshot ls -q"), "");
    assert!(
        sandbox.done("snapshot ls --all").contains(&format!("exported to {there}, its disk is still here"))
    );
    sandbox
        .run("snapshot import one.snapshot.age")
        .fails(2, &["encrypted for another host, not for age1", "help: "]);

    let imported = other_host(&sandbox, "snapshot import one.snapshot.age");
    imported.fails(0, &[&format!("snapshot one of {} is imported", sandbox.guest('a'))]);
    let ready = format!("there/{}/snapshots/ready/one", sandbox.name);
    assert_eq!(names(&sandbox, &ready), ["disk.ext4", "manifest.json", "state"]);
    for part in ["disk.ext4", "state"] {
        let before = stored(&sandbox, &format!("snapshots/consumed/one/{part}"));
        if before.exists() {
            assert_eq!(fs::read(sandbox.path(&ready).join(part)).unwrap(), fs::read(before).unwrap());
        }
    }
    let state = fs::metadata(sandbox.path(&ready).join("state")).unwrap();
    assert_eq!(state.permissions().mode() & 0o7777, 0o444);
    other_host(&sandbox, "snapshot import one.snapshot.age").fails(1, &["is here already, as one"]);
    other_host(&sandbox, "snapshot import one.snapshot.age --name two")
        .fails(1, &["is here already, as one"]);
    // Whoever removed it before it was restored brings it in again; it is counted as one.
    other_host(&sandbox, "snapshot rm one --yes").fails(0, &[]);
    other_host(&sandbox, "snapshot import one.snapshot.age --name two").fails(0, &["snapshot two of"]);

    let here = recipient(&sandbox);
    other_host(&sandbox, &format!("snapshot export two --to {here} --out back.age")).fails(0, &["no longer"]);
    other_host(&sandbox, "snapshot import one.snapshot.age")
        .fails(1, &["is gone: it was exported", "when it was called two"]);
    sandbox.run("snapshot import back.age --name one").fails(2, &["there is a snapshot one already"]);
    let document = sandbox.document("snapshot import back.age", "snapshot-import");
    assert_eq!((&document["snapshot"], &document["guest"]), (&"two".into(), &sandbox.guest('a').into()));
    let view = sandbox.document("snapshot inspect two --verify", "snapshot-inspect");
    assert!(!view["refusals"].to_string().contains("snapshot two"), "{view:#}");
    assert_eq!(view["ledger"], format!("of {}, imported from another host", sandbox.guest('a')));
    assert!(view["restored"].is_null() && view["age"].is_u64() | view["age"].is_null());
}

#[test]
fn a_backup_for_the_own_host_leaves_the_snapshot_and_counts_as_it() {
    let sandbox = planted();
    let own = recipient(&sandbox);
    let document =
        sandbox.document(&format!("snapshot export one --to {own} --out b.age"), "snapshot-export");
    assert_eq!(document["handed_over"], false);
    assert_eq!(sandbox.done("snapshot ls -q"), "one\n");
    sandbox.run("snapshot import b.age").fails(1, &["is here already, as one"]);
    sandbox.done("snapshot rm one --yes");
    sandbox.done("snapshot import b.age");
    sandbox.done(&format!("snapshot export one --to {STRANGER}"));
    sandbox.run("snapshot import b.age --name other").fails(1, &["is gone: it was exported"]);
    assert_eq!(names(&sandbox, &format!("store/{}/snapshots", sandbox.name)), ["consumed", "ready"]);
}

#[test]
fn wrong_use_of_an_export_is_named_and_changes_nothing() {
    let sandbox = planted();
    let own = recipient(&sandbox);
    let before = fs::read_to_string(witness(&sandbox)).ok();
    for (args, words) in [
        ("one --to nobody".to_owned(), ["the recipient must be what", "age1"]),
        ("one --to AGE-SECRET-KEY-1QQQQ".to_owned(), ["is the secret half of a key", "age1"]),
        (format!("none --to {own}"), ["there is no snapshot none", "snapshot ls"]),
        (format!("../one --to {own}"), ["the name of a snapshot", "must be"]),
        (format!("one --to {own} --out fleet.toml"), ["fleet.toml already exists", "--out"]),
        (format!("one --to {own} --out nowhere/one.age"), ["cannot write into nowhere", "No such file"]),
        (
            format!("one --to {own} --out fleet.toml/one.age"),
            ["cannot write into fleet.toml", "not a directory"],
        ),
        ("one".to_owned(), ["--to", "required"]),
    ] {
        let run = sandbox.run(&format!("snapshot export {args}"));
        run.fails(2, &words);
        assert!(!run.err.contains("QQQQ"), "{run}");
    }
    sandbox.run(&format!("snapshot export one --to {STRANGER} --out fleet.toml/x")).fails(2, &["fleet.toml"]);
    assert_eq!(sandbox.done("snapshot ls -q"), "one\n");
    let state = stored(&sandbox, "snapshots/ready/one/state");
    let sound = fs::read(&state).unwrap();
    fs::write(&state, b"damaged").unwrap();
    let run = sandbox.run(&format!("snapshot export one --to {STRANGER}"));
    run.fails(1, &["snapshot one is not exported: its state is damaged", "snapshot rm"]);
    fs::write(&state, sound).unwrap();
    assert!(!sandbox.path("one.snapshot.age").exists());
    let after = fs::read_to_string(witness(&sandbox)).ok();
    assert!(before.is_none() && !after.is_some_and(|text| text.contains("exported")));
}

#[test]
fn a_file_that_is_not_whole_or_not_of_this_fleet_is_refused_and_leaves_nothing() {
    let sandbox = planted();
    let own = recipient(&sandbox);
    sandbox.done(&format!("snapshot export one --to {own} --out whole.age"));
    sandbox.done("snapshot rm one --yes");
    let whole = fs::read(sandbox.path("whole.age")).unwrap();
    let ledger = fs::read(witness(&sandbox)).unwrap();
    let nothing = |story: &str| {
        assert_eq!(names(&sandbox, &format!("store/{}/snapshots/ready", sandbox.name)), [""; 0], "{story}");
        let all = names(&sandbox, &format!("store/{}/snapshots", sandbox.name));
        assert!(all.iter().all(|name| !name.starts_with('.')), "{story}: {all:?}");
        assert_eq!(fs::read(witness(&sandbox)).unwrap(), ledger, "{story}");
    };
    for place in (0..40).map(|step| step * (whole.len() - 1) / 39) {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        sandbox.write("b.age", changed);
        sandbox.run("snapshot import b.age").fails(2, &["b.age", "help: "]);
        nothing(&format!("byte {place} of {}", whole.len()));
        sandbox.write("b.age", &whole[..place]);
        sandbox.run("snapshot import b.age").fails(2, &["b.age", "help: "]);
        nothing(&format!("cut at {place} of {}", whole.len()));
    }
    sandbox.write("b.age", [whole.as_slice(), b"more"].concat());
    sandbox.run("snapshot import b.age").fails(2, &["b.age"]);
    nothing("more behind it");
    for (file, words) in [
        ("fleet.toml", "no file that age encrypted"),
        ("none", "none"),
        (".", "no file that age encrypted"),
        ("/dev/zero", "no file that age encrypted"),
    ] {
        sandbox.run(&format!("snapshot import {file}")).fails(2, &[words]);
        nothing(file);
    }
    sandbox.run("snapshot import whole.age --name ../x").fails(2, &["the name of a snapshot"]);

    let other = planted();
    other.done(&format!("snapshot export one --to {own} --out other.age"));
    let path = other.path("other.age").display().to_string();
    let words = format!("holds a snapshot of the fleet {}, and this one is {}", other.name, sandbox.name);
    sandbox.run(&format!("snapshot import {path}")).fails(2, &[&words, "--file"]);
    nothing("of another fleet");
    sandbox.done("snapshot import whole.age");
    assert_eq!(sandbox.done("snapshot ls -q"), "one\n");
}

/// What anybody can encrypt for a host.
fn sealed(to: &str, members: &[Member<'_>]) -> Vec<u8> {
    encrypted(to, &packed(members))
}

fn encrypted(to: &str, bytes: &[u8]) -> Vec<u8> {
    let to: AgeRecipient = to.parse().unwrap();
    let mut writer = encrypt(&to, Vec::new()).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

#[test]
fn whoever_encrypts_for_a_host_writes_nothing_there_but_a_whole_snapshot() {
    use tar::EntryType::{GNULongName, Regular, Symlink};
    let sandbox = planted();
    let own = recipient(&sandbox);
    sandbox.done(&format!("snapshot export one --to {own} --out whole.age"));
    // What it holds, by the genuine tar and zstd, once it is decrypted by its key.
    let manifest = {
        let key = sisforge::sys::age::AgeIdentity::of_host(
            std::path::Path::new("/var/lib/sisforge-host/key"),
            std::path::Path::new("/var/lib/sisforge-host/key.lock"),
        );
        let mut tar = tar::Archive::new(
            zstd::Decoder::new(key.unwrap().decrypt(&sandbox.path("whole.age")).unwrap()).unwrap(),
        );
        let mut entries = tar.entries().unwrap();
        let mut text = String::new();
        assert_eq!(entries.next().unwrap().unwrap().path_bytes().as_ref(), b"export.json");
        std::io::Read::read_to_string(&mut entries.next().unwrap().unwrap(), &mut text).unwrap();
        text
    };
    sandbox.done("snapshot rm one --yes");
    let head = format!(r#"{{"format":1,"fleet":"{}","snapshot":"evil"}}"#, sandbox.name);
    let newer = head.replace("\"format\":1", "\"format\":9");
    let outside = format!("/tmp/{}-escaped", sandbox.name);
    let upwards = format!("../../../..{outside}");
    let escapes = manifest.replace("\"disk.ext4\"", &format!("\"{upwards}\""));
    let without_id = manifest.lines().filter(|line| !line.contains("\"id\"")).collect::<Vec<_>>().join("\n");
    let (head, newer, manifest, escapes, without_id) =
        (head.as_bytes(), newer.as_bytes(), manifest.as_bytes(), escapes.as_bytes(), without_id.as_bytes());
    let (first, second) = ((Regular, "export.json", head), (Regular, "manifest.json", manifest));
    let huge = vec![b'x'; 200 << 20];
    let state: &[u8] = b"state of one";
    let disk = vec![0; 3 << 20];
    let hostile: Vec<(Vec<Member<'_>>, &str)> = vec![
        (vec![], "has no export.json"),
        (vec![(Regular, "export.json", b"[]")], "holds no snapshot"),
        (vec![(Regular, "export.json", &huge)], "holds no snapshot"),
        (vec![(Symlink, "export.json", b"")], "not where it should be"),
        (vec![(GNULongName, "././@LongLink", &huge)], "not where it should be"),
        (vec![(Regular, "export.json", newer)], "in format 9"),
        (vec![first], "has no manifest.json"),
        (vec![first, (Regular, "manifest.json", b"{}")], "manifest.json"),
        (vec![first, (Regular, "manifest.json", escapes)], "a snapshot has no"),
        (vec![first, (Regular, "manifest.json", without_id)], "its manifest is not whole"),
        (vec![first, second], "is missing"),
        (vec![first, second, (Regular, &upwards, b"x")], "should not be in it"),
        (vec![first, second, (Symlink, "state", b"")], "should not be in it"),
        (vec![first, second, (Regular, "state", b"of another size")], "should not be in it"),
        (vec![first, second, (Regular, "state", state), (Regular, "state", state)], "should not be in it"),
        (
            vec![first, second, (Regular, "state", state), (Regular, "disk.ext4", &disk)],
            "its disk.ext4 is not what",
        ),
    ];
    for (members, words) in &hostile {
        sandbox.write("evil.age", sealed(&own, members));
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -v 600000; exec {SISFORGE} snapshot import evil.age")]);
        sandbox.surround(&mut limited);
        let run = Run::of(&mut limited);
        assert!([1, 2].contains(&run.code), "{words}: {run}");
        assert!(run.err.contains(words) && run.err.matches("error: ").count() == 1, "{words}: {run}");
        assert_eq!(sandbox.done("snapshot ls --all -q"), "", "{words}");
        assert!(!std::path::Path::new(&outside).exists());
    }
    for bytes in [b"".as_slice(), b"no zstd at all"] {
        sandbox.write("evil.age", encrypted(&own, bytes));
        sandbox.run("snapshot import evil.age").fails(2, &["evil.age"]);
    }
}

#[test]
fn a_backup_that_was_brought_back_is_no_older_than_its_import() {
    let sandbox = planted();
    plant(&sandbox, "ready", "two", "2026-11-26T17:53:16Z");
    sandbox.done(&format!("snapshot export one --to {} --out b.age", recipient(&sandbox)));
    sandbox.done("snapshot rm one --yes");
    sandbox.done("lock");
    let plain = sandbox.read("fleet.toml");
    for text in ["{ count = 1 }", "{ age = \"1h\" }"] {
        sandbox.write("fleet.toml", format!("{plain}\n[snapshots]\nkeep = {text}\n"));
        sandbox.done("snapshot import b.age");
        sandbox.done("gc --yes");
        assert_eq!(sandbox.done("snapshot ls -q"), "one\n", "{text}");
        sandbox.done("snapshot rm one --yes");
    }
}

#[test]
fn retention_keeps_what_fleet_toml_says_and_says_what_goes() {
    let sandbox = planted();
    plant(&sandbox, "ready", "two", "2026-11-26T17:53:16Z");
    plant(&sandbox, "ready", "three", "2026-11-27T17:53:16Z");
    sandbox.done(&format!("snapshot export one --to {}", recipient(&sandbox)));
    sandbox.done("lock");
    let plain = sandbox.read("fleet.toml");
    let keep = |text: &str| sandbox.write("fleet.toml", format!("{plain}\n[snapshots]\nkeep = {text}\n"));
    for (text, words) in [
        ("{ count = 0 }", "count"),
        ("{ age = \"soon\" }", "duration"),
        ("{ size = \"much\" }", "size"),
        ("{ cuont = 1 }", "count"),
        ("5", "keep"),
    ] {
        keep(text);
        sandbox.run("check").fails(2, &[words, "fleet.toml"]);
    }
    keep("{ count = 2 }");
    let dry = sandbox.done("gc --dry-run");
    assert!(
        dry.contains("snapshot one, for good: its guest has 2 newer ones ([snapshots] keep.count)"),
        "{dry}"
    );
    assert_eq!(sandbox.done("snapshot ls -q"), "one\nthree\ntwo\n");
    let plan = sandbox.document("plan", "plan");
    assert!(plan["notes"].to_string().contains("snapshot one goes with the next"), "{plan:#}");
    let document = sandbox.document("gc --yes", "gc");
    assert_eq!(document["snapshots"][0]["name"], "one", "{document:#}");
    assert_eq!(sandbox.done("snapshot ls -q"), "three\ntwo\n");
    assert!(sandbox.done("events").contains("snapshot one removed: its guest has 2 newer ones"));
    // Sizes keep the newest of each guest, and an age keeps none.
    keep("{ size = \"1KiB\" }");
    sandbox.done("gc --yes");
    assert_eq!(sandbox.done("snapshot ls -q"), "three\n");
    keep("{ age = \"1m\" }");
    sandbox.done("gc --yes");
    assert_eq!(sandbox.done("snapshot ls -q"), "");
}
