//! From `fleet.toml` to guests that run and back: the line in its order.

use std::fs;

use crate::common::sandbox::{Run, Sandbox};
use crate::needs_firecracker;
use sisforge::sys::tiny_guest::AfterText;

#[test]
fn a_fleet_goes_from_its_file_to_running_guests_and_back() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));

    assert!(sandbox.run("check").err.contains("fleet.toml is valid: 2 guests, 1 image"));
    assert!(sandbox.done("lock").contains("tiny 1.0-r0"));
    let built = sandbox.done("build");
    assert!(built.lines().any(|line| line.starts_with("image ") && line.contains(" i ")), "{built}");
    let plan = sandbox.done("plan");
    for step in [&format!("start {a}: new"), "create data disk", "create tap", "start firecracker"] {
        assert!(plan.contains(step), "{step} is not in\n{plan}");
    }
    assert_eq!(sandbox.run("plan --detailed-exitcode").code, 2);
    assert_eq!(sandbox.traces(), [""; 0], "plan changes nothing");

    let up = sandbox.run("up");
    up.fails(0, &["2 started"]);
    let ps = sandbox.done("ps");
    assert_eq!(ps.lines().filter(|line| line.contains(" ready ")).count(), 2, "{ps}");
    assert_eq!(sandbox.ps(a)["state"], "ready");
    assert_ne!(sandbox.ps(a)["uid"], sandbox.ps(b)["uid"], "a uid is one guest's alone");
    assert_eq!(sandbox.done(&format!("logs {a}")), "sisforge: ready\n");
    assert!(sandbox.done(&format!("logs {a} --vmm")).contains("Running Firecracker"));
    let status = sandbox.done("status");
    assert!(status.contains("DRIFT") && !status.contains("would"), "{status}");
    sandbox.run(&format!("exec {a} true")).fails(1, &["error: ", "has no sshd", "help: "]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);

    let pids = (sandbox.pid(a), sandbox.pid(b));
    sandbox.run("up").fails(0, &["nothing to do"]);
    assert_eq!((sandbox.pid(a), sandbox.pid(b)), pids);

    sandbox.run("down").fails(0, &["2 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0], "down leaves nothing");
    assert!(sandbox.disk(a).exists() && sandbox.disk(b).exists(), "but data disks");
    assert!(sandbox.record(a, "serial.log").exists(), "and logs");
    sandbox.run("down").fails(0, &["nothing to do"]);
}

#[test]
fn purge_asks_and_alone_removes_data_disks() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.run("down --purge").fails(2, &["no terminal to ask", "help: add --yes"]);
    assert_eq!(sandbox.ps(a)["state"], "ready", "a refused purge changes nothing");
    sandbox.run(&format!("down {b} --purge --yes")).fails(0, &[&format!("data disks and logs removed: {b}")]);
    assert!(!sandbox.disk(b).exists() && sandbox.disk(a).exists());
    assert_eq!(sandbox.ps(a)["state"], "ready");
    sandbox.done("down --purge --yes");
    assert!(!sandbox.disk(a).exists() && !sandbox.record(a, "").exists());
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn up_of_one_guest_brings_that_one_up_alone() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.run(&format!("up {b}")).fails(0, &["1 started"]);
    assert_eq!((&sandbox.ps(a)["state"], &sandbox.ps(b)["state"]), (&"down".into(), &"ready".into()));
    let nearest = format!("there is no guest \"{a}x\"");
    sandbox.run(&format!("up {a}x")).fails(2, &[&nearest, "did you mean"]);
}

#[test]
fn a_removed_user_is_stopped_and_the_data_disk_is_kept() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    fs::write(sandbox.disk(b), "the user's").unwrap();
    let pid = sandbox.pid(a);
    sandbox.fleet("a");
    assert!(sandbox.done("plan").contains(&format!("stop {b}: no longer wanted")));
    sandbox.run("up").fails(0, &["1 stopped"]);
    assert_eq!(sandbox.pid(a), pid, "the guest that stays is not touched");
    assert!(!sandbox.traces().iter().any(|trace| trace.contains(b.as_str())), "{:?}", sandbox.traces());
    assert_eq!(fs::read_to_string(sandbox.disk(b)).unwrap(), "the user's");
}

#[test]
fn a_pool_in_memory_has_its_disk_in_its_own_namespace_and_it_goes_with_its_vmm() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let pool = sandbox.guest('k');
    let ram = r#"disk = { size = "16MiB", backing = "tmpfs" }"#;
    sandbox.fleet_with("", &format!("[pool.{pool}]\nreplicas = 2\n{ram}\n"));
    sandbox.done("up");
    let mounts = |of: &str| fs::read_to_string(format!("/proc/{of}/mounts")).unwrap();
    for member in [format!("{pool}-0"), format!("{pool}-1")] {
        assert_eq!(sandbox.ps(&member)["state"], "ready");
        let within = mounts(&sandbox.pid(&member).to_string());
        assert!(within.lines().any(|line| line.starts_with("tmpfs /data tmpfs")), "{within}");
        assert!(sandbox.jail_within(&member).join("data/disk.ext4").exists());
        assert!(!sandbox.jail(&member).join("data/disk.ext4").exists());
    }
    // Of hundreds, each jailer would else copy the mounts of all others.
    let store = sandbox.path("store").display().to_string();
    assert!(!mounts("self").contains(&store), "{}", mounts("self"));
    let disks: serde_json::Value = serde_json::from_str(&sandbox.done("disk ls --json")).unwrap();
    assert_eq!(disks[0]["backing"], "tmpfs", "{disks}");
    assert_eq!(disks.as_array().unwrap().len(), 2);
    let killed = sandbox.pid(&format!("{pool}-0")).to_string();
    Run::of(std::process::Command::new("kill").args(["-9", &killed])).fails(0, &[]);
    // On a busy machine it takes a moment to die.
    while fs::read_link(format!("/proc/{killed}/exe")).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    sandbox.done("up");
    assert_eq!(sandbox.ps(&format!("{pool}-0"))["state"], "ready");
    let store = sandbox.path("store").join(&sandbox.name);
    assert!(!store.join("disks").exists(), "an ephemeral guest has no file in the store");
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
    let log = sandbox.record(&format!("{pool}-0"), "serial.log");
    assert!(log.exists());
    sandbox.run("down --purge --yes").fails(0, &[&format!("removed: {pool}-0, {pool}-1")]);
    assert!(!log.exists(), "what is left of a pool is its logs");
    let run = sandbox.run("down --purge");
    run.fails(0, &["nothing to do"]);
    assert!(!run.err.contains("removed"), "{run}");
}

#[test]
fn two_fleets_with_a_guest_of_one_name_both_run() {
    needs_firecracker!();
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    other.fleet_with("", &format!("[user.{a}]\n"));
    sandbox.done("up");
    let pid = sandbox.pid(a);
    other.done("up");
    assert_eq!((&other.ps(a)["state"], &sandbox.ps(a)["state"]), (&"ready".into(), &"ready".into()));
    other.done("down");
    assert_eq!(other.traces(), [""; 0]);
    assert_eq!(sandbox.pid(a), pid);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn logs_are_kept_over_one_start_and_cut_from_their_end() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.kernel("first\nsisforge: ready\n", AfterText::ResetOnKey);
    sandbox.done("up");
    sandbox.run(&format!("logs {a} --previous")).fails(1, &["no log of an earlier start"]);
    sandbox.kernel("second\nsisforge: ready\n", AfterText::ResetOnKey);
    assert!(sandbox.done("plan").contains(&format!("stop {a}: kernel ")));
    sandbox.run("up").fails(0, &["1 restarted"]);
    assert_eq!(sandbox.done(&format!("logs {a}")), "second\nsisforge: ready\n");
    assert_eq!(sandbox.done(&format!("logs {a} -n 1")), "sisforge: ready\n");
    assert_eq!(sandbox.done(&format!("logs {a} --previous")), "first\nsisforge: ready\n");
}

#[test]
fn a_console_shows_what_is_there_and_ends_with_its_input() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.run(&format!("console {a}")).fails(1, &["is not running", &format!("`sisforge up {a}`")]);
    sandbox.done("up");
    assert_eq!(sandbox.done(&format!("console {a}")), "sisforge: ready\n");
}
