//! What changed behind the program's back is seen and put right.

use std::process::Command;

use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;

fn shell(program: &str, args: &[&str]) {
    let run = Run::of(Command::new(program).args(args));
    assert_eq!(run.code, 0, "{program} {args:?}\n{run}");
}

/// Asserts that the program sees that something is amiss, and repairs it.
#[track_caller]
fn is_seen_and_repaired(sandbox: &Sandbox, words: &str) {
    let plan = sandbox.run("plan --detailed-exitcode");
    assert_eq!(plan.code, 2, "{plan}");
    assert!(plan.out.contains(words), "{plan}");
    let status = sandbox.done("status --json");
    assert!(status.contains(r#""in_step":false"#), "{status}");
    sandbox.run("up").fails(0, &[]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    assert!(sandbox.done("status --json").contains(r#""in_step":true"#));
}

#[test]
fn a_killed_vmm_is_seen_and_started_again() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.done("up");
    let (killed, kept) = (sandbox.pid(a), sandbox.pid(b));
    shell("kill", &["-9", &killed.to_string()]);
    until("the VMM is gone", || sandbox.ps(a)["pid"].is_null());
    assert_eq!(sandbox.ps(a)["state"], "broken");
    is_seen_and_repaired(&sandbox, &format!("start {a}: not running any more"));
    assert_ne!(sandbox.pid(a), killed);
    assert_eq!(sandbox.pid(b), kept, "the other guest is not touched");
}

#[test]
fn a_deleted_tap_is_seen_and_made_anew() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    shell("ip", &["link", "delete", &format!("sis-{a}")]);
    is_seen_and_repaired(&sandbox, "tap changed");
}

#[test]
fn changed_rules_are_seen_and_loaded_again_without_a_restart() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("up");
    let pid = sandbox.pid(&sandbox.guest('a'));
    let tables = Run::of(Command::new("nft").args(["list", "tables"])).out;
    let table = tables.lines().find(|line| line.contains(&sandbox.name)).unwrap();
    let table: Vec<_> = table.split(' ').collect();
    for action in ["flush", "delete"] {
        shell("nft", &[&[action], &table[..]].concat());
        is_seen_and_repaired(&sandbox, "load nft ruleset");
    }
    assert_eq!(sandbox.pid(&sandbox.guest('a')), pid);
}

#[test]
fn a_tap_that_is_down_is_seen_and_a_leftover_one_goes_with_its_guest() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let tap = format!("sis-{}", sandbox.guest('a'));
    sandbox.done("up");
    shell("ip", &["link", "set", &tap, "down"]);
    is_seen_and_repaired(&sandbox, "tap changed");
    shell("ip", &["link", "set", &tap, "down"]);
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn guests_whose_store_was_removed_are_seen_and_taken_down() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    sandbox.done("up");
    let pid = sandbox.pid(&sandbox.guest('a'));
    std::fs::remove_dir_all(sandbox.path("store")).unwrap();
    assert_eq!(sandbox.pid(&sandbox.guest('a')), pid);
    sandbox.run("plan --detailed-exitcode").fails(2, &[]);
    let down = sandbox.run("down --timeout 0");
    down.fails(0, &["2 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0], "{down}");
    sandbox.run("down").fails(0, &["nothing to do"]);
}

/// Asserts that `plan` says why nothing can be done, that `up` says the same, and that neither touched the guest.
#[track_caller]
fn is_refused_with_nobody_stopped(sandbox: &Sandbox, guest: &str, pid: u32, words: &str) {
    let plan = sandbox.run("plan");
    assert!(format!("{plan}").contains(words), "{plan}");
    sandbox.run("up").fails(1, &[words]);
    assert_eq!(sandbox.pid(guest), pid);
}

#[test]
fn what_the_host_cannot_give_is_known_before_a_guest_is_stopped() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let (pid, good) = (sandbox.pid(a), sandbox.read("fleet.toml"));
    sandbox.write("fleet.toml", good.replace("memory = \"64MiB\"", "memory = \"8TiB\""));
    is_refused_with_nobody_stopped(&sandbox, a, pid, "is to have 8TiB of memory");
    let fast = good.replace("default = \"deny\"", "default = \"deny\"\nrate = { up = \"900Gbit/s\" }");
    sandbox.write("fleet.toml", fast.replace("64MiB", "65MiB"));
    is_refused_with_nobody_stopped(&sandbox, a, pid, "check the nft ruleset");
    // Its TAP went, and something else has the name.
    sandbox.write("fleet.toml", &good);
    let tap = &format!("sis-{a}");
    shell("ip", &["link", "delete", tap]);
    shell("ip", &["link", "add", tap, "type", "bridge"]);
    is_refused_with_nobody_stopped(&sandbox, a, pid, "the name of another interface");
    shell("ip", &["link", "delete", tap]);
    sandbox.done("up");
}

#[test]
fn a_removed_jail_and_cgroup_are_seen() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    std::fs::remove_dir_all(sandbox.jail(a).parent().unwrap()).unwrap();
    is_seen_and_repaired(&sandbox, "jail changed");
    let record = sandbox.record(a, "machine.json");
    std::fs::remove_file(&record).unwrap();
    is_seen_and_repaired(&sandbox, "what runs is not known");
    std::fs::write(&record, "{").unwrap();
    is_seen_and_repaired(&sandbox, "what runs is not known");
}

#[test]
fn changed_limits_are_seen_and_set_again_without_a_restart() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let pid = sandbox.pid(a);
    let limit = sandbox.cgroups(a).into_iter().map(|dir| dir.join("pids.max")).find(|file| file.exists());
    std::fs::write(limit.unwrap(), "99").unwrap();
    is_seen_and_repaired(&sandbox, "set cgroup limits: 128 MiB, 33 pids");
    assert_eq!(sandbox.pid(a), pid);
}

#[test]
fn a_half_made_cgroup_goes_with_its_guest() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let dirs = sandbox.cgroups(a);
    sandbox.done("down");
    std::fs::create_dir_all(&dirs[0]).unwrap();
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
    std::fs::create_dir_all(&dirs[0]).unwrap();
    sandbox.done("up");
    assert_eq!(sandbox.ps(a)["state"], "ready");
}
