//! Whether a host can carry out a plan, decided from what was read of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::{ByteSize, Class, Diagnosis, Diagnostic, FileDigest, GuestName, InterfaceName};
use crate::host::state::{Machine, MachineDisk};
use crate::sys::fs::FileId;

use super::model::{GuestSteps, Plan};
use super::step::{DiskStep, Step};

/// Space that is left free beside what is copied, in bytes: logs and records are written too.
const FREE_MARGIN: u64 = 64 << 20;

/// What a plan needs of its host and does not find there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostLacks {
    #[error("the uid {uid} of {guest} is in use on this host: {holder}")]
    UidTaken { guest: GuestName, uid: u32, holder: String },
    #[error("{} has {} MiB free, but {} MiB are needed", store.display(), .free >> 20, .needed >> 20)]
    NoRoom { store: PathBuf, needed: u64, free: u64 },
    #[error("{} is mounted {flag}, but jails contain programs and device nodes", store.display())]
    MountedWithout { store: PathBuf, flag: &'static str },
    #[error(
        "{} MiB of huge pages are needed, but {} MiB are free on this host", .needed >> 20, .free >> 20
    )]
    NoHugePages { needed: u64, free: u64 },
    #[error("{0}")]
    NoMemory(MemoryShortage),
    #[error(
        "{guest} would be stopped and could not start again: another interface has the name of its TAP, \
         {tap} (`ip -n sisforge-FLEET link show {tap}` shows it)"
    )]
    TapTaken { guest: GuestName, tap: InterfaceName },
}

impl Diagnostic for HostLacks {
    fn diagnosis(&self) -> Diagnosis {
        use Class::Failed;
        match self {
            Self::UidTaken { .. } => {
                Failed.hint("give the fleet a range that nothing else uses: [host] uids")
            }
            Self::NoRoom { .. } => {
                Failed.hint("free some space, or move [host] store to a larger file system")
            }
            Self::MountedWithout { .. } => {
                Failed.hint("mount it without that option, or move [host] store to another file system")
            }
            Self::NoHugePages { .. } => Failed.hint(
                "reserve more, for example with `sysctl vm.nr_hugepages=COUNT` (2 MiB each), or leave \
                 `huge-pages` out",
            ),
            Self::NoMemory(_) => Failed.hint("give it less `memory`"),
            // What to do is in its words.
            Self::TapTaken { .. } => Failed.no_hint(),
        }
    }
}

/// Every step of a plan that builds something.
pub fn building(plan: &Plan) -> impl Iterator<Item = &Step> {
    plan.prepare.iter().chain(&plan.rules).chain(plan.start.iter().flat_map(GuestSteps::all))
}

fn is_stopped(plan: &Plan, guest: &GuestName) -> bool {
    plan.stop.iter().any(|stopped| stopped.guest == *guest)
}

/// The memory of a host, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// RAM and swap together.
    pub total: u64,
    /// What programs can have without any being swapped out.
    pub available: u64,
    /// What the guests hold that the plan stops.
    pub freed: u64,
}

/// Why guests do not find the memory that they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryShortage {
    /// One guest alone is larger than the host: it can never have what it is given.
    Impossible { guest: GuestName, needed: u64, total: u64 },
    /// What starts can together touch more than there is. That is legal, and may go well: guests rarely touch all.
    Overcommitted { needed: u64, free: u64 },
}

impl MemoryShortage {
    /// Whether the plan cannot be carried out.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Impossible { .. })
    }
}

impl fmt::Display for MemoryShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible { guest, needed, total } => write!(
                f,
                "{guest} needs {} of memory, but this host has {} including swap",
                ByteSize::from_bytes(*needed),
                ByteSize::from_mib(total >> 20)
            ),
            Self::Overcommitted { needed, free } => write!(
                f,
                "the guests that start may use {} of memory together, but {} are available: if they use all of \
                 it, the kernel will kill some of them",
                ByteSize::from_bytes(*needed),
                ByteSize::from_mib(free >> 20)
            ),
        }
    }
}

/// The guest that a step starts, and the memory that it is given, in bytes.
fn starting(step: &Step) -> Option<(&GuestName, u64)> {
    match step {
        Step::StartVmm { guest, machine } if !machine.spec.huge_pages => {
            Some((guest, machine.memory_mib << 20))
        }
        _ => None,
    }
}

/// Whether the guests that a plan starts find their memory. Huge pages are set aside, and counted by themselves.
pub fn memory(plan: &Plan, host: HostMemory) -> Option<MemoryShortage> {
    let guests: Vec<_> = plan.start.iter().flat_map(|guest| guest.all().filter_map(starting)).collect();
    let (total, free) = (host.total, host.available.saturating_add(host.freed));
    if let Some((guest, needed)) = guests.iter().copied().find(|(_, needed)| *needed > total) {
        return Some(MemoryShortage::Impossible { guest: guest.clone(), needed, total });
    }
    let needed = guests.iter().map(|(_, needed)| needed).sum();
    (needed > free).then_some(MemoryShortage::Overcommitted { needed, free })
}

/// TAPs of guests that are stopped to be started again. One that does not run yet fails alone.
pub fn restarted_taps(plan: &Plan) -> Vec<(&GuestName, &InterfaceName)> {
    let taps = plan.start.iter().flat_map(GuestSteps::all).filter_map(|step| match step {
        Step::CreateTap { guest, tap } if is_stopped(plan, guest) => Some((guest, &tap.name)),
        _ => None,
    });
    taps.collect()
}

/// Whether these TAPs can be made. `foreign` are the names of interfaces that are no TAP of the fleet.
pub fn tap_names(taps: &[(&GuestName, &InterfaceName)], foreign: &BTreeSet<String>) -> Result<(), HostLacks> {
    match taps.iter().find(|(_, tap)| foreign.contains(tap.as_str())) {
        Some((guest, tap)) => Err(HostLacks::TapTaken { guest: (*guest).clone(), tap: (*tap).clone() }),
        None => Ok(()),
    }
}

/// The huge pages of a host, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostHugePages {
    pub total: u64,
    pub free: u64,
    /// What the machines of guests take that were started, whether they still run or not.
    pub taken: BTreeMap<GuestName, u64>,
}

/// Bytes of huge pages that a machine is made of.
pub fn huge_pages_of(machine: &Machine) -> u64 {
    if machine.spec.huge_pages { machine.memory_mib << 20 } else { 0 }
}

/// Bytes of huge pages that each guest takes which a plan starts.
fn huge_pages_needed(plan: &Plan) -> BTreeMap<&GuestName, u64> {
    let starting = building(plan).filter_map(|step| match step {
        Step::StartVmm { guest, machine } => Some((guest, huge_pages_of(machine))),
        _ => None,
    });
    starting.collect()
}

/// Whether a plan starts a guest that is made of huge pages.
pub fn takes_huge_pages(plan: &Plan) -> bool {
    huge_pages_needed(plan).values().any(|needed| *needed > 0)
}

/// Whether the host has the huge pages that guests are made of. Linux would find out page by page, and end the VMM. A
/// guest that runs may still have to touch its own, so that those are not free that merely look so.
pub fn huge_pages(plan: &Plan, host: &HostHugePages) -> Result<(), HostLacks> {
    let comes = huge_pages_needed(plan);
    let needed: u64 = comes.values().sum();
    let (mut stays, mut goes) = (0, 0);
    for (guest, taken) in &host.taken {
        if is_stopped(plan, guest) {
            goes += taken;
        } else if !comes.contains_key(guest) {
            stays += taken;
        }
    }
    let free = (host.free + goes).min(host.total.saturating_sub(stays));
    if needed > 0 && free < needed { Err(HostLacks::NoHugePages { needed, free }) } else { Ok(()) }
}

/// Two guests that have one data disk, by which file each disk is, where a plan starts one of them.
pub fn shared_disk(plan: &Plan, disks: &[(GuestName, FileId)]) -> Option<(GuestName, GuestName)> {
    let starts = |guest: &GuestName| plan.start.iter().any(|steps| steps.guest == *guest && steps.starts());
    let mut holders = BTreeMap::new();
    disks.iter().find_map(|(guest, disk)| {
        let other = holders.insert(disk, guest)?;
        (starts(guest) || starts(other)).then(|| (guest.clone(), other.clone()))
    })
}

/// The uids of the guests that a plan starts.
pub fn started_uids(plan: &Plan) -> BTreeMap<u32, GuestName> {
    let starting = |step: &Step| match step {
        Step::StartVmm { guest, machine } => Some((machine.uid, guest.clone())),
        _ => None,
    };
    building(plan).filter_map(starting).collect()
}

/// A process that runs as the uid of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UidProcess {
    pub uid: u32,
    pub pid: u32,
    pub program: String,
    /// Whether it is in that guest's own cgroup or jail: then it is its VMM, which a plan may be about to stop.
    pub is_guests: bool,
}

/// Whether the uids of the guests that start are theirs alone. `accounts` says in words who else has a uid.
pub fn uids(
    guests: &BTreeMap<u32, GuestName>,
    accounts: &BTreeMap<u32, String>,
    processes: &[UidProcess],
) -> Result<(), HostLacks> {
    let account = accounts.iter().find_map(|(uid, holder)| Some((guests.get(uid)?, *uid, holder.clone())));
    let process = || {
        let mut foreign = processes.iter().filter(|process| !process.is_guests);
        let words = |process: &UidProcess| format!("process {} ({})", process.pid, process.program);
        foreign.find_map(|process| Some((guests.get(&process.uid)?, process.uid, words(process))))
    };
    match account.or_else(process) {
        Some((guest, uid, holder)) => Err(HostLacks::UidTaken { guest: guest.clone(), uid, holder }),
        None => Ok(()),
    }
}

/// Whether a step writes files to the store.
pub fn writes(step: &Step) -> bool {
    matches!(step, Step::StoreFile { .. } | Step::Disk(DiskStep::CreateDisk { .. }) | Step::CreateJail { .. })
}

/// The file that a step copies, where nothing is shared with the original.
pub fn copied(step: &Step) -> Option<&FileDigest> {
    match step {
        Step::StoreFile { digest, .. } => Some(digest),
        Step::Disk(DiskStep::CreateDisk { base, .. }) => Some(base),
        Step::CreateJail { machine, .. } => match &machine.disk {
            MachineDisk::Ephemeral { base, in_memory: false, .. } => Some(base),
            MachineDisk::Ephemeral { .. } | MachineDisk::Kept => None,
        },
        _ => None,
    }
}

/// Whether a store with so many bytes free has room for those that are to be written to it.
pub fn room(store: &Path, free: u64, written: u64) -> Result<(), HostLacks> {
    let needed = written + FREE_MARGIN;
    if free < needed { Err(HostLacks::NoRoom { store: store.to_owned(), needed, free }) } else { Ok(()) }
}

/// Whether a file system with these mount flags can hold jails: Firecracker's jailer copies the program into the jail and makes
/// device nodes there.
pub fn jails(store: &Path, noexec: bool, nodev: bool) -> Result<(), HostLacks> {
    match [(noexec, "noexec"), (nodev, "nodev")].into_iter().find(|(is_set, _)| *is_set) {
        Some((_, flag)) => Err(HostLacks::MountedWithout { store: store.to_owned(), flag }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
