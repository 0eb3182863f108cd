//! What a plan needs of its host, looked at before the first step, so that nothing is left half-made.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use crate::base::{ByteSize, GuestName};
use crate::host::layout::Layout;
use crate::host::vmm;
use crate::plan::check::{self, HostHugePages, HostLacks, HostMemory, MemoryShortage, UidProcess};
use crate::plan::{GuestSteps, NetworkStep, Plan, Step};
use crate::sys::accounts::HostAccounts;
use crate::sys::cgroup::IoLimits;
use crate::sys::fs::{self as files, FileError, FileId};
use crate::sys::ip::Interface;
use crate::sys::{firecracker, memory, nft, process, tool};

use super::linux::LinuxHost;
use super::record::JailsRootRecord;
use super::{ApplyError, network, record, resolver};

/// Looks whether every step can be taken.
///
/// # Errors
/// Those of [`look`], a store that cannot be written, and a Firecracker that no jail can hold.
pub fn check(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    look(plan, host)?;
    let steps: Vec<&Step> = check::building(plan).collect();
    if steps.iter().any(|step| check::writes(step)) {
        check_writable(host)?;
    }
    if steps.iter().any(|step| jails(step)) {
        let firecracker = tool::find("firecracker").ok_or(ApplyError::NoVmm { program: "firecracker" })?;
        firecracker::check_static(&firecracker)?;
    }
    Ok(())
}

/// Looks whether jails, disks and snapshots of the fleet are where fleet.toml says, and not where it said before.
pub fn check_jails_root(layout: &Layout) -> Result<(), ApplyError> {
    let recorded: Option<JailsRootRecord> = record::read(&layout.jails_root_record())?;
    let place = recorded.map_or_else(|| layout.store().to_owned(), |record| record.jails);
    if place == layout.jails_root() {
        return Ok(());
    }
    for dir in layout.dirs_below(&place) {
        if !files::names_in(&dir)?.is_empty() {
            let to = layout.jails_root().to_owned();
            return Err(ApplyError::Moved { fleet: layout.fleet().clone(), dir, place, to });
        }
    }
    Ok(())
}

/// Remembers where jails are from now on.
pub fn record_jails_root(layout: &Layout) -> Result<(), ApplyError> {
    if layout.jails_root() == layout.store() {
        return Ok(files::remove(&layout.jails_root_record())?);
    }
    Ok(record::write(
        &layout.jails_root_record(),
        &JailsRootRecord { jails: layout.jails_root().to_owned() },
    )?)
}

/// Checks whether each guest that is to be started has a data disk of its own in the store.
fn check_own_disks(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    if !plan.start.iter().any(GuestSteps::starts) {
        return Ok(());
    }
    let mut disks = Vec::new();
    for name in files::names_in(&host.layout.disks())? {
        let guest = name.strip_suffix(".ext4").and_then(|name| name.parse::<GuestName>().ok());
        let disk = guest.and_then(|guest| Some((host.layout.disk(&guest).symlink_metadata().ok()?, guest)));
        disks.extend(disk.map(|(disk, guest)| (guest, FileId::of(&disk))));
    }
    match check::shared_disk(plan, &disks) {
        Some((guest, other)) => Err(ApplyError::DiskShared { guest, other: host.layout.disk(&other) }),
        None => Ok(()),
    }
}

/// Whether a step starts a VMM that a jailer puts into its jail.
fn jails(step: &Step) -> bool {
    matches!(step, Step::StartVmm { machine, .. } if vmm::of(machine.vmm).jailed_program().is_some())
}

/// The part of [`check`] that writes nothing.
///
/// # Errors
/// The first need that is not met: a tool, rules that nft takes, artifacts, room for their copies, memory, `/dev/net/tun`,
/// names, uids and addresses of its own, a block device where its use is limited, a file system for jails. Digests of
/// artifacts are looked at while they are copied, which comes before the first stop.
pub fn look(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    let steps: Vec<&Step> = check::building(plan).collect();
    for program in programs(&steps) {
        if tool::find(program).is_none() {
            return Err(tool::ToolError::Missing { tool: program.to_owned() }.into());
        }
    }
    check_rules_and_artifacts(&steps, host)?;
    check_room(&steps, host)?;
    if let Some(shortage) = memory_shortage(plan, host).filter(MemoryShortage::is_certain) {
        return Err(HostLacks::NoMemory(shortage).into());
    }
    check_own_disks(plan, host)?;
    check_tap_names(plan, host)?;
    check_tun(&steps)?;
    check_uids(plan, host)?;
    let limits_io =
        |step: &&Step| matches!(step, Step::CreateCgroup { limits, .. } if limits.io != IoLimits::NONE);
    if steps.iter().any(limits_io) {
        host.device()?;
    }
    if steps.iter().any(|step| jails(step)) {
        check_file_system(&host.layout.jails_root_of_fleet())?;
    }
    let needs_kvm =
        |step: &&Step| matches!(step, Step::StartVmm { machine, .. } if vmm::of(machine.vmm).needs_kvm());
    if steps.iter().any(needs_kvm) {
        check_device(
            "/dev/kvm",
            "Firecracker runs guests by KVM alone",
            "load kvm_intel or kvm_amd, `sisforge doctor` tells more; or set `vmm = \"qemu\"`, for development",
        )?;
    }
    check_huge_pages(plan, host)
}

/// Checks whether nft takes the rules as a whole, and what is to be stored is there.
fn check_rules_and_artifacts(steps: &[&Step], host: &LinuxHost) -> Result<(), ApplyError> {
    for step in steps {
        match step {
            Step::Network(NetworkStep::LoadRuleset(ruleset)) => nft::check(&ruleset.to_check())?,
            Step::Network(NetworkStep::LoadHostRules(rules)) => nft::check(&rules.ruleset.text)?,
            Step::Network(NetworkStep::StartResolver(wanted)) => resolver::check_start(&host.layout, wanted)?,
            Step::StoreFile { digest, .. } if digest.is_built() && !host.artifacts.contains_key(digest) => {
                return Err(ApplyError::NoArtifact(*digest));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the guests that start find their memory; `None` as well where the kernel does not report it.
pub fn memory_shortage(plan: &Plan, host: &LinuxHost) -> Option<MemoryShortage> {
    if plan.start.is_empty() {
        return None;
    }
    let held = |guest: &GuestSteps| host.hierarchy.memory_current(&host.layout.cgroup(&guest.guest));
    let freed = plan.stop.iter().filter_map(held).sum();
    check::memory(plan, HostMemory { total: memory::total()?, available: memory::available()?, freed })
}

/// Checks whether the names of TAPs that are to be made again are nobody else's.
fn check_tap_names(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    let taps = check::restarted_taps(plan);
    if taps.is_empty() {
        return Ok(());
    }
    let Some(inside) = network::inside(&host.layout)? else { return Ok(()) };
    let is_ours = |found: &Interface| found.tap.is_some() && host.layout.owns_tap(found.alias.as_deref());
    let foreign = inside.interfaces.into_iter().filter(|found| !is_ours(found)).map(|found| found.name);
    Ok(check::tap_names(&taps, &foreign.collect())?)
}

/// Checks whether the huge pages are there that guests are made of.
fn check_huge_pages(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    if !check::takes_huge_pages(plan) {
        return Ok(());
    }
    let mut taken = BTreeMap::new();
    for guest in record::guests(&host.layout)? {
        // Of one whose record cannot be read, nobody knows what it takes.
        if let Some(machine) = host.guest(&guest).machine().ok().flatten() {
            taken.insert(guest, check::huge_pages_of(&machine));
        }
    }
    let pages = memory::huge_pages()?;
    Ok(check::huge_pages(plan, &HostHugePages { total: pages.total, free: pages.free, taken })?)
}

/// Checks whether TAPs can be made.
fn check_tun(steps: &[&Step]) -> Result<(), ApplyError> {
    if !steps.iter().any(|step| matches!(step, Step::CreateTap { .. })) {
        return Ok(());
    }
    check_device(
        "/dev/net/tun",
        "every guest needs a TAP",
        "run `modprobe tun`, or pass the device to this container",
    )
}

fn check_device(path: &'static str, why: &'static str, remedy: &'static str) -> Result<(), ApplyError> {
    if Path::new(path).exists() { Ok(()) } else { Err(ApplyError::NoNode { path, why, remedy }) }
}

/// Checks whether nobody else has the uids of the guests that start.
fn check_uids(plan: &Plan, host: &LinuxHost) -> Result<(), ApplyError> {
    let guests = check::started_uids(plan);
    if guests.is_empty() {
        return Ok(());
    }
    let uids: BTreeSet<u32> = guests.keys().copied().collect();
    let accounts = HostAccounts::read(&uids);
    let holders = uids.iter().filter_map(|uid| Some((*uid, accounts.holder(*uid)?.to_owned())));
    let mut processes = Vec::new();
    for (pid, uid) in process::running_as(&uids) {
        let is_guests = is_in_place(pid, &guests[&uid], host)?;
        // One that has ended meanwhile is in nobody's way.
        if process::inspect(pid).is_some() {
            let program = process::command(pid).into_iter().next().unwrap_or_else(|| "?".to_owned());
            processes.push(UidProcess { uid, pid, program, is_guests });
        }
    }
    Ok(check::uids(&guests, &holders.collect(), &processes)?)
}

/// Whether a process is in a guest's own cgroup, or in one of its jails.
fn is_in_place(pid: u32, guest: &GuestName, host: &LinuxHost) -> Result<bool, ApplyError> {
    if host.hierarchy.holds(&host.layout.cgroup(guest), pid) {
        return Ok(true);
    }
    let mut jails = host.guest(guest).jails()?.into_iter();
    Ok(jails.any(|id| process::is_rooted_in(pid, &id.root(&host.layout, guest))))
}

/// Checks whether jails can be in a directory. One that is not there yet will be on the file system of what it is made in.
fn check_file_system(store: &Path) -> Result<(), ApplyError> {
    let store = files::existing_ancestor(store).unwrap_or(store);
    let stat = rustix::fs::statvfs(store).map_err(|error| FileError::when("look at", store)(error.into()))?;
    let is_set = |flag| stat.f_flag.contains(flag);
    Ok(check::jails(store, is_set(StatVfsMountFlags::NOEXEC), is_set(StatVfsMountFlags::NODEV))?)
}

fn programs(steps: &[&Step]) -> BTreeSet<&'static str> {
    let needed = |step: &&Step| -> &'static [&'static str] {
        match step {
            Step::Network(step) => match step {
                NetworkStep::LoadRuleset(_)
                | NetworkStep::LoadHostRules(_)
                | NetworkStep::RemoveNetwork
                | NetworkStep::RemoveEarlierNetwork => &["nft"],
                NetworkStep::CreateNamespace => &["ip"],
                NetworkStep::ConnectNamespace { .. } => &["ip", "tc"],
                NetworkStep::StartResolver(_) | NetworkStep::StopResolver { .. } => &[],
            },
            Step::CreateTap { .. } => &["ip"],
            Step::Containers(_) => &["ssh"],
            Step::StartVmm { machine, .. } => vmm::of(machine.vmm).needed_programs(),
            _ => &[],
        }
    };
    steps.iter().flat_map(|step| needed(step).iter().copied()).collect()
}

/// Checks whether the store can be written.
fn check_writable(host: &LinuxHost) -> Result<(), ApplyError> {
    for dir in [host.layout.dir(), host.layout.jails_root_of_fleet()] {
        files::create_private_dir(&dir)?;
        // What permissions and mount flags say is not all: only a file that was written tells.
        tempfile::tempfile_in(&dir).map_err(FileError::when("write into the store", &dir))?;
    }
    Ok(())
}

/// Checks whether the store holds what the plan copies into it. A store that is not there yet will be on the file system of what it
/// is made in.
fn check_room(steps: &[&Step], host: &LinuxHost) -> Result<(), ApplyError> {
    if steps.iter().any(|step| check::writes(step)) {
        return check_room_for(&host.layout, steps.iter().map(|step| copied(step, host)).sum());
    }
    Ok(())
}

/// Bytes that a step writes to the disk where nothing is shared with the original.
fn copied(step: &Step, host: &LinuxHost) -> u64 {
    let original = |digest| host.artifacts.get(digest).cloned().unwrap_or_else(|| host.layout.file(digest));
    let meta = check::copied(step).and_then(|digest| std::fs::metadata(original(digest)).ok());
    meta.map_or(0, |meta| files::allocated(&meta))
}

/// What a plan copies to the jails' file system, in words; `None` where it shares blocks there, or copies nothing.
pub fn cost(plan: &Plan, host: &LinuxHost) -> Option<String> {
    let place = host.layout.jails_root();
    let there = files::existing_ancestor(place)?;
    let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    let shares = rustix::fs::statfs(there).is_ok_and(|stat| REFLINKS.contains(&stat.f_type));
    let (mut bytes, mut is_elsewhere) = (0, false);
    for step in check::building(plan) {
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

/// Checks whether the store has room for so many bytes more.
pub(super) fn check_room_for(layout: &Layout, needed: u64) -> Result<(), ApplyError> {
    let place = layout.jails_root_of_fleet();
    let store = files::existing_ancestor(&place).unwrap_or(&place);
    let free = files::free_space(store).map_err(FileError::when("look at", store))?;
    Ok(check::room(store, free.bytes, needed)?)
}
