//! Containers of guests that run, by a program that stands in for `ssh`: what the guests' Podman says is the guests' own business.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::hostile_vmm::Given::Nothing;
use super::hostile_vmm::{PATIENCE, Site};
use crate::common::namespaces::{missing, skip};
use crate::common::sandbox::Run;

/// Of the address it is called for, the file `said/ADDRESS` is run for what Podman does; all else succeeds.
const SSH: &str = r#"#!/bin/sh
while [ $# -gt 2 ]; do shift; done
echo "$1 $2" >>"${0%/*}/said/calls"
case $2 in *"'podman' 'ps'"*) . "${0%/*}/said/$1" ;; esac
exit 0
"#;

#[test]
fn what_became_of_containers_is_asked_of_each_guest_and_one_that_hangs_or_lies_harms_no_other() {
    let test = "what_became_of_containers_is_asked_of_each_guest_and_one_that_hangs_or_lies_harms_no_other";
    if let Some(reason) = missing(&["perl", "nft", "ip", "ssh-keygen", "timeout"]) {
        return skip(test, &reason);
    }
    let site = Site::new();
    let sandbox = &site.sandbox;
    let ssh = sandbox.path("bin/ssh");
    fs::write(&ssh, SSH).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.path("bin/said")).unwrap();
    let [a, b, c, d] = ['a', 'b', 'c', 'd'].map(|letter| sandbox.guest(letter));
    let both = "containers = [{ name = \"web\", image = \"localhost/web\" }, { name = \"mail\", image = \"localhost/mail\" }]";
    let declared = |both: &str| {
        let mut text = sandbox.fleet_text("abcd", "").replace("[kernel]", "vmm = \"qemu\"\n[kernel]");
        for guest in [&a, &b, &c] {
            let section = format!("[user.{guest}]\n");
            assert!(text.contains(&section), "{text}");
            text = text.replace(&section, &format!("{section}{both}\n"));
        }
        sandbox.write("fleet.toml", text);
    };
    declared(both);
    for guest in [&a, &b, &c, &d] {
        site.trick(guest, Nothing, r#"$ready = "sisforge: ready ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA\n""#);
    }
    site.run("up").fails(0, &["4 started"]);
    let guests: serde_json::Value = serde_json::from_str(&site.run("--json ps").out).unwrap();
    let says = |guest: &str, script: &str| {
        let found = guests.as_array().unwrap().iter().find(|found| found["name"] == guest).unwrap();
        sandbox.write(&format!("bin/said/{}", found["ip"].as_str().unwrap()), script);
    };

    let listed =
        r#"[{"Names":["web"],"State":"exited","ExitCode":137},{"Names":["other"],"State":"running"}]"#;
    says(&a, &format!("echo '{listed}'"));
    says(&b, "sleep 1000");
    says(&c, r#"printf '[{"Names":["web"],"State":"\\u001b[2J"},{"Names":["mail"],"State":"running"}]'"#);
    // On a machine under load, who answers may be too late once: what counts is that it is heard.
    let asked = |args: &str, late: &[&String]| {
        let mut runs = (0..10).map(|_| site.run(args));
        let is_late = |run: &Run, guest| {
            run.err.contains(&format!("containers of {guest} are not known: not within"))
                || run.out.contains("not within")
        };
        let in_time = |run: &Run| !late.iter().any(|guest| is_late(run, guest));
        runs.find(in_time).expect("each time an answer was too late")
    };
    let run = asked("ps --containers", &[&a, &c]);
    run.fails(0, &[&format!("note: containers of {b} are not known: not within 15 s")]);
    let rows: Vec<Vec<&str>> = run
        .out
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let expected = [
        ["GUEST", "CONTAINER", "IMAGE", "STATE", "HEALTH"],
        [&a, "mail", "localhost/mail", "removed", "-"],
        [&a, "web", "localhost/web", "exited (137)", "-"],
        [&b, "mail", "localhost/mail", "unknown", "-"],
        [&b, "web", "localhost/web", "unknown", "-"],
        [&c, "mail", "localhost/mail", "running", "-"],
        [&c, "web", "localhost/web", "\\u{1b}[2J", "-"],
    ];
    assert_eq!(rows, expected, "{run}");

    says(&b, "yes x | head -c 300000000");
    let found = asked("--json ps --containers", &[&a, &b, &c]);
    let found: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((&found[1]["state"], &found[1]["exit_status"]), (&"exited".into(), &137.into()), "{found}");
    assert!(found[2]["note"].as_str().unwrap().contains("no list of containers"), "{found}");
    site.run("ps --containers --all").fails(2, &["cannot be used with"]);

    // All that goes from a guest goes by one call, which has one end.
    declared("");
    site.run("up").fails(0, &["3 changed in place"]);
    let calls = fs::read_to_string(sandbox.path("bin/said/calls")).unwrap();
    let removed =
        calls.lines().filter(|call| call.contains("'podman' 'rm' '--force' '--ignore' 'web' 'mail'"));
    assert_eq!(removed.count(), 3, "{calls}");
    assert_eq!(site.run("ps --containers").out.lines().count(), 1);
    site.run(&format!("down --timeout {PATIENCE}")).fails(0, &[]);
}

/// Of a check, what is in `said/health` comes of it; a container's log never ends, and begins with what a terminal would obey.
const CHECKED_SSH: &str = r#"#!/bin/sh
while [ $# -gt 2 ]; do shift; done
case $2 in
*sis-start*) cat >"${0%/*}/said/fed"; echo abcdef ;;
*sis-await*) cat "${0%/*}/said/health" ;;
*sis-list*) printf 'web '; head -n 1 "${0%/*}/said/health"; printf '\n[{"Names":["web"],"State":"running"}]\n' ;;
*sis-logs*) printf '\033[2Jone\ntwo\n'; exec sleep 1000 ;;
esac
exit 0
"#;

#[test]
fn up_waits_until_a_container_is_healthy_and_a_secret_is_told_to_nobody_else() {
    let test = "up_waits_until_a_container_is_healthy_and_a_secret_is_told_to_nobody_else";
    if let Some(reason) = missing(&["perl", "nft", "ip", "ssh-keygen", "timeout"]) {
        return skip(test, &reason);
    }
    let site = Site::new();
    let sandbox = &site.sandbox;
    let ssh = sandbox.path("bin/ssh");
    fs::write(&ssh, CHECKED_SSH).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.path("bin/said")).unwrap();
    let says = |health: &str| sandbox.write("bin/said/health", health);
    let guest = sandbox.guest('a');
    let section = format!("[user.{guest}]\n");
    let web = "containers = [{ name = \"web\", image = \"registry.example.org/web\", health = { command = [\"x\"] }, \
               secrets = [{ name = \"key\", file = \"key\" }] }]";
    let text = sandbox.fleet_text("a", "").replace("[kernel]", "vmm = \"qemu\"\n[kernel]");
    sandbox.write("fleet.toml", text.replace(&section, &format!("{section}{web}\n")));
    site.trick(&guest, Nothing, r#"$ready = "sisforge: ready ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA\n""#);

    // Whoever starts guests needs it; whoever builds does not.
    site.run("check").fails(0, &[]);
    site.run("up").fails(2, &["secret key: cannot read", "key"]);
    sandbox.write("key", "drowssap");
    says("unhealthy\nno answer\u{1b}[2J\n");
    site.run("up").fails(1, &["container web of", "is not healthy: its check fails", "no answer\\u{1b}[2J"]);
    assert_eq!(fs::read_to_string(sandbox.path("bin/said/fed")).unwrap(), "1\nkey ZHJvd3NzYXA=\n");
    let ready = fs::read_to_string(sandbox.record(&guest, "ready.json")).unwrap();
    let lock = fs::read_to_string(sandbox.path("fleet.lock")).unwrap();
    for kept in [&ready, &lock] {
        assert!(!kept.contains("drowssap") && !kept.contains("ZHJvd3NzYXA="), "{kept}");
    }
    assert!(site.run("ps --containers").out.contains("running  unhealthy"));

    // It was started, and is not again.
    fs::remove_file(sandbox.path("bin/said/fed")).unwrap();
    let plan = site.run("plan").out;
    assert!(plan.contains("container web has not been healthy yet"), "{plan}");
    says("healthy\n");
    site.run("up").fails(0, &["1 changed in place"]);
    assert!(!sandbox.path("bin/said/fed").exists());
    assert!(site.run("plan").out.contains("nothing to do"));
    sandbox.write("key", "another");
    let plan = site.run("plan").out;
    assert!(plan.contains("container web: secret key changed") && !plan.contains("another"), "{plan}");

    site.run(&format!("logs {guest} --container wep")).fails(2, &["did you mean `web`?"]);
    site.run("logs --container web").fails(2, &["required"]);
    site.run(&format!("down --timeout {PATIENCE}")).fails(0, &[]);
}
