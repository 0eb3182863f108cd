//! Containers of guests that run, by a program that stands in for `ssh`: what the guests' Podman says is the guests' own business.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::hostile_vmm::Given::Nothing;
use super::hostile_vmm::{PATIENCE, Site};
use crate::common::namespaces::{missing, skip};

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
    let run = site.run("ps --containers");
    run.fails(0, &[&format!("note: containers of {b} are not known: not within 15 s")]);
    let rows: Vec<Vec<&str>> = run
        .out
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let expected = [
        ["GUEST", "CONTAINER", "IMAGE", "STATE"],
        [&a, "mail", "localhost/mail", "removed"],
        [&a, "web", "localhost/web", "exited (137)"],
        [&b, "mail", "localhost/mail", "unknown"],
        [&b, "web", "localhost/web", "unknown"],
        [&c, "mail", "localhost/mail", "running"],
        [&c, "web", "localhost/web", "\\u{1b}[2J"],
    ];
    assert_eq!(rows, expected, "{run}");

    says(&b, "yes x | head -c 300000000");
    let found = site.run("--json ps --containers");
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
