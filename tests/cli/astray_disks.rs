//! Kept disks that lose their name in the store, and what has it instead: nobody's bytes are lost.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Where no file system keeps anything: what comes before the superblock of ext4.
fn mark(disk: &Path, text: &str) {
    fs::File::options().write(true).open(disk).unwrap().write_all_at(text.as_bytes(), 100).unwrap();
}

fn marked(disk: &Path, text: &str) -> bool {
    let mut found = vec![0; text.len()];
    fs::File::open(disk).unwrap().read_exact_at(&mut found, 100).unwrap();
    found == text.as_bytes()
}

/// Asserts that the plan tells it, that `up` mends it, and that nothing is then left to do.
#[track_caller]
fn is_told_and_mended(sandbox: &Sandbox, words: &[&str]) {
    let plan = sandbox.run("plan --detailed-exitcode");
    assert_eq!(plan.code, 2, "{plan}");
    words.iter().for_each(|word| assert!(plan.out.contains(word), "{word}\n{plan}"));
    sandbox.run("up").fails(0, &[]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

/// Another name of the store, of a file that lost its own.
fn beside(sandbox: &Sandbox, guest: &str) -> std::path::PathBuf {
    sandbox.disk(guest).with_file_name(format!("{guest}.before-replaced.ext4"))
}

const REPLACED: &str = "another file has the name of its data disk in the store";

#[test]
fn a_disk_that_was_replaced_beneath_its_guest_gets_its_name_back_and_the_other_is_kept() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let (pid, disk) = (sandbox.pid(a), sandbox.disk(a));
    let before = inode(&disk);
    fs::write(sandbox.path("other"), "what somebody moved there").unwrap();
    fs::rename(sandbox.path("other"), &disk).unwrap();
    is_told_and_mended(&sandbox, &[&format!("change {a}: {REPLACED}")]);
    assert_eq!((inode(&disk), sandbox.pid(a)), (before, pid));
    assert_eq!(fs::read_to_string(beside(&sandbox, a)).unwrap(), "what somebody moved there");
    // By `down` as well, which ends the last that had it.
    fs::write(sandbox.path("other"), "another").unwrap();
    fs::rename(sandbox.path("other"), &disk).unwrap();
    sandbox.done("down --timeout 0");
    assert_eq!(inode(&disk), before);
}

#[test]
fn guests_whose_disks_were_exchanged_get_their_own_back() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let guests = ['a', 'b'].map(|letter| sandbox.guest(letter));
    let disks = guests.each_ref().map(|guest| sandbox.disk(guest));
    let before = disks.each_ref().map(|disk| inode(disk));
    fs::rename(&disks[0], sandbox.path("third")).unwrap();
    fs::rename(&disks[1], &disks[0]).unwrap();
    fs::rename(sandbox.path("third"), &disks[1]).unwrap();
    let told = guests.each_ref().map(|guest| format!("change {guest}: {REPLACED}"));
    is_told_and_mended(&sandbox, &[&told[0], &told[1]]);
    assert_eq!(disks.each_ref().map(|disk| inode(disk)), before);
    assert!(!beside(&sandbox, &guests[0]).exists(), "each has a name of its own");
}

#[test]
fn a_disk_without_any_name_outlives_its_vmm() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let disk = sandbox.disk(a);
    let lose = |text: &str, with_jail: bool| {
        mark(&disk, text);
        fs::remove_file(&disk).unwrap();
        let jail = sandbox.jail(a);
        match with_jail {
            true => fs::remove_dir_all(jail.parent().unwrap()).unwrap(),
            false => fs::remove_file(jail.join("data/disk.ext4")).unwrap(),
        }
    };
    lose("the jail stays", false);
    is_told_and_mended(&sandbox, &[&format!("stop {a}: its data disk has no name any more")]);
    assert!(marked(&disk, "the jail stays"));
    lose("it goes too", true);
    is_told_and_mended(&sandbox, &["its vmm is in no jail", "its data disk has no name any more"]);
    assert!(marked(&disk, "it goes too"));
    lose("and is taken down", true);
    sandbox.done("down --timeout 0");
    assert!(marked(&disk, "and is taken down"));
    assert_eq!(fs::metadata(&disk).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn what_nobody_runs_from_any_more_is_kept_beside_what_took_its_name() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let disk = sandbox.disk(a);
    mark(&disk, "before");
    Run::of(std::process::Command::new("kill").args(["-9", &sandbox.pid(a).to_string()])).fails(0, &[]);
    until("the VMM is gone", || sandbox.ps(a)["pid"].is_null());
    // An operator brings a backup back.
    fs::copy(&disk, sandbox.path("backup")).unwrap();
    mark(&sandbox.path("backup"), "backup");
    fs::rename(sandbox.path("backup"), &disk).unwrap();
    sandbox.run("up").fails(0, &[]);
    assert!(marked(&disk, "backup") && marked(&beside(&sandbox, a), "before"));
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    assert!(sandbox.done("disk ls").contains(&format!("{a}.before-replaced")));
}

#[test]
fn two_guests_with_one_disk_are_refused_before_anybody_is_stopped() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let [a, b] = ['a', 'b'].map(|letter| sandbox.guest(letter));
    let pid = sandbox.pid(&a);
    fs::hard_link(sandbox.disk(&a), sandbox.disk(&b)).unwrap();
    sandbox.write("fleet.toml", sandbox.fleet_text("ab", "").replace("64MiB", "65MiB"));
    sandbox.run("plan").fails(1, &["is also that of another guest"]);
    sandbox.run("up").fails(1, &["is also that of another guest"]);
    assert_eq!(sandbox.pid(&a), pid);
}
