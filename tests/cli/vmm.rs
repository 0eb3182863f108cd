//! What `[machine.NAME]` makes of a real Firecracker.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sisforge::sys::firecracker::{Api, VmState};
use sisforge::sys::memory::huge_pages;
use sisforge::sys::tiny_guest::AfterText;

use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;

/// A template that hides no feature of any processor.
const TEMPLATE: &str = r#"{ "cpuid_modifiers": [], "msr_modifiers": [] }"#;

/// All that this machine's Firecracker can be asked for wherever the tests run: huge pages, static
/// templates and custom
/// filters depend on the host.
const EVERYTHING: &str = r#"
[machine.all]
cpu-template = "template.json"
log-level = "debug"
metrics = true
balloon = { size = "8MiB", statistics = "1s", reporting = true }
entropy = { bandwidth = "64KiB/s", bandwidth-burst = "1MiB" }
vsock = true
metadata = { file = "metadata.json", imds = true }
disk = { bandwidth = "50MiB/s", operations = 1000, operations-burst = 4000 }
network = { up = { bandwidth = "20Mbit/s" }, mtu = 1400 }
"#;

/// A sandbox whose guest `a` has the machine `all`.
fn with_everything() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("template.json", TEMPLATE);
    sandbox.write("metadata.json", r#"{ "latest": { "user": "a" } }"#);
    sandbox.fleet_with("a", &format!("machine = \"all\"\n{EVERYTHING}"));
    let rate = "[network.n]\nrate = { down = \"8Mbit/s\" }\n";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("[network.n]\n", rate));
    sandbox
}

fn config(sandbox: &Sandbox, guest: &str) -> Value {
    Api::connect(&sandbox.jail(guest).join("run/api.sock")).unwrap().get("/vm/config").unwrap()
}

#[test]
fn firecracker_takes_everything_that_a_machine_can_ask_for() {
    needs_firecracker!();
    let sandbox = with_everything();
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let config = config(&sandbox, a);
    let uid = sandbox.ps(a)["uid"].clone();
    let bucket =
        |size: u64, burst: Value| json!({ "size": size, "refill_time": 1000, "one_time_burst": burst });
    let balloon = json!({
        "amount_mib": 8, "deflate_on_oom": true, "stats_polling_interval_s": 1,
        "free_page_hinting": false, "free_page_reporting": true,
    });
    assert_eq!(config["balloon"], balloon);
    assert_eq!(config["vsock"], json!({ "guest_cid": uid, "uds_path": "/run/vsock.sock" }));
    assert_eq!(config["mmds-config"]["version"], "V2");
    assert_eq!(config["mmds-config"]["network_interfaces"], json!(["eth0"]));
    assert_eq!(config["entropy"]["rate_limiter"]["bandwidth"], bucket(64 << 10, json!(1 << 20)));
    for drive in [&config["drives"][0], &config["drives"][1]] {
        assert_eq!(drive["rate_limiter"]["bandwidth"], bucket(50 << 20, Value::Null));
        assert_eq!(drive["rate_limiter"]["ops"], bucket(1000, json!(4000)));
    }
    let network = &config["network-interfaces"][0];
    assert_eq!(network["tx_rate_limiter"]["bandwidth"], bucket(2_500_000, Value::Null), "the guest sends");
    assert_eq!(
        network["rx_rate_limiter"]["bandwidth"],
        bucket(1_000_000, Value::Null),
        "by the policy's rate"
    );
    assert_eq!(network["mtu"], 1400);

    let metrics = sandbox.done(&format!("logs {a} --metrics"));
    assert!(metrics.contains("\"utc_timestamp_ms\""), "{metrics}");
    assert!(sandbox.jail(a).join("run/vsock.sock").exists());
    let log = fs::read_to_string(sandbox.record(a, "vmm.log")).unwrap();
    assert!(log.contains(":DEBUG]"), "{log}");
    assert!(log.contains("Successfully added metadata to mmds from file"), "{log}");
    sandbox.done("plan --detailed-exitcode");
}

#[test]
fn a_guest_with_everything_goes_on_from_its_snapshot() {
    needs_firecracker!();
    let sandbox = with_everything();
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let before = config(&sandbox, a);
    sandbox.done(&format!("snapshot create {a} --stop --name one"));
    sandbox.done("snapshot restore one");
    let api = Api::connect(&sandbox.jail(a).join("run/api.sock")).unwrap();
    let after = api.get("/vm/config").unwrap();
    for part in ["balloon", "vsock", "entropy", "mmds-config", "machine-config", "network-interfaces"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    // A snapshot does not hold what the guest reads at 169.254.169.254.
    assert_eq!(api.get("/mmds").unwrap(), json!({ "latest": { "user": "a" } }));
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn memory_of_huge_pages_is_taken_of_the_host_and_not_frozen() {
    needs_firecracker!();
    let free = huge_pages().unwrap().free >> 20;
    if free < 64 {
        return eprintln!(
            "SKIPPED: 64 MiB of huge pages are needed, {free} MiB are free (sysctl vm.nr_hugepages=32)"
        );
    }
    let sandbox = Sandbox::new();
    sandbox.fleet_with("a", "machine = { huge-pages = \"2MiB\" }\n");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let maps = fs::read_to_string(format!("/proc/{}/smaps", sandbox.pid(a))).unwrap();
    assert!(maps.contains("KernelPageSize:     2048 kB"));
    let words = ["uses huge pages", "help: leave `huge-pages` out"];
    sandbox.run(&format!("snapshot create {a}")).fails(1, &words);
    assert_eq!(sandbox.ps(a)["state"], "ready");
}

#[test]
fn rates_and_the_balloon_change_without_a_restart() {
    needs_firecracker!();
    let sandbox = with_everything();
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let pid = sandbox.pid(a);
    let text = sandbox.read("fleet.toml");
    let changed = text
        .replace("8Mbit/s", "16Mbit/s")
        .replace("disk = { bandwidth = \"50MiB/s\", operations = 1000, operations-burst = 4000 }", "");
    sandbox.write("fleet.toml", &changed);
    let plan = sandbox.run("plan --detailed-exitcode");
    assert_eq!(plan.code, 2, "{plan}");
    assert!(plan.out.contains("adjust the running firecracker: rates, balloon"), "{plan}");
    sandbox.done("up");
    assert_eq!(sandbox.pid(a), pid, "the guest was not restarted");
    let config = config(&sandbox, a);
    assert_eq!(config["network-interfaces"][0]["rx_rate_limiter"]["bandwidth"]["size"], 2_000_000);
    assert_eq!(config["drives"][1]["rate_limiter"], Value::Null, "a limit that is gone");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);

    // The tiny guest has no driver that would inflate a balloon.
    sandbox.write("fleet.toml", changed.replace("\"8MiB\"", "\"4MiB\""));
    sandbox.run("up").fails(1, &["PATCH /balloon", "not activated"]);
    assert_eq!(sandbox.pid(a), pid, "and goes on");
    sandbox.write("fleet.toml", changed.replace("vsock = true", ""));
    let plan = sandbox.run("plan");
    assert!(plan.out.contains("vsock o"), "{plan}");
}

#[test]
fn the_files_of_a_machine_are_checked_and_their_content_decides() {
    needs_firecracker!();
    let sandbox = with_everything();
    let a = &sandbox.guest('a');
    sandbox.write("metadata.json", "[]");
    sandbox.write("template.json", "nothing");
    for command in ["check", "up"] {
        let words = [
            "metadata.json is not valid metadata: it is not a JSON object",
            "template.json is not a CPU \
              template",
        ];
        sandbox.run(command).fails(2, &words);
    }
    assert_eq!(sandbox.traces(), [""; 0]);
    sandbox.write("metadata.json", "{}");
    sandbox.write("template.json", TEMPLATE);
    sandbox.done("up");
    for (file, shared) in [("metadata.json", "{}"), ("cpu-template.json", TEMPLATE)] {
        assert_eq!(fs::read_to_string(sandbox.jail(a).join(file)).unwrap(), shared);
    }
    sandbox.write("metadata.json", r#"{ "more": 1 }"#);
    let plan = sandbox.run("plan");
    assert!(plan.out.contains(&format!("stop {a}: metadata changed")), "{plan}");
}

#[test]
fn ten_guests_are_started_watched_paused_killed_and_stopped_at_a_time() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let name = sandbox.guest('p');
    sandbox.fleet_with("", &format!("[pool.{name}]\nreplicas = 10\n"));
    let guests: Vec<_> = (0..10).map(|number| format!("{name}-{number}")).collect();
    sandbox.done("up");
    let apis: Vec<_> =
        guests.iter().map(|guest| Api::connect(&sandbox.jail(guest).join("run/api.sock")).unwrap()).collect();
    let states = |wanted: VmState| apis.iter().all(|api| api.instance_info().unwrap().state == wanted);
    assert!(states(VmState::Running));
    apis.iter().for_each(|api| api.pause().unwrap());
    assert!(states(VmState::Paused));
    apis.iter().for_each(|api| api.resume().unwrap());
    assert!(states(VmState::Running));
    let pids: Vec<_> = guests.iter().map(|guest| sandbox.pid(guest)).collect();
    let (killed, stays) = (&guests[3], &guests[4]);
    kill(pids[3]);
    until("it is seen to be gone", || sandbox.ps(killed)["state"] == "broken");
    sandbox.done("up");
    assert_ne!(sandbox.pid(killed), pids[3]);
    assert_eq!(sandbox.pid(stays), pids[4]);
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

fn kill(pid: u32) {
    let run = Run::of(Command::new("kill").args(["-9", &pid.to_string()]));
    assert_eq!(run.code, 0, "{run}");
}

#[test]
fn a_vmm_that_ends_says_why_and_what_to_do() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let a = &sandbox.guest('a');
    sandbox.kernel("panic: no\n", AfterText::Reset);
    sandbox.fleet("a");
    let words = [
        &format!("the VMM of {a} ended before the guest was ready: the guest shut down (status 0)"),
        "panic: no",
    ];
    sandbox.run("up").fails(1, &words);
    // No processor is both Intel's and AMD's.
    let b = sandbox.guest('b');
    sandbox.fleet_with(
        "a",
        &format!(
            "machine = {{ cpu-template = \"T2A\" }}\n[user.{b}]\nmachine = {{ cpu-template = \"T2CL\" }}\n"
        ),
    );
    let words = ["the machine's `cpu-template` is not for this processor", "  help: use one that is"];
    sandbox.run("up").fails(1, &words);
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// Compiled filters, where whoever runs the tests names some: nothing that Debian has makes them.
#[test]
fn a_custom_seccomp_filter_is_what_firecracker_runs_under() {
    needs_firecracker!();
    let Some(filter) = std::env::var_os("SISFORGE_TEST_SECCOMP") else {
        return eprintln!("SKIPPED: SISFORGE_TEST_SECCOMP names no compiled filters");
    };
    let sandbox = Sandbox::new();
    fs::copy(Path::new(&filter), sandbox.path("filter.bpf")).unwrap();
    sandbox.fleet_with("a", "machine = { seccomp = \"filter.bpf\" }\n");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    let line = fs::read_to_string(format!("/proc/{}/cmdline", sandbox.pid(a))).unwrap();
    assert!(line.contains("--seccomp-filter\0/seccomp.bpf"), "{line}");
    until("it runs on", || sandbox.ps(a)["state"] == "ready");
    sandbox.write("filter.bpf", "not compiled");
    sandbox.run("up").fails(1, &["Seccomp error: Filter deserialization failed"]);
}
