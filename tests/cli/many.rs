//! Many guests cost as much each as a few do: nobody looks at all others for each, and nobody waits in turn.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::sandbox::{READY, Sandbox, until};
use crate::needs_firecracker;
use sisforge::sys::tiny_guest::AfterText;

/// Puts a program before that of its name on PATH, which notes each call in `calls` and then becomes the other.
fn counted(sandbox: &Sandbox, program: &str) -> String {
    let calls = sandbox.path("calls");
    let (path, calls) = (std::env::var("PATH").unwrap(), calls.display());
    let script = format!("#!/bin/sh\necho \"$*\" >> {calls}\nPATH={path}; exec {program} \"$@\"\n");
    sandbox.write(&format!("counted/{program}"), script);
    let file = sandbox.path(&format!("counted/{program}"));
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{path}", sandbox.path("counted").display())
}

/// How often `down` of so many guests starts `ip`.
fn calls_of_down(guests: &str) -> usize {
    let sandbox = Sandbox::new();
    let path = counted(&sandbox, "ip");
    sandbox.fleet(guests);
    sandbox.done("up");
    let mut down = sandbox.command();
    assert!(down.args(["down", "--timeout", "0"]).env("PATH", path).output().unwrap().status.success());
    assert_eq!(sandbox.traces(), [""; 0]);
    let calls = sandbox.read("calls");
    assert!(calls.contains("delete"), "{calls}");
    calls.lines().count()
}

#[test]
fn no_guest_that_goes_lists_interfaces_or_starts_a_program() {
    needs_firecracker!();
    assert_eq!(calls_of_down("a"), calls_of_down("abcde"));
}

/// How often `up` of so many guests starts a program.
fn calls_of_up(guests: &str, program: &str) -> usize {
    let sandbox = Sandbox::new();
    let path = counted(&sandbox, program);
    sandbox.fleet(guests);
    sandbox.done("build");
    let mut up = sandbox.command();
    assert!(up.arg("up").env("PATH", path).output().unwrap().status.success());
    sandbox.done("down --timeout 0");
    fs::read_to_string(sandbox.path("calls")).unwrap_or_default().lines().count()
}

#[test]
fn no_guest_that_comes_starts_a_program_for_its_network() {
    needs_firecracker!();
    for program in ["ip", "tc"] {
        assert_eq!(calls_of_up("a", program), calls_of_up("abcde", program), "{program}");
    }
}

#[test]
fn no_guest_that_goes_looks_at_the_processes_of_all_others() {
    needs_firecracker!();
    if sisforge::sys::tool::find("strace").is_none() {
        return eprintln!("SKIPPED: strace is not on PATH");
    }
    let sandbox = Sandbox::running("abcde");
    let pids = ["a", "b", "c", "d", "e"].map(|letter| sandbox.pid(&format!("{}{letter}", sandbox.name)));
    let calls = sandbox.path("calls");
    let mut down = Command::new("strace");
    down.args(["-f", "-qq", "-e", "trace=file", "-o"]).arg(&calls);
    sandbox.surround(down.args([crate::common::sandbox::SISFORGE, "down", "--timeout", "0"]));
    assert!(down.output().unwrap().status.success());
    let calls = sandbox.read("calls");
    for pid in pids {
        // Its root, which tells whose jail a process lives in.
        let looks = calls.lines().filter(|call| call.contains(&format!("/proc/{pid}/root"))).count();
        assert!((1..=4).contains(&looks), "{looks} times");
        assert!(!calls.contains(&format!("/proc/{pid}/mountinfo")));
    }
    let mounts = calls.lines().filter(|call| call.contains("/proc/self/mountinfo")).count();
    assert!(mounts <= 3, "{mounts} times");
}

#[test]
fn deaf_guests_are_waited_for_side_by_side() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Halt);
    sandbox.fleet("abcdefghijkl");
    sandbox.done("up");
    let begun = Instant::now();
    sandbox.done("down --jobs 1 --timeout 10");
    // Four at a time would take 30 s.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// A process that is ended when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn watch_needs_no_thread_for_a_guest() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("abcd");
    sandbox.done("lock");
    let log = File::create(sandbox.path("log")).unwrap();
    let mut watch = sandbox.command();
    watch.args(["watch", "--interval", "200ms"]).stdin(Stdio::null());
    let watching = Ended(watch.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let is_ready = |letter| sandbox.ps(&sandbox.guest(letter))["state"] == "ready";
    until("all are ready", || "abcd".chars().all(is_ready));
    let watch = watching.0.id();
    let threads = || fs::read_dir(format!("/proc/{watch}/task")).unwrap().count();
    // Its own, the one that waits for all VMMs and keepers, and two that keep what packets came to.
    until("few threads", || threads() <= 4);
    let status = |name: &str| fs::read_to_string(format!("/proc/{name}/status")).unwrap_or_default();
    let zombies = || {
        let children = Command::new("pgrep").args(["-P", &watch.to_string()]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        children.split_whitespace().filter(|pid| status(pid).contains("State:\tZ")).count()
    };
    let killed = sandbox.pid(&sandbox.guest('a'));
    Command::new("kill").args(["-9", &killed.to_string()]).status().unwrap();
    let is_another = |now: &serde_json::Value| now["state"] == "ready" && now["pid"] != killed;
    until("it is started anew", || is_another(&sandbox.ps(&sandbox.guest('a'))));
    until("no zombie is left", || zombies() == 0);
}
