//! What acts on what is there works by the fleet's name and store alone, whatever else is wrong in `fleet.toml`.

use std::process::Command;

use crate::common::sandbox::{Run, SISFORGE, Sandbox};
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
