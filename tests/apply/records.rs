//! Records of the store. Those in `records/` were written by the commit before records had a version: whoever has such a store
//! loses nothing by it, and no guest is started anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use sisforge::apply::linux::{LinuxHost, Scope};
use sisforge::apply::observe::observe;
use sisforge::apply::record::pool::PoolRecord;
use sisforge::apply::record::{self, Freezing, JailsRootRecord, LoadedRuleset, Ready, Record, StartedVmm};
use sisforge::base::network::{host_side, tap_name};
use sisforge::base::{FileDigest, GuestName, MacAddress, Rates, Sha256};
use sisforge::fleet::{
    Balloon, Bucket, CpuTemplate, HostSpec, LogLevel, MachineSpec, Metadata, NetworkLimits, RateLimiter,
    VmmKind,
};
use sisforge::host::container::StartedContainer;
use sisforge::host::layout::Layout;
use sisforge::host::observed::{ObservedHost, ObservedRuleset};
use sisforge::host::snapshot::{Restored, SnapshotManifest};
use sisforge::host::state::{Machine, MachineDisk, Session, TapSpec};
use sisforge::host::vmm::{BootInfo, command_line};
use sisforge::host::wanted::{Startup, WantedGuest, WantedHost};
use sisforge::plan::{GuestScope, diff};
use sisforge::sys::cgroup::Hierarchy;
use sisforge::sys::process::ProcessId;

use super::{LIMITS, container, machine_of, name, running};
use crate::common::namespaces::{missing, skip};

fn old(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apply/records").join(file)
}

fn read<T: Record>(file: &str) -> T {
    record::read(&old(file)).unwrap().unwrap()
}

fn digest(of: &str) -> FileDigest {
    Sha256::of(of).into()
}

fn limits(bandwidth: Option<Bucket>, operations: Option<Bucket>) -> RateLimiter {
    RateLimiter { bandwidth, operations }
}

/// The machines that were recorded: alice's has all that Firecracker can be told, bob's runs on QEMU.
fn recorded(vmm: VmmKind) -> Machine {
    let is_alice = vmm == VmmKind::Firecracker;
    let guest: GuestName = name(if is_alice { "alice" } else { "bob" });
    let ip = if is_alice { [10, 107, 0, 2] } else { [10, 107, 0, 6] }.into();
    let ssh_key = Some("AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfTheHost");
    let boot = BootInfo {
        guest: &guest,
        ip,
        host: host_side(ip),
        dns: Some(host_side(ip)),
        ssh_key,
        session_disk: None,
    };
    let balloon = if is_alice {
        Balloon { size_mib: 64, deflate_on_oom: true, statistics: 5, reporting: true }
    } else {
        Balloon { size_mib: 0, deflate_on_oom: false, statistics: 0, reporting: false }
    };
    let all = MachineSpec {
        huge_pages: true,
        cpu_template: Some(CpuTemplate::Custom(digest("template"))),
        seccomp: Some(digest("seccomp")),
        log_level: Some(LogLevel::Debug),
        metrics: true,
        balloon: None,
        entropy: limits(Some(Bucket::steady(1000)), None),
        vsock: true,
        metadata: Some(Metadata { file: digest("metadata"), imds: true }),
        disk: limits(Some(Bucket { per_second: 1 << 20, burst: 4096 }), Some(Bucket::steady(500))),
        network: NetworkLimits {
            up: limits(Some(Bucket::steady(125_000)), None),
            down: RateLimiter::default(),
            mtu: Some(1400),
        },
    };
    let base = FileDigest::Sparse(Sha256::of("disk"));
    let tap = TapSpec {
        name: tap_name(&guest).unwrap(),
        owner: if is_alice { 200_002 } else { 200_006 },
        address: host_side(ip),
        rates: Rates::default(),
    };
    Machine {
        vmm,
        mac: MacAddress::of_guest(ip),
        vcpus: 2,
        disk: match is_alice {
            true => MachineDisk::Kept,
            false => MachineDisk::Ephemeral { base, size: 1 << 30, in_memory: true },
        },
        images: is_alice.then(|| digest("containers")),
        // The clock was not named then.
        command_line: command_line(vmm, false, &boot).replace(" clocksource=kvm-clock", ""),
        spec: MachineSpec { balloon: Some(balloon), ..if is_alice { all } else { MachineSpec::default() } },
        ..machine_of(&tap, 0)
    }
}

/// What is wanted where a guest is to run this machine.
fn wanted(guest: &str, startup: Startup) -> WantedHost {
    let (Startup::Boot(machine) | Startup::Restored { machine, .. } | Startup::InUse(machine)) = &startup;
    let tap = TapSpec {
        name: machine.tap.clone(),
        owner: machine.uid,
        address: host_side(machine.ip),
        rates: Rates::default(),
    };
    let guest = (
        name(guest),
        WantedGuest { disk: None, tap, cgroup: LIMITS, startup, containers: Vec::new(), spare: None },
    );
    WantedHost { guests: [guest].into(), ..WantedHost::default() }
}

/// A host on which the guests run the machines that records tell.
fn found(wanted: &WantedHost, machine: &Machine) -> ObservedHost {
    let with_record = |(name, want): (&GuestName, &WantedGuest)| {
        let mut guest = running(want);
        guest.vmm.as_mut().unwrap().machine = Some(machine.clone());
        (name.clone(), guest)
    };
    let guests = wanted.guests.iter().map(with_record).collect();
    ObservedHost { guests, ..ObservedHost::default() }
}

#[test]
fn a_guest_whose_record_is_an_old_one_is_not_started_anew() {
    for (vmm, dir, guest) in [(VmmKind::Firecracker, "firecracker", "alice"), (VmmKind::Qemu, "qemu", "bob")]
    {
        let machine: Machine = read(&format!("{dir}/machine.json"));
        assert_eq!(machine, recorded(vmm));
        let boots = wanted(guest, Startup::Boot(recorded(vmm)));
        let plan = diff(&found(&boots, &machine), &boots, GuestScope::All);
        assert!(plan.is_empty() && plan.notes.is_empty(), "{plan} {:?}", plan.notes);

        let restored: Machine = read(&format!("{dir}/restored-machine.json"));
        let expected = Machine { restored_from: Some("monday".parse().unwrap()), ..recorded(vmm) };
        assert_eq!(restored, expected);
        let startup = Startup::Restored { machine: expected, fresh: Box::new(machine) };
        let stays = wanted(guest, startup);
        assert!(diff(&found(&stays, &restored), &stays, GuestScope::All).is_empty());
    }
}

/// What is written of a record, and that it is read again as it was.
fn written<T: Record + PartialEq + std::fmt::Debug>(record: &T) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.json");
    record::write(&path, record).unwrap();
    assert_eq!(record::read::<T>(&path).unwrap().as_ref(), Some(record));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

#[test]
fn records_of_processes_are_written_as_ever() {
    let vmm = ProcessId { pid: 4321, start_time: 987_654 };
    let process = serde_json::json!({ "version": 1, "pid": 4321, "start_time": 987_654 });
    let with = |more: serde_json::Value| {
        let (mut all, serde_json::Value::Object(more)) = (process.clone(), more) else { unreachable!() };
        all.as_object_mut().unwrap().extend(more);
        all
    };
    assert_eq!(written(&StartedVmm(vmm)), process);
    let ready = Ready { vmm, host_key: None, containers: Vec::new() };
    assert_eq!(written(&ready), with(serde_json::json!({ "host_key": "", "containers": [] })));
    let pool = PoolRecord {
        vmm,
        pool: Some("kiosk".parse().unwrap()),
        paused: true,
        ttl: Some(60),
        ends_with: None,
        session: None,
        is_over: false,
    };
    let spare = serde_json::json!({
        "pool": "kiosk", "paused": true, "ttl": 60, "session": null, "is_over": false
    });
    assert_eq!(written(&pool), with(spare));
}

#[test]
fn a_session_whose_begin_an_earlier_sisforge_did_not_know_has_none() {
    let session = r#"{"pool": "kiosk", "label": null, "started": "", "expires": null}"#;
    let session: Session = serde_json::from_str(session).unwrap();
    assert_eq!(session, Session { pool: Some("kiosk".parse().unwrap()), ..Session::default() });
}

#[test]
fn old_records_of_guests_and_host_are_understood() {
    for (vmm, dir) in [(VmmKind::Firecracker, "firecracker"), (VmmKind::Qemu, "qemu")] {
        let host_key = Some("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfTheGuest".to_owned());
        let containers = vec![StartedContainer::new(container("browser"))];
        let ready: Ready = read(&format!("{dir}/ready.json"));
        let expected = Ready {
            vmm: ProcessId { pid: 4321, start_time: 987_654 },
            host_key: host_key.clone(),
            containers: containers.clone(),
        };
        assert_eq!(ready, expected);
        let manifest: SnapshotManifest = read(&format!("{dir}/manifest.json"));
        assert_eq!(manifest.machine, recorded(vmm));
        assert_eq!((manifest.host_key, manifest.containers), (host_key, containers));
        assert_eq!(manifest.created, "2026-11-25T17:53:16Z");
        assert_eq!(manifest.origin.vmm_sha256, Sha256::of("vmm"));
        assert_eq!(manifest.files["state"].digest, FileDigest::Sparse(Sha256::of("s")));
    }
    let loaded: LoadedRuleset = read("ruleset.json");
    assert_eq!(
        loaded,
        LoadedRuleset {
            digest: Sha256::of("rules"),
            listing: Sha256::of("listing"),
            policies: None,
            published: Vec::new(),
            by_set: false,
        }
    );
    assert_eq!(read::<JailsRootRecord>("place.json").jails, Path::new("/srv/jails"));
    assert_eq!(read::<Restored>("restored.json").guest, name("bob"));
    let freezing: Freezing = read("freezing.json");
    assert_eq!((freezing.snapshot.as_str(), freezing.stop), ("monday", true));
}

#[test]
fn what_is_written_says_its_version_and_reads_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("machine.json");
    assert!(record::read::<Machine>(&path).unwrap().is_none(), "one that is not there is no error");
    for vmm in [VmmKind::Firecracker, VmmKind::Qemu] {
        record::write(&path, &recorded(vmm)).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("{\n  \"version\": 2,\n"));
        assert_eq!(record::read(&path).unwrap(), Some(recorded(vmm)));
    }
    let manifest: SnapshotManifest = read("qemu/manifest.json");
    record::write(&path, &manifest).unwrap();
    assert_eq!(record::read(&path).unwrap(), Some(manifest));
}

/// A recorded machine as JSON, changed.
fn changed(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("machine.json");
    record::write(&path, &recorded(VmmKind::Qemu)).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(value.as_object_mut().unwrap());
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn a_field_that_may_be_missing_needs_no_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("machine.json");
    fs::write(&path, changed(|machine| drop(machine.insert("later".into(), 1.into())))).unwrap();
    assert_eq!(record::read(&path).unwrap(), Some(recorded(VmmKind::Qemu)));
    let without = changed(|machine| {
        machine.remove("images");
        let spec = machine["spec"].as_object_mut().unwrap();
        spec.retain(|field, _| field == "balloon");
    });
    fs::write(&path, without).unwrap();
    assert_eq!(record::read(&path).unwrap(), Some(recorded(VmmKind::Qemu)));
}

/// Records that cannot be read, and what is said of each.
fn unreadable() -> [(Vec<u8>, &'static str); 5] {
    [
        (vec![b'{', 0xff, b'}'], "cannot read the record "),
        (b"{\"version\": 2, \"vm".to_vec(), "cannot read the record "),
        (changed(|machine| drop(machine.remove("kernel"))), "missing field `kernel`"),
        (changed(|machine| drop(machine.insert("version".into(), 3.into()))), "a newer sisforge wrote it"),
        (
            changed(|machine| {
                machine.remove("version");
                machine["command_line"] = "quiet".into();
            }),
            "its kernel command line has no address",
        ),
    ]
}

#[test]
fn a_record_that_cannot_be_read_is_told_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("machine.json");
    for (bytes, reason) in unreadable() {
        fs::write(&path, bytes).unwrap();
        let error = record::read::<Machine>(&path).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let told = format!("{error}: {cause}");
        assert!(told.contains(reason) && told.contains("machine.json"), "{told}");
    }
    let text =
        fs::read_to_string(old("qemu/manifest.json")).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(&path, text).unwrap();
    let told = record::read::<SnapshotManifest>(&path).unwrap_err().to_string();
    assert!(told.contains("its format is 2, but this sisforge knows format 1 only"), "{told}");
}

/// Processes that stand for VMMs, each in the cgroup of a guest, in a hierarchy that is only a directory.
struct Vmms {
    dir: tempfile::TempDir,
    layout: Layout,
    hierarchy: Hierarchy,
    processes: Vec<Child>,
}

impl Vmms {
    fn of(guests: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = HostSpec {
            uplink_rates: sisforge::base::Rates::default(),
            uplink: None,
            subnet: "10.99.0.0/16".parse().unwrap(),
            uids: 900_000..=999_999,
            store: dir.path().join("store"),
            jails: None,
            logs: Default::default(),
        };
        let layout = Layout::new(&host, &"records".parse().unwrap());
        let hierarchy = Hierarchy::V2 { root: dir.path().join("cgroup") };
        let mut processes = Vec::new();
        for guest in guests {
            let process = Command::new("sleep").arg("600").spawn().unwrap();
            let cgroup = dir.path().join("cgroup").join(layout.cgroup(&name(guest)));
            fs::create_dir_all(&cgroup).unwrap();
            fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
            fs::create_dir_all(layout.guest(&name(guest))).unwrap();
            processes.push(process);
        }
        Self { dir, layout, hierarchy, processes }
    }

    fn observed(&self) -> ObservedHost {
        let (layout, hierarchy) = (self.layout.clone(), self.hierarchy.clone());
        observe(&LinuxHost::new(layout, Scope::WholeHost, hierarchy, "sisforge".into())).unwrap()
    }
}

impl Drop for Vmms {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill().and_then(|()| process.wait());
        }
    }
}

#[test]
fn an_unreadable_record_of_one_guest_is_noted_and_hides_no_other() {
    if let Some(reason) = missing(&["ip", "nft"]) {
        return skip("an unreadable record", &reason);
    }
    let host = Vmms::of(&["alice", "bob"]);
    let [alice, bob] = ["alice", "bob"].map(|guest| host.layout.guest(&name(guest)).machine());
    record::write(&bob, &recorded(VmmKind::Qemu)).unwrap();
    for (bytes, _) in unreadable() {
        fs::write(&alice, bytes).unwrap();
        let observed = host.observed();
        let [alice, bob] = ["alice", "bob"].map(|guest| observed.guests[&name(guest)].vmm.clone().unwrap());
        assert_eq!((bob.machine, bob.unreadable), (Some(recorded(VmmKind::Qemu)), Vec::new()));
        assert_eq!((&alice.machine, alice.unreadable.len()), (&None, 1));
        let plan = diff(&observed, &WantedHost::default(), GuestScope::All);
        let stopped: Vec<_> = plan.stop.iter().map(|stop| stop.guest.as_str()).collect();
        assert_eq!(stopped, ["alice", "bob"]);
        assert_eq!(plan.notes, [format!("alice: {}", alice.unreadable[0])]);
        let up = wanted("alice", Startup::Boot(recorded(VmmKind::Firecracker)));
        let plan = diff(&observed, &up, GuestScope::Only(&[name("alice")]));
        assert_eq!(plan.stop[0].why.to_string(), "what is running is not known");
        assert_eq!(plan.start[0].guest, name("alice"));
    }
}

#[test]
fn other_records_of_a_guest_that_cannot_be_read_are_noted_and_change_what_is_known() {
    if let Some(reason) = missing(&["ip", "nft"]) {
        return skip("an unreadable record", &reason);
    }
    let host = Vmms::of(&["bob"]);
    let bob = name("bob");
    record::write(&host.layout.guest(&bob).machine(), &recorded(VmmKind::Qemu)).unwrap();
    let vmm = || host.observed().guests[&bob].vmm.clone().unwrap();
    assert!(vmm().machine.is_some() && vmm().unreadable.is_empty());
    fs::write(host.layout.guest(&bob).ready(), [0xff]).unwrap();
    assert!(vmm().machine.is_some() && !vmm().ready && vmm().unreadable[0].contains("ready.json"));
    fs::remove_file(host.layout.guest(&bob).ready()).unwrap();
    fs::write(host.layout.guest(&bob).freezing(), "{}").unwrap();
    assert!(vmm().unreadable[0].contains("freezing.json"));
    assert_eq!(vmm().machine, None, "it may be frozen for good");
    assert!(host.dir.path().exists());
    // Without a table there are no rules, whatever a record says.
    fs::write(host.layout.ruleset(), [0xff]).unwrap();
    assert_eq!(host.observed().ruleset, None::<ObservedRuleset>);
}

#[test]
fn guests_that_were_told_their_name_servers_are_those_that_ask_their_gateway() {
    let machine = recorded(VmmKind::Qemu);
    let gateway = format!("sisforge.dns={}", host_side(machine.ip));
    assert!(machine.command_line.contains(&gateway));
    let mut old = serde_json::to_value(&machine).unwrap();
    old["version"] = 1.into();
    old["command_line"] = machine.command_line.replace(&gateway, "sisforge.dns=10.0.0.53,9.9.9.9").into();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("machine.json");
    std::fs::write(&path, old.to_string()).unwrap();
    assert_eq!(record::read::<Machine>(&path).unwrap().unwrap(), machine);
}
