//! A guest is frozen whole, and goes on once: under the real Firecracker, with a guest that counts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::snapshot_ledger::STRANGER;
use crate::common::sandbox::{READY, Run, SISFORGE, Sandbox, until};
use crate::needs_firecracker;
use sisforge::base::Sha256;
use sisforge::sys::tiny_guest::AfterText;

/// How often something is killed, each time at another moment of its work.
const ROUNDS: u32 = 14;

/// A project whose guests count.
fn counting(letters: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Tick);
    sandbox.fleet(letters);
    sandbox
}

/// The numbers that a guest wrote, start after start.
fn numbers(sandbox: &Sandbox, guest: &str) -> Vec<u64> {
    let log = fs::read_to_string(sandbox.record(guest, "serial.log")).unwrap_or_default();
    // The last line may not be whole yet.
    let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
    // A guest that is paused while it writes a number leaves half of it on a line, and the other half on the next start's.
    whole.lines().filter(|line| line.len() == 8).filter_map(|line| line.parse().ok()).collect()
}

fn counts_on(sandbox: &Sandbox, guest: &str) {
    let seen = numbers(sandbox, guest).last().copied().unwrap_or_default();
    until("it counts on", || numbers(sandbox, guest).last().is_some_and(|last| *last > seen + 2));
}

/// A path below the fleet's snapshots.
fn snapshots(sandbox: &Sandbox, path: &str) -> PathBuf {
    sandbox.path(&format!("store/{}/snapshots/{path}", sandbox.name))
}

fn names(sandbox: &Sandbox, place: &str) -> Vec<String> {
    let entries = fs::read_dir(snapshots(sandbox, place)).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Files that a killed process began to write.
fn half_written(sandbox: &Sandbox) -> Vec<String> {
    names(sandbox, "").into_iter().filter(|name| name.starts_with(".new-")).collect()
}

#[test]
fn a_frozen_guest_goes_on_where_it_stopped_in_another_jail() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    counts_on(&sandbox, a);
    let (jail, pid) = (sandbox.jail(a), sandbox.pid(a));
    let run = sandbox.run(&format!("snapshot create {a} --stop --name monday"));
    run.fails(0, &[&format!("{a} is saved as snapshot monday"), "1 stopped"]);
    assert_eq!(sandbox.ps(a)["state"], "down");
    let before = numbers(&sandbox, a);
    assert_eq!(names(&sandbox, "ready/monday"), ["disk.ext4", "manifest.json", "memory", "state"]);
    let memory = fs::metadata(snapshots(&sandbox, "ready/monday/memory")).unwrap();
    assert_eq!((memory.uid(), memory.mode() & 0o7777, memory.len()), (0, 0o444, 64 << 20));
    assert!(memory.blocks() * 512 < 8 << 20, "what is zero takes no space: {} blocks", memory.blocks());

    let run = sandbox.run("snapshot restore monday");
    run.fails(0, &[&format!("{a} is restored from snapshot monday, which is consumed"), "1 started"]);
    counts_on(&sandbox, a);
    let log = fs::read_to_string(sandbox.record(a, "serial.log")).unwrap();
    assert_eq!(log.matches("ready").count(), 1, "it did not boot again: {log}");
    // The number that it was writing may stand on two lines.
    let (last, next) = (before[before.len() - 1], numbers(&sandbox, a)[before.len()]);
    assert!(next == last + 1 || next == last + 2, "{last} was the last, {next} the next");
    assert_ne!(sandbox.pid(a), pid);
    assert_eq!(sandbox.ps(a)["restored_from"], "monday");
    assert_eq!(jail.parent().unwrap().parent(), sandbox.jail(a).parent().unwrap().parent());

    let run = sandbox.run("plan --detailed-exitcode");
    run.fails(0, &[&format!("{a} was restored from snapshot monday"), "would boot it from scratch"]);
    sandbox.run("up").fails(0, &["nothing to do"]);
    assert!(sandbox.done("status").contains("from snapshot monday"));
    sandbox.run("watch --once").fails(0, &[]);
    counts_on(&sandbox, a);
    assert_eq!(names(&sandbox, "consumed/monday"), ["manifest.json", "restored.json"]);
    sandbox.run("down").fails(0, &["1 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_snapshot_that_was_made_is_on_the_disk_with_all_its_files() {
    needs_firecracker!();
    let sandbox = counting("a");
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {} --name one", sandbox.guest('a')));
    for name in names(&sandbox, "ready/one") {
        let listed =
            Command::new("filefrag").arg("-v").arg(snapshots(&sandbox, "ready/one").join(&name)).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        if !listed.contains("type is: ef53") {
            return eprintln!("SKIPPED: only ext4 tells what has no place on the disk yet");
        }
        assert!(!listed.contains("delalloc"), "{name} is in memory alone: {listed}");
    }
}

#[test]
fn a_snapshot_is_restored_once() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --stop --name one"));
    sandbox.done("snapshot restore one");
    sandbox.done("down --timeout 0");
    let once =
        [format!("snapshot one is gone: it was restored as {a}"), "a snapshot is restored once".into()];
    sandbox.run("snapshot restore one").fails(1, &[&once[0], &once[1], "help: "]);
    assert_eq!(sandbox.traces(), [""; 0]);
    assert_eq!(sandbox.done("snapshot ls -q"), "");
    assert!(sandbox.done("snapshot ls --all").contains(&format!("restored as {a}")));
    sandbox.done("up");
    let again = sandbox.run(&format!("snapshot create {a} --name one"));
    again.fails(2, &["there is a snapshot one already", "help: "]);
    sandbox.run("snapshot rm one").fails(2, &["there is no terminal", "add --yes"]);
    sandbox.done("snapshot rm one --yes");
    sandbox.run("snapshot restore one").fails(2, &["there is no snapshot one", "snapshot ls"]);
    sandbox.run("snapshot restore ../one").fails(2, &["the name of a snapshot must be"]);
}

#[test]
fn of_two_restores_at_once_one_brings_the_guest_back() {
    needs_firecracker!();
    let sandbox = counting("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --stop --name one"));
    sandbox.done(&format!("down {b} --timeout 0"));
    let start = |target: &str| {
        let mut command = sandbox.command();
        command.args(["snapshot", "restore", "one", "--yes", "--as", target]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs = [start(a), start(b)].map(|child| Run::from(child.wait_with_output().unwrap()));
    let won = runs.iter().filter(|run| run.code == 0).count();
    assert_eq!(won, 1, "{} {}", runs[0], runs[1]);
    let lost = runs.iter().find(|run| run.code != 0).unwrap();
    lost.fails(1, &["snapshot one is gone: it was restored as"]);
    let up = [a, b].iter().filter(|guest| sandbox.ps(guest)["state"] == "ready").count();
    assert_eq!(up, 1);
}

/// Fails unless `policy show --nft` prints the rules that `up` loaded.
fn is_shown_as_loaded(sandbox: &Sandbox) {
    let record = sandbox.read(&format!("store/{}/ruleset.json", sandbox.name));
    let shown = sandbox.done("policy show --nft");
    assert!(record.contains(&Sha256::of(&shown).to_string()), "{record}\n{shown}");
}

#[test]
fn a_guest_comes_back_as_another_with_its_own_address() {
    needs_firecracker!();
    let sandbox = counting("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    let publish = "publish = [{ name = \"screen\", guest = 6080, host = \"18811-18812\", from = [\"192.0.2.0/24\"] }]\n";
    let policy = format!("default = \"deny\"\n{publish}");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("default = \"deny\"\n", &policy));
    sandbox.done("up");
    is_shown_as_loaded(&sandbox);
    let (address, uid) = (sandbox.ps(a)["ip"].clone(), sandbox.ps(b)["uid"].clone());
    let before = sandbox.ps(b)["ip"].clone();
    sandbox.done(&format!("snapshot create {a} --name one"));
    let running = [format!("{a} is running"), format!("{b} is running"), format!("`sisforge down {a} {b}`")];
    let refused = sandbox.run(&format!("snapshot restore one --as {b}"));
    refused.fails(1, &[&running[0], &running[1], &running[2]]);
    sandbox.done(&format!("down {b} --timeout 0"));
    sandbox.run(&format!("snapshot restore one --as {b}")).fails(1, &[&running[0]]);
    sandbox.done(&format!("down {a} --timeout 0"));

    sandbox
        .run(&format!("snapshot restore one --as {b}"))
        .fails(0, &[&format!("{b} is restored from snapshot one")]);
    counts_on(&sandbox, b);
    assert_eq!((&sandbox.ps(b)["ip"], &sandbox.ps(b)["uid"]), (&address, &uid));
    let netns = sandbox.netns();
    let tap =
        Run::of(Command::new("ip").args(["-n", &netns, "-o", "address", "show", &format!("sis-{b}")])).out;
    let host_side = address.as_str().unwrap().rsplit_once('.').unwrap().0;
    assert!(tap.contains(host_side), "{tap}");
    let rules =
        Run::of(Command::new("ip").args(["netns", "exec", &netns, "nft", "list", "table", "inet", &netns]));
    assert!(rules.out.contains(&format!("\"sis-{b}\" . ")), "{}", rules.out);
    let identity = rules.out.lines().find(|line| line.contains(&format!("\"sis-{b}\" . "))).unwrap();
    assert!(identity.contains(address.as_str().unwrap()), "{identity}");
    let proxy = sandbox.done("publish --format nginx --domain example.org");
    assert!(proxy.contains(&format!("screen.{b}.example.org")), "{proxy}");
    assert!(!proxy.contains(before.as_str().unwrap()), "nobody is there: {proxy}");

    let run = sandbox.run("up");
    run.fails(0, &[&format!("{a} is not started: {b}, which was restored from a snapshot, has its address")]);
    assert_eq!(sandbox.ps(a)["state"], "down");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    is_shown_as_loaded(&sandbox);
    sandbox.done("down --timeout 0");
    sandbox.run("up").fails(0, &["2 started"]);
    assert_ne!(sandbox.ps(a)["ip"], sandbox.ps(b)["ip"]);
}

#[test]
fn a_restore_that_is_refused_leaves_the_lock_alone() {
    needs_firecracker!();
    let sandbox = counting("a");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --name one"));
    let lock = sandbox.read("fleet.lock");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml") + &format!("[user.{b}]\n"));
    sandbox.run("snapshot restore one").fails(1, &[&format!("{a} is running")]);
    assert_eq!(sandbox.read("fleet.lock"), lock);
    sandbox.done(&format!("down {a} --timeout 0"));
    sandbox.run("snapshot restore one").fails(0, &["1 started"]);
    assert!(sandbox.read("fleet.lock").contains(&format!("[guest.{b}]")), "it fits again");
}

#[test]
fn a_snapshot_that_is_damaged_or_of_another_host_is_refused_before_a_vmm_starts() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --stop --name one"));
    let refused = |words: &[&str]| {
        sandbox.run("snapshot restore one").fails(1, words);
        assert_eq!(sandbox.traces_of_guests(), [""; 0]);
        assert_eq!(names(&sandbox, "ready"), ["one"]);
    };
    for file in ["memory", "state", "disk.ext4"] {
        let path = snapshots(&sandbox, &format!("ready/one/{file}"));
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::write(&path, &bad).unwrap();
        refused(&[&format!("its {file} is damaged")]);
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        refused(&[&format!("its {file} is damaged")]);
        fs::remove_file(&path).unwrap();
        refused(&[&format!("its {file} is missing")]);
        fs::write(&path, &good).unwrap();
    }
    let manifest = snapshots(&sandbox, "ready/one/manifest.json");
    let good = fs::read_to_string(&manifest).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&good).unwrap();
    other["origin"]["vmm_version"] = "1.0.0".into();
    other["origin"]["kernel"] = "4.14.0".into();
    other["origin"]["cpu"]["model"] = "i486".into();
    fs::write(&manifest, other.to_string()).unwrap();
    refused(&["Firecracker is ", "and was 1.0.0", "the host's kernel is ", "and was 4.14.0", "and was i486"]);
    fs::write(&manifest, "{").unwrap();
    refused(&["cannot read ", "manifest.json"]);
    fs::write(&manifest, good).unwrap();
    sandbox.done("snapshot restore one");
    counts_on(&sandbox, a);
}

#[test]
fn a_snapshot_that_fails_leaves_its_guest_running_and_nothing_else() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.run(&format!("snapshot create {a}")).fails(1, &["is not running", "help: "]);
    sandbox.done("up");
    let pid = sandbox.pid(a);
    // The disk is copied once the guest stands still and its memory is written; a file of its size may not be made then.
    let limited = |args: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f 4096; exec {SISFORGE} {args}")]);
        sandbox.surround(&mut command);
        Run::of(&mut command)
    };
    for then in ["--stop", "--resume"] {
        let not_made = format!("no snapshot of {a} was taken, and it goes on");
        let run = limited(&format!("snapshot create {a} {then} --name one"));
        run.fails(1, &[&not_made, "cannot copy the disk to "]);
        assert_eq!((half_written(&sandbox), names(&sandbox, "ready")), (vec![], vec![]), "{then}");
        assert_eq!(sandbox.pid(a), pid);
        counts_on(&sandbox, a);
        sandbox.run("plan --detailed-exitcode").fails(0, &[]);
        assert!(!sandbox.jail(a).join("frozen.memory").exists());
    }
    sandbox.done(&format!("snapshot create {a} --name one"));
    counts_on(&sandbox, a);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn a_snapshot_that_was_killed_leaves_its_guest_to_the_next_up() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let mut left_paused = 0;
    let begun = Instant::now();
    sandbox.done(&format!("snapshot create {a} --name whole"));
    let whole = begun.elapsed();
    for round in 0..ROUNDS {
        let then = if round % 2 == 0 { "--resume" } else { "--stop" };
        let mut create = sandbox.command();
        let create = create.args(["snapshot", "create", a, then, "--name", &format!("n{round}")]);
        let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let delay = whole.mul_f64(1.1 * f64::from(round + 1) / f64::from(ROUNDS));
        std::thread::sleep(delay);
        create.kill().unwrap();
        create.wait().unwrap();
        left_paused += usize::from(sandbox.record(a, "freezing.json").exists());
        sandbox.run("up").fails(0, &[]);
        assert_eq!(half_written(&sandbox), [""; 0], "killed after {delay:?}");
        counts_on(&sandbox, a);
        sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    }
    eprintln!(
        "a whole one takes {whole:?}; {left_paused} of {ROUNDS} were killed while the guest stood still"
    );
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// Its snapshot was whole, and whoever made it was killed before the guest was ended.
fn saved_to_end(guests: &str) -> Sandbox {
    let sandbox = counting(guests);
    let a = &sandbox.guest('a');
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --name monday"));
    fs::write(sandbox.record(a, "freezing.json"), include_str!("../apply/records/freezing.json")).unwrap();
    sandbox
}

#[test]
fn a_guest_that_was_saved_to_end_never_runs_beside_who_goes_on_from_its_snapshot() {
    needs_firecracker!();
    let sandbox = saved_to_end("ab");
    let [a, b] = &['a', 'b'].map(|letter| sandbox.guest(letter));
    sandbox.done(&format!("down {b} --timeout 0"));
    sandbox.done(&format!("snapshot restore monday --yes --as {b}"));
    sandbox.run(&format!("up {a}")).fails(0, &["is not started"]);
    assert_eq!(sandbox.done("-q ps").trim(), b);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_guest_that_was_saved_to_end_is_ended_before_its_snapshot_is_another_hosts() {
    needs_firecracker!();
    let sandbox = saved_to_end("a");
    let out = sandbox.path("monday.age");
    sandbox.done(&format!("snapshot export monday --to {STRANGER} --out {}", out.display()));
    assert_eq!(sandbox.done("-q ps").trim(), "");
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn whenever_a_restore_is_killed_there_is_one_guest_at_most_and_no_snapshot_of_it_beside() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --stop --name whole"));
    let begun = Instant::now();
    sandbox.done("snapshot restore whole --yes");
    let whole = begun.elapsed();
    sandbox.done("down --timeout 0");
    let (mut spent, mut went_on) = (0, 0);
    for round in 0..ROUNDS {
        sandbox.done("up");
        let name = format!("n{round}");
        sandbox.done(&format!("snapshot create {a} --stop --name {name}"));
        let before = numbers(&sandbox, a).len();
        let mut restore = sandbox.command();
        let restore = restore.args(["snapshot", "restore", &name, "--yes"]);
        let mut restore = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let delay = whole.mul_f64(1.1 * f64::from(round + 1) / f64::from(ROUNDS));
        std::thread::sleep(delay);
        restore.kill().unwrap();
        restore.wait().unwrap();

        // What counts is the snapshot's guest; it must not be ready to be restored once more.
        std::thread::sleep(Duration::from_millis(30));
        let is_ready = names(&sandbox, "ready").contains(&name);
        let is_running =
            numbers(&sandbox, a).len() > before && sandbox.ps(a)["restored_from"] == name.as_str();
        assert!(!(is_ready && is_running), "killed after {delay:?}");
        spent += usize::from(!is_ready);
        // The next command completes it: one guest, whichever.
        sandbox.run("up").fails(0, &[]);
        assert_eq!(sandbox.ps(a)["state"], "ready", "killed after {delay:?}");
        went_on += usize::from(sandbox.ps(a)["restored_from"] == name.as_str());
        let is_vmm = |trace: &&String| trace.starts_with("process:") && trace.contains("--api-sock");
        assert_eq!(sandbox.traces().iter().filter(is_vmm).count(), 1);
        counts_on(&sandbox, a);
        sandbox.run("plan --detailed-exitcode").fails(0, &[]);
        if is_ready {
            sandbox.run(&format!("snapshot restore {name}")).fails(1, &["is running"]);
        }
        let left = [fs::metadata(snapshots(&sandbox, &format!("consumed/{name}/memory"))).is_ok()];
        assert_eq!(left, [false], "what no restore can use is cleared away");
        sandbox.done("down --timeout 0");
        assert_eq!(sandbox.traces(), [""; 0], "killed after {delay:?}");
    }
    eprintln!("a whole one takes {whole:?}; {spent} of {ROUNDS} were consumed, {went_on} of them went on");
}

#[test]
fn a_data_disk_that_changed_since_is_kept_beside_the_snapshots() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --stop --name one"));
    let frozen = fs::read(sandbox.disk(a)).unwrap();
    fs::write(sandbox.disk(a), "written since").unwrap();
    let run = sandbox.run("snapshot restore one");
    run.fails(
        2,
        &[
            &format!("keep the data disk of {a}, which has changed since"),
            "there is no terminal",
            "add --yes",
        ],
    );
    assert_eq!(names(&sandbox, "ready"), ["one"], "a question costs nothing");
    let run = sandbox.run("snapshot restore one --yes");
    let aside = sandbox.disk(a).with_file_name(format!("{a}.before-one.ext4"));
    run.fails(0, &[&format!("the earlier data disk of {a} is kept: {}", aside.display())]);
    assert_eq!(fs::read_to_string(&aside).unwrap(), "written since");
    assert!(fs::read(sandbox.disk(a)).unwrap() == frozen, "the guest's disk is the snapshot's");
    let (disk, jailed) = (sandbox.disk(a), sandbox.jail(a).join("data/disk.ext4"));
    assert_eq!(fs::metadata(disk).unwrap().ino(), fs::metadata(jailed).unwrap().ino());
    sandbox.done("down --timeout 0");
    sandbox.run("up").fails(0, &["1 started"]);
    assert!(aside.exists());

    // It has a name of its own, and is nobody's: removing it asks nothing of the guest.
    let listed = sandbox.done("disk ls");
    assert!(listed.contains(&format!("{a}.before-one")) && listed.contains("set aside"), "{listed}");
    sandbox.run(&format!("disk rm {a} --yes")).fails(1, &[&format!("{a} is running")]);
    sandbox.run(&format!("disk rm {a}.before-one --yes")).fails(0, &["removed"]);
    assert!(!aside.exists() && sandbox.disk(a).exists());
}

#[test]
fn a_guest_without_a_disk_gets_that_of_its_snapshot_once_it_is_consumed() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    sandbox.done(&format!("snapshot create {a} --stop --name one"));
    // As where the snapshot was imported.
    sandbox.done(&format!("disk rm {a} --yes"));
    let _ = fs::remove_file(sandbox.record(a, "disk.json"));

    // One that cannot be consumed has its disk still, and the guest has none.
    let in_the_way = snapshots(&sandbox, "consumed");
    fs::write(&in_the_way, "").unwrap();
    sandbox.run("snapshot restore one").fails(1, &[&in_the_way.display().to_string()]);
    assert!(!sandbox.disk(a).exists(), "two would write to one disk");
    assert_eq!(fs::metadata(snapshots(&sandbox, "ready/one/disk.ext4")).unwrap().nlink(), 1);
    assert_eq!(sandbox.traces_of_guests(), [""; 0]);
    fs::remove_file(&in_the_way).unwrap();

    sandbox.run("snapshot restore one").fails(0, &[&format!("{a} is restored from snapshot one")]);
    counts_on(&sandbox, a);
    let (disk, jailed) = (sandbox.disk(a), sandbox.jail(a).join("data/disk.ext4"));
    assert_eq!(fs::metadata(disk).unwrap().ino(), fs::metadata(jailed).unwrap().ino());
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
    sandbox.run("up").fails(0, &["1 started"]);
}

/// How long a file of a guest's VMM may be, in bytes.
fn file_limit(sandbox: &Sandbox, guest: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/limits", sandbox.pid(guest))).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max file size")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_restored_disk_counts_with_the_size_that_the_host_gave_it() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Tick);
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    let fleet = |b_has: &str| {
        let disks = "[disk.large]\nsize = \"300MiB\"\n";
        let users = format!("[user.{a}]\ndisk = \"large\"\n[user.{b}]\n{b_has}");
        sandbox.fleet_with("", &format!("{users}{disks}"));
    };
    fleet("");
    sandbox.done("up");
    let (given, beyond) = (300 << 20, 500 << 20);
    // As its VMM could if nothing limited it.
    fs::File::options().write(true).open(sandbox.disk(a)).unwrap().set_len(beyond).unwrap();
    sandbox.done(&format!("snapshot create {a} --stop --name one"));
    sandbox.done(&format!("down {b} --timeout 0"));
    sandbox.done(&format!("snapshot restore one --as {b} --yes"));
    counts_on(&sandbox, b);
    let is_given = || {
        let record = fs::read_to_string(sandbox.record(b, "disk.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["size"], given, "{record}");
        assert_eq!(record["inode"], fs::metadata(sandbox.disk(b)).unwrap().ino());
        let limit = file_limit(&sandbox, b);
        assert!(given < limit && limit < beyond, "{limit}");
    };
    is_given();
    assert!(fs::metadata(sandbox.disk(b)).unwrap().len() == beyond);

    // It is what it is for whoever plans, and for another start.
    sandbox.run("plan").fails(2, &["300MiB", "16MiB"]);
    fleet("disk = \"large\"\n");
    let plan = sandbox.done(&format!("plan {b}"));
    assert!(!plan.contains("grows"), "{plan}");
    sandbox.done(&format!("down {b} --timeout 0"));
    sandbox.done(&format!("up {b}"));
    is_given();
}

#[test]
fn a_guest_in_memory_comes_back_with_its_disk() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Tick);
    let pool = sandbox.guest('k');
    let ram = r#"disk = { size = "16MiB", backing = "tmpfs" }"#;
    sandbox.fleet_with("", &format!("[pool.{pool}]\nreplicas = 1\n{ram}\n"));
    let member = &format!("{pool}-0");
    sandbox.done("up");
    fs::write(sandbox.jail_within(member).join("data/disk.ext4"), "in memory").unwrap();
    sandbox.done(&format!("snapshot create {member} --stop --name one"));
    assert_eq!(sandbox.traces_of_guests(), [""; 0]);
    sandbox.done("snapshot restore one");
    counts_on(&sandbox, member);
    assert_eq!(fs::read_to_string(sandbox.jail_within(member).join("data/disk.ext4")).unwrap(), "in memory");
    assert_eq!(names(&sandbox, "consumed/one"), ["manifest.json", "restored.json"]);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_guest_that_came_back_can_be_frozen_again() {
    needs_firecracker!();
    let sandbox = counting("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    for name in ["one", "two", "three"] {
        counts_on(&sandbox, a);
        sandbox.done(&format!("snapshot create {a} --stop --name {name}"));
        let before = numbers(&sandbox, a);
        sandbox.done(&format!("snapshot restore {name}"));
        counts_on(&sandbox, a);
        assert!(numbers(&sandbox, a)[before.len()] > before[before.len() - 1]);
    }
    let shown: serde_json::Value = serde_json::from_str(&sandbox.done("snapshot ls --all --json")).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 3);
    assert!(shown.as_array().unwrap().iter().all(|one| one["state"] == "consumed"));
}

#[test]
fn create_and_watch_remove_the_snapshots_that_fleet_toml_does_not_keep() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    ["one", "two", "three"]
        .iter()
        .for_each(|name| drop(sandbox.done(&format!("snapshot create {a} --name {name}"))));
    let plain = sandbox.read("fleet.toml");
    let keep = |count: u32| {
        sandbox.write("fleet.toml", format!("{plain}\n[snapshots]\nkeep = {{ count = {count} }}\n"));
    };
    keep(3);
    let made = sandbox.document(&format!("snapshot create {a} --name four"), "snapshot-create");
    assert_eq!((&made["removed"], &made["obstacles"]), (&serde_json::json!(["one"]), &serde_json::json!([])));
    assert_eq!(sandbox.done("snapshot ls -q"), "four\nthree\ntwo\n");
    keep(1);
    sandbox.run("watch --once").fails(0, &["snapshot two is removed", "snapshot three is removed"]);
    assert_eq!(sandbox.done("snapshot ls -q"), "four\n");
    sandbox.run("watch --once").fails(0, &[]);
    assert_eq!(sandbox.done("snapshot ls -q"), "four\n");
    assert_eq!(sandbox.ps(a)["state"], "ready");
}
