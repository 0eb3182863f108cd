//! Logs of guests that run: bounded, whole, kept by a process that may die.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sisforge::sys::firecracker::Api;
use sisforge::sys::process;
use sisforge::sys::tiny_guest::AfterText;

use crate::common::sandbox::{Sandbox, until};
use crate::needs_firecracker;

/// Bytes of everything that is kept of a guest.
fn total(sandbox: &Sandbox, guest: &str) -> u64 {
    let files = fs::read_dir(sandbox.record(guest, "")).unwrap();
    files.map(|file| file.unwrap().metadata().map_or(0, |meta| meta.len())).sum()
}

/// The number of a line that the counting guest wrote.
fn number(line: &str) -> u32 {
    assert!(line.len() == 8 && line.bytes().all(|b| (b'0'..=b'?').contains(&b)), "torn: {line:?}");
    line.bytes().fold(0, |number, byte| number << 4 | u32::from(byte - b'0'))
}

/// Lines without the last one, which the guest may be in the middle of.
fn finished(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.pop();
    lines
}

/// Asserts that the lines count on by one each; gives the first and the last number.
#[track_caller]
fn counts<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> (u32, u32) {
    let numbers: Vec<u32> = lines.into_iter().map(|line| number(line.as_ref())).collect();
    for pair in numbers.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "a line was lost or doubled");
    }
    (numbers[0], numbers[numbers.len() - 1])
}

/// The process that keeps a guest's logs.
fn keeper(sandbox: &Sandbox, guest: &str) -> Option<u32> {
    process::rooted_in(&sandbox.record(guest, "")).first().copied()
}

fn chatty(sandbox: &Sandbox) -> String {
    sandbox.fleet("a");
    sandbox.write(
        "fleet.toml",
        sandbox.read("fleet.toml").replace("[host]\n", "[host]\nlogs = { size = \"64KiB\", keep = 2 }\n"),
    );
    sandbox.kernel("sisforge: ready\n", AfterText::Count);
    sandbox.guest('a')
}

#[test]
fn a_guest_that_never_stops_writing_fills_no_disk_and_loses_no_line() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = &chatty(&sandbox);
    sandbox.done("up");

    let mut follow = sandbox.command();
    let mut follow = follow.args(["logs", a, "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    // More than all files hold: the reader goes over several rotations.
    let followed: Vec<String> = lines.map(Result::unwrap).take(60_000).collect();
    follow.kill().unwrap();
    follow.wait().unwrap();
    counts(followed.iter().filter(|line| *line != "sisforge: ready"));

    let oldest = sandbox.record(a, "serial.log.2");
    until("three files are full", || oldest.exists());
    for file in ["serial.log.1", "serial.log.2"] {
        let text = fs::read_to_string(sandbox.record(a, file)).unwrap();
        assert!(text.ends_with('\n') && text.len() <= 128 << 10, "{file}: {}", text.len());
    }
    let kept = sandbox.done(&format!("logs {a}"));
    let (first, _) = counts(finished(&kept));
    assert!(first > 0, "the oldest lines went");
    let (_, last) = counts(finished(&sandbox.done(&format!("logs {a} -n 5"))));
    assert!(last > first);
    assert!(total(&sandbox, a) < 3 * (128 + 16) * 1024 + 64 * 1024, "{}", total(&sandbox, a));
    assert_eq!(sandbox.ps(a)["state"], "ready");
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0], "the keeper ends with its guest");
}

#[test]
fn the_logs_of_a_guest_that_writes_faster_than_they_are_read_come_to_an_end() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = &chatty(&sandbox);
    sandbox.done("up");
    let mut logs = sandbox.command();
    let mut logs = logs.args(["logs", a]).stdout(Stdio::piped()).spawn().unwrap();
    // Read more slowly than the guest writes, and by pieces that it fills meanwhile.
    let (mut out, mut piece, mut read) = (logs.stdout.take().unwrap(), [0; 8 << 10], 0);
    loop {
        let count = out.read(&mut piece).unwrap();
        read += count;
        if count == 0 {
            break;
        }
        // No more than is kept of it.
        assert!(read < 4 * (128 << 10), "{read} bytes, and no end");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(logs.wait().unwrap().success());
}

#[test]
fn a_keeper_that_was_killed_harms_no_guest_and_is_started_anew() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = &chatty(&sandbox);
    sandbox.done("up");
    let vmm = sandbox.pid(a);
    let old = keeper(&sandbox, a).expect("there is one");
    let id = process::inspect(old).unwrap().id;
    assert!(process::send_signal(id, process::Signal::KILL).unwrap());
    assert!(process::wait_gone(id, std::time::Duration::from_secs(5)));
    let plan = sandbox.done("plan");
    assert!(
        plan.contains(&format!("change {a}: its logs are not kept")) && plan.contains("keep logs again"),
        "{plan}"
    );
    let api = Api::connect(&sandbox.jail(a).join("run/api.sock")).unwrap();
    assert!(api.instance_info().is_ok(), "the guest goes on");
    sandbox.run("up").fails(0, &["1 changed in place"]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    assert_eq!(sandbox.pid(a), vmm);
    assert!(keeper(&sandbox, a).is_some_and(|new| new != old));
    let before = fs::metadata(sandbox.record(a, "serial.index")).unwrap().modified().unwrap();
    until("its log grows again", || {
        fs::metadata(sandbox.record(a, "serial.index")).is_ok_and(|now| now.modified().unwrap() > before)
    });
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_keeper_that_stands_still_is_seen_and_goes_on_and_holds_up_no_down() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let guests = ['a', 'b'].map(|letter| sandbox.guest(letter));
    sandbox.done("up");
    let stop = |guest: &String| {
        let pid = keeper(&sandbox, guest).expect("there is one");
        assert!(process::stop(process::inspect(pid).unwrap().id, Duration::from_secs(5)).unwrap());
    };
    let before = keeper(&sandbox, &guests[0]);
    stop(&guests[0]);
    let plan = sandbox.run("plan --detailed-exitcode");
    assert!(plan.code == 2 && plan.out.contains("its logs are not kept"), "{plan}");
    sandbox.run("up").fails(0, &[]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    assert_eq!(keeper(&sandbox, &guests[0]), before);
    guests.iter().for_each(stop);
    let begun = std::time::Instant::now();
    sandbox.done("down --timeout 0");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_keeper_holds_no_privilege_and_little_memory() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let pid = keeper(&sandbox, a).expect("there is one");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(
        (field("CapEff:"), field("CapPrm:"), field("NoNewPrivs:")),
        ("0000000000000000", "0000000000000000", "1")
    );
    assert_eq!(field("Threads:"), "1");
    let own = own_memory(pid);
    assert!(own < 1024, "{own} KiB of its own");
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains("/.logs") && !cgroup.contains(a.as_str()), "{cgroup}");
}

/// KiB of a process's memory that is no part of a program's file: of a debug build, addresses that are filled in when it is loaded are
/// megabytes.
fn own_memory(pid: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut is_of_file, mut own) = (false, 0);
    for line in maps.lines() {
        if let Some(size) = line.strip_prefix("Anonymous:") {
            own += if is_of_file { 0 } else { size.trim().trim_end_matches(" kB").parse().unwrap() };
        } else if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            is_of_file = line.contains(" /");
        }
    }
    own
}

#[test]
fn metrics_and_the_vmm_log_are_kept_beside_the_serial_port() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet_with("a", "machine = { metrics = true }\n");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let api = Api::connect(&sandbox.jail(a).join("run/api.sock")).unwrap();
    api.put("/actions", &serde_json::json!({ "action_type": "FlushMetrics" })).unwrap();
    let metrics = || sandbox.done(&format!("logs {a} --metrics"));
    until("metrics are kept", || metrics().lines().count() >= 2);
    for line in metrics().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["vcpu"].is_object(), "{line}");
    }
    assert!(sandbox.done(&format!("logs {a} --vmm")).contains("Running Firecracker"));
    sandbox.run(&format!("logs {a} --vmm --metrics")).fails(2, &["cannot be used with"]);
    sandbox.fleet("ab");
    sandbox.done("up");
    let b = &sandbox.guest('b');
    sandbox.run(&format!("logs {b} --metrics")).fails(1, &["has no metrics", "help: `metrics = true`"]);
}

#[test]
fn lines_are_shown_with_their_times_and_from_a_time_on() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let stamped = sandbox.done(&format!("logs {a} -t"));
    let (time, line) = stamped.trim_end().split_once(' ').unwrap();
    assert_eq!(line, "sisforge: ready");
    let came = humantime::parse_rfc3339(time).unwrap();
    assert!(came.elapsed().unwrap().as_secs() < 60, "{time}");
    assert_eq!(sandbox.done(&format!("logs {a} --since 10m")), "sisforge: ready\n");
    assert_eq!(sandbox.done(&format!("logs {a} --since {time}")), "sisforge: ready\n");
    let later = humantime::format_rfc3339_millis(came + std::time::Duration::from_millis(1));
    assert_eq!(sandbox.done(&format!("logs {a} --since {later}")), "");
    sandbox.run(&format!("logs {a} --since yesterday")).fails(2, &["it must be like 10m"]);
    let json = sandbox.document(&format!("logs {a}"), "logs");
    assert_eq!((&json["log"], &json["line"]), (&"serial".into(), &"sisforge: ready".into()));
}

#[test]
fn following_goes_on_over_a_restart() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    sandbox.kernel("first\nsisforge: ready\n", AfterText::ResetOnKey);
    sandbox.done("up");
    sandbox.run(&format!("logs {a} --previous")).fails(1, &["has no log of an earlier start", "help: "]);
    let mut follow = sandbox.command();
    let mut follow = follow.args(["logs", a, "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "first");
    sandbox.kernel("second\nsisforge: ready\n", AfterText::ResetOnKey);
    sandbox.done("up");
    assert_eq!(
        [lines.next(), lines.next(), lines.next()].map(Option::unwrap),
        ["sisforge: ready", "second", "sisforge: ready"]
    );
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!(sandbox.done(&format!("logs {a}")), "second\nsisforge: ready\n");
    assert_eq!(sandbox.done(&format!("logs {a} --previous")), "first\nsisforge: ready\n");
}

#[test]
fn a_vmm_that_does_not_start_leaves_its_reason_in_its_log() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = &sandbox.guest('a');
    // No ELF: Firecracker refuses it.
    sandbox.write("tiny.elf", sisforge::sys::tiny_guest::elf("x", AfterText::Halt));
    let mut elf = fs::read(sandbox.path("tiny.elf")).unwrap();
    // An entry far outside of the guest's memory, and a segment there.
    elf[64 + 24..64 + 32].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    sandbox.write("tiny.elf", elf);
    let run = sandbox.run("up");
    run.fails(1, &["ended before the guest was ready"]);
    let log: PathBuf = sandbox.record(a, "vmm.log");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("Running Firecracker"), "{log}");
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}
