//! What acts on what is there works by the fleet's name and store alone, whatever else is wrong in `fleet.toml`.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use sisforge::sys::process::inspect;

use crate::common::sandbox::{Run, SISFORGE, Sandbox, until};
use crate::needs_firecracker;

#[test]
fn a_broken_file_stands_in_nobodys_way_who_looks_at_guests_or_takes_them_down() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    let pid = sandbox.pid(a);
    let good = sandbox.read("fleet.toml");
    let broken = [
        good.replace("memory = \"64MiB\"", "memroy = \"64MiB\""),
        good.replace("size = \"16MiB\"", "size = \"16MiB\"\nimages = [\"oci-archive:absent.tar\"]"),
        good.clone() + "[user.\n",
        good.replace("default = \"deny\"", "default = \"deny\"\ndeny = [{ list = \"absent.txt\" }]"),
    ];
    for broken in broken {
        sandbox.write("fleet.toml", &broken);
        assert_eq!(sandbox.pid(a), pid);
        assert_eq!(sandbox.done("ps").lines().count(), 3);
        assert_eq!(sandbox.done(&format!("logs {a}")), "sisforge: ready\n");
        sandbox.run(&format!("exec {a} true")).fails(1, &["has no sshd"]);
        sandbox.run(&format!("exec {a}x true")).fails(2, &["there is no guest", "help: did you mean"]);
        sandbox.run(&format!("quarantine {a}")).fails(0, &[]);
        sandbox.run(&format!("release {a}")).fails(0, &[]);
        assert_ne!(sandbox.run("up").code, 0, "but no guest is started by it");
    }
    // A mistake in what tells where the fleet is ends it, with all mistakes.
    sandbox.write("fleet.toml", good.replace(&format!("name = \"{}\"", sandbox.name), "name = \"A B\""));
    sandbox.run("ps").fails(2, &["fleet.toml:2"]);
    sandbox.write("fleet.toml", good.clone() + "[user.\n");
    sandbox.run(&format!("down {b}")).fails(0, &["1 stopped"]);
    sandbox.run("down").fails(0, &["1 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0]);
    sandbox.write("fleet.toml", good);
}

#[test]
fn where_the_store_cannot_be_told_nothing_is_done_by_that_of_others() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let good = sandbox.read("fleet.toml");
    let pid = sandbox.pid(a);
    // What is no TOML above it hides nothing.
    sandbox.write("fleet.toml", good.replacen('\n', "\n<<<<<<< HEAD\n", 1));
    assert_eq!(sandbox.pid(a), pid);
    for broken in [good.replace("store =", "sto re ="), good.replace("store =", "stroe =")] {
        assert_ne!(broken, good);
        sandbox.write("fleet.toml", broken);
        for command in ["down", "ps", "session ls", "snapshot ls", "events"] {
            sandbox.run(command).fails(2, &["fleet.toml:"]);
        }
        sandbox.run(&format!("quarantine {a}")).fails(2, &["where the store of this fleet is"]);
    }
    sandbox.write("fleet.toml", good);
    assert_eq!(sandbox.pid(a), pid);
}

/// The same in a mount namespace in which no byte more can be written beside the records of who is cut off.
fn without_room(sandbox: &Sandbox, guest: &str) -> Run {
    let script = "mkdir -p $1 && mount -t tmpfs -o size=4k none $1 && ! head -c 9999 /dev/zero >$1/fill 2>/dev/null && \
                  $2 quarantine $3 && [ -e $1/$3.json ]";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(sandbox.path(&format!("store/{}/quarantine", sandbox.name))).args([SISFORGE, guest]);
    sandbox.surround(&mut command);
    Run::of(&mut command)
}

#[test]
fn a_guest_is_cut_off_though_the_store_is_full() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    without_room(&sandbox, a).fails(0, &[]);
    let set = ["netns", "exec", &sandbox.netns(), "nft", "list", "ruleset"];
    let rules = Run::of(Command::new("ip").args(set));
    assert!(rules.out.contains(&format!("elements = {{ \"sis-{a}\" }}")), "{rules}");
}

#[test]
fn a_reader_that_went_away_ends_no_work() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let run = |args: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{SISFORGE} {args} 2>/dev/full")]);
        sandbox.surround(&mut command);
        Run::of(&mut command)
    };
    run("logs nobody").fails(2, &[]);
    run("down --timeout 0").fails(0, &[]);
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// The same where the store is on a file system that cannot be written to.
pub fn on_read_only_store(sandbox: &Sandbox, args: &str) -> Run {
    let script = "mount --bind $1 $1 && mount -o remount,bind,ro $1 && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(sandbox.path("store"));
    command.arg(SISFORGE).args(args.split(' '));
    sandbox.surround(&mut command);
    Run::of(&mut command)
}

#[test]
fn guests_are_stopped_though_nothing_can_be_written_to_the_store() {
    needs_firecracker!();
    let sandbox = Sandbox::running("abc");
    let pids = ['a', 'b', 'c'].map(|letter| sandbox.pid(&sandbox.guest(letter)));
    let live = || pids.map(|pid| inspect(pid).is_some());
    let down = on_read_only_store(&sandbox, &format!("down {} --timeout 0", sandbox.guest('a')));
    down.fails(1, &["Read-only file system"]);
    assert_eq!(live(), [false, true, true], "{down}");

    fs::remove_file(sandbox.path(&format!("store/{}/lock", sandbox.name))).unwrap();
    let down = on_read_only_store(&sandbox, &format!("down {} --timeout 0", sandbox.guest('b')));
    down.fails(1, &["nothing keeps another sisforge from this fleet meanwhile"]);
    assert_eq!(live(), [false, false, true], "{down}");

    let down = on_read_only_store(&sandbox, "down --timeout 0");
    down.fails(1, &["Read-only file system"]);
    assert_eq!(live(), [false; 3], "{down}");
    on_read_only_store(&sandbox, "up").fails(1, &["Read-only file system"]);
    // What could not be cleared is once it can.
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_guest_that_is_cut_off_in_the_kernel_alone_is_shown_and_released() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let cut_off = on_read_only_store(&sandbox, &format!("quarantine {a}"));
    cut_off
        .fails(1, &["is cut off now, but that cannot be put down", "make the store's file system writable"]);
    assert_eq!(sandbox.ps(a)["quarantined"], "");
    assert!(sandbox.done("ps").contains("ready, quarantined"));
    on_read_only_store(&sandbox, &format!("release {a}")).fails(0, &["reaches again what its policy allows"]);
    assert_eq!(sandbox.ps(a)["quarantined"], serde_json::Value::Null);
    sandbox.run(&format!("release {a}")).fails(0, &["was not quarantined"]);
    // A record that cannot be taken back counts.
    sandbox.done(&format!("quarantine {a}"));
    on_read_only_store(&sandbox, &format!("release {a}")).fails(1, &["Read-only file system"]);
    assert_ne!(sandbox.ps(a)["quarantined"], serde_json::Value::Null);
}

#[test]
fn who_waits_for_a_sisforge_that_is_stopped_is_told_which_and_what_to_do() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let lock = sandbox.path(&format!("store/{}/lock", sandbox.name));
    let mut holder = Command::new("flock").arg("--close").arg(lock).args(["sleep", "30"]).spawn().unwrap();
    let pid = holder.id();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut down = sandbox.command();
    let log = File::create(sandbox.path("log")).unwrap();
    let mut down = down.args(["down", "--timeout", "0"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let says = |words: &str| sandbox.read("log").contains(words);
    until("it says for whom it waits", || says(&format!("fleet: process {pid} (flock --close ")));
    Run::of(Command::new("kill").args(["-STOP", &pid.to_string()])).fails(0, &[]);
    until("and that this is stopped", || {
        says(&format!("which is stopped: let it go on with `kill -CONT {pid}`"))
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(down.wait().unwrap().success(), "{}", sandbox.read("log"));
    assert_eq!(sandbox.traces(), [""; 0]);
}
