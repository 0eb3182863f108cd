//! What guests use, live; and `ps --watch`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::namespaces::{missing, skip};
use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

#[test]
fn a_table_tells_what_guests_use() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let (a, b) = (sandbox.guest('a'), sandbox.guest('b'));
    sandbox.fleet("ab");
    sandbox.done(&format!("up {a}"));

    let table = sandbox.done("top --interval 300ms");
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[0].contains("RECEIVED/s"), "{table}");
    assert!(lines[1].starts_with(&a) && lines[1].contains("ready") && lines[1].contains('%'), "{table}");
    assert!(lines[2].starts_with(&b) && lines[2].contains("down"), "{table}");

    let loads = sandbox.document("top --interval 300ms --sort name", "top");
    let load = &loads[0];
    assert_eq!((&load["name"], &loads[1]["name"]), (&Value::from(a), &Value::from(b)));
    assert!(load["cpu"].as_f64().unwrap() < 2.0, "{load}");
    let memory = load["memory"].as_u64().unwrap();
    assert!(memory > 0 && memory <= load["memory_limit"].as_u64().unwrap(), "{load}");
    assert_eq!((&load["received"], &load["sent"]), (&Value::from(0.0), &Value::from(0.0)), "{load}");
    assert_eq!(loads[1]["cpu"], Value::Null, "one that does not run");
}

#[test]
fn what_is_no_table_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run("top").fails(2, &["fleet.toml"]);
    sandbox.fleet("a");
    sandbox.run("top --interval 1ms").fails(2, &["--interval", "200ms or more"]);
    sandbox.run("top --sort age").fails(2, &["--sort", "possible values: cpu, memory, network, disk, name"]);
}

/// A command on a terminal of 150 columns, which util-linux's `script` makes.
fn on_a_terminal(sandbox: &Sandbox, args: &str) -> Child {
    let program = sandbox.command().get_program().to_string_lossy().into_owned();
    let command = format!("stty rows 30 cols 150; exec '{program}' {args}");
    let mut script = Command::new("script");
    sandbox.surround(&mut script);
    script.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
    script.env("TERM", "xterm-256color").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Reads until the terminal shows what is asked for.
fn until_it_shows(out: &mut impl Read, terminal: &mut vt100::Parser, shown: impl Fn(&vt100::Screen) -> bool) {
    let mut bytes = [0; 4096];
    while !shown(terminal.screen()) {
        let count = out.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended with:\n{}", terminal.screen().contents());
        terminal.process(&bytes[..count]);
    }
}

#[test]
fn the_table_lives_on_a_terminal_and_leaves_it_as_it_was() {
    if let Some(reason) = missing(&["script", "stty"]) {
        return skip("the_table_lives_on_a_terminal_and_leaves_it_as_it_was", &reason);
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    for ends_by in ["key", "signal"] {
        let mut top = on_a_terminal(&sandbox, "top --interval 200ms");
        let (mut keys, mut out) = (top.stdin.take().unwrap(), top.stdout.take().unwrap());
        let mut terminal = vt100::Parser::new(30.try_into().unwrap(), 150.try_into().unwrap(), 0);
        let mut until_words = |words: &[&str]| {
            until_it_shows(&mut out, &mut terminal, |screen| {
                words.iter().all(|words| screen.contents().contains(words))
            });
        };
        until_words(&["2 guests: 2 down", "CPU ↓", "q leave"]);
        keys.write_all(b"m").unwrap();
        until_words(&["MEMORY ↓"]);
        let expected = if ends_by == "key" {
            keys.write_all(b"q").unwrap();
            0
        } else {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", top.id())).unwrap();
            let pid = children.split_whitespace().next().unwrap();
            assert!(Command::new("kill").args(["-TERM", pid]).status().unwrap().success());
            143
        };
        until_it_shows(&mut out, &mut terminal, |screen| !screen.alternate_screen());
        // What is read no more must not hold the terminal up.
        std::io::copy(&mut out, &mut std::io::sink()).unwrap();
        assert_eq!(top.wait().unwrap().code(), Some(expected), "{ends_by}");
    }
}

#[test]
fn ps_tells_of_each_change() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = sandbox.guest('a');
    sandbox.fleet("a");
    let mut watch = sandbox.command();
    let mut watch = watch.args(["ps", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("NAME"));
    sandbox.done("up");
    let ready = lines.find(|line| line.contains("ready")).unwrap();
    assert!(ready.starts_with(&a), "{ready}");
    sandbox.done("down");
    let down = lines.find(|line| line.contains("down")).unwrap();
    assert!(down.starts_with(&a), "{down}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
