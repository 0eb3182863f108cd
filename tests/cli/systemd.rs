//! The unit that keeps a fleet on a host; systemd's own tools judge it.

use std::process::Command;

use crate::common::namespaces::{missing, skip};
use crate::common::sandbox::{Run, Sandbox};

/// How exposed a unit may be, in tenths, by `systemd-analyze security`: what root does for guests takes most of it.
const EXPOSURE: &str = "80";

fn analyze(args: &[&str], unit: &std::path::Path) {
    Run::of(Command::new("systemd-analyze").args(args).arg(unit)).fails(0, &[]);
}

#[test]
fn systemd_takes_the_unit_and_finds_it_confined() {
    if let Some(reason) = missing(&["systemd-analyze"]) {
        return skip("systemd_takes_the_unit_and_finds_it_confined", &reason);
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    for (name, args) in [
        ("followed.service", "systemd"),
        ("once.service", "systemd --once"),
        (
            "branch.service",
            "systemd --repo https://git.example.org/100%/fleets.git --branch main --allow /usr/src",
        ),
    ] {
        sandbox.write(name, sandbox.done(args));
        analyze(&["verify", "--man=no", "--generators=no"], &sandbox.path(name));
        analyze(&["security", "--no-pager", "--offline=yes", "--threshold", EXPOSURE], &sandbox.path(name));
    }
}

#[test]
fn systemd_takes_the_units_of_sessions() {
    if let Some(reason) = missing(&["systemd-analyze"]) {
        return skip("systemd_takes_the_units_of_sessions", &reason);
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    for users in ["--sessions nobody", "--sessions nobody --sessions 1"] {
        let text = sandbox.done(&format!("systemd {users} --name portal"));
        let (socket, service) =
            text.split_once("\n# /etc/systemd/system/portal-sessions@.service\n").unwrap();
        sandbox.write("units/portal-sessions.socket", socket);
        sandbox.write("units/portal-sessions@.service", service);
        // The socket's service is looked for beside it.
        analyze(&["verify", "--man=no", "--generators=no"], &sandbox.path("units/portal-sessions.socket"));
        let one = "units/portal-sessions@1.service";
        sandbox.write(one, service);
        analyze(&["verify", "--man=no", "--generators=no"], &sandbox.path(one));
        analyze(&["security", "--no-pager", "--offline=yes", "--threshold", EXPOSURE], &sandbox.path(one));
        std::fs::remove_file(sandbox.path(one)).unwrap();
        let file = sandbox.path("fleet.toml").canonicalize().unwrap();
        assert!(service.contains(&format!(" --file {} ", file.display())), "{service}");
        assert!(service.contains(" session socket --allow nobody"), "{service}");
    }
    for (args, words) in [
        ("--sessions no-such-user", "there is no user no-such-user"),
        ("--sessions nobody%i", "a user, by name or number"),
        ("--sessions nobody --once", "cannot be used with"),
        ("--sessions nobody --repo https://git.example.org/fleets.git", "cannot be used with"),
    ] {
        sandbox.run(&format!("systemd {args}")).fails(2, &[words]);
    }
}

#[test]
fn the_unit_says_the_same_from_any_directory() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let unit = sandbox.done("systemd --interval 5s");
    let file = sandbox.path("fleet.toml").canonicalize().unwrap();
    let starts = format!(" --file {} --out-dir ", file.display());
    assert!(unit.contains(&starts) && unit.contains(" watch --interval=5000ms\n"), "{starts}\n{unit}");
    let followed = sandbox.done("systemd --repo https://git.example.org/fleets.git --file a/fleet.toml");
    assert!(followed.contains(" --file a/fleet.toml "), "{followed}");
    assert!(followed.contains(" --repo=https://git.example.org/fleets.git --branch=main "), "{followed}");
}

#[test]
fn what_is_no_unit_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run("systemd").fails(2, &["fleet.toml"]);
    sandbox.fleet("a");
    sandbox.run("systemd --name a.service").fails(2, &["without `.service`"]);
    sandbox.run("systemd --branch main").fails(2, &["--repo"]);
    sandbox.run("watch --once --down-at-shutdown").fails(2, &["cannot be used with"]);
}
