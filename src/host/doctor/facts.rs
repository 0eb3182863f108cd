//! What is read of a host, and what a fleet wants of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::base::InterfaceName;
use crate::fleet::{Backing, Fleet, VmmKind};
use crate::host::resolver::needed;
use crate::sys::firecracker::FirecrackerVersion;

/// What came of the attempt to run a guest of a few instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// There is no `/dev/kvm`.
    Absent,
    /// Whoever asks may not open it.
    Closed,
    /// `/dev/kvm` is there, but there is no Firecracker to try it with.
    Untried,
    /// It ran.
    Ran,
    /// It did not, in words.
    Failed(String),
}

/// A program on the search path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    /// Unknown where it does not say.
    pub version: Option<FirecrackerVersion>,
    /// Whether it needs no other file to run.
    pub is_static: bool,
}

/// The interface that faces the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    pub name: String,
    /// Whether what comes in by it is forwarded.
    pub forwards: bool,
    /// Whether whoever asks may have it do so.
    pub can_be_set: bool,
}

/// A directory, or the nearest one above it that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFacts {
    pub path: PathBuf,
    pub uid: u32,
    /// Permissions.
    pub mode: u32,
    pub nodev: bool,
    pub noexec: bool,
    /// Number of its file system.
    pub device: u64,
}

/// A host. `None` and absence from a map mean that it could not be read, or that this kernel has no such thing.
#[derive(Clone, Debug)]
pub struct Facts {
    pub kvm: Kvm,
    /// `uname -r`
    pub kernel: String,
    /// Whether the processor says that it has VMX or SVM; `None` on other architectures than x86-64.
    pub hardware_virtualization: Option<bool>,
    /// Kernel modules whose name begins with `kvm`.
    pub kvm_modules: Vec<String>,
    pub firecracker: Option<Program>,
    pub jailer: Option<Program>,
    pub qemu: Option<PathBuf>,
    /// Programs that the fleet's policies need and that are not installed.
    pub lacking: Vec<&'static str>,
    /// Where jails are made.
    pub jails: Option<DirectoryFacts>,
    /// Where kernels and images are linked from.
    pub files: Option<DirectoryFacts>,
    /// Controllers that cgroups can be limited by, as version 2 calls them.
    pub controllers: BTreeSet<String>,
    pub mounts: usize,
    /// Devices and files that are swapped to.
    pub swaps: Vec<String>,
    pub ksm: Option<bool>,
    /// Whether processors share a core now.
    pub smt: Option<bool>,
    /// What the kernel says of each known flaw of the processor.
    pub vulnerabilities: BTreeMap<String, String>,
    /// Versions of the processors' microcode.
    pub microcode: BTreeSet<String>,
    /// Whether guests may run guests.
    pub nested: Option<bool>,
    /// Huge pages of 2 MiB that are set aside, whoever has them now.
    pub huge_pages: u64,
    /// Bytes that the fleet can have: what is available, and what it has already.
    pub memory: Option<u64>,
    /// The interface that faces the network; `None` where there is none.
    pub uplink: Option<Uplink>,
    /// Sysctls by their names.
    pub settings: BTreeMap<String, String>,
    /// Whether nft takes a ruleset of the kind that is loaded; else its words. `None` where only root may ask.
    pub nft: Option<Result<(), String>>,
    /// Chains of others that drop forwarded packets.
    pub forward_drops: Option<Vec<String>>,
    /// Accounts of the host whose uids or gids are in the fleet's range.
    pub taken_uids: Vec<String>,
    pub clocksource: Option<String>,
}

impl Facts {
    /// A sysctl that is a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.settings.get(key)?.split_whitespace().last()?.parse().ok()
    }
}

/// What a fleet wants of its host; what any does where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetRequirements {
    pub vmm: VmmKind,
    pub guests: u64,
    /// Bytes of all guests and of their disks in memory.
    pub memory: u64,
    /// Huge pages of 2 MiB.
    pub huge_pages: u64,
    pub uids: RangeInclusive<u32>,
    /// Programs that policies with names need.
    pub programs: Vec<&'static str>,
    /// The interface that faces the network; `None`: that of the default route.
    pub uplink: Option<InterfaceName>,
}

impl FleetRequirements {
    /// What a fleet wants. Without one, what any Firecracker fleet does.
    pub fn of(fleet: Option<&Fleet>) -> Self {
        let Some(fleet) = fleet else {
            let uids = crate::fleet::HostSpec::default().uids;
            return Self {
                vmm: VmmKind::default(),
                guests: 0,
                memory: 0,
                huge_pages: 0,
                uids,
                uplink: None,
                programs: Vec::new(),
            };
        };
        let in_memory = |backing| if backing == Backing::Tmpfs { 1 } else { 0 };
        let guests = || fleet.guests.values();
        let huge = guests().filter(|guest| guest.machine.huge_pages);
        Self {
            vmm: fleet.vmm,
            uplink: fleet.host.uplink.clone(),
            guests: fleet.guests.len() as u64,
            memory: guests()
                .map(|g| g.memory.bytes() + in_memory(g.disk.backing) * g.disk.size.bytes())
                .sum(),
            huge_pages: huge.map(|guest| guest.memory.bytes().div_ceil(HUGE_PAGE)).sum(),
            uids: fleet.host.uids.clone(),
            programs: needed(fleet.networks.values()),
        }
    }
}

/// Bytes in a huge page.
pub const HUGE_PAGE: u64 = 2 << 20;
