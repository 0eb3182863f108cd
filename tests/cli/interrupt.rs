//! Commands that are asked to end, by Ctrl-C or by SIGTERM. The sweep beside this asks them at every step.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sisforge::sys::tiny_guest::AfterText;

use crate::common::sandbox::{Run, SISFORGE, Sandbox, until};
use crate::needs_firecracker;

/// As a shell with a terminal starts it.
fn start(sandbox: &Sandbox, args: &str) -> Child {
    // Whoever runs the tests in the background ignores SIGINT, and so would the program.
    let mut command = Command::new("env");
    sandbox.surround(&mut command);
    command.args(["--default-signal=INT", SISFORGE]).args(args.split(' '));
    command.process_group(0).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a terminal sends when somebody presses Ctrl-C.
fn press_ctrl_c(child: &Child) {
    kill_process_group(Pid::from_child(child), Signal::INT).unwrap();
}

#[track_caller]
fn ended(child: Child, within: Duration) -> Output {
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < within, "it took {:?}", begun.elapsed());
    output
}

#[test]
fn an_up_takes_back_the_guest_that_it_waits_for_and_begins_no_other() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel("not yet\n", AfterText::Halt);
    sandbox.fleet("ab");
    let [a, b] = ['a', 'b'].map(|letter| sandbox.guest(letter));
    sandbox.done("build");
    let up = start(&sandbox, "--jobs 1 up");
    until("its VMM runs", || sandbox.ps(&a)["pid"].is_number());
    press_ctrl_c(&up);
    let run = Run::from(ended(up, Duration::from_secs(10)));
    run.fails(130, &["interrupted by SIGINT", &format!("left undone: {a}, {b}")]);
    assert_eq!(sandbox.traces_of_guests(), [""; 0], "{run}");
    let plan = sandbox.document("plan", "plan");
    assert_eq!(plan["counts"]["start"], 2, "{plan:#}");
    let events = sandbox.done("events");
    assert!(events.contains(&format!("{b} left: the command was interrupted")), "{events}");
}

#[test]
fn a_second_signal_ends_a_command_that_waits_for_its_last_step() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel("sisforge: ready\n", AfterText::Halt);
    sandbox.fleet("a");
    sandbox.done("up");
    let down = start(&sandbox, "-v down --timeout 20");
    std::thread::sleep(Duration::from_millis(500));
    let pid = Pid::from_child(&down);
    kill_process(pid, Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sandbox.ps(&sandbox.guest('a'))["state"], "ready", "it has its time to shut down");
    kill_process(pid, Signal::TERM).unwrap();
    let output = ended(down, Duration::from_secs(5));
    assert_eq!(output.status.signal(), Some(15), "{}", Run::from(output.clone()));
    sandbox.run("down --timeout 0").fails(0, &[]);
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_watch_that_is_asked_to_end_in_the_middle_of_its_work_says_so_by_its_status() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel("not yet\n", AfterText::Halt);
    sandbox.fleet("a");
    let a = sandbox.guest('a');
    sandbox.done("build");
    let watch = start(&sandbox, "watch --interval 1s");
    until("its VMM runs", || sandbox.ps(&a)["pid"].is_number());
    kill_process(Pid::from_child(&watch), Signal::TERM).unwrap();
    Run::from(ended(watch, Duration::from_secs(10))).fails(143, &["interrupted by SIGTERM"]);
    assert_eq!(sandbox.traces_of_guests(), [""; 0]);
}

#[test]
fn what_was_ignored_before_the_program_began_stays_ignored() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let mut command = std::process::Command::new("sh");
    sandbox.surround(&mut command);
    let program = sandbox.command().get_program().to_owned();
    let line = r#"trap '' INT; exec "$0" down --timeout 3"#;
    let down = command.args(["-c", line]).arg(program).process_group(0).stdin(Stdio::null());
    let down = down.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(100));
        let _ = kill_process_group(Pid::from_child(&down), Signal::INT);
    }
    Run::from(ended(down, Duration::from_secs(20))).fails(0, &["1 stopped"]);
}
