//! What a guest may take of its host, and what happens where it takes more.

use std::fs;
use std::process::{Child, Command};

use sisforge::sys::block;
use sisforge::sys::tiny_guest::AfterText;

use crate::common::namespaces::skip;
use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;

/// What a file of the guest's cgroup says, in whichever hierarchy it is.
fn value(sandbox: &Sandbox, guest: &str, file: &str) -> Option<String> {
    let texts = sandbox.cgroups(guest).into_iter().filter_map(|dir| fs::read_to_string(dir.join(file)).ok());
    texts.map(|text| text.trim().to_owned()).next()
}

/// Processes in the guest's cgroup that take memory until there is none. There are several, so that none of
/// them is larger
/// than the VMM once the kernel is told to choose that first.
fn hog(sandbox: &Sandbox, guest: &str) -> Child {
    let dirs = sandbox.cgroups(guest);
    let join: String =
        dirs.iter().map(|dir| format!("echo 0 > {}/cgroup.procs && ", dir.display())).collect();
    let script = format!("{join} for i in 1 2 3; do tail /dev/zero & done; wait");
    Command::new("sh").args(["-c", &script]).spawn().unwrap()
}

#[test]
fn weight_and_limits_of_block_devices_are_set_and_changed_without_a_restart() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = &sandbox.guest('a');
    let Some(device) = block::device_of(&sandbox.path("")).unwrap() else {
        return eprintln!("SKIPPED: the project is not on a block device");
    };
    let table = format!("[user.{a}]\n");
    let with = |more: &str| {
        let text = sandbox.fleet_text("a", "");
        sandbox.write("fleet.toml", text.replace(&table, &format!("{table}{more}\n")));
    };
    with("cpu-weight = 200\nio = { read = \"50MiB/s\", write-operations = 400 }");
    sandbox.done("up");
    let pid = sandbox.pid(a);
    let read =
        |v2: &str, v1: &str| value(&sandbox, a, v2).or_else(|| value(&sandbox, a, v1)).unwrap_or_default();
    let weight = read("cpu.weight", "cpu.shares");
    assert!(weight == "200" || weight == "2048", "{weight}");
    let io = read("io.max", "blkio.throttle.read_bps_device");
    assert!(io.contains(&device.to_string()) && io.contains("52428800"), "{io}");
    assert_eq!(value(&sandbox, a, "memory.swap.max").unwrap_or("0".into()), "0");
    let with_swap = value(&sandbox, a, "memory.memsw.limit_in_bytes");
    assert!(with_swap.is_none() || with_swap == value(&sandbox, a, "memory.limit_in_bytes"), "{with_swap:?}");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);

    with("cpu-weight = 50");
    let plan = sandbox.done("plan");
    assert!(plan.contains("set cgroup limits: 128 MiB, 33 pids, 100000 us of cpu, cpu weight 50"), "{plan}");
    sandbox.done("up");
    assert_eq!(sandbox.pid(a), pid);
    assert_eq!(read("io.max", "blkio.throttle.read_bps_device"), "");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn a_guest_that_ran_out_of_memory_is_named_as_such_until_it_is_started_again() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    fs::write(format!("/proc/{}/oom_score_adj", sandbox.pid(a)), "1000").unwrap();
    hog(&sandbox, a).wait().unwrap();
    until("the VMM is gone", || sandbox.ps(a)["pid"].is_null());
    let note = "killed: out of memory (limit 128 MiB)";
    assert_eq!(sandbox.ps(a)["note"], note);
    assert!(sandbox.done("ps").contains(&format!("broken, {note}")));
    assert!(sandbox.done("status").contains("killed by the kernel: out of memory"));
    let plan = sandbox.done("plan");
    assert!(plan.contains(&format!("start {a}: killed by the kernel: out of memory")), "{plan}");
    sandbox.done("up");
    let ps = sandbox.ps(a);
    assert_eq!((&ps["state"], &ps["oom_kills"], &ps["note"]), (&"ready".into(), &0.into(), &().into()));
}

#[test]
fn a_guest_that_runs_out_of_memory_before_it_is_ready_says_so() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.kernel("waiting\n", AfterText::Halt);
    let a = &sandbox.guest('a');
    let mut up = sandbox.command();
    let up = up
        .arg("up")
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the VMM runs", || value(&sandbox, a, "cgroup.procs").is_some_and(|procs| !procs.is_empty()));
    until("the guest runs", || {
        fs::read_to_string(sandbox.record(a, "serial.log")).is_ok_and(|log| log.contains("waiting"))
    });
    let pid = value(&sandbox, a, "cgroup.procs").unwrap();
    fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").unwrap();
    hog(&sandbox, a).wait().unwrap();
    let run = Run::from(up.wait_with_output().unwrap());
    run.fails(1, &[&format!("the VMM of {a} was killed by the kernel: out of memory (limit 128 MiB)")]);
}

#[test]
fn a_uid_that_someone_else_has_is_refused_before_anything_is_done() {
    needs_firecracker!();
    if sisforge::sys::tool::find("setpriv").is_none() {
        return skip(
            "a_uid_that_someone_else_has_is_refused_before_anything_is_done",
            "setpriv is not installed",
        );
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let uid = sandbox.uids().split_once('-').unwrap().0.to_owned();
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()];
    let mut other = Command::new("setpriv").args(ids).args(["sleep", "60"]).spawn().unwrap();
    let status = format!("/proc/{}/status", other.id());
    until("it has that uid", || fs::read_to_string(&status).unwrap().contains(&format!("Uid:\t{uid}")));
    let words = [
        format!(
            "the uid {uid} of {} is in use on this host: process {} (sleep)",
            sandbox.guest('a'),
            other.id()
        ),
        "help: give the fleet a range that nothing else uses: [host] uids".to_owned(),
    ];
    let words = words.each_ref().map(String::as_str);
    for command in ["plan", "up"] {
        sandbox.run(command).fails(1, &words);
    }
    assert_eq!(sandbox.traces(), [""; 0], "nothing was done");
    other.kill().unwrap();
    other.wait().unwrap();
    sandbox.done("up");
}
