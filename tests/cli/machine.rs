//! Faults of the machine: status 1, what is missing and what to do, nothing half-made.

use std::process::Command;

use crate::common::sandbox::{Run, SISFORGE, Sandbox};
use crate::needs_firecracker;

/// Runs the program in a mount namespace of its own, in which a tmpfs hides a directory.
fn with_tmpfs(sandbox: &Sandbox, options: &str, on: &str, args: &str) -> Run {
    let script = "mount -t tmpfs -o \"$1\" none \"$2\" && shift 2 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", options]).arg(sandbox.path(on));
    command.arg(SISFORGE).args(args.split(' '));
    sandbox.surround(&mut command);
    Run::of(&mut command)
}

/// A sandbox whose store and `out/` are there to be mounted over, and that is built.
fn built() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("build");
    std::fs::create_dir_all(sandbox.path("store")).unwrap();
    sandbox
}

#[test]
fn a_store_that_cannot_take_a_fleet_is_refused_before_anything_is_made() {
    needs_firecracker!();
    let sandbox = built();
    let refused = |options: &str, words: &[&str]| {
        with_tmpfs(&sandbox, options, "store", "up").fails(1, words);
        assert_eq!(sandbox.traces(), [""; 0], "{options}");
    };
    refused("ro", &["error: cannot ", "/store", "Read-only file system", "help: "]);
    refused("size=8m", &["MiB free", "are needed", "help: free some space, or move [host] store"]);
    refused("noexec", &["/store", "is mounted noexec", "help: "]);
    refused("nodev", &["/store", "is mounted nodev", "help: "]);
}

#[test]
fn a_store_that_cannot_take_a_fleet_is_refused_before_a_build() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("lock");
    std::fs::create_dir_all(sandbox.path("store")).unwrap();
    with_tmpfs(&sandbox, "size=8m", "store", "up")
        .fails(1, &["MiB free", "are needed", "help: free some space"]);
    assert!(!sandbox.path("out/image").exists());
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn an_out_directory_without_room_leaves_nothing_that_looks_built() {
    needs_firecracker!();
    let sandbox = built();
    let run = with_tmpfs(&sandbox, "size=60k", "out", "build");
    run.fails(1, &["error: ", "No space left on device", "help: free some space"]);
    let run = with_tmpfs(&sandbox, "ro", "out", "build --out-dir out");
    run.fails(1, &["error: ", "out/", "Read-only file system"]);
    sandbox.run("build").fails(0, &[]);
}

#[test]
fn a_host_without_tun_is_told_how_to_get_it() {
    needs_firecracker!();
    let sandbox = built();
    let run = with_tmpfs(&sandbox, "size=1m", "/dev/net", "up");
    run.fails(1, &["this host has no /dev/net/tun", "modprobe tun"]);
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn an_uplink_that_is_not_there_is_named() {
    needs_firecracker!();
    let sandbox = built();
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("\"lo\"", "\"eth99\""));
    sandbox.run("up").fails(2, &["[host] uplink \"eth99\"", "help: `ip link` lists them"]);
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn two_fleets_of_one_host_do_not_share_uids() {
    needs_firecracker!();
    let (first, second) = (Sandbox::new(), Sandbox::new());
    first.fleet("a");
    first.done("up");
    let text = second.fleet_text("b", "").replace(&second.uids(), &first.uids());
    second.write("fleet.toml", text);
    second.run("up").fails(1, &["the uid ", "is in use on this host", "[host] uids"]);
    assert_eq!(second.traces(), [""; 0]);
}

#[test]
fn a_program_that_a_network_needs_is_missed_before_anything_is_made() {
    needs_firecracker!();
    let sandbox = built();
    // In a mount namespace of its own, in which nothing that can be run has the program's name.
    let script = "for dir in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do \
        [ ! -e $dir/$1 ] || mount --bind /dev/null $(readlink -f $dir/$1); done; shift; exec \"$@\"";
    for missing in ["ip", "tc"] {
        let mut up = Command::new("unshare");
        up.args(["--mount", "sh", "-c", script, "sh", missing, SISFORGE, "up"]);
        sandbox.surround(&mut up);
        Run::of(&mut up).fails(1, &[&format!("{missing} is not installed"), "iproute2"]);
        assert_eq!(sandbox.traces(), [""; 0], "{missing}");
    }
}
