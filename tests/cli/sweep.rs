//! Each command that changes a host, killed before each of its steps and at random instants, by KILL, TERM and INT: the next
//! command completes the work in the usual time, and leaves nothing, and no disk is another than before.
//!
//! With `-v`, a step is told before it is taken. The pipe that it is told to holds one write, of the several that make a line:
//! who looks at it and takes nothing out holds the program right before that step.
//!
//! `SISFORGE_TEST_KILLS` is how often each command is killed before a step; without it, a few steps of each take their turn. With as
//! many as a command has steps, it is killed before each of them, by each signal.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, tee};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sisforge::sys::digest::sha256_of_file;

use crate::common::random::Random;
use crate::common::sandbox::{Run, Sandbox};
use crate::needs_firecracker;

/// How much longer than undisturbed the next command may take.
const MORE: Duration = Duration::from_secs(3);
const SIGNALS: [Signal; 3] = [Signal::KILL, Signal::TERM, Signal::INT];

/// A command, what comes before it, and the commands of which one completes the work.
struct Story {
    before: &'static [&'static str],
    killed: &'static str,
    completed_by: &'static [&'static str],
}

/// `A` stands for a guest, `CHANGED` for another machine of each.
const STORIES: &[Story] = &[
    Story { before: &[], killed: "up", completed_by: &["up", "down"] },
    Story { before: &["up", "CHANGED"], killed: "up", completed_by: &["up", "down"] },
    Story {
        before: &["up", "CHANGED"],
        killed: "up --strategy rolling --max-unavailable 1",
        completed_by: &["up", "down"],
    },
    Story { before: &["up"], killed: "restart A", completed_by: &["up", "down"] },
    Story { before: &["up"], killed: "down", completed_by: &["down", "up"] },
    Story { before: &["up"], killed: "snapshot create A --name s", completed_by: &["up", "down"] },
    Story { before: &["up"], killed: "snapshot create A --stop --name s", completed_by: &["up", "down"] },
    Story {
        before: &["up", "snapshot create A --stop --name s"],
        killed: "snapshot restore s --yes",
        completed_by: &["up", "down"],
    },
    Story { before: &[], killed: "watch --once", completed_by: &["watch --once", "up"] },
    Story {
        before: &["up", "snapshot create A --name s"],
        killed: "snapshot rm s --yes",
        completed_by: &["up"],
    },
    Story {
        before: &["up", "down"],
        killed: "disk import A saved.ext4 --replace --yes",
        completed_by: &["up"],
    },
    Story { before: &["up", "down"], killed: "disk rm A --yes", completed_by: &["up"] },
];

/// A fleet with a kept disk and one in memory.
struct Site {
    sandbox: Sandbox,
    /// All that a fleet that is down leaves.
    at_rest: Vec<String>,
    disk: String,
}

impl Site {
    fn new() -> Self {
        let sandbox = Sandbox::in_memory();
        fs::create_dir(sandbox.path("tmp")).unwrap();
        let site = Self { sandbox, at_rest: Vec::new(), disk: String::new() };
        site.machine("64MiB");
        let stop = "snapshot create A --stop --name s";
        let export = "disk export A saved.ext4";
        for args in ["up", stop, "snapshot restore s --yes", "down", "snapshot rm s --yes", export] {
            site.run(args).fails(0, &[]);
        }
        Self { at_rest: site.files(), disk: site.disk(), ..site }
    }

    fn machine(&self, memory: &str) {
        let ram = r#"disk = { size = "16MiB", backing = "tmpfs" }"#;
        let pool = format!("[pool.{}]\nreplicas = 1\n{ram}\n", self.sandbox.guest('k'));
        let text = self.sandbox.fleet_text("a", &pool);
        self.sandbox.write("fleet.toml", text.replace("64MiB", memory));
    }

    fn command(&self, args: &str) -> std::process::Command {
        let mut command = self.sandbox.command();
        command.env("TMPDIR", self.sandbox.path("tmp")).args(["-v", "--jobs", "1"]);
        for word in args.split(' ') {
            command.arg(if word == "A" { self.sandbox.guest('a') } else { word.to_owned() });
        }
        if args.starts_with("down") {
            command.args(["--timeout", "0"]);
        }
        command
    }

    fn run(&self, args: &str) -> Run {
        Run::of(&mut self.command(args))
    }

    fn disk(&self) -> String {
        sha256_of_file(&self.sandbox.disk(&self.sandbox.guest('a'))).unwrap().0.to_string()
    }

    /// Everything below the project but logs, which are kept, and what was exported.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["store", "out", "tmp"] {
            below(&self.sandbox.path(dir), &mut found);
        }
        let is_log = |path: &String| [".log", ".index"].iter().any(|log| path.contains(log));
        found.retain(|path| !is_log(path));
        found.sort();
        found
    }

    /// Takes a story's beginning back to a fleet that is down.
    fn rest(&self, story: &str) {
        self.machine("64MiB");
        self.run("down").fails(0, &[]);
        if self.sandbox.done("snapshot ls --all -q").lines().any(|name| name == "s") {
            self.run("snapshot rm s --yes").fails(0, &[]);
        }
        assert_eq!(self.sandbox.traces(), [""; 0], "{story}");
        assert_eq!(self.files(), self.at_rest, "{story}");
        assert_eq!(self.disk(), self.disk, "{story}");
    }

    fn prepare(&self, before: &[&str]) {
        for args in before {
            match *args {
                "CHANGED" => self.machine("65MiB"),
                args => drop(self.run(args).fails(0, &[]).code),
            }
        }
    }

    /// Each guest runs, or is down; nobody is to be put right or let go on, and nothing is to be cleared away.
    fn nothing_is_half_done(&self, story: &str) {
        let plan = self.run("plan --json");
        let plan: serde_json::Value = serde_json::from_str(&plan.out).expect(story);
        let leftovers = plan["prepare"]
            .as_array()
            .unwrap()
            .iter()
            .any(|step| step.as_str().unwrap().contains("unfinished snapshots"));
        assert!(plan["counts"]["change"] == 0 && !leftovers, "{story}: {plan:#}");
        let is_left = |steps: &&serde_json::Value| steps["why"] == "left over";
        assert_eq!(plan["stop"].as_array().unwrap().iter().find(is_left), None, "{story}");
        let new = self.files().into_iter().filter(|path| path.contains(".new-"));
        assert_eq!(new.collect::<Vec<_>>(), [""; 0], "{story}");
    }

    /// How long it takes to start the fleet and to take it down where nobody interferes.
    fn undisturbed(&self) -> Duration {
        let begun = Instant::now();
        self.run("up").fails(0, &[]);
        self.run("down").fails(0, &[]);
        begun.elapsed()
    }
}

fn below(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), found);
        }
    }
}

/// When a command is killed.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Before so many of its steps were taken.
    Step(usize),
    After(Duration),
}

/// A command that tells its steps into a pipe of one write.
struct Held {
    child: Child,
    steps: File,
    told: usize,
    /// Whether the pipe has the arrow before a step, and the program waits to write the step itself.
    is_held: bool,
}

/// What a signal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    AtOnce,
    /// It was asked to end, and left nothing half done.
    InOrder,
    /// It had come to its end.
    TooLate,
}

/// What stands before a step in its line, at the end of a write of its own.
const ARROW: &[u8] = b" -> ";

impl Held {
    fn start(mut command: std::process::Command) -> Self {
        let (steps, writer): (OwnedFd, OwnedFd) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).expect("a pipe of packets");
        fcntl_setpipe_size(&steps, 1).unwrap();
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        let child = command.spawn().unwrap();
        // Its copy of the other end goes with it.
        drop(command);
        Self { child, steps: steps.into(), told: 0, is_held: false }
    }

    /// Waits until it is about to say more, or has ended.
    fn is_about_to_say_more(&self) -> bool {
        let mut waiting = [PollFd::new(&self.steps, PollFlags::IN)];
        poll(&mut waiting, None).unwrap();
        waiting[0].revents().contains(PollFlags::IN)
    }

    /// Lets it go on until it is about to take another step; `false` where it has ended.
    fn next_step(&mut self) -> bool {
        if self.is_held {
            self.take();
        }
        while self.is_about_to_say_more() {
            self.is_held = self.look().ends_with(ARROW);
            if self.is_held {
                self.told += 1;
                return true;
            }
            self.take();
        }
        false
    }

    /// The write that is in the pipe, which stays there.
    fn look(&self) -> Vec<u8> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let count = tee(&self.steps, &writer, 4096, SpliceFlags::empty()).unwrap();
        let mut bytes = vec![0; count];
        File::from(reader).read_exact(&mut bytes).unwrap();
        bytes
    }

    fn take(&mut self) {
        let mut packet = [0; 4096];
        let _ = self.steps.read(&mut packet).unwrap();
    }

    /// Kills it; whether it was there to be killed. What a terminal sends, it sends to all of the group. Where it was asked to
    /// end, it says by its status that it was.
    fn kill(mut self, signal: Signal) -> Killed {
        let pid = Pid::from_child(&self.child);
        let _ =
            if signal == Signal::INT { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        drain(self.steps);
        let status = self.child.wait().unwrap();
        match (status.signal(), status.code()) {
            (Some(by), _) if by == signal.as_raw() => Killed::AtOnce,
            (_, Some(code)) if code == 128 + signal.as_raw() => Killed::InOrder,
            (_, Some(0)) => Killed::TooLate,
            _ => panic!("{signal:?}: {status}"),
        }
    }
}

/// Lets whoever writes to a pipe write on.
fn drain(mut pipe: File) {
    std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()));
}

/// The steps of a story's command.
fn count(site: &Site, Story { before, killed, completed_by }: &Story) -> usize {
    site.prepare(before);
    let mut held = Held::start(site.command(killed));
    while held.next_step() {}
    assert!(held.child.wait().unwrap().success(), "{killed}");
    site.run(completed_by[0]).fails(0, &[]);
    site.rest(killed);
    held.told
}

/// Kills a story's command, completes the work, and looks at what is there.
fn kill(site: &Site, story: &Story, at: At, signal: Signal, completed_by: &str, limit: Duration) -> bool {
    let name = format!(
        "{} after {:?}, killed by {signal:?} at {at:?}, then {completed_by}",
        story.killed, story.before
    );
    site.prepare(story.before);
    let mut held = Held::start(site.command(story.killed));
    match at {
        At::Step(step) => {
            for _ in 0..=step {
                assert!(held.next_step(), "{name}: it has no such step");
            }
        }
        At::After(time) => {
            drain(held.steps.try_clone().unwrap());
            std::thread::sleep(time);
        }
    }
    let killed = held.kill(signal);
    if killed == Killed::InOrder {
        site.nothing_is_half_done(&name);
    }
    let begun = Instant::now();
    let run = site.run(completed_by);
    let took = begun.elapsed();
    assert_eq!(run.code, 0, "{name}\n{run}");
    // A machine under load makes both slow.
    assert!(
        took < limit + MORE || took < site.undisturbed() + MORE,
        "{name} took {took:?}, undisturbed {limit:?}\n{run}"
    );
    if completed_by != "down" {
        let plan = site.run("plan --detailed-exitcode");
        assert_eq!(plan.code, 0, "{name}\n{plan}");
        assert_eq!(site.sandbox.ps(&site.sandbox.guest('a'))["state"], "ready", "{name}");
        assert_eq!(site.disk(), site.disk, "{name}");
    }
    site.rest(&name);
    killed != Killed::TooLate
}

#[test]
fn whatever_is_killed_at_whatever_step_the_next_command_completes_it() {
    needs_firecracker!();
    let kills: usize = std::env::var("SISFORGE_TEST_KILLS").map_or(1, |kills| kills.parse().unwrap());
    let site = Site::new();
    let random = &mut Random(std::process::id().into());
    eprintln!("the seed is {}", random.0);
    let (mut rounds, mut hit) = (0, 0);
    let limit = site.undisturbed();
    for story in STORIES {
        let steps = count(&site, story);
        let first = random.below(steps.max(1));
        // Steps that lie evenly, from one that is another each time.
        let places =
            (0..kills.min(steps)).map(|number| At::Step((first + number * steps / kills.min(steps)) % steps));
        let instants = (0..kills.min(steps).div_ceil(2))
            .map(|_| At::After(limit.mul_f64(random.below(1000) as f64 / 1000.0)));
        let each = if kills < steps { 1 } else { SIGNALS.len() };
        for at in places.chain(instants).flat_map(|at| std::iter::repeat_n(at, each)) {
            let completed_by = story.completed_by[rounds % story.completed_by.len()];
            let signal = SIGNALS[rounds % SIGNALS.len()];
            hit += usize::from(kill(&site, story, at, signal, completed_by, limit));
            rounds += 1;
        }
    }
    eprintln!("{hit} of {rounds} commands were killed before their end");
    assert!(hit * 3 > rounds, "{hit} of {rounds}: the instants are too late");
}
