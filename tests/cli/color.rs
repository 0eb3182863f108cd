//! Colours, by the stream that is written to.

use std::process::Command;

use crate::common::sandbox::{Run, Sandbox};

/// What is said with a terminal in the place of stdout and stderr, by whoever redirects one of them.
fn on_a_terminal(sandbox: &Sandbox, command: &str) -> Run {
    let program = sandbox.command().get_program().to_str().unwrap().to_owned();
    let words = format!("'{program}' {command}");
    let mut script = Command::new("script");
    script.args(["-qec", &words, "/dev/null"]).current_dir(sandbox.path("")).env("TERM", "xterm");
    Run::of(&mut script)
}

#[test]
fn each_stream_is_coloured_where_it_is_a_terminal_or_colour_is_asked_for() {
    let sandbox = Sandbox::new();
    let red = "\x1b[1;31m";
    assert!(!sandbox.run("check --file none").err.contains(red));
    assert!(sandbox.run("--color always check --file none").err.contains(red));
    assert!(on_a_terminal(&sandbox, "check --file none").out.contains(red));
    assert!(!on_a_terminal(&sandbox, "--color never check --file none").out.contains(red));
    // Of the checks, which stand on stdout, whatever becomes of stderr.
    let is_coloured = |run: &Run| run.out.contains("\x1b[");
    assert!(is_coloured(&sandbox.run("--color always doctor")));
    assert!(!is_coloured(&sandbox.run("doctor")));
    assert!(is_coloured(&on_a_terminal(&sandbox, "doctor 2>/dev/null || true")));
}
