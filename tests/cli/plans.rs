//! `plan`: it tells the truth, and leaves everything as it was.

use std::fs;
use std::path::PathBuf;

use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

/// Every file of the project but those of the cache, with its bytes.
fn files(sandbox: &Sandbox) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![sandbox.path(".")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && entry.file_name() != "cache" => dirs.push(path),
                kind if kind.is_file() => found.push((path.clone(), fs::read(path).unwrap())),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_plan_writes_nothing_and_builds_nothing() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let before = files(&sandbox);
    let plan = sandbox.run("plan");
    assert_eq!(plan.code, 0, "{plan}");
    for words in [
        "2 to start",
        "with kernel (not built) image (not built)",
        "note: not built yet: the kernel, the image i, data disks; `up` builds that first",
        "fleet.lock would change: add tiny 1.0-r0",
    ] {
        assert!(plan.to_string().contains(words), "{words} is not in\n{plan}");
    }
    let json = sandbox.document("plan", "plan");
    assert_eq!(json["counts"]["start"], 2);
    assert!(files(&sandbox) == before && !sandbox.path("out").exists(), "it wrote something");
    sandbox.run("plan --locked").fails(2, &["fleet.lock", "help: "]);

    // A user who is renamed, and renamed back, keeps her numbers: nothing was written in between.
    sandbox.done("up");
    let before = files(&sandbox);
    sandbox.fleet("ac");
    let plan = sandbox.run("plan");
    let (b, c) = (sandbox.guest('b'), sandbox.guest('c'));
    plan.fails(
        0,
        &[&format!("the data disk of {b} (16MiB) stays in the store, and {c} starts with an empty one")],
    );
    assert!(plan.out.ends_with("1 to start, 1 to stop, 1 step on the host\n"), "{plan}");
    sandbox.fleet("ab");
    assert!(files(&sandbox) == before, "it wrote something");
    sandbox.run("up").fails(0, &["nothing to do"]);
}

#[test]
fn a_plan_is_for_the_guests_that_are_named() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let (a, b) = (sandbox.guest('a'), sandbox.guest('b'));
    let plan = sandbox.done(&format!("plan {a}"));
    assert!(plan.contains(&format!("start {a}: new")) && !plan.contains(&format!("start {b}")), "{plan}");
    sandbox.run("plan nobody").fails(2, &["there is no guest \"nobody\"", "help: "]);
    sandbox.write("fleet.toml", "[fleet]\nname = 7\n");
    sandbox.run("plan").fails(2, &["fleet.toml:2:8"]);
    sandbox.run("plan --detailed-exitcode").fails(1, &["fleet.toml:2:8"]);
}

#[test]
fn a_plan_that_was_kept_is_carried_out_as_it_is_or_not_at_all() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let a = sandbox.guest('a');
    sandbox
        .run("plan --out next.plan")
        .fails(1, &["before everything is built", "help: run `sisforge build`"]);
    sandbox.done("build");
    sandbox.run(&format!("plan {a} --out next")).fails(0, &["kept in ./next: `sisforge up ./next`"]);
    sandbox.run("up ./next").fails(0, &["1 started"]);
    sandbox.run("plan --out next.plan").fails(0, &["`sisforge up next.plan` does just that"]);
    sandbox.run("up next.plan").fails(0, &["1 started"]);

    let fleet = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", fleet.replace("64MiB", "96MiB"));
    let plan = sandbox.run("plan --out next.plan");
    assert!(plan.out.contains(&format!("stop {a}: memory 64MiB -> 96MiB\n")), "{plan}");
    assert!(plan.out.ends_with("2 to restart\n"), "{plan}");
    let pid = sandbox.pid(&a);
    // What the host or the file says by now is something else.
    sandbox.write("fleet.toml", fleet.replace("64MiB", "80MiB"));
    sandbox.run("up next.plan").fails(
        1,
        &[
            "next.plan is out of date",
            "memory 64MiB -> 96MiB",
            &format!("+ stop {a}: memory 64MiB -> 80MiB"),
            "help: ",
        ],
    );
    sandbox.write("fleet.toml", fleet.replace("64MiB", "96MiB"));
    sandbox.run(&format!("down {a}")).fails(0, &["1 stopped"]);
    sandbox.run("up next.plan").fails(1, &["next.plan is out of date", &format!("start {a}: not running")]);
    assert_eq!(sandbox.ps(&a)["state"], "down");
    sandbox.done("up");
    assert_ne!(sandbox.pid(&a), pid);

    sandbox.run("up fleet.toml").fails(2, &["fleet.toml is no plan", "help: "]);
    sandbox.run("plan --out not/there/next.plan").fails(2, &["cannot write into not/there"]);
    assert!(!sandbox.path("not").exists());
    sandbox.run("plan --out fleet.toml").fails(2, &["fleet.toml is there already", "help: "]);
    sandbox.run("up absent.plan").fails(2, &["absent.plan"]);
    let kept = sandbox.read("next.plan");
    sandbox.write("other.plan", kept.replace(&format!("\"{}\"", sandbox.name), "\"other\""));
    sandbox.run("up other.plan").fails(2, &["is for the fleet other", "help: "]);
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    sandbox.write("older.plan", kept.replace(&version, "\"version\": \"0.0.1\""));
    sandbox.run("up older.plan").fails(1, &["older.plan was written by sisforge 0.0.1", "help: "]);
    assert!(sandbox.read("fleet.toml").contains("96MiB"));
}

#[test]
fn what_an_up_changes_in_place_is_not_called_a_start() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = sandbox.guest('a');
    let pid = sandbox.pid(&a);
    let fleet = sandbox
        .read("fleet.toml")
        .replace("default = \"deny\"", "default = \"deny\"\nrate = { down = \"8Mbit/s\" }");
    sandbox.write("fleet.toml", fleet);
    let why = format!("change {a}");
    let plan = sandbox.done("plan");
    assert!(plan.contains(&why) && plan.contains("1 to change in place"), "{plan}");
    assert!(!plan.contains("drift") && !plan.contains(&format!("start {a}")), "{plan}");
    let up = sandbox.run("up");
    up.fails(0, &[&why, "1 changed in place"]);
    assert!(!up.err.contains("ready"), "{up}");
    assert_eq!(sandbox.pid(&a), pid);
}

#[test]
fn guests_are_listed_as_people_count() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let [two, ten] = ["2", "10"].map(|number| format!("{}{number}", sandbox.name));
    sandbox.fleet_with("", &format!("[user.{two}]\n[user.{ten}]\n"));
    sandbox.done("build");
    for command in ["plan", "plan --json", "status", "status --json", "ps --all", "policy show"] {
        let listed = sandbox.done(command);
        assert!(listed.find(&two).unwrap() < listed.find(&ten).unwrap(), "{command}\n{listed}");
    }
    let lock = sandbox.read("fleet.lock");
    assert!(lock.find(&ten).unwrap() < lock.find(&two).unwrap(), "sorted like all else in it\n{lock}");
}

#[test]
fn what_guests_lose_is_told() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let pool = "[pool.p]\nreplicas = 1\ndisk = { size = \"16MiB\", backing = \"tmpfs\" }\n";
    sandbox.fleet_with("", &pool.replace("[pool.p]", &format!("[pool.{}]", sandbox.name)));
    let member = format!("{}-0", sandbox.name);
    sandbox.done("up");
    let fleet = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", fleet.replace("64MiB", "96MiB"));
    let lost = format!("what {member} wrote is lost");
    let plan = sandbox.run("plan");
    plan.fails(0, &[&lost]);
    assert!(plan.out.ends_with("1 to restart\n"), "{plan}");
    sandbox.run("up").fails(0, &[&lost, "1 restarted"]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn what_the_lock_pins_is_known_before_it_is_built() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    assert!(sandbox.run("plan --detailed-exitcode").code == 0);
    std::fs::remove_dir_all(sandbox.path("out")).unwrap();
    let plan = sandbox.run("plan --detailed-exitcode");
    assert_eq!((plan.code, plan.out.contains("restart")), (0, false), "{plan}");
    sandbox.run("up").fails(0, &["nothing to do"]);
    // On a host that has nothing of it yet.
    sandbox.done("down --purge --yes");
    std::fs::remove_dir_all(sandbox.path("out")).unwrap();
    let plan = sandbox.run("plan");
    assert!(plan.out.contains("2 to start") && plan.err.contains("not built yet"), "{plan}");
    sandbox.run("up").fails(0, &["2 started"]);
}
