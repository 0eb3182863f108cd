//! Reading what a host has of a fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::base::FileDigest;
use crate::base::network::guest_of_tap;
use crate::base::{FleetName, GuestName, Sha256};
use crate::host::firewall::{self, Ruleset};
use crate::host::layout::Layout;
use crate::host::state::{CgroupLimits, DiskState, GuestState, HostState, Machine, StoredKind, TapSpec};
use crate::sys::cgroup::{Hierarchy, IoLimits};
use crate::sys::fs::{self as files, FileError};
use crate::sys::process::{self, ProcessInfo};
use crate::sys::{ip, nft, process as processes};

use super::jail::Place;
use super::record::{self, LoadedRuleset, Ready};
use super::{ApplyError, jail, keeper, snapshot};

/// Everything that the host has of the fleet.
///
/// # Errors
/// Where a tool, `/proc` or the store cannot be read.
pub fn observe(layout: &Layout, hierarchy: &Hierarchy) -> Result<HostState, ApplyError> {
    let jails = jail::all(layout)?;
    let cgroups = hierarchy.children(&layout.cgroups());
    let known: BTreeSet<GuestName> = recorded(layout)?
        .into_iter()
        .chain(names_in(&layout.disks(), ".ext4")?)
        .chain(cgroups.iter().filter_map(|name| name.parse().ok()))
        .chain(jails.keys().cloned())
        .collect();
    let taps = taps(layout)?;
    let mut guests = BTreeMap::new();
    for name in known {
        let places = jails.get(&name).map_or(&[][..], Vec::as_slice);
        let cgroup = cgroup(layout, hierarchy, &name, &cgroups);
        let parts = GuestState { tap: taps.get(&name).cloned(), cgroup, ..GuestState::default() };
        let state = guest(layout, hierarchy, &name, parts, places)?;
        if state != GuestState::default() {
            guests.insert(name, state);
        }
    }
    Ok(HostState {
        forwarding: forwards()?,
        ruleset: ruleset(layout)?,
        stored: stored(layout)?,
        guests,
        snapshot_leftovers: snapshot::has_leftovers(layout),
    })
}

/// The guests that have records or logs in the store, whether anything else of them is there or not.
///
/// # Errors
/// Where the store cannot be read.
pub fn recorded(layout: &Layout) -> Result<BTreeSet<GuestName>, ApplyError> {
    names_in(&layout.guests(), "")
}

/// What `guests/<name>`, `disks/<name>.ext4` and the like are called after.
fn names_in(dir: &Path, suffix: &str) -> Result<BTreeSet<GuestName>, ApplyError> {
    let names = files::names_in(dir)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(suffix)?.parse().ok()).collect())
}

fn taps(layout: &Layout) -> Result<BTreeMap<GuestName, TapSpec>, ApplyError> {
    let of_guest = |tap: ip::Tap| {
        let guest = guest_of_tap(&tap.name)?;
        // One that is half made is seen as what nobody wants: it is made anew, or removed.
        let address = tap.address.filter(|_| tap.up).map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| address);
        let owner = tap.owner.unwrap_or(u32::MAX);
        Some((guest, TapSpec { name: tap.name.parse().ok()?, owner, address }))
    };
    let ours = ip::taps()?.into_iter().filter(|tap| layout.owns_tap(&tap.alias));
    Ok(ours.filter_map(of_guest).collect())
}

fn guest(
    layout: &Layout,
    hierarchy: &Hierarchy,
    name: &GuestName,
    parts: GuestState,
    places: &[Place],
) -> Result<GuestState, ApplyError> {
    let vmm = vmm_process_of(layout, hierarchy, name, || places.to_vec());
    let used = vmm.as_ref().and_then(|vmm| jail::in_use(layout, name, places, vmm));
    let machine: Option<Machine> = match vmm {
        Some(_) => record::read(&layout.machine(name))?,
        None => None,
    };
    let ready = ready(layout, name, vmm.as_ref())?;
    // One that was started for a snapshot runs no guest before it has loaded it.
    let is_empty = |machine: &Machine| {
        let loaded = |vmm| snapshot::was_loaded(layout, name, machine, vmm);
        machine.restored_from.is_some() && ready.is_none() && !vmm.as_ref().is_some_and(loaded)
    };
    let machine = machine.filter(|machine| !is_empty(machine));
    Ok(GuestState {
        disk: owner_and_size(&layout.disk(name)).map(|(uid, size)| DiskState { uid, size, base: None }),
        oom_kills: parts.cgroup.map_or(0, |_| hierarchy.oom_kills(&layout.cgroup(name))),
        jail: used.is_some() || (vmm.is_none() && !places.is_empty()),
        old_jails: vmm.is_some() && places.len() > usize::from(used.is_some()),
        occupied: vmm.is_some(),
        logged: vmm.is_some() && keeper::is_alive(layout, name),
        machine,
        ready: ready.is_some(),
        containers: ready.map(|ready| ready.containers).unwrap_or_default(),
        paused: if vmm.is_some() { snapshot::paused(layout, name)? } else { None },
        ..parts
    })
}

/// The limits of a guest's cgroup. One that is half made, or half removed, limits nothing: it is made anew, or removed.
fn cgroup(
    layout: &Layout,
    hierarchy: &Hierarchy,
    name: &GuestName,
    there: &BTreeSet<String>,
) -> Option<CgroupLimits> {
    const HALF: CgroupLimits = CgroupLimits {
        memory: u64::MAX,
        pids: u64::MAX,
        cpu_quota: u64::MAX,
        cpu_weight: 0,
        io: IoLimits::NONE,
    };
    match hierarchy.limits(&layout.cgroup(name)) {
        Some(limits) => Some(CgroupLimits {
            memory: limits.memory,
            pids: limits.pids,
            cpu_quota: limits.cpu_quota.map_or(u64::MAX, |(quota, _)| quota),
            cpu_weight: limits.cpu_weight,
            // One device at most is limited: that which held the jails when the limits were set.
            io: limits.io.into_values().next().unwrap_or(IoLimits::NONE),
        }),
        None => there.contains(name.as_str()).then_some(HALF),
    }
}

/// The guest's VMM: whatever lives in its cgroup, or, where that is gone, in one of its jails.
pub fn vmm_process(layout: &Layout, hierarchy: &Hierarchy, name: &GuestName) -> Option<ProcessInfo> {
    // Where the jails cannot be read, nobody can tell what lives in them.
    vmm_process_of(layout, hierarchy, name, || jail::of(layout, name).unwrap_or_default())
}

fn vmm_process_of(
    layout: &Layout,
    hierarchy: &Hierarchy,
    name: &GuestName,
    places: impl FnOnce() -> Vec<Place>,
) -> Option<ProcessInfo> {
    let in_cgroup = hierarchy.procs(&layout.cgroup(name));
    let in_jail = || places().into_iter().flat_map(|place| processes::rooted_in(&place.root(layout, name)));
    in_cgroup.into_iter().find_map(process::inspect).or_else(|| in_jail().find_map(process::inspect))
}

/// What the running VMM's guest said when it was ready.
///
/// # Errors
/// Where the record cannot be read.
pub fn ready(
    layout: &Layout,
    name: &GuestName,
    vmm: Option<&ProcessInfo>,
) -> Result<Option<Ready>, ApplyError> {
    let Some(vmm) = vmm else { return Ok(None) };
    let ready: Option<Ready> = record::read(&layout.ready(name))?;
    Ok(ready.filter(|ready| (ready.pid, ready.start_time) == (vmm.pid, vmm.start_time)))
}

fn ruleset(layout: &Layout) -> Result<Option<Ruleset>, ApplyError> {
    let Some(listing) = listing(layout.fleet())? else { return Ok(None) };
    let loaded: Option<LoadedRuleset> = record::read(&layout.ruleset())?;
    // Rules that someone else changed are known by what they list as, which is the digest of no text of ours.
    let digest = loaded.filter(|loaded| loaded.listing == listing).map_or(listing, |loaded| loaded.digest);
    Ok(Some(Ruleset { digest, text: String::new() }))
}

/// The files of the store. What each is for is not observed; a plan looks at the digests alone.
fn stored(layout: &Layout) -> Result<BTreeMap<FileDigest, StoredKind>, ApplyError> {
    let dir = layout.files();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(FileError::when("read", &dir)(error).into()),
    };
    let digests = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<FileDigest>().ok());
    Ok(digests.map(|digest| (digest, StoredKind::Image)).collect())
}

/// The kernel's switch for forwarding IPv4.
pub(super) const FORWARDING: &str = "net.ipv4.ip_forward";

/// Whether the kernel forwards IPv4.
fn forwards() -> Result<bool, ApplyError> {
    Ok(ip::get_sysctl(FORWARDING)?.is_some_and(|value| value.trim() == "1"))
}

/// How nft lists the fleet's table; `None` where there is none.
pub(super) fn listing(fleet: &FleetName) -> Result<Option<Sha256>, ApplyError> {
    Ok(nft::list_table("inet", &firewall::table_name(fleet))?.map(Sha256::of))
}

/// Owner and length of a file; `None` where there is none.
fn owner_and_size(path: &Path) -> Option<(u32, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.uid(), meta.len()))
}
