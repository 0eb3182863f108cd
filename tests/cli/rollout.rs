//! Guests that are started anew: by name, few at a time, and by `watch` after they ended.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use sisforge::sys::tiny_guest::AfterText;

use crate::common::sandbox::{READY, Run, Sandbox, until};
use crate::needs_firecracker;

#[test]
fn restart_starts_anew_what_it_names_and_nothing_else() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.fleet("ab");
    sandbox.run("restart").fails(2, &["<GUESTS>"]);
    sandbox.run("restart nobody").fails(2, &["there is no guest \"nobody\""]);
    sandbox.run(&format!("restart {a}")).fails(0, &["1 started"]);
    sandbox.done("up");
    let pids = [a, b].map(|guest| sandbox.pid(guest));
    sandbox.run(&format!("restart {a}")).fails(0, &["1 restarted"]);
    assert_ne!(sandbox.pid(a), pids[0]);
    assert_eq!(sandbox.pid(b), pids[1]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn a_rolling_up_waits_for_each_guest_before_it_stops_the_next() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    sandbox.fleet("abc");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("64MiB", "72MiB"));
    let (code, events) = sandbox.documents("up --strategy rolling", "event");
    assert_eq!(code, 0);
    let guests = events.iter().filter(|event| event["event"] == "end").filter_map(|event| {
        let task = event["task"].as_str()?;
        task.starts_with("st").then(|| task.replace(&sandbox.name, ""))
    });
    let order: Vec<_> =
        guests.filter(|task| task.starts_with("stop ") || task.starts_with("start ")).collect();
    assert_eq!(order, ["start c", "stop a", "start a", "stop b", "start b"]);
}

#[test]
fn a_guest_that_does_not_get_ready_stops_a_rollout() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let guests = ['a', 'b', 'c'].map(|letter| sandbox.guest(letter));
    sandbox.fleet("abc");
    sandbox.done("up");
    let pids = guests.each_ref().map(|guest| sandbox.pid(guest));

    sandbox.kernel("says nothing\n", AfterText::Halt);
    let up = "up --strategy rolling --timeout 2";
    let left = format!("failed: {}; left as they were: {}, {}", guests[0], guests[1], guests[2]);
    sandbox.run(up).fails(1, &["1 stopped, ", &left]);
    assert_eq!(sandbox.ps(&guests[0])["state"], "down");
    for (guest, pid) in guests.iter().zip(pids).skip(1) {
        assert_eq!((sandbox.ps(guest)["state"].as_str(), sandbox.pid(guest)), (Some("ready"), pid));
    }
    // It is not running now, and comes first again: nobody else goes for it.
    sandbox.run(up).fails(1, &[&left]);

    sandbox.kernel("another\nsisforge: ready\n", AfterText::ResetOnKey);
    sandbox.run("up --max-unavailable 2").fails(0, &["1 started, 2 restarted"]);
    sandbox.run("up --max-unavailable 0").fails(2, &["--max-unavailable"]);
}

/// A `watch` of the sandbox's file; ended when it is dropped.
struct Watching<'a>(&'a Sandbox, Child);

impl<'a> Watching<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let log = File::create(sandbox.path("log")).unwrap();
        let mut watch = sandbox.command();
        watch.args(["watch", "--interval", "100ms"]).stdin(Stdio::null());
        Self(sandbox, watch.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.0.path("log")).unwrap()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

fn kill(pid: u32) {
    Run::of(Command::new("kill").args(["-9", &pid.to_string()])).fails(0, &[]);
}

#[test]
fn a_guest_that_ends_is_left_where_the_fleet_says_so() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    let text = sandbox.fleet_text("ab", "");
    sandbox.write(
        "fleet.toml",
        text.replace(&format!("[user.{a}]"), &format!("[user.{a}]\non-exit = \"leave\"")),
    );
    sandbox.done("lock");
    let watch = Watching::new(&sandbox);
    until("the fleet is up", || watch.said().contains(": applied"));
    let pids = [a, b].map(|guest| sandbox.pid(guest));
    kill(pids[0]);
    until("it is told", || watch.said().contains(&format!("{a} ended and is left so")));
    kill(pids[1]);
    until("another is started again", || {
        let guest = sandbox.ps(b);
        guest["state"] == "ready" && guest["pid"] != pids[1]
    });
    drop(watch);
    assert_eq!(sandbox.ps(a)["state"], "broken");
    sandbox.run("watch --once").fails(0, &[&format!("{a} ended and is left so")]);
    assert_eq!(sandbox.ps(a)["state"], "broken", "another watch leaves it too");
    let watch = Watching::new(&sandbox);
    sandbox.run(&format!("up {a}")).fails(0, &["1 started"]);
    until("the fleet is up", || watch.said().contains(": applied"));
    kill(sandbox.pid(a));
    until("it is told anew", || watch.said().contains(&format!("{a} ended and is left so")));
    assert_eq!(watch.said().matches("is left so").count(), 1, "once");
    drop(watch);
    sandbox.done(&format!("down {a}"));
    sandbox.run("watch --once").fails(0, &["1 started"]);
}

#[test]
fn a_guest_that_does_not_stay_up_is_started_later_each_time() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = &sandbox.guest('a');
    sandbox.fleet("a");
    sandbox.kernel(READY, AfterText::Reset);
    sandbox.done("lock");
    let watch = Watching::new(&sandbox);
    until("it waits", || watch.said().contains(&format!("{a} was started once and does not stay up")));
    let starts = watch.said().matches("1 started").count() + watch.said().matches("failed: ").count();
    assert_eq!(starts, 2, "at first, and at once");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(watch.said().matches("does not stay up").count(), 1, "it waits, and says so once");
    sandbox.kernel(READY, AfterText::ResetOnKey);
    sandbox.done("lock");
    until("another kernel does not wait", || sandbox.ps(a)["state"] == "ready");
}
