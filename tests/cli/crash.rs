//! Whatever is killed or fails at whatever moment, the next command completes the work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;
use sisforge::sys::tiny_guest::AfterText;

/// A kept disk, a disk in memory and one in the jail: every kind of guest.
fn every_kind(sandbox: &Sandbox) {
    let pool = sandbox.guest('k');
    let ram = r#"disk = { size = "16MiB", backing = "tmpfs" }"#;
    sandbox.fleet_with("a", &format!("[pool.{pool}]\nreplicas = 1\n{ram}\n"));
}

/// Files that a killed process began to write.
fn half_written(sandbox: &Sandbox) -> Vec<String> {
    let find = Run::of(Command::new("find").arg(sandbox.path("")).args(["-name", ".new-*"]));
    find.out.lines().map(str::to_owned).collect()
}

#[test]
fn an_up_that_was_killed_is_completed_by_the_next_and_leaves_nothing_after_down() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel("sisforge: ready\n", AfterText::Halt);
    every_kind(&sandbox);
    sandbox.done("build");
    for round in 0..12_u64 {
        // What `up` does takes from 20 ms to about a second.
        let delay = Duration::from_millis(20 + round * 70 + round * round % 17);
        let mut up = sandbox.command();
        let mut up = up.arg("up").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        up.kill().unwrap();
        up.wait().unwrap();
        // Every other time nobody completes the work before it is taken back.
        if round % 2 == 0 {
            sandbox.run("up").fails(0, &[]);
            sandbox.run("plan --detailed-exitcode").fails(0, &[]);
        }
        sandbox.run("down --timeout 0").fails(0, &[]);
        assert_eq!(sandbox.traces(), [""; 0], "killed after {delay:?}");
        assert_eq!(half_written(&sandbox), [""; 0], "killed after {delay:?}");
    }
}

/// A directory for the front of PATH whose `setsid` takes its time for a program of this one, and says in `held` that it
/// does: what `up` starts there is still on its way when `up` is killed.
fn slow_starts(sandbox: &Sandbox, program: &str) -> String {
    let script = format!(
        "#!/bin/sh\nif [ \"$2\" = {program} ]; then : > {held}; sleep 1; fi\nPATH={path}; exec setsid \"$@\"\n",
        held = sandbox.path("held").display(),
        path = std::env::var("PATH").unwrap(),
    );
    sandbox.write("slow/setsid", script);
    fs::set_permissions(sandbox.path("slow/setsid"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", sandbox.path("slow").display(), std::env::var("PATH").unwrap())
}

#[test]
fn what_an_up_had_not_yet_started_when_it_was_killed_does_not_start_later() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("build");
    let begun = Instant::now();
    sandbox.done("up");
    let undisturbed = begun.elapsed();
    sandbox.done("down --timeout 0");
    for program in ["launch", "keep-logs"] {
        let mut up = sandbox.command();
        let up = up.env("PATH", slow_starts(&sandbox, program)).arg("up");
        let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("it is on its way", || sandbox.path("held").exists());
        up.kill().unwrap();
        up.wait().unwrap();
        fs::remove_file(sandbox.path("held")).unwrap();
        let begun = Instant::now();
        sandbox.run("up --timeout 20").fails(0, &["1 started"]);
        let took = begun.elapsed();
        assert!(took < undisturbed + Duration::from_secs(3), "{program}: {took:?}, not {undisturbed:?}");
        std::thread::sleep(Duration::from_millis(1200));
        sandbox.run("plan --detailed-exitcode").fails(0, &[]);
        let is_vmm = |trace: &&String| trace.starts_with("process:") && trace.contains("--api-sock");
        assert_eq!(sandbox.traces().iter().filter(is_vmm).count(), 1, "{program}: {:#?}", sandbox.traces());
        let begun = Instant::now();
        sandbox.done("down --timeout 0");
        assert!(begun.elapsed() < Duration::from_secs(3), "{program}: {:?}", begun.elapsed());
        assert_eq!(sandbox.traces(), [""; 0], "{program}");
    }
}

#[test]
fn a_key_that_was_not_finished_is_cleared_away() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("build");
    let tmp = sandbox.path("tmp");
    fs::create_dir(&tmp).unwrap();
    // A keygen that never ends.
    sandbox.write(
        "slow/ssh-keygen",
        format!("#!/bin/sh\n: > {}\nexec sleep 5\n", sandbox.path("held").display()),
    );
    fs::set_permissions(sandbox.path("slow/ssh-keygen"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", sandbox.path("slow").display(), std::env::var("PATH").unwrap());
    let mut up = sandbox.command();
    let mut up = up.env("PATH", path).env("TMPDIR", &tmp).arg("up").stderr(Stdio::null()).spawn().unwrap();
    until("a key is being made", || sandbox.path("held").exists());
    up.kill().unwrap();
    up.wait().unwrap();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "in the directory of everybody's temporary files");
    sandbox.done("down");
    assert_eq!(half_written(&sandbox), [""; 0]);
}

#[test]
fn a_down_that_was_killed_is_completed_by_the_next() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel("sisforge: ready\n", AfterText::Halt);
    every_kind(&sandbox);
    for delay in [60, 120, 200] {
        sandbox.done("up");
        let mut down = sandbox.command();
        let down = down.args(["down", "--timeout", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut down = down.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        down.kill().unwrap();
        down.wait().unwrap();
        sandbox.run("down --timeout 0").fails(0, &[]);
        assert_eq!(sandbox.traces(), [""; 0], "killed after {delay} ms");
    }
}

#[test]
fn of_two_ups_at_a_time_one_waits() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("build");
    let start = || {
        let mut up = sandbox.command();
        up.arg("up").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs = [start(), start()].map(|up| Run::from(up.wait_with_output().unwrap()));
    let said = |words: &str| runs.iter().filter(|run| run.err.contains(words)).count();
    assert!(runs.iter().all(|run| run.code == 0), "{} {}", runs[0], runs[1]);
    assert_eq!((said("1 started"), said("nothing to do")), (1, 1), "{} {}", runs[0], runs[1]);
    assert_eq!(said("waiting for another sisforge"), 1, "{} {}", runs[0], runs[1]);
}

#[test]
fn a_guest_that_is_never_ready_is_named_and_cleared_away() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.kernel("the dog ate my root\n", AfterText::Halt);
    let a = &sandbox.guest('a');
    let run = sandbox.run("up --timeout 2");
    run.fails(
        1,
        &[
            &format!("error: {a}: wait until ready: {a} was not ready within 2 s"),
            "the dog ate my root",
            &format!("failed: {a}"),
        ],
    );
    assert_eq!(sandbox.traces_of_guests(), [""; 0], "the network alone is the fleet's, not the guest's");
    assert!(sandbox.disk(a).exists());
    assert!(sandbox.done(&format!("logs {a}")).contains("the dog"), "the log is there to be read");
}

#[test]
fn a_guest_that_ends_at_once_is_named_with_its_last_words() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.kernel("Kernel panic\n", AfterText::Reset);
    let ended = format!("the VMM of {} ended before the guest was ready", sandbox.guest('a'));
    sandbox.run("up").fails(1, &[&ended, "Kernel panic"]);
}

#[test]
fn a_guest_that_fails_does_not_stop_the_others() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("abc");
    let [a, b, c] = ['a', 'b', 'c'].map(|letter| sandbox.guest(letter));
    sandbox.done("lock");
    // Its TAP cannot be made: something else has that name.
    let (tap, netns) = (format!("sis-{b}"), sandbox.netns());
    let ip = |args: &[&str]| _ = Run::of(Command::new("ip").args(args)).fails(0, &[]);
    ip(&["netns", "add", &netns]);
    ip(&["-n", &netns, "link", "add", &tap, "type", "bridge"]);
    let run = sandbox.run("up");
    ip(&["-n", &netns, "link", "delete", &tap]);
    run.fails(1, &[&format!("error: {b}: "), &tap, &format!("2 started, failed: {b}")]);
    assert_eq!([&a, &c].map(|guest| sandbox.ps(guest)["state"] == "ready"), [true, true]);
    assert!(!sandbox.jail(&b).exists());
    sandbox.run("up").fails(0, &["1 started"]);
    assert_eq!(sandbox.ps(&b)["state"], "ready");
}
