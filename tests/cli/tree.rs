//! `tree`: jails as files, and nothing else.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::common::sandbox::{Run, SISFORGE, Sandbox, open_to_all};

/// A user that is not root; needs root to become it.
pub const NOBODY: [&str; 4] = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];

/// The program as nobody, in a directory that is nobody's.
pub fn as_nobody(sandbox: &Sandbox) -> Option<Command> {
    if !rustix::process::geteuid().is_root() || sisforge::sys::tool::find("setpriv").is_none() {
        eprintln!("SKIPPED: to become nobody needs root and setpriv");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(NOBODY).arg(SISFORGE);
    sandbox.surround(&mut command);
    Run::of(Command::new("chown").args(["-R", "65534:65534"]).arg(sandbox.path(""))).fails(0, &[]);
    open_to_all(&sandbox.path(""));
    Some(command)
}

fn is_whole(sandbox: &Sandbox, jail: &Path) {
    let root = jail.join("root");
    for file in ["config.json", "data/disk.ext4", "rootfs.ext4", "vmlinux"] {
        assert!(root.join(file).is_file(), "{file} is not in {}", root.display());
    }
    let log = fs::symlink_metadata(root.join("vmm.log")).unwrap().file_type();
    assert!(log.is_fifo(), "vmm.log is no pipe in {}", root.display());
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(root.join("config.json")).unwrap()).unwrap();
    let drives = config["drives"].as_array().unwrap();
    let kernel = [&config["boot-source"]["kernel_image_path"]];
    for path in drives.iter().map(|drive| &drive["path_on_host"]).chain(kernel) {
        let inside = path.as_str().unwrap().trim_start_matches('/');
        assert!(root.join(inside).is_file(), "{inside}, which the configuration names, is in the jail");
    }
    assert_eq!(sandbox.traces(), [""; 0], "nothing was started");
}

#[test]
fn a_tree_is_complete_owned_by_its_guests_and_starts_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    sandbox.done("tree --out t");
    let jails = sandbox.path(&format!("t/{}/jails/firecracker", sandbox.name));
    let owners = ['a', 'b'].map(|letter| {
        let jail = jails.join(format!("{}--1", sandbox.guest(letter)));
        is_whole(&sandbox, &jail);
        let disk = fs::metadata(jail.join("root/data/disk.ext4")).unwrap();
        assert_eq!(disk.mode() & 0o7777, 0o600);
        disk.uid()
    });
    if rustix::process::geteuid().is_root() {
        assert_ne!(owners[0], owners[1]);
    }
    let record = sandbox.path(&format!("t/{}/guests/{}/command", sandbox.name, sandbox.guest('a')));
    assert!(fs::read_to_string(record).unwrap().starts_with("jailer --id "));
    let ruleset = sandbox.path(&format!("t/{}/ruleset.nft", sandbox.name));
    assert!(fs::read_to_string(ruleset).unwrap().contains(&sandbox.guest('b')));
    assert!(!sandbox.path("store").exists(), "the host's own store is not touched");
}

#[test]
fn a_tree_of_one_guest_holds_that_one_and_replaces_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let b = sandbox.guest('b');
    sandbox.done(&format!("tree {b} --out t"));
    let jails: Vec<_> =
        fs::read_dir(sandbox.path(&format!("t/{}/jails/firecracker", sandbox.name))).unwrap().collect();
    assert_eq!(jails.len(), 1);
    sandbox.run("tree --out t").fails(2, &["t is there already", "help: remove it"]);
    sandbox.run("tree nobody --out u").fails(2, &["there is no guest \"nobody\""]);
    assert!(!sandbox.path("u").exists());
}

#[test]
fn whoever_is_not_root_builds_and_makes_trees_but_brings_nothing_up() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let nobody = |args: &[&str]| as_nobody(&sandbox).map(|mut command| Run::of(command.args(args)));
    let Some(built) = nobody(&["build"]) else { return };
    built.fails(0, &[]);
    nobody(&["tree", "--out", "t"]).unwrap().fails(0, &[]);
    is_whole(
        &sandbox,
        &sandbox.path(&format!("t/{}/jails/firecracker/{}--1", sandbox.name, sandbox.guest('a'))),
    );
    for command in ["up", "down", "ps", "plan", "status"] {
        nobody(&[command]).unwrap().fails(1, &["error: this command needs root", "help: run it with sudo"]);
    }
}
