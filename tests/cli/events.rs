//! What happened on a host is kept, and told to whoever asks; metrics are as Prometheus wants them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::namespaces::{missing, skip};
use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;

fn kinds(events: &[Value], guest: &str) -> Vec<String> {
    let of_guest = events.iter().filter(|event| event["guest"] == guest);
    of_guest.map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_happened_to_each_guest_is_told() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = &sandbox.guest('a');
    sandbox.fleet("a");
    assert_eq!(sandbox.done("events"), "", "nothing happened yet");
    sandbox.done("up");
    let pid = sandbox.pid(a);
    Run::of(Command::new("kill").args(["-9", &pid.to_string()])).fails(0, &[]);
    // One that is about to end is stopped first.
    until("it is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    sandbox.done("up");
    sandbox.done(&format!("quarantine {a}"));
    sandbox.done(&format!("release {a}"));
    sandbox.done(&format!("release {a}"));

    let mut follow = sandbox.command();
    let mut follow = follow.args(["events", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map_while(Result::ok);
    let expected = ["started", "started", "quarantined", "released"];
    let before: Vec<Value> =
        lines.by_ref().take(4).map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(kinds(&before, a), expected);
    assert_eq!(
        (before[0]["why"].as_str(), before[1]["why"].as_str()),
        (Some("new"), Some("no longer running"))
    );
    sandbox.done("down");
    let next: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((next["event"].as_str(), next["guest"].as_str()), (Some("stopped"), Some(a.as_str())));
    follow.kill().unwrap();
    follow.wait().unwrap();

    let (code, events) = sandbox.documents("events", "events");
    assert_eq!((code, events.len()), (0, 5));
    assert!(sandbox.done("events").contains(&format!("Z {a} started: new\n")));
    // What was written before lines had versions, and what a newer sisforge would write.
    let log = sandbox.path(&format!("store/{}/events.log", sandbox.name));
    let written = fs::read_to_string(&log).unwrap();
    assert!(written.lines().all(|line| line.starts_with("{\"version\":1,")), "{written}");
    let newer = "{\"version\":2,\"what\":[]}\n".repeat(2);
    fs::write(&log, written.replace("\"version\":1,", "") + &newer).unwrap();
    for command in ["events", "events --json"] {
        let run = sandbox.run(command);
        assert_eq!((run.code, run.out.lines().count()), (0, 5), "{run}");
        assert_eq!(run.err.matches("note: lines of version 2, of another sisforge,").count(), 1, "{run}");
    }
    fs::write(&log, written).unwrap();
    // A broken fleet hides nothing of what happened.
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("[defaults]", "[default]"));
    assert_eq!(sandbox.done("events").lines().count(), 5);
    sandbox.fleet("a");
}

#[test]
fn a_step_that_fails_and_a_commit_that_is_wrong_are_events() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.kernel("never\n", sisforge::sys::tiny_guest::AfterText::Reset);
    sandbox.run("up --timeout 5").fails(1, &["failed: "]);
    let (_, events) = sandbox.documents("events", "events");
    let failed = events.iter().find(|event| event["event"] == "failed").unwrap();
    assert_eq!(
        (failed["guest"].as_str(), failed["step"].as_str()),
        (Some(&*sandbox.guest('a')), Some("wait until ready"))
    );
}

#[test]
fn an_event_is_told_when_it_happens() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.done(&format!("restart {a} {b}"));
    let (_, events) = sandbox.documents("events", "events");
    for guest in [a, b] {
        let of_guest = events.iter().filter(|event| event["guest"] == guest.as_str());
        let [_, stopped, started]: [&Value; 3] = of_guest.collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(
            (stopped["event"].as_str(), started["event"].as_str()),
            (Some("stopped"), Some("started"))
        );
        let (stopped, started) = (stopped["time"].as_str().unwrap(), started["time"].as_str().unwrap());
        assert!(stopped < started, "{stopped} {started}");
    }
}

/// What `watch --listen` answers.
fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200 ").then(|| answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// The value of a metric, by its name and labels.
fn value(text: &str, metric: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {metric} in:\n{text}")).parse().unwrap()
}

fn promtool_takes(text: &str) {
    if let Some(reason) = missing(&["promtool"]) {
        return skip("metrics_are_as_prometheus_wants_them", &reason);
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let run = Run::from(promtool.wait_with_output().unwrap());
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""), "{text}");
}

#[test]
fn metrics_are_as_prometheus_wants_them() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let (fleet, a) = (&sandbox.name, &sandbox.guest('a'));
    sandbox.fleet("ab");
    sandbox.done(&format!("up {a}"));
    let text = sandbox.done("metrics");
    promtool_takes(&text);
    let of_guest =
        |name: &str| value(&text, &format!("sisforge_guest_{name}{{fleet=\"{fleet}\",guest=\"{a}\"}}"));
    assert_eq!(value(&text, &format!("sisforge_guests{{fleet=\"{fleet}\",state=\"ready\"}}")), 1.0);
    assert_eq!(value(&text, &format!("sisforge_guests{{fleet=\"{fleet}\",state=\"down\"}}")), 1.0);
    assert!(of_guest("cpu_seconds_total") > 0.0);
    let memory = of_guest("memory_bytes");
    assert!(memory > 0.0 && memory <= of_guest("memory_limit_bytes"), "{memory}");
    assert_eq!(
        (of_guest("ready"), of_guest("quarantined"), of_guest("network_transmit_bytes_total")),
        (1.0, 0.0, 0.0)
    );
    sandbox.run("metrics --to fleet.toml/file").fails(2, &["cannot write into fleet.toml"]);
    sandbox.run("metrics --to text.prom").fails(0, &["wrote text.prom"]);
    assert!(sandbox.read("text.prom").contains("sisforge_guests{"));

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut watch = sandbox.command();
    let args = [
        "watch",
        "--interval",
        "200ms",
        "--textfile",
        "watch.prom",
        "--listen",
        &format!("127.0.0.1:{port}"),
    ];
    let mut watch = watch.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let applied = format!("sisforge_watch_applied_timestamp_seconds{{fleet=\"{fleet}\"}} ");
    until("watch tells what it applied", || {
        ask(port, "/metrics").is_some_and(|text| text.contains(&applied))
    });
    let text = ask(port, "/metrics").unwrap();
    promtool_takes(&text);
    super::contrib::asks_only_for(&text);
    assert_eq!(value(&text, &format!("sisforge_watch_in_step{{fleet=\"{fleet}\"}}")), 1.0);
    assert_eq!(value(&text, &format!("sisforge_guests{{fleet=\"{fleet}\",state=\"ready\"}}")), 2.0);
    assert!(text.contains(&format!("sisforge_watch_revision_info{{fleet=\"{fleet}\",revision=\"")));
    until("the file says the same", || sandbox.read("watch.prom").contains(&applied));
    let taken = sandbox.run(&format!("watch --listen 127.0.0.1:{port}"));
    taken.fails(1, &["cannot listen at 127.0.0.1:"]);
    watch.kill().unwrap();
    watch.wait().unwrap();
    sandbox.run("watch --listen nowhere").fails(2, &["--listen"]);
}

#[test]
fn metrics_of_watch_are_told_whatever_is_wrong_in_its_file() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let fleet = &sandbox.name;
    sandbox.fleet("a");
    sandbox.done("lock");
    let good = sandbox.read("fleet.toml");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let watch = || {
        let mut watch = sandbox.command();
        watch.args(["watch", "--interval", "200ms", "--textfile", "watch.prom"]);
        watch.args(["--listen", &format!("127.0.0.1:{port}")]);
        Ended(watch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let of_watch = |name: &str| format!("sisforge_watch_{name}{{fleet=\"{fleet}\"}}");
    let (in_step, failed) = (of_watch("in_step"), of_watch("failed_looks_total"));
    let ready = format!("sisforge_guest_ready{{fleet=\"{fleet}\",guest=\"{}\"}} 1\n", sandbox.guest('a'));
    let told = [&|| ask(port, "/metrics").unwrap_or_default(), &|| {
        fs::read_to_string(sandbox.path("watch.prom")).unwrap_or_default()
    }] as [&dyn Fn() -> String; 2];
    let first = watch();
    for tell in told {
        until("all is well", || tell().contains(&format!("{in_step} 1\n")));
    }

    let mistakes = [good.replace("[defaults]", "[default]"), good.replace("[defaults]", "[defaults")];
    for (mistake, tell) in mistakes.iter().flat_map(|mistake| told.map(|tell| (mistake, tell))) {
        sandbox.write("fleet.toml", mistake);
        until("the host is out of step", || tell().contains(&format!("{in_step} 0\n")));
        let before = value(&tell(), &failed);
        until("looks fail on", || value(&tell(), &failed) > before);
        let text = tell();
        promtool_takes(&text);
        assert!(text.contains(&ready), "the guests of the last good fleet are there: {text}");
        sandbox.write("fleet.toml", &good);
        until("all is well again", || tell().contains(&format!("{in_step} 1\n")));
    }
    drop(first);

    // One that never saw a good fleet tells of itself.
    sandbox.write("fleet.toml", &mistakes[0]);
    fs::remove_file(sandbox.path("watch.prom")).unwrap();
    let _watch = watch();
    for tell in told {
        until("it is out of step", || tell().contains(&format!("{in_step} 0\n")));
        promtool_takes(&tell());
    }
    sandbox.write("fleet.toml", &good);
}

/// A program that ends when this is dropped.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
