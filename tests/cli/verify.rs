//! `verify`: everything that has a digest is read, and what has other bytes is named.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

/// Changes a byte in place, whoever seals the file against that.
fn change_a_byte(path: &Path) {
    // Where the file system knows no such seal, there is none to be lifted.
    let _ = Command::new("chattr").arg("-i").arg(path).output();
    let mut permissions = fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(path, permissions).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    let middle = file.metadata().unwrap().len() / 2;
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[!byte[0]], middle).unwrap();
}

/// What `verify` finds is its result, and not an error of its own.
fn damage_is_told(sandbox: &Sandbox, words: &[&str]) {
    let run = sandbox.run("verify");
    assert!(run.code == 1 && words.iter().all(|word| run.out.contains(word)), "{run}");
}

#[test]
fn an_artifact_with_other_bytes_is_named_and_built_again() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.run("verify").fails(2, &["fleet.lock", "sisforge lock"]);
    sandbox.done("lock");
    sandbox.run("verify").fails(0, &["the image i is not built yet"]);
    sandbox.done("build");
    let whole = sandbox.document("verify", "verify");
    assert_eq!((&whole["whole"], &whole["unbuilt"]), (&true.into(), &serde_json::json!([])));
    let places: Vec<_> = whole["files"].as_array().unwrap().iter().map(|file| &file["place"]).collect();
    assert!(places.contains(&&"out".into()), "{whole}");

    let image = sandbox.path("out/image/i/rootfs.ext4").canonicalize().unwrap();
    change_a_byte(&image);
    damage_is_told(
        &sandbox,
        &[&image.display().to_string(), "was changed", "`sisforge build` makes it again"],
    );
    let (status, documents) = sandbox.documents("verify", "verify");
    assert_eq!((status, &documents[0]["whole"]), (1, &false.into()));
    sandbox.done("build");
    sandbox.run("verify").fails(0, &["0 have not"]);
    // One that is cut off is damaged too, and not unbuilt.
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.set_len(4096).unwrap();
    damage_is_told(&sandbox, &["was changed"]);
    sandbox.done("build");
    sandbox.run("verify").fails(0, &[]);
}

#[test]
fn a_stored_file_with_other_bytes_is_named() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("up");
    let stored: Vec<PathBuf> =
        fs::read_dir(sandbox.path("store/files")).unwrap().map(|entry| entry.unwrap().path()).collect();
    sandbox.run("verify").fails(0, &["0 have not"]);
    change_a_byte(&stored[0]);
    damage_is_told(
        &sandbox,
        &[&stored[0].display().to_string(), "was changed", "`sisforge up` stores it again"],
    );
    sandbox.done("down");
    fs::remove_file(&stored[0]).unwrap();
    sandbox.done("up");
    sandbox.run("verify").fails(0, &["0 have not"]);
}
