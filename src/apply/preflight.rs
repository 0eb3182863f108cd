//! What a plan needs of its host, looked at before the first step, so that nothing is left half-made.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use crate::base::FileDigest;
use crate::base::{ByteSize, GuestName};
use crate::host::layout::Layout;
use crate::host::state::{Machine, MachineDisk};
use crate::host::vmm;
use crate::host::vmm::of;
use crate::plan::check::{self, HostMemory, MemoryShortage};
use crate::plan::{GuestSteps, Plan, Step};
use crate::sys::accounts::HostAccounts;
use crate::sys::cgroup::IoLimits;
use crate::sys::fs::{self as files, FileError};
use crate::sys::ip::Interface;
use crate::sys::{firecracker, memory, nft, process, tool};

use super::linux::LinuxHost;
use super::record::PlaceRecord;
use super::{ApplyError, network, observe, record, resolver};

/// Space that is left free beside what a plan copies, in bytes: logs and records are written too.
const FREE_MARGIN: u64 = 64 << 20;

/// Looks whether every step can be taken.
///
/// # Errors
/// Those of [`look`], a store that cannot be written, and a Firecracker that no jail can hold.
pub fn check(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    look(plan, host)?;
    let steps = steps(plan);
    if steps.iter().any(|step| writes(step)) {
        is_writable(host)?;
    }
    if steps.iter().any(|step| jails(step)) {
        let firecracker = tool::find("firecracker").ok_or(ApplyError::NoVmm { program: "firecracker" })?;
        firecracker::check_static(&firecracker)?;
    }
    Ok(())
}

/// Looks whether jails, disks and snapshots of the fleet are where fleet.toml says, and not where it said before.
///
/// # Errors
/// Where something of them is in another place.
pub fn place(layout: &Layout) -> Result<(), ApplyError> {
    let recorded: Option<PlaceRecord> = record::read(&layout.place_record())?;
    let place = recorded.map_or_else(|| layout.store().to_owned(), |record| record.jails);
    if place == layout.place() {
        return Ok(());
    }
    for dir in layout.placed_in(&place) {
        if !files::names_in(&dir)?.is_empty() {
            let to = layout.place().to_owned();
            return Err(ApplyError::Moved { fleet: layout.fleet().clone(), dir, place, to });
        }
    }
    Ok(())
}

/// Remembers where jails are from now on.
///
/// # Errors
/// Where that cannot be written.
pub fn keep_place(layout: &Layout) -> Result<(), ApplyError> {
    if layout.place() == layout.store() {
        return Ok(files::remove(&layout.place_record())?);
    }
    Ok(record::write(&layout.place_record(), &PlaceRecord { jails: layout.place().to_owned() })?)
}

/// Whether the store has one file for the disks of two guests, of which one is to be started.
fn own_disks(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    let starts = |guest: &GuestName| plan.start.iter().any(|steps| steps.guest == *guest && steps.starts());
    if !plan.start.iter().any(GuestSteps::starts) {
        return Ok(());
    }
    let mut holders: BTreeMap<(u64, u64), GuestName> = BTreeMap::new();
    for name in files::names_in(&host.layout.disks())? {
        let Some(guest) = name.strip_suffix(".ext4").and_then(|name| name.parse::<GuestName>().ok()) else {
            continue;
        };
        let path = host.layout.disk(&guest);
        let Some(disk) = path.symlink_metadata().ok().filter(|disk| disk.nlink() > 1) else { continue };
        match holders.insert((disk.dev(), disk.ino()), guest.clone()) {
            Some(other) if starts(&guest) || starts(&other) => {
                return Err(ApplyError::DiskShared { guest, other: host.layout.disk(&other) });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a step starts a VMM that a jailer puts into its jail.
fn jails(step: &Step) -> bool {
    matches!(step, Step::StartVmm { machine, .. } if vmm::of(machine.vmm).jailed_program().is_some())
}

/// Every step that builds something.
fn steps(plan: &Plan) -> Vec<&Step> {
    plan.prepare.iter().chain(&plan.rules).chain(plan.start.iter().flat_map(GuestSteps::all)).collect()
}

/// The part of [`check`] that writes nothing.
///
/// # Errors
/// The first need that is not met: a tool, rules that nft takes, artifacts, room for their copies, memory, `/dev/net/tun`,
/// names, uids and addresses of its own, a block device where its use is limited, a file system for jails. Digests of
/// artifacts are looked at while they are copied, which comes before the first stop.
pub fn look(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    let steps = steps(plan);
    for program in programs(&steps) {
        if tool::find(program).is_none() {
            return Err(tool::ToolError::Missing { tool: program.to_owned() }.into());
        }
    }
    rules_and_artifacts(&steps, host)?;
    room(&steps, host)?;
    if let Some(shortage) = memory_shortage(plan, host).filter(MemoryShortage::is_certain) {
        return Err(ApplyError::NoMemory(shortage));
    }
    own_disks(plan, host)?;
    tap_names(plan, host)?;
    taps(&steps)?;
    uids(&steps, host)?;
    let limits_io =
        |step: &&Step| matches!(step, Step::CreateCgroup { limits, .. } if limits.io != IoLimits::NONE);
    if steps.iter().any(limits_io) {
        host.device()?;
    }
    if steps.iter().any(|step| jails(step)) {
        allows_jails(&host.layout.place_dir())?;
    }
    let needs_kvm =
        |step: &&Step| matches!(step, Step::StartVmm { machine, .. } if of(machine.vmm).needs_kvm());
    if steps.iter().any(needs_kvm) {
        is_there(
            "/dev/kvm",
            "Firecracker runs guests by KVM alone",
            "load kvm_intel or kvm_amd, `sisforge doctor` tells more; or set `vmm = \"qemu\"`, for development",
        )?;
    }
    huge_pages(plan, &steps, host)
}

/// Whether nft takes the rules as a whole, and what is to be stored is there.
fn rules_and_artifacts(steps: &[&Step], host: &LinuxHost) -> Result<(), ApplyError> {
    for step in steps {
        match step {
            Step::LoadRuleset(ruleset) => nft::check(&ruleset.text)?,
            Step::LoadHostRules(rules) => nft::check(&rules.ruleset.text)?,
            Step::StartResolver(wanted) => resolver::can_start(&host.layout, wanted)?,
            Step::StoreFile { digest, .. }
                if digest.is_built() && !host.artifacts.get(digest).is_some_and(|path| path.exists()) =>
            {
                return Err(ApplyError::NoArtifact(*digest));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the guests that start find their memory; `None` as well where the kernel does not report it.
pub fn memory_shortage(plan: &Plan, host: &LinuxHost) -> Option<MemoryShortage> {
    let held = |guest: &GuestSteps| host.hierarchy.memory_current(&host.layout.cgroup(&guest.guest));
    let freed = plan.stop.iter().filter_map(held).sum();
    check::memory(plan, HostMemory { total: memory::total()?, available: memory::available()?, freed })
}

/// Whether the TAPs of guests that are stopped to be started again can be made: a name may be another interface's. One that
/// does not run yet fails alone.
fn tap_names(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    let stops = |guest: &GuestName| plan.stop.iter().any(|stopped| stopped.guest == *guest);
    let new = plan.start.iter().flat_map(GuestSteps::all).filter_map(|step| match step {
        Step::CreateTap { guest, tap } if stops(guest) => Some((guest, tap)),
        _ => None,
    });
    let new: Vec<_> = new.collect();
    if new.is_empty() {
        return Ok(());
    }
    let there = network::inside(&host.layout)?.map(|inside| inside.interfaces).unwrap_or_default();
    let is_ours = |found: &Interface| found.tap.is_some() && host.layout.owns_tap(&found.alias);
    for (guest, tap) in new {
        if there.iter().any(|found| found.name == tap.name.as_str() && !is_ours(found)) {
            return Err(ApplyError::TapTaken { guest: guest.clone(), tap: tap.name.clone() });
        }
    }
    Ok(())
}

/// Whether the host has the huge pages that guests are made of. Linux would find out page by page, and end the VMM. A
/// guest that runs may still have to touch its own, so that those are not free that merely look so.
fn huge_pages(plan: &Plan, steps: &[&Step], host: &LinuxHost) -> Result<(), ApplyError> {
    let taken_by = |machine: &Machine| if machine.spec.huge_pages { machine.memory_mib << 20 } else { 0 };
    let mut needed = 0;
    let mut comes = BTreeSet::new();
    for step in steps {
        if let Step::StartVmm { guest, machine } = step {
            needed += taken_by(machine);
            comes.insert(guest.clone());
        }
    }
    if needed == 0 {
        return Ok(());
    }
    let (mut stays, mut goes) = (0, 0);
    for guest in observe::recorded(&host.layout)? {
        // Of one whose record cannot be read, nobody knows what it takes.
        let machine: Option<Machine> = host.guest(&guest).machine().ok().flatten();
        let taken = machine.as_ref().map_or(0, taken_by);
        match plan.stop.iter().any(|stopped| stopped.guest == guest) {
            true => goes += taken,
            false if !comes.contains(&guest) => stays += taken,
            false => {}
        }
    }
    let pages = memory::huge_pages()?;
    let free = (pages.free + goes).min(pages.total.saturating_sub(stays));
    if free < needed { Err(ApplyError::NoHugePages { needed, free }) } else { Ok(()) }
}

/// Whether TAPs can be made.
fn taps(steps: &[&Step]) -> Result<(), ApplyError> {
    if !steps.iter().any(|step| matches!(step, Step::CreateTap { .. })) {
        return Ok(());
    }
    is_there(
        "/dev/net/tun",
        "every guest needs a TAP",
        "run `modprobe tun`, or pass the device to this container",
    )
}

fn is_there(path: &'static str, why: &'static str, remedy: &'static str) -> Result<(), ApplyError> {
    if Path::new(path).exists() { Ok(()) } else { Err(ApplyError::NoNode { path, why, remedy }) }
}

/// Whether the uids of the guests that start are theirs alone. What runs as one of them in the guest's own cgroup or jail is
/// its VMM, which a plan may be about to stop.
fn uids(steps: &[&Step], host: &LinuxHost) -> Result<(), ApplyError> {
    let starting = |step: &&Step| match step {
        Step::StartVmm { guest, machine } => Some((machine.uid, guest.clone())),
        _ => None,
    };
    let guests: BTreeMap<u32, GuestName> = steps.iter().filter_map(starting).collect();
    let uids: BTreeSet<u32> = guests.keys().copied().collect();
    if uids.is_empty() {
        return Ok(());
    }
    let accounts = HostAccounts::read(&uids);
    for (uid, guest) in &guests {
        if let Some(holder) = accounts.holder(*uid) {
            return Err(ApplyError::UidTaken { guest: guest.clone(), uid: *uid, holder: holder.to_owned() });
        }
    }
    for (pid, uid) in process::running_as(&uids) {
        let guest = &guests[&uid];
        let is_own = host.hierarchy.holds(&host.layout.cgroup(guest), pid)
            || host
                .guest(guest)
                .jails()?
                .iter()
                .any(|place| process::is_rooted_in(pid, &place.root(&host.layout, guest)));
        if let Some(other) = process::inspect(pid).filter(|_| !is_own) {
            let holder = format!("process {pid} ({})", other.command.first().map_or("?", String::as_str));
            return Err(ApplyError::UidTaken { guest: guest.clone(), uid, holder });
        }
    }
    Ok(())
}

/// Firecracker's jailer copies the program into the jail and makes device nodes there. A store that is not there yet will
/// be on the file system of what it is made in.
fn allows_jails(store: &Path) -> Result<(), ApplyError> {
    let store = store.ancestors().find(|path| path.exists()).unwrap_or(store);
    let stat = rustix::fs::statvfs(store).map_err(|error| FileError::when("look at", store)(error.into()))?;
    let forbidden = [("noexec", StatVfsMountFlags::NOEXEC), ("nodev", StatVfsMountFlags::NODEV)];
    match forbidden.iter().find(|(_, flag)| stat.f_flag.contains(*flag)) {
        Some((flag, _)) => Err(ApplyError::MountedWithout { store: store.to_owned(), flag }),
        None => Ok(()),
    }
}

fn programs(steps: &[&Step]) -> BTreeSet<&'static str> {
    let needed = |step: &&Step| -> &'static [&'static str] {
        match step {
            Step::LoadRuleset(_) | Step::LoadHostRules(_) | Step::RemoveNetwork => &["nft"],
            Step::CreateTap { .. } | Step::CreateNamespace | Step::ConnectNamespace { .. } => &["ip"],
            Step::StartContainers { .. } => &["ssh"],
            Step::StartVmm { machine, .. } => vmm::of(machine.vmm).needed_programs(),
            _ => &[],
        }
    };
    steps.iter().flat_map(|step| needed(step).iter().copied()).collect()
}

/// Whether the store can be written.
fn is_writable(host: &LinuxHost) -> Result<(), ApplyError> {
    for dir in [host.layout.dir(), host.layout.place_dir()] {
        files::create_private_dir(&dir)?;
        // What permissions and mount flags say is not all: only a file that was written tells.
        tempfile::tempfile_in(&dir).map_err(FileError::when("write into the store", &dir))?;
    }
    Ok(())
}

/// Whether the store holds what the plan copies into it. A store that is not there yet will be on the file system of what it
/// is made in.
fn room(steps: &[&Step], host: &LinuxHost) -> Result<(), ApplyError> {
    if steps.iter().any(|step| writes(step)) {
        return room_for(&host.layout, steps.iter().map(|step| copied(step, host)).sum());
    }
    Ok(())
}

/// Whether a step writes files to the store.
fn writes(step: &Step) -> bool {
    matches!(step, Step::StoreFile { .. } | Step::CreateDisk { .. } | Step::CreateJail { .. })
}

/// Bytes that a step writes to the disk where nothing is shared with the original.
fn copied(step: &Step, host: &LinuxHost) -> u64 {
    let of = |digest: &FileDigest| match host.artifacts.get(digest) {
        Some(artifact) => allocated(artifact),
        None => allocated(&host.layout.file(digest)),
    };
    match step {
        Step::StoreFile { digest, .. } => of(digest),
        Step::CreateDisk { base, .. } => of(base),
        Step::CreateJail { machine, .. } => match &machine.disk {
            MachineDisk::Ephemeral { base, in_memory: false, .. } => of(base),
            MachineDisk::Ephemeral { .. } | MachineDisk::Kept => 0,
        },
        _ => 0,
    }
}

/// What a plan copies to the jails' file system, in words; `None` where it shares blocks there, or copies nothing.
pub fn cost(plan: &Plan, host: &LinuxHost) -> Option<String> {
    let place = host.layout.place();
    let there = place.ancestors().find(|dir| dir.exists())?;
    let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    let shares = rustix::fs::statfs(there).is_ok_and(|stat| REFLINKS.contains(&stat.f_type));
    let (mut bytes, mut is_elsewhere) = (0, false);
    for step in steps(plan) {
        let source = match step {
            Step::StoreFile { digest, .. } => host.artifacts.get(digest).map(PathBuf::as_path),
            _ => Some(there),
        };
        let elsewhere = source.is_some_and(|source| device(source) != device(there));
        let cost = copied(step, host);
        if cost > 0 && (elsewhere || !shares) {
            (bytes, is_elsewhere) = (bytes + cost, is_elsewhere || elsewhere);
        }
    }
    let why =
        if is_elsewhere { "out/ is on another file system" } else { "this file system shares no blocks" };
    (bytes > 0).then(|| format!("{} are copied to {}: {why}", ByteSize::from_bytes(bytes), place.display()))
}

/// File systems of which two files may have the same blocks: btrfs, XFS, bcachefs (`linux/magic.h`).
const REFLINKS: [rustix::fs::FsWord; 3] = [0x9123_683e, 0x5846_5342, 0xca45_1a4e];

/// Whether the store has room for so many bytes more.
///
/// # Errors
/// Where it has not, or cannot be asked.
pub(super) fn room_for(layout: &Layout, needed: u64) -> Result<(), ApplyError> {
    let place = layout.place_dir();
    let store = place.ancestors().find(|dir| dir.exists()).unwrap_or(&place).to_owned();
    let free =
        rustix::fs::statvfs(&store).map_err(|error| FileError::when("look at", &store)(error.into()))?;
    let free = free.f_bavail * free.f_frsize;
    if free < needed + FREE_MARGIN {
        return Err(ApplyError::NoRoom { store, needed: needed + FREE_MARGIN, free });
    }
    Ok(())
}

/// Bytes that a file takes on its disk, holes left out.
pub(super) fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}
