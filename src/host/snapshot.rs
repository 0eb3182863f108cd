//! Snapshots as data: what one is made of, what a host must be like to go on with it, and what stands against that.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::base::FileDigest;
use crate::base::text::none_is_empty;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{GuestName, Sha256, SnapshotName};
use crate::sys::cpu::Cpu;

use super::container::StartedContainer;
use super::ledger::SnapshotId;
use super::state::{Machine, StoredKind};
use super::vmm;

/// The guest's memory, page by page; Firecracker alone has it in a file of its own.
pub const MEMORY: &str = "memory";
/// The VMM's own state, and with QEMU the guest's memory.
pub const STATE: &str = "state";
/// The guest's data disk.
pub const DISK: &str = "disk.ext4";
/// The disk that the guest's session brought, of a snapshot that is evidence: no other has one.
pub const SESSION_DISK: &str = "session-disk.ext4";
/// The guest's memory as an ELF core, of a snapshot that is evidence: QEMU alone writes one.
pub const CORE: &str = "memory.elf";
/// The [`SnapshotManifest`].
pub const MANIFEST: &str = "manifest.json";
/// What a consumed snapshot was restored as.
pub const RESTORED: &str = "restored.json";

/// To whom one was exported that another host has now.
pub const EXPORTED: &str = "exported.json";

/// All that is known of a snapshot, and all that a restore needs beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotManifest {
    /// By which the ledger knows it; none in manifests of before there was a ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SnapshotId>,
    /// The guest that was frozen.
    pub guest: GuestName,
    /// When, in UTC, such as `2026-11-25T17:53:16Z`.
    pub created: String,
    /// The machine that was frozen.
    pub machine: Machine,
    /// The guest's ssh host key, which is in its memory; `None` where it runs no sshd.
    #[serde(with = "none_is_empty")]
    pub host_key: Option<String>,
    /// Containers that had been started in it.
    pub containers: Vec<StartedContainer>,
    /// Where it was frozen.
    pub origin: SnapshotOrigin,
    /// Every file beside the manifest, by name.
    pub files: BTreeMap<String, FileRecord>,
    /// How many bytes the host had given the guest's kept disk, whatever its VMM had made of the file; none in manifests of before,
    /// where the file's own size counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_disk_size: Option<u64>,
}

impl SnapshotManifest {
    /// By which the ledger knows it. One of before there was a ledger is known by what it is made of.
    pub fn id(&self) -> SnapshotId {
        let content = || Sha256::of(crate::base::text::json(&(&self.guest, &self.created, &self.files)));
        self.id.unwrap_or_else(|| SnapshotId(content()))
    }

    /// The size of its disk, where it has one. What a VMM added to the file does not count.
    pub fn disk_size(&self) -> Option<u64> {
        let file = self.files.get(DISK)?.size;
        Some(self.given_disk_size.map_or(file, |given| given.min(file)))
    }

    /// Whether it was given its id when it was made, so that a ledger counted it.
    pub fn has_own_id(&self) -> bool {
        self.id.is_some()
    }
}

/// One file of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// In bytes, holes included.
    pub size: u64,
    pub digest: FileDigest,
}

/// `restored.json`: what became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub guest: GuestName,
    /// When, in UTC.
    pub at: String,
}

/// `exported.json`: the snapshot is another host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// That host's public key, `age1...`.
    pub recipient: String,
    /// When, in UTC.
    pub at: String,
}

/// What a frozen guest cannot be without: a state that was written by one VMM on one processor makes sense there alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOrigin {
    /// Such as `1.16.1`.
    pub vmm_version: String,
    /// Of the VMM's program: builds of one version differ.
    pub vmm_sha256: Sha256,
    /// Version of the state's own format; `None` where the VMM tells none.
    #[serde(with = "none_is_empty")]
    pub state_format: Option<String>,
    /// Release of the host's kernel, such as `6.1.0-18-amd64`.
    pub kernel: String,
    pub cpu: Cpu,
}

/// One thing that stands against a restore.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("{what} is {here} here, and was {there}")]
    Differs { what: &'static str, there: String, here: String },
    #[error("its {0} is missing")]
    Missing(String),
    #[error("its {0} is damaged: its digest is not the one in the manifest")]
    Damaged(String),
    #[error("the store has no {} {} any more", .0.word(), .1.short())]
    NotStored(StoredKind, FileDigest),
    #[error("{0} is running")]
    Running(GuestName),
    #[error("its guest keeps the address {address}, which {by} uses")]
    AddressTaken { address: Ipv4Addr, by: GuestName },
    #[error("its guest keeps the address {0}, which is no longer in [host] subnet")]
    OutsideSubnet(Ipv4Addr),
    #[error("{frozen} {} a data disk, and {target} does{}", if *.kept { "keeps" } else { "does not keep" }, if *.kept { " not" } else { "" })]
    OtherDisk { frozen: GuestName, target: GuestName, kept: bool },
    #[error("Firecracker {0} cannot restore a guest with another TAP: this needs 1.12 or later")]
    OtherTap(String),
}

impl Diagnostic for Obstacle {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Running(_) => Class::Failed.hint("stop that guest first, or restore as another"),
            Self::Differs { .. }
            | Self::Missing(_)
            | Self::Damaged(_)
            | Self::NotStored(..)
            | Self::AddressTaken { .. }
            | Self::OutsideSubnet(_)
            | Self::OtherDisk { .. }
            | Self::OtherTap(_) => Class::Failed.no_hint(),
        }
    }
}

/// What is otherwise here than where the snapshot was made, each difference once.
pub fn differences(manifest: &SnapshotManifest, here: &SnapshotOrigin) -> Vec<Obstacle> {
    let there = &manifest.origin;
    let vmm = vmm::of(manifest.machine.vmm);
    let [version, build, format] = vmm.origin_words();
    let formats = [there, here].map(|one| one.state_format.clone().unwrap_or_else(|| "none".to_owned()));
    let builds = [there.vmm_sha256.short(), here.vmm_sha256.short()];
    let mut all = vec![
        (version, there.vmm_version.clone(), here.vmm_version.clone()),
        (build, builds[0].clone(), builds[1].clone()),
        (format, formats[0].clone(), formats[1].clone()),
    ];
    if vmm.needs_its_host(&manifest.machine) {
        all.extend([
            ("the host's kernel", there.kernel.clone(), here.kernel.clone()),
            ("the processor's vendor", there.cpu.vendor.clone(), here.cpu.vendor.clone()),
            ("the processor", there.cpu.model.clone(), here.cpu.model.clone()),
            ("the processor's family and model", there.cpu.signature.clone(), here.cpu.signature.clone()),
            (
                "the set of the processor's features",
                short(&there.cpu.flags).to_owned(),
                short(&here.cpu.flags).to_owned(),
            ),
        ]);
    }
    let differs = all.into_iter().filter(|(_, there, here)| there != here);
    differs.map(|(what, there, here)| Obstacle::Differs { what, there, here }).collect()
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// The machine of a snapshot as another guest's, or as its own under the numbers that it has now: its address stays,
/// because it is in the guest's memory.
pub fn brought_back(manifest: &SnapshotManifest, name: &SnapshotName, as_is: &Machine) -> Machine {
    Machine {
        uid: as_is.uid,
        tap: as_is.tap.clone(),
        restored_from: Some(name.clone()),
        ..manifest.machine.clone()
    }
}

/// What stands against a machine that was brought back because of the numbers that it would have here.
pub fn misplaced(manifest: &SnapshotManifest, machine: &Machine, subnet: Ipv4Net) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if !subnet.contains(&machine.ip) {
        found.push(Obstacle::OutsideSubnet(machine.ip));
    }
    let version = &manifest.origin.vmm_version;
    if machine.tap != manifest.machine.tap && !vmm::of(machine.vmm).can_change_tap(version) {
        found.push(Obstacle::OtherTap(version.clone()));
    }
    found
}

/// Which pages of a guest's memory a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedPages {
    All,
    /// Those that the guest or its VMM has ever touched; the others are holes, which read as the zeros that they are.
    Touched,
}

/// Which pages of a machine's memory its VMM writes. What a guest never touched are zeros; but of one that went on from a snapshot
/// they are in that snapshot's file, and what is in swap looks as if it had never been touched.
pub fn pages_to_save(machine: &Machine, origin: &SnapshotOrigin, may_swap: bool) -> SavedPages {
    let booted = machine.restored_from.is_none();
    let can = vmm::of(machine.vmm).can_leave_untouched(&origin.vmm_version);
    if booted && can && !may_swap { SavedPages::Touched } else { SavedPages::All }
}

/// How long a VMM may take to write or read so much memory: a slow disk takes 20 MiB in a second.
pub fn time_limit(memory_mib: u64) -> Duration {
    const AT_LEAST: u64 = 30;
    const SLOWEST_MIB_PER_SECOND: u64 = 20;
    Duration::from_secs(AT_LEAST + memory_mib / SLOWEST_MIB_PER_SECOND)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::fleet::VmmKind;

    /// A snapshot of a guest called alice.
    pub fn manifest(vmm: VmmKind) -> SnapshotManifest {
        SnapshotManifest {
            id: None,
            guest: "alice".parse().unwrap(),
            created: "2026-11-25T17:53:16Z".to_owned(),
            machine: Machine::example(vmm),
            host_key: None,
            containers: Vec::new(),
            origin: SnapshotOrigin {
                vmm_version: "1.16.1".to_owned(),
                vmm_sha256: Sha256::of("vmm"),
                state_format: Some("10.0.0".to_owned()),
                kernel: "6.1.0".to_owned(),
                cpu: Cpu { model: "AMD EPYC".to_owned(), ..Cpu::default() },
            },
            files: BTreeMap::new(),
            given_disk_size: None,
        }
    }

    fn told(manifest: &SnapshotManifest, here: &SnapshotOrigin) -> Vec<String> {
        differences(manifest, here).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn where_it_was_made_nothing_stands_against_a_snapshot() {
        let manifest = manifest(VmmKind::Firecracker);
        assert_eq!(told(&manifest, &manifest.origin), [""; 0]);
    }

    #[test]
    fn each_difference_is_named_with_both_sides() {
        let manifest = manifest(VmmKind::Firecracker);
        let mut here = SnapshotOrigin {
            vmm_version: "1.17.0".into(),
            kernel: "6.12.0".into(),
            ..manifest.origin.clone()
        };
        here.cpu.model = "AMD EPYC 9R14".into();
        assert_eq!(
            told(&manifest, &here),
            [
                "Firecracker is 1.17.0 here, and was 1.16.1",
                "the host's kernel is 6.12.0 here, and was 6.1.0",
                "the processor is AMD EPYC 9R14 here, and was AMD EPYC",
            ]
        );
    }

    #[test]
    fn an_emulated_machine_does_not_depend_on_its_host() {
        let manifest = manifest(VmmKind::Qemu);
        let here = SnapshotOrigin { kernel: "other".into(), cpu: Cpu::default(), ..manifest.origin.clone() };
        assert_eq!(told(&manifest, &here), [""; 0]);
        let mut by_kvm = manifest.clone();
        by_kvm.machine.kvm = true;
        assert_eq!(told(&by_kvm, &here).len(), 2);
        let here = SnapshotOrigin { vmm_sha256: Sha256::of("other build"), ..here };
        assert_eq!(told(&manifest, &here).len(), 1);
    }

    #[test]
    fn another_guest_takes_the_machine_over_but_for_its_own_numbers() {
        let manifest = manifest(VmmKind::Firecracker);
        let bob = Machine {
            uid: 2002,
            tap: "sis-bob".parse().unwrap(),
            memory_mib: 64,
            ..manifest.machine.clone()
        };
        let name: SnapshotName = "monday".parse().unwrap();
        let machine = brought_back(&manifest, &name, &bob);
        assert_eq!((machine.uid, machine.tap.as_str(), machine.memory_mib), (2002, "sis-bob", 512));
        assert_eq!(
            (machine.mac.to_string().as_str(), machine.restored_from),
            ("02:53:0a:6b:00:02", Some(name))
        );
    }

    #[test]
    fn an_address_of_another_subnet_and_a_tap_that_cannot_be_changed_are_refused() {
        let mut manifest = manifest(VmmKind::Firecracker);
        let as_itself = manifest.machine.clone();
        let as_bob = Machine { tap: "sis-bob".parse().unwrap(), ..as_itself.clone() };
        let [own, other] = ["10.107.0.0/24", "10.108.0.0/24"].map(|net| net.parse().unwrap());
        assert_eq!(misplaced(&manifest, &as_bob, own), []);
        assert_eq!(misplaced(&manifest, &as_bob, other), [Obstacle::OutsideSubnet([10, 107, 0, 2].into())]);
        manifest.origin.vmm_version = "1.11.0".into();
        assert_eq!(misplaced(&manifest, &as_itself, own), []);
        assert_eq!(misplaced(&manifest, &as_bob, own), [Obstacle::OtherTap("1.11.0".into())]);
    }

    #[test]
    fn untouched_pages_are_left_out_where_nothing_of_them_is_elsewhere() {
        let SnapshotManifest { machine, origin, .. } = manifest(VmmKind::Firecracker);
        let origin = SnapshotOrigin { vmm_version: "1.13.0".into(), ..origin };
        assert_eq!(pages_to_save(&machine, &origin, false), SavedPages::Touched);
        let restored = Machine { restored_from: Some("one".parse().unwrap()), ..machine.clone() };
        assert_eq!(pages_to_save(&restored, &origin, false), SavedPages::All);
        assert_eq!(pages_to_save(&machine, &origin, true), SavedPages::All);
        for version in ["1.12.1", "another build"] {
            let origin = SnapshotOrigin { vmm_version: version.into(), ..origin.clone() };
            assert_eq!(pages_to_save(&machine, &origin, false), SavedPages::All, "{version}");
        }
        let SnapshotManifest { machine, .. } = manifest(VmmKind::Qemu);
        assert_eq!(pages_to_save(&machine, &origin, false), SavedPages::All);
    }

    #[test]
    fn a_time_limit_grows_with_the_memory() {
        assert_eq!(time_limit(0), Duration::from_secs(30));
        assert_eq!(time_limit(32 << 10), Duration::from_secs(30 + 1638));
    }
}
