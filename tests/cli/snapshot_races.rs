//! Two at once, and one beside everything else: of one snapshot there is never a second guest. `SISFORGE_TEST_RACES` says how often.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use serde_json::Value;
use sisforge::apply::snapshot::HeldLedger;
use sisforge::base::{Sha256, SnapshotName};
use sisforge::fleet::HostSpec;
use sisforge::host::layout::Layout;
use sisforge::host::ledger::{Fate, Ledger, LedgerEvent, SnapshotId};

use super::snapshot_ledger::{STRANGER, is_refused, plant, planted, stored, witness};
use crate::common::sandbox::{Run, Sandbox};
use crate::needs_firecracker;

/// Another host's.
const OTHER: &str = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg";

fn rounds(few: usize) -> usize {
    std::env::var("SISFORGE_TEST_RACES").map_or(few, |number| number.parse().expect("a number of races"))
}

fn start(sandbox: &Sandbox, args: &str) -> Child {
    let mut command = sandbox.command();
    command.args(args.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// All of them at once, each a little after the one before.
fn at_once(sandbox: &Sandbox, all: &[String], apart: Duration) -> Vec<Run> {
    let started: Vec<_> = all
        .iter()
        .map(|args| {
            let child = start(sandbox, args);
            std::thread::sleep(apart);
            child
        })
        .collect();
    started.into_iter().map(|child| Run::from(child.wait_with_output().unwrap())).collect()
}

/// A delay that is another in each round, of none to ten milliseconds.
fn delay(round: usize) -> Duration {
    Duration::from_micros((round as u64 * 7919) % 10_000)
}

fn ledger(sandbox: &Sandbox) -> Ledger {
    Ledger::parse(&fs::read_to_string(stored(sandbox, "snapshots.ledger")).unwrap()).unwrap()
}

#[test]
fn of_two_hosts_that_a_snapshot_is_exported_to_at_once_one_gets_it_also_from_a_copied_store() {
    let sandbox = planted();
    let text = sandbox.read("fleet.toml").replace("/store\"", "/copy\"");
    sandbox.write("copy.toml", text);
    let lost = ["is gone: it was exported", "went back", "there is no snapshot"];
    for round in 0..rounds(12) {
        let name = format!("n{round}");
        // Whoever comes after the ledger was begun is no older sisforge's: it is made by its line.
        plant(&sandbox, "ready", &name, "2026-11-25T17:53:16Z");
        count(&sandbox, &name);
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        copy(&sandbox.path("store"), &sandbox.path("copy"));
        let [here, there] = ["", "--file copy.toml "].map(|file| {
            move |to: &str, out: &str| {
                format!("{file}snapshot export n{round} --to {to} --out {out}{round}.age")
            }
        });
        let all = [here(STRANGER, "a"), here(OTHER, "b"), there(OTHER, "c")];
        let runs = at_once(&sandbox, &all, delay(round));
        let won: Vec<_> = runs.iter().filter(|run| run.code == 0).collect();
        assert_eq!(won.len(), 1, "round {round}: {}\n{}\n{}", runs[0], runs[1], runs[2]);
        for run in runs.iter().filter(|run| run.code != 0) {
            assert!(lost.iter().any(|words| run.err.contains(words)), "round {round}: {run}");
        }
        let files =
            ["a", "b", "c"].iter().filter(|file| sandbox.path(&format!("{file}{round}.age")).exists());
        assert_eq!(files.count(), 1, "round {round}");
        // Where the copy won, the store lacks a line.
        sandbox.done("snapshot ledger --accept --yes");
        let exported = ledger(&sandbox).lines.iter().filter(|line| {
            matches!(&line.event, LedgerEvent::Exported { snapshot, .. } if snapshot.as_str() == name)
        }).count();
        assert_eq!(exported, 1, "round {round}");
        fs::remove_dir_all(stored(&sandbox, "snapshots")).unwrap();
    }
}

#[test]
fn of_many_who_want_one_line_of_the_ledger_at_the_same_instant_one_gets_it() {
    let sandbox = planted();
    count(&sandbox, "one");
    copy(&sandbox.path("store"), &sandbox.path("copy"));
    let layouts = ["store", "copy"].map(|store| {
        let host = HostSpec { store: sandbox.path(store), ..HostSpec::default() };
        Layout::new(&host, &sandbox.name.parse().unwrap())
    });
    let snapshot: SnapshotName = "one".parse().unwrap();
    for round in 0..rounds(200) {
        let id = SnapshotId(Sha256::of(format!("round {round}")));
        let made = LedgerEvent::Made { id, snapshot: snapshot.clone(), guest: "alice".parse().unwrap() };
        HeldLedger::open(&layouts[0]).unwrap().add(made).unwrap();
        let barrier = Barrier::new(4);
        let take = |layout: &Layout| {
            barrier.wait();
            let Ok(mut ledger) = HeldLedger::open(layout) else { return false };
            let is_open = ledger.fate(id).is_some_and(Fate::is_open);
            let restored = LedgerEvent::Restored { id, snapshot: snapshot.clone(), guest: None };
            is_open && ledger.add(restored).is_ok()
        };
        let won = std::thread::scope(|scope| {
            let take = &take;
            let all = [0, 1, 0, 1].map(|place| {
                let layout = &layouts[place];
                scope.spawn(move || take(layout))
            });
            all.map(|one| one.join().unwrap()).into_iter().filter(|won| *won).count()
        });
        assert_eq!(won, 1, "round {round}");
    }
}

#[test]
fn whenever_an_export_is_killed_a_snapshot_is_at_one_host_and_is_not_lost() {
    let sandbox = planted();
    let (mut cut, mut done) = (0, 0);
    for round in 0..rounds(16) {
        let name = format!("k{round}");
        plant(&sandbox, "ready", &name, "2026-11-25T17:53:16Z");
        count(&sandbox, &name);
        let mut child = start(&sandbox, &format!("snapshot export {name} --to {STRANGER} --out {name}.age"));
        std::thread::sleep(Duration::from_millis(round as u64 * 8 % 160));
        child.kill().unwrap();
        child.wait().unwrap();
        let is_exported = || {
            ledger(&sandbox).lines.iter().any(|line| {
                matches!(&line.event, LedgerEvent::Exported { snapshot, .. } if snapshot.as_str() == name)
            })
        };
        let file = sandbox.path(&format!("{name}.age"));
        if file.exists() {
            done += 1;
            assert!(is_exported(), "{name} is in a file, and here");
            is_refused(&sandbox, &name, &["is gone: it was exported"]);
            continue;
        }
        cut += 1;
        if is_exported() {
            // Nobody has it: it goes where it was to go, and nowhere else.
            let other = sandbox.run(&format!("snapshot export {name} --to {OTHER} --out {name}.age"));
            other.fails(1, &["is gone: it was exported"]);
        }
        sandbox.done(&format!("snapshot export {name} --to {STRANGER} --out {name}.age"));
        is_refused(&sandbox, &name, &["is gone: it was exported"]);
    }
    eprintln!("{cut} were killed before the file had its name, {done} after");
}

/// Gives a planted snapshot an id of its own, and writes the line of the ledger that it was made, as `snapshot create` does.
fn count(sandbox: &Sandbox, name: &str) {
    let path = stored(sandbox, &format!("snapshots/ready/{name}/manifest.json"));
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let id = SnapshotId(Sha256::of(format!("{}{name}", sandbox.name)));
    let mut machine = manifest["machine"].take();
    machine["ip"] = "10.107.0.6".into();
    manifest["machine"] = machine;
    manifest["id"] = id.to_string().into();
    manifest["version"] = 1.into();
    manifest.as_object_mut().unwrap().remove("format");
    fs::write(&path, manifest.to_string()).unwrap();
    let text = fs::read_to_string(witness(sandbox)).unwrap_or_default();
    let mut ledger = Ledger::parse(&text).unwrap();
    if ledger.lines.is_empty() {
        ledger.add(String::new(), LedgerEvent::Begun { version: 1 });
    }
    let (snapshot, guest) = (name.parse().unwrap(), sandbox.guest('a').parse().unwrap());
    // The clock was years ahead then, and was set back since.
    ledger.add("2099-01-01T00:00:00Z".into(), LedgerEvent::Made { id, snapshot, guest });
    fs::create_dir_all("/var/lib/sisforge-host").unwrap();
    for path in [stored(sandbox, "snapshots.ledger"), witness(sandbox)] {
        fs::write(path, ledger.text()).unwrap();
    }
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_new_and_nothing_old() {
    let sandbox = planted();
    fs::remove_dir_all(stored(&sandbox, "snapshots")).unwrap();
    plant(&sandbox, "ready", "one", "2099-01-01T00:00:00Z");
    count(&sandbox, "one");
    copy(&stored(&sandbox, "snapshots/ready/one"), &stored(&sandbox, "snapshots/ready/copy"));
    let view = sandbox.document("snapshot inspect one", "snapshot-inspect");
    assert!(view["age"].is_null(), "{view:#}");
    sandbox.done(&format!("snapshot export one --to {STRANGER}"));
    is_refused(&sandbox, "copy", &["snapshot copy is gone: it was exported"]);
    assert!(ledger(&sandbox).lines[2].at < ledger(&sandbox).lines[1].at, "no time orders its lines");
}

/// A fleet of two users and a pool, whose guests run.
fn running() -> Sandbox {
    let sandbox = Sandbox::new();
    let pool = format!("[pool.{}]\nspare = 1\nmax = 2\n", sandbox.guest('p'));
    sandbox.fleet_with("ab", &pool);
    sandbox.done("up");
    sandbox
}

/// Those guests that go on from a snapshot.
fn restored(sandbox: &Sandbox) -> Vec<String> {
    let all: Value = serde_json::from_str(&sandbox.done("ps --json")).unwrap();
    let runs = |guest: &&Value| guest["pid"].is_u64() && guest["restored_from"].is_string();
    all.as_array()
        .unwrap()
        .iter()
        .filter(runs)
        .map(|guest| guest["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The VMM processes that have one of these memory files mapped, by inode: two would be two guests, whatever any record says.
fn holders(sandbox: &Sandbox, memories: &[u64]) -> Vec<PathBuf> {
    let maps = |pid: &PathBuf| fs::read_to_string(pid.join("maps")).unwrap_or_default();
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_ours = |pid: &PathBuf| {
        fs::read_link(pid.join("root")).is_ok_and(|root| root.starts_with(sandbox.path("")))
            || fs::read(pid.join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&sandbox.name))
    };
    let holds = |line: &str| memories.iter().any(|memory| line.contains(&format!(" {memory} ")));
    all.filter(is_ours).filter(|pid| maps(pid).lines().any(holds)).collect()
}

/// A copy of a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    Run::of(std::process::Command::new("cp").arg("-a").args([from, to])).fails(0, &[]);
}

/// Has a snapshot be of a day that has not come yet, as if the clock had been set back since.
fn date_ahead(sandbox: &Sandbox, name: &str) {
    let path = stored(sandbox, &format!("snapshots/ready/{name}/manifest.json"));
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    manifest["created"] = "2099-01-01T00:00:00Z".into();
    fs::write(&path, manifest.to_string()).unwrap();
    let mut dated = Ledger::parse("").unwrap();
    let lines = ledger(sandbox).lines;
    let last = lines.len() - 1;
    for (index, line) in lines.into_iter().enumerate() {
        let at = if index == last { "2099-01-01T00:00:00Z".into() } else { line.at };
        dated.add(at, line.event);
    }
    for path in [stored(sandbox, "snapshots.ledger"), witness(sandbox)] {
        fs::write(path, dated.text()).unwrap();
    }
}

/// A snapshot of a guest that does not run any more, with a copy beside it and one in a copy of the whole store, which another file
/// names. The clock was set back since, in every other round.
struct Raced {
    name: String,
    copied: String,
    /// Inodes of its memory, wherever it is.
    memories: [u64; 3],
    id: SnapshotId,
}

impl Raced {
    fn new(sandbox: &Sandbox, guest: &str, round: usize) -> Self {
        let (name, copied) = (format!("n{round}"), format!("copy{round}"));
        sandbox.done(&format!("snapshot create {guest} --stop --name {name}"));
        if round % 2 == 1 {
            date_ahead(sandbox, &name);
        }
        let ready = |name: &str| stored(sandbox, &format!("snapshots/ready/{name}"));
        copy(&ready(&name), &ready(&copied));
        let _ = fs::remove_dir_all(sandbox.path("copy"));
        copy(&sandbox.path("store"), &sandbox.path("copy"));
        let text = sandbox.read("fleet.toml").replace("/store\"", "/copy\"");
        sandbox.write("copy.toml", text);
        let elsewhere = sandbox.path(&format!("copy/{}/snapshots/ready/{name}", sandbox.name));
        let memories = [ready(&name), ready(&copied), elsewhere]
            .map(|dir| std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.join("memory")).unwrap()));
        let id = ledger(sandbox).lines.iter().rev().find_map(|line| match &line.event {
            LedgerEvent::Made { id, .. } => Some(*id),
            _ => None,
        });
        Self { name, copied, memories, id: id.unwrap() }
    }

    /// How often it was restored, as the ledger says that nobody can take a line from.
    fn times(&self, sandbox: &Sandbox) -> usize {
        let text = fs::read_to_string(witness(sandbox)).unwrap();
        let is_restored =
            |event: &LedgerEvent| matches!(event, LedgerEvent::Restored { id, .. } if *id == self.id);
        Ledger::parse(&text).unwrap().lines.iter().filter(|line| is_restored(&line.event)).count()
    }
}

#[test]
fn whatever_races_a_restore_a_snapshot_gives_one_guest() {
    needs_firecracker!();
    let sandbox = running();
    let (a, b, pool) = (sandbox.guest('a'), sandbox.guest('b'), sandbox.guest('p'));
    let restore = |name: &str, guest: &str| format!("snapshot restore {name} --yes --as {guest}");
    for round in 0..rounds(11) {
        sandbox.done(&format!("down {b} --timeout 0"));
        let session = sandbox.document(&format!("session start {pool} --wait 20s"), "session");
        let session = session["guest"].as_str().unwrap();
        let raced = Raced::new(&sandbox, &a, round);
        let Raced { name, copied, memories, .. } = &raced;
        let beside = [
            restore(name, &b),
            format!("--file copy.toml {}", restore(name, &b)),
            format!("up {a}"),
            "up".to_owned(),
            format!("down {a} --timeout 0"),
            "down --timeout 0".to_owned(),
            restore(copied, &b),
            format!("--file copy.toml {}", restore(name, &a)),
            format!("session start {pool}"),
            format!("session end {session}"),
            format!("snapshot rm {name} --yes"),
        ];
        let all = [restore(name, &a), beside[round % beside.len()].clone(), restore(copied, &a)];
        let runs = at_once(&sandbox, &all, delay(round));
        let story = format!(
            "round {round}:\n{}",
            runs.iter().zip(&all).map(|(run, args)| format!("{args}\n{run}")).collect::<String>()
        );
        let on = restored(&sandbox);
        assert!(on.len() <= 1, "{on:?}: {story}");
        assert!(holders(&sandbox, memories).len() <= 1, "{story}");
        let times = raced.times(&sandbox);
        assert!(times <= 1, "{story}");
        let wins =
            runs.iter().zip(&all).filter(|(run, args)| run.code == 0 && args.contains("restore")).count();
        assert!(wins <= times, "{story}");
        sandbox.done("down --timeout 0");
        sandbox.done("--file copy.toml down --timeout 0");
        assert_eq!(sandbox.traces(), [""; 0], "{story}");
        // Where the copy of the store won, the store lacks a line.
        sandbox.done("snapshot ledger --accept --yes");
        // Once it was restored, neither it nor a copy is ever again.
        if times == 1 {
            for args in [name, copied, &format!("{name} --file copy.toml")] {
                let again = sandbox.run(&format!("snapshot restore {args}"));
                assert!([1, 2].contains(&again.code), "{again}\n{story}");
                assert!(
                    ["is gone", "there is no snapshot", "went back"]
                        .iter()
                        .any(|why| again.err.contains(why)),
                    "{again}\n{story}"
                );
            }
        }
        let _ = fs::remove_dir_all(stored(&sandbox, "snapshots/ready"));
        sandbox.done("up");
    }
}
