//! Firecrackers of other releases: scripts that say a version stand in for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::sandbox::{Run, Sandbox};
use crate::needs_firecracker;

/// Runs the program where `firecracker` and `jailer` say that they are of these versions.
fn with(sandbox: &Sandbox, firecracker: &str, jailer: &str, args: &str) -> Run {
    for (program, name, version) in
        [("firecracker", "Firecracker", firecracker), ("jailer", "Jailer", jailer)]
    {
        let path = sandbox.path("bin").join(program);
        // As 1.16 does it: a line of the log comes behind.
        let log = "2026-11-25T17:55:37.816853715 [anonymous-instance:main] Firecracker exiting \
          successfully. exit_code=0";
        sandbox.write(
            &format!("bin/{program}"),
            format!("#!/bin/sh\necho '{name} v{version}'\necho\necho '{log}'\n"),
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", sandbox.path("bin").display());
    Run::of(sandbox.command().env("PATH", path).args(args.split(' ')))
}

#[test]
fn firecrackers_that_are_too_old_or_do_not_fit_their_jailer_are_refused() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    for command in ["plan", "up"] {
        let words = ["Firecracker 1.9.1 is too old: the oldest supported release is 1.10.0", "help: "];
        with(&sandbox, "1.9.1", "1.9.1", command).fails(1, &words);
        let words = ["firecracker is version 1.16.1 but jailer is version 1.15.0", "help: "];
        with(&sandbox, "1.16.1", "1.15.0", command).fails(1, &words);
    }
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_newer_firecracker_is_noted_and_an_odd_answer_is_an_error() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    with(&sandbox, "1.17.0", "1.17.0", "plan").fails(0, &["note: Firecracker 1.17.0 is newer than 1.16"]);
    let words = ["cannot read a version from \"Firecracker vague\""];
    with(&sandbox, "ague", "1.16.1", "plan").fails(1, &words);
}

#[test]
fn what_a_version_cannot_do_is_an_error_at_plan() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let more = "machine = \"m\"\n[machine.m]\nballoon = { reporting = true }\nnetwork = { mtu = 1400 }\n";
    sandbox.fleet_with("ab", more);
    let b = sandbox.guest('b');
    let mtu = format!("`network.mtu` of {b} needs Firecracker 1.16.0, but this host has 1.12.1");
    let reporting = format!("`balloon.reporting` of {b} needs Firecracker 1.14.0, but this host has 1.12.1");
    let help = "help: install a Firecracker that has it, or remove the key";
    with(&sandbox, "1.12.1", "1.12.1", "plan").fails(2, &[&mtu, &reporting, help]);
    let run = with(&sandbox, "1.15.2", "1.15.2", "plan");
    run.fails(2, &["network.mtu"]);
    assert!(!run.err.contains("balloon.reporting"), "{run}");
    with(&sandbox, "1.16.0", "1.16.0", "plan").fails(0, &[]);
}

#[test]
fn a_firecracker_that_cannot_run_in_a_jail_is_refused_before_anything_is_made() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let words = ["bin/firecracker is not a Linux program for x86-64", "help: install the static binary"];
    with(&sandbox, "1.16.1", "1.16.1", "up").fails(1, &words);
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn huge_pages_that_the_host_has_not_are_missed_before_anything_is_made() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    // More than any machine that runs tests sets aside.
    sandbox.fleet_with("a", "memory = \"1000GiB\"\nmachine = { huge-pages = \"2MiB\" }\n");
    let words =
        ["1024000 MiB of huge pages are needed, but ", "help: reserve more, for example with `sysctl"];
    sandbox.run("up").fails(1, &words);
    assert_eq!(sandbox.traces(), [""; 0]);
}
