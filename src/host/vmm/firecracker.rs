//! Firecracker in its jail: its configuration file and the jailer's call, as data.

use std::path::Path;

use serde_json::{Value, json};

use crate::base::{FileDigest, GuestName};
use crate::fleet::{Balloon, Bucket, CpuTemplate, MachineSpec, RateLimiter};
use crate::host::layout::{Layout, jail_id};
use crate::host::logs::{LogKind, LogStream};
use crate::host::names::{
    API_SOCKET, CONFIG, CPU_TEMPLATE, DISK, IMAGES, KERNEL, METADATA, METRICS, ROOTFS, SECCOMP,
    SESSION_EMPTY, VMM_LOG, VSOCK,
};
use crate::host::state::{Machine, MachineDisk};
use crate::host::versions;
use crate::sys::firecracker::exit_reason;
use crate::sys::jailer::{self, Cause};
use crate::sys::tool::Tool;

use super::{VmmProfile, VmmStart};

/// The program, which is what the jailer calls the folder of its jails, too.
const PROGRAM: &str = "firecracker";
/// Exit status after a system call that its filters forbid.
const BAD_SYSCALL: i32 = 148;

/// Firecracker, in the jail that its jailer makes.
pub(super) struct Firecracker;

impl VmmProfile for Firecracker {
    fn program(&self) -> &'static str {
        PROGRAM
    }

    fn needed_programs(&self) -> &'static [&'static str] {
        &["jailer", "firecracker"]
    }

    fn jailed_program(&self) -> Option<&'static str> {
        Some(PROGRAM)
    }

    fn needs_kvm(&self) -> bool {
        true
    }

    fn command(&self, start: &VmmStart<'_>) -> Tool {
        jailer(start)
    }

    /// Its own is under 5 MiB.
    fn memory_overhead(&self, _: bool) -> u64 {
        64 << 20
    }

    /// It appends `root=` and what finds its devices by itself. A restore puts kvm-clock forward alone, and Linux would rather run
    /// by the processor's own counter.
    fn boot_words(&self, _: bool) -> &'static [&'static str] {
        &["reboot=k", "i8042.noaux", "i8042.nomux", "swiotlb=noforce", "clocksource=kvm-clock"]
    }

    /// One that goes on from a snapshot is told all over its API.
    fn configuration(&self, machine: &Machine) -> Option<Vec<u8>> {
        machine.restored_from.is_none().then(|| config(machine))
    }

    fn pipes(&self, machine: &Machine) -> Vec<&'static str> {
        let metrics = machine.spec.metrics.then_some(METRICS);
        [VMM_LOG].into_iter().chain(metrics).collect()
    }

    /// Where no metrics are asked for, there is no pipe for them.
    fn log_streams(&self, layout: &Layout, guest: &GuestName, root: &Path) -> Vec<LogStream> {
        vec![
            LogStream { kind: LogKind::Serial, pipe: layout.guest(guest).pipe(LogKind::Serial) },
            LogStream { kind: LogKind::Vmm, pipe: root.join(VMM_LOG) },
            LogStream { kind: LogKind::Metrics, pipe: root.join(METRICS) },
        ]
    }

    fn control_socket(&self) -> &'static str {
        API_SOCKET
    }

    fn run_time_files(&self) -> &'static [&'static str] {
        &["firecracker.pid", API_SOCKET, VSOCK]
    }

    fn shapes_traffic(&self) -> bool {
        true
    }

    fn keeps_time_while_paused(&self) -> bool {
        true
    }

    fn reduce_to_start(&self, _: &mut Machine) {}

    fn adjust(&self, spec: &mut MachineSpec<FileDigest>, wanted: &MachineSpec<FileDigest>) {
        spec.disk = wanted.disk;
        (spec.network.up, spec.network.down) = (wanted.network.up, wanted.network.down);
        super::adjust_balloon(spec, wanted);
    }

    /// Only a page fault handler of one's own could bring huge pages back (its `docs/hugepages.md`).
    fn can_freeze(&self, machine: &Machine) -> bool {
        !machine.spec.huge_pages
    }

    fn has_snapshot_in_jail(&self) -> bool {
        true
    }

    fn needs_its_host(&self, _: &Machine) -> bool {
        true
    }

    fn can_change_tap(&self, version: &str) -> bool {
        versions::can_change_tap(version)
    }

    fn can_leave_untouched(&self, version: &str) -> bool {
        versions::can_leave_untouched(version)
    }

    fn origin_words(&self) -> [&'static str; 3] {
        ["Firecracker", "the build of Firecracker", "Firecracker's snapshot format"]
    }

    fn cause(&self, log: &str) -> Option<Cause> {
        jailer::cause(log)
    }

    fn exit_reason(&self, status: i32) -> Option<&'static str> {
        exit_reason(status)
    }

    fn exit_remedy(&self, status: i32) -> Option<&'static str> {
        let remedy =
            "its log names the call: add it to the filters of the machine's `seccomp`, or leave those out";
        (status == BAD_SYSCALL).then_some(remedy)
    }
}

/// Milliseconds in which a rate limiter's bucket fills: each rate is one of a second.
const REFILL: u64 = 1000;
/// Names of devices, which updates and snapshots refer to.
const DRIVES: [(&str, &str); 2] = [("root", ROOTFS), ("data", DISK)];
const IMAGES_DRIVE: (&str, &str) = ("images", IMAGES);
const SESSION_DRIVE: (&str, &str) = ("session", SESSION_EMPTY);
const INTERFACE: &str = "eth0";

/// Firecracker's configuration file (`VmmConfig` in its `src/vmm/src/resources.rs`); paths are the jail's. What is not
/// asked for is not in it, so that an older version reads it, too. A top-level key that it does not know it passes over
/// in silence.
fn config(machine: &Machine) -> Vec<u8> {
    let spec = &machine.spec;
    let mut config = json!({
        "boot-source": { "kernel_image_path": format!("/{KERNEL}"), "boot_args": machine.command_line },
        "machine-config": machine_config(machine),
        "drives": drives(machine),
        "network-interfaces": [interface(machine)],
        "entropy": with_limiter(json!({}), "rate_limiter", &spec.entropy),
    });
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            config[key] = value;
        }
    };
    if let Some(CpuTemplate::Custom(_)) = spec.cpu_template {
        add("cpu-config", Some(json!(format!("/{CPU_TEMPLATE}"))));
    }
    add("balloon", spec.balloon.as_ref().map(balloon));
    add("vsock", spec.vsock.then(|| json!({ "guest_cid": cid(machine), "uds_path": format!("/{VSOCK}") })));
    add(
        "mmds-config",
        spec.metadata.as_ref().map(|metadata| {
            let mut mmds = json!({ "version": "V2", "network_interfaces": [INTERFACE] });
            if metadata.imds {
                mmds["imds_compat"] = json!(true);
            }
            mmds
        }),
    );
    format!("{config:#}\n").into_bytes()
}

fn machine_config(machine: &Machine) -> Value {
    let mut config = json!({ "vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_mib });
    if machine.spec.huge_pages {
        config["huge_pages"] = json!("2M");
    }
    if let Some(CpuTemplate::Static(template)) = machine.spec.cpu_template {
        config["cpu_template"] = json!(template);
    }
    config
}

/// Names and files of a machine's drives, in the order in which the guest finds them: vda, vdb, vdc and so on.
fn drive_names(machine: &Machine) -> impl Iterator<Item = (&'static str, &'static str)> {
    let images = machine.images.map(|_| IMAGES_DRIVE);
    DRIVES.into_iter().chain(images).chain(machine.session_disk.map(|_| SESSION_DRIVE))
}

/// What gives the drive of a session's disk, which is there from the start, the file that it stands for from now on: a path of the
/// API, and what to PATCH it with. The guest's driver is told of the other size (`docs/api_requests/patch-block.md` of its sources).
pub fn session_disk_change(path: &str) -> (String, Value) {
    let (drive, _) = SESSION_DRIVE;
    (format!("/drives/{drive}"), json!({ "drive_id": drive, "path_on_host": format!("/{path}") }))
}

/// A guest's `fsync` reaches the host's disk where that is kept: without `Writeback`, Firecracker offers no flush, and a loss of
/// power takes what the guest believes to be written (`docs/api_requests/block-caching.md` of its sources).
fn drives(machine: &Machine) -> Value {
    let drive = |(id, path): (&str, &str)| {
        let mut drive = json!({
            "drive_id": id,
            "path_on_host": format!("/{path}"),
            "is_root_device": path == ROOTFS,
            "is_read_only": path != DISK && path != SESSION_EMPTY,
        });
        if path == SESSION_EMPTY || path == DISK && machine.disk == MachineDisk::Kept {
            drive["cache_type"] = json!("Writeback");
        }
        with_limiter(drive, "rate_limiter", &machine.spec.disk)
    };
    drive_names(machine).map(drive).collect()
}

/// rx and tx are the guest's: it receives what comes down to it.
fn interface(machine: &Machine) -> Value {
    let network = &machine.spec.network;
    let mut interface =
        json!({ "iface_id": INTERFACE, "host_dev_name": machine.tap.as_str(), "guest_mac": machine.mac });
    if let Some(mtu) = network.mtu {
        interface["mtu"] = json!(mtu);
    }
    let interface = with_limiter(interface, "rx_rate_limiter", &network.down);
    with_limiter(interface, "tx_rate_limiter", &network.up)
}

fn balloon(balloon: &Balloon) -> Value {
    let mut device = json!({
        "amount_mib": balloon.size_mib,
        "deflate_on_oom": balloon.deflate_on_oom,
        "stats_polling_interval_s": balloon.statistics,
    });
    if balloon.reporting {
        device["free_page_reporting"] = json!(true);
    }
    device
}

/// A guest's vsock address: its uid, which no other guest of the host has, and which stays.
fn cid(machine: &Machine) -> u32 {
    machine.uid
}

fn with_limiter(mut device: Value, key: &str, limits: &RateLimiter) -> Value {
    if *limits != RateLimiter::default() {
        device[key] = limiter(limits, None);
    }
    device
}

/// A rate limiter; `absent` is what stands for a bucket that does not limit.
fn limiter(limits: &RateLimiter, absent: Option<&Value>) -> Value {
    let bucket = |bucket: Option<Bucket>| match bucket {
        Some(Bucket { per_second, burst: 0 }) => Some(json!({ "size": per_second, "refill_time": REFILL })),
        Some(Bucket { per_second, burst }) => {
            Some(json!({ "size": per_second, "refill_time": REFILL, "one_time_burst": burst }))
        }
        None => absent.cloned(),
    };
    let buckets = [("bandwidth", bucket(limits.bandwidth)), ("ops", bucket(limits.operations))];
    buckets.into_iter().filter_map(|(name, bucket)| Some((name.to_owned(), bucket?))).collect()
}

/// What makes a running Firecracker another machine of [`Machine::adjusted_to`]: paths of its API, and what to PATCH
/// them with. A bucket of size 0 limits nothing. The balloon is left alone where it stays: a guest without a driver for it
/// would refuse.
pub fn adjustments(running: &Machine, machine: &Machine) -> Vec<(String, Value)> {
    let off = json!({ "size": 0, "refill_time": 0 });
    let off = Some(&off);
    let spec = &machine.spec;
    let drives = drive_names(machine).map(|(id, _)| {
        (format!("/drives/{id}"), json!({ "drive_id": id, "rate_limiter": limiter(&spec.disk, off) }))
    });
    let interface = json!({
        "iface_id": INTERFACE,
        "rx_rate_limiter": limiter(&spec.network.down, off),
        "tx_rate_limiter": limiter(&spec.network.up, off),
    });
    let interface = (format!("/network-interfaces/{INTERFACE}"), interface);
    let balloon = spec.balloon.filter(|_| spec.balloon != running.spec.balloon);
    let balloon = balloon.map(|balloon| ("/balloon".to_owned(), json!({ "amount_mib": balloon.size_mib })));
    drives.chain([interface]).chain(balloon).collect()
}

/// The jailer's call. It is told of no cgroup: its process is in the guest's from its first instruction on, and the jailer can
/// neither set `io.max` nor name a cgroup after a guest.
fn jailer(start: &VmmStart<'_>) -> Tool {
    let jail = jailer::JailerArgs {
        base: start.layout.jails(),
        id: jail_id(start.guest, start.attempt),
        exec_file: start.executable.to_owned(),
        uid: start.machine.uid,
        gid: start.machine.uid,
        limits: vec![("no-file", start.files.open), ("fsize", start.files.size)],
    };
    let arguments = arguments(start.machine);
    jail.tool(Path::new("jailer"), &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Firecracker's own arguments. A logger of the configuration file would begin too late: the first lines would go to the
/// guest's console.
fn arguments(machine: &Machine) -> Vec<String> {
    let spec = &machine.spec;
    let mut arguments = vec!["--show-level".to_owned()];
    let mut add = |option: &str, value: Option<String>| {
        arguments.extend(value.into_iter().flat_map(|value| [option.to_owned(), value]));
    };
    let path = |name: &str| Some(format!("/{name}"));
    add("--api-sock", path(API_SOCKET));
    // One that goes on from a snapshot is told all over its API.
    add("--config-file", path(CONFIG).filter(|_| machine.restored_from.is_none()));
    add("--log-path", path(VMM_LOG));
    add("--level", spec.log_level.map(|level| level.word().to_owned()));
    add("--metrics-path", path(METRICS).filter(|_| spec.metrics));
    add("--metadata", path(METADATA).filter(|_| spec.metadata.is_some()));
    add("--seccomp-filter", path(SECCOMP).filter(|_| spec.seccomp.is_some()));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;
    use crate::fleet::{Metadata, NetworkLimits, StaticTemplate, VmmKind};

    /// Every top-level key that Firecracker knows (`VmmConfig` in its `src/vmm/src/resources.rs`): it passes over any other.
    const SECTIONS: [&str; 13] = [
        "balloon",
        "boot-source",
        "cpu-config",
        "drives",
        "entropy",
        "logger",
        "machine-config",
        "memory-hotplug",
        "metrics",
        "mmds-config",
        "network-interfaces",
        "pmem",
        "vsock",
    ];

    fn digest(text: &str) -> FileDigest {
        Sha256::of(text).into()
    }

    fn machine(spec: MachineSpec<FileDigest>) -> Machine {
        Machine { vcpus: 2, spec, ..Machine::example(VmmKind::Firecracker) }
    }

    /// A machine that asks for everything.
    fn whole() -> MachineSpec<FileDigest> {
        let bandwidth = Some(Bucket { per_second: 1000, burst: 5000 });
        let limits = RateLimiter { bandwidth, operations: Some(Bucket::steady(10)) };
        MachineSpec {
            huge_pages: true,
            cpu_template: Some(CpuTemplate::Custom(digest("template"))),
            seccomp: Some(digest("filter")),
            log_level: None,
            metrics: true,
            balloon: Some(Balloon { size_mib: 64, deflate_on_oom: true, statistics: 5, reporting: true }),
            entropy: limits,
            vsock: true,
            metadata: Some(Metadata { file: digest("metadata"), imds: true }),
            disk: limits,
            network: NetworkLimits { up: limits, down: RateLimiter::default(), mtu: Some(1400) },
        }
    }

    fn configured(spec: MachineSpec<FileDigest>) -> Value {
        serde_json::from_slice(&config(&machine(spec))).unwrap()
    }

    #[test]
    fn what_a_guest_syncs_reaches_a_disk_that_is_kept_and_no_other() {
        let mut machine = machine(MachineSpec::default());
        let caches = |machine: &Machine| {
            let drives = drives(machine);
            drives.as_array().unwrap().iter().map(|drive| drive["cache_type"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(caches(&machine), [Value::Null, json!("Writeback")]);
        let base = FileDigest::Sparse(Sha256::of("disk"));
        machine.disk = MachineDisk::Ephemeral { base, size: 1 << 20, in_memory: false };
        assert_eq!(caches(&machine), [Value::Null, Value::Null]);
    }

    #[test]
    fn firecracker_knows_every_section_of_the_configuration() {
        for spec in [MachineSpec::default(), whole()] {
            let config = configured(spec);
            let unknown: Vec<_> =
                config.as_object().unwrap().keys().filter(|key| !SECTIONS.contains(&key.as_str())).collect();
            assert!(unknown.is_empty(), "{unknown:?}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_in_the_configuration() {
        assert_eq!(
            configured(MachineSpec::default()),
            json!({
                "boot-source": { "kernel_image_path": "/vmlinux", "boot_args": "console=ttyS0" },
                "machine-config": { "vcpu_count": 2, "mem_size_mib": 512 },
                "drives": [
                    { "drive_id": "root", "path_on_host": "/rootfs.ext4", "is_root_device": true, "is_read_only": true },
                    { "drive_id": "data", "path_on_host": "/data/disk.ext4", "is_root_device": false, "is_read_only": false, "cache_type": "Writeback" },
                ],
                "network-interfaces": [
                    { "iface_id": "eth0", "host_dev_name": "sis-alice", "guest_mac": "02:53:0a:6b:00:02" }
                ],
                "entropy": {},
            })
        );
    }

    #[test]
    fn a_rate_is_that_of_a_second_and_a_burst_comes_once() {
        let config = configured(whole());
        let limiter = json!({
            "bandwidth": { "size": 1000, "refill_time": 1000, "one_time_burst": 5000 },
            "ops": { "size": 10, "refill_time": 1000 },
        });
        assert_eq!(config["drives"][1]["rate_limiter"], limiter);
        assert_eq!(config["network-interfaces"][0]["tx_rate_limiter"], limiter, "what the guest sends");
        assert_eq!(config["network-interfaces"][0]["rx_rate_limiter"], Value::Null);
        assert_eq!(config["vsock"], json!({ "guest_cid": 200_001, "uds_path": "/run/vsock.sock" }));
    }

    #[test]
    fn a_rate_that_is_gone_is_switched_off_in_a_running_guest() {
        let running = machine(MachineSpec { balloon: None, ..whole() });
        let adjusted = adjustments(&running, &machine(whole()));
        let of = |path: &str| &adjusted.iter().find(|(one, _)| one == path).unwrap().1;
        let off = json!({ "size": 0, "refill_time": 0 });
        assert_eq!(
            of("/network-interfaces/eth0")["rx_rate_limiter"],
            json!({ "bandwidth": off, "ops": off })
        );
        assert_eq!(of("/balloon"), &json!({ "amount_mib": 64 }));
        let same = adjustments(&machine(whole()), &machine(whole()));
        assert!(same.iter().all(|(path, _)| path != "/balloon"), "{same:?}");
    }

    #[test]
    fn a_static_template_is_named_and_a_custom_one_is_a_file() {
        let spec = |template| MachineSpec { cpu_template: Some(template), ..MachineSpec::default() };
        let named = configured(spec(CpuTemplate::Static(StaticTemplate::T2CL)));
        assert_eq!(named["machine-config"]["cpu_template"], "T2CL");
        assert_eq!(configured(whole())["cpu-config"], "/cpu-template.json");
    }

    #[test]
    fn files_of_the_jail_are_named_in_the_arguments() {
        assert_eq!(
            arguments(&machine(whole())).join(" "),
            "--show-level --api-sock /run/api.sock --config-file /config.json --log-path /vmm.log \
             --metrics-path /metrics.json --metadata /metadata.json --seccomp-filter /seccomp.bpf"
        );
    }
}
