//! Sessions that end with a container, by programs that stand in for QEMU and for `ssh`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::hostile_vmm::Given::Nothing;
use super::hostile_vmm::Site;
use crate::common::namespaces::{missing, skip};

/// Of the address it is called for, the file `said/ADDRESS` is run for what Podman does; all else succeeds.
const SSH: &str = r#"#!/bin/sh
while [ $# -gt 2 ]; do shift; done
case $2 in *"'podman' 'ps'"*) if [ -e "${0%/*}/said/$1" ]; then . "${0%/*}/said/$1"; fi ;; esac
exit 0
"#;

/// What Podman lists of a container.
fn listed(state: &str, code: i64) -> String {
    format!(r#"echo '[{{"Names":["browser"],"State":"{state}","ExitCode":{code}}}]'"#)
}

#[test]
fn a_session_ends_with_its_container_and_with_no_other_and_not_where_nobody_answers() {
    let test = "a_session_ends_with_its_container_and_with_no_other_and_not_where_nobody_answers";
    if let Some(reason) = missing(&["perl", "nft", "ip", "ssh-keygen", "timeout"]) {
        return skip(test, &reason);
    }
    let site = Site::new();
    let sandbox = &site.sandbox;
    let ssh = sandbox.path("bin/ssh");
    fs::create_dir(sandbox.path("bin/said")).unwrap();
    fs::write(&ssh, SSH).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let pool = sandbox.guest('k');
    let keys = "spare = 3\nmax = 3\nsession = { ends-with = \"browser\" }\n\
                containers = [{ name = \"browser\", image = \"localhost/b\" }, { name = \"other\", image = \"localhost/o\" }]";
    let text = sandbox.fleet_text("", &format!("[pool.{pool}]\n{keys}\n"));
    sandbox.write("fleet.toml", text.replace("[kernel]", "vmm = \"qemu\"\n[kernel]"));
    for number in 0..3 {
        let ready = r#"$ready = "sisforge: ready ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA\n""#;
        site.trick(&format!("{pool}-{number}"), Nothing, ready);
    }
    site.run("up").fails(0, &["3 started"]);

    let mut guests = Vec::new();
    for _ in 0..3 {
        let taken = site.document(&format!("session start {pool}"), "session");
        assert_eq!(taken["session"]["ends_with"], "browser");
        let [guest, ip] = ["guest", "ip"].map(|key| taken[key].as_str().unwrap().to_owned());
        sandbox.write(&format!("bin/said/{ip}"), listed("running", 0));
        guests.push((guest, ip));
    }
    let listing = site.run("session ls").out;
    assert!(listing.contains("ENDS WITH") && listing.matches("  browser").count() == 3, "{listing}");
    let says = |at: usize, script: &str| sandbox.write(&format!("bin/said/{}", guests[at].1), script);
    let in_use = || {
        let all = site.document("session ls", "session-ls");
        let all = all.as_array().unwrap().iter().filter(|guest| guest["state"] == "in-use");
        all.map(|guest| guest["guest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    site.run("up").fails(0, &["nothing to do"]);
    // `other` was removed, one does not answer, and one lies.
    says(1, "exit 255");
    says(2, "echo '{\"Names\": 3}'");
    site.run("watch --once").fails(0, &[]);
    assert_eq!(in_use().len(), 3);
    // Podman has started it again by the time that it is asked once more.
    let again =
        format!("if [ -e again ]; then {}; else : >again; {}; fi", listed("running", 0), listed("exited", 3));
    says(0, &again);
    site.run("up").fails(0, &["nothing to do"]);
    assert_eq!(in_use().len(), 3);
    assert!(sandbox.path("again").exists(), "it was asked");

    says(0, &listed("exited", 3));
    says(1, &listed("exited", 0));
    // `plan` asks as `up` does, and marks nothing.
    let plan = site.run("plan");
    plan.fails(0, &[&format!("what {}, {} wrote is lost", guests[0].0, guests[1].0)]);
    assert_eq!(plan.out.matches("its session is over").count(), 2 * 2, "{plan}");
    assert_eq!(in_use().len(), 3);
    site.run("plan --out p.plan").fails(0, &[]);
    site.run("up p.plan").fails(0, &[]);
    assert_eq!(in_use(), [guests[2].0.clone()]);
    says(2, "echo '[]'");
    site.run("watch --once").fails(0, &[]);
    assert_eq!(in_use(), [""; 0]);
    let events = site.run("events").out;
    for (at, why) in [(0, "exited with status 3"), (1, "exited with status 0"), (2, "was removed")] {
        let words = format!("the session of {} was ended: its container browser {why}", guests[at].0);
        assert!(events.contains(&words), "{words}\n{events}");
    }
    site.run("down --timeout 0").fails(0, &[]);
}
