//! Kinds of machines.

use insta::assert_snapshot;

use super::*;

fn machine(text: &str) -> MachineSpec {
    let fleet = at(&SMALL.replace("[user.alice]\n", &format!("[user.alice]\nmachine = {text}\n"))).unwrap();
    fleet.guests[&guest("alice")].machine.clone()
}

#[test]
fn a_machine_is_named_or_written_out_and_a_guest_overrides_the_default() {
    let fleet = at(FULL).unwrap();
    let of = |name: &str| &fleet.guests[&guest(name)];
    assert_eq!(of("alice").machine_name.as_ref().unwrap().as_str(), "quick");
    assert_eq!(of("bob").machine, MachineSpec::default());
    assert_eq!(of("kiosk-0").machine_name, None);
    let template = CpuTemplate::Custom("/f/templates/mine.json".into());
    assert_eq!(of("kiosk-0").machine.cpu_template, Some(template));
    let quick = &of("alice").machine;
    assert!(quick.huge_pages && quick.metrics && quick.vsock);
    assert_eq!(quick.seccomp.as_deref(), Some(Path::new("/f/filters/strict.bpf")));
    let bandwidth = Some(Bucket { per_second: 50 << 20, burst: 200 << 20 });
    let operations = Some(Bucket { per_second: 1000, burst: 4000 });
    assert_eq!(quick.disk, RateLimiter { bandwidth, operations });
    assert_eq!(
        quick.network.up.bandwidth,
        Some(Bucket::steady(2_500_000)),
        "bits are written, bytes are meant"
    );
    assert_eq!(
        quick.balloon,
        Some(Balloon { size_mib: 64, deflate_on_oom: false, statistics: 5, reporting: true })
    );
}

#[test]
fn a_balloon_deflates_rather_than_let_a_process_die() {
    let balloon = machine("{ balloon = { size = \"64MiB\" } }").balloon.unwrap();
    assert!(balloon.deflate_on_oom && !balloon.reporting && balloon.statistics == 0);
}

#[test]
fn all_that_is_wrong_with_a_machine_is_told_together() {
    assert_snapshot!(shown(&format!("{SMALL}machine = \"fas\"\n[machine.fast]\nhuge-pages = \"1GiB\"\ncpu-template = \"T2C\"\nlog-level = \"verbose\"\nballoon = {{ size = \"1KiB\", statistics = \"0s\" }}\nentropy = {{}}\ndisk = {{ bandwidth-burst = \"1MiB\", operations = 0 }}\nnetwork = {{ mtu = 9000 }}\n")), @r#"
    error: machine `fas` is not declared
      --> /f/fleet.toml:18:11
       |
    18 | machine = "fas"
       |           ^^^^^ there is no [machine.fas]
       |
       = help: did you mean `fast`?

    error: "1GiB" is not one of 2MiB
      --> /f/fleet.toml:20:14
       |
    20 | huge-pages = "1GiB"
       |              ^^^^^^
       |
       = help: the choices are `2MiB`

    error: "T2C" is not a CPU template of Firecracker, nor a JSON file
      --> /f/fleet.toml:21:16
       |
    21 | cpu-template = "T2C"
       |                ^^^^^
       |
       = help: did you mean `T2`?

    error: "verbose" is not one of error, warn, info, debug, trace
      --> /f/fleet.toml:22:13
       |
    22 | log-level = "verbose"
       |             ^^^^^^^^^
       |
       = help: the choices are `error`, `warn`, `info`, `debug` and `trace`

    error: 1KiB is too small: a balloon needs at least 1MiB
      --> /f/fleet.toml:23:20
       |
    23 | balloon = { size = "1KiB", statistics = "0s" }
       |                    ^^^^^^

    error: "0s" must be a duration from "1s" to "65535s"
      --> /f/fleet.toml:23:41
       |
    23 | balloon = { size = "1KiB", statistics = "0s" }
       |                                         ^^^^

    error: this limits nothing
      --> /f/fleet.toml:24:11
       |
    24 | entropy = {}
       |           ^^
       |
       = help: set `bandwidth`, `operations` (per second), or both

    error: `bandwidth-burst` without `bandwidth`
      --> /f/fleet.toml:25:28
       |
    25 | disk = { bandwidth-burst = "1MiB", operations = 0 }
       |                            ^^^^^^
       |
       = help: `bandwidth-burst` alone has no effect

    error: 0 is not from 1 to 4294967295
      --> /f/fleet.toml:25:49
       |
    25 | disk = { bandwidth-burst = "1MiB", operations = 0 }
       |                                                 ^

    error: 9000 is not from 576 to 1500
      --> /f/fleet.toml:26:19
       |
    26 | network = { mtu = 9000 }
       |                   ^^^^
    "#);
}

#[test]
fn a_machine_fits_the_memory_of_its_guest() {
    refused(&[
        (
            "[user.alice]",
            "[user.alice]\nmemory = \"513MiB\"\nmachine = { huge-pages = \"2MiB\" }",
            "is not a whole number of huge pages",
        ),
        (
            "[user.alice]",
            "[user.alice]\nmachine = { balloon = { size = \"512MiB\" } }",
            "takes 512MiB, but it has 512MiB",
        ),
        ("[user.alice]", "[user.alice]\nmachine = { cpu-template = \"V1N1\" }", "is for ARM processors"),
    ]);
}

#[test]
fn what_qemu_cannot_do_is_refused_at_the_key() {
    let qemu = SMALL.replace("[kernel]", "vmm = \"qemu\"\n[kernel]");
    let with = |machine: &str| at(&format!("{qemu}machine = {machine}\n"));
    let all = "{ cpu-template = \"T2\", seccomp = \"f\", log-level = \"warn\", metrics = true, vsock = \
      true, metadata = { file = \"m\" }, balloon = { statistics = \"5s\" }, network = { up = { operations = \
      1 }, down = { operations = 1 } }, disk = { bandwidth = \"1MiB/s\", bandwidth-burst = \"1MiB\" }, \
      entropy = { operations = 1 } }";
    let problems = with(all).unwrap_err().problems;
    let keys: Vec<_> = problems.iter().filter_map(|problem| problem.message.split('`').nth(1)).collect();
    assert_eq!(
        keys,
        [
            "cpu-template",
            "seccomp",
            "log-level",
            "metrics",
            "vsock",
            "metadata",
            "balloon.statistics",
            "network.up",
            "network.down",
            "disk",
            "entropy"
        ]
    );
    with(
        "{ huge-pages = \"2MiB\", balloon = { size = \"64MiB\" }, disk = { bandwidth = \"1MiB/s\", \
      operations = 9 }, entropy = { bandwidth = \"1KiB/s\" }, network = { mtu = 1400 } }",
    )
    .unwrap();
}
