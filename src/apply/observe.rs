//! Reading what a host has of a fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;

use crate::base::diagnostic::one_line;
use crate::base::network::guest_of_tap;
use crate::base::{Found, GuestName};
use crate::host::layout::Layout;
use crate::host::observed::{
    ObservedCgroup, ObservedDisk, ObservedGuest, ObservedHost, ObservedLimits, ObservedTap, ObservedVmm,
};
use crate::host::state::{CPU_PERIOD, Machine};
use crate::sys::cgroup::{Hierarchy, IoLimits};
use crate::sys::fs as files;
use crate::sys::ip;
use crate::sys::process::{self, DirId, ProcessInfo};

use super::jail::Astray;
use super::jail_id::JailId;
use super::linux::{GuestHandle, LinuxHost};
use super::look::SeenVmm;
use super::network::{FleetNetworkError, TapSettings};
use super::record::{self, Ready, StartedVmm, Unreadable};
use super::store::Store;
use super::{ApplyError, network, resolver, snapshot};

/// Everything that the host has of the fleet.
///
/// # Errors
/// Where a tool, `/proc` or the store cannot be read. A guest's record that cannot be read is no error: it is told with the
/// guest.
pub fn observe(host: &LinuxHost) -> Result<ObservedHost, ApplyError> {
    let (layout, hierarchy) = (&host.layout, &host.hierarchy);
    host.cache.clear();
    let jails = host.cache.all_jails(layout)?;
    let cgroups = hierarchy.children(&layout.cgroups());
    let disks = files::names_in(&layout.disks())?;
    let known: BTreeSet<GuestName> = record::guests(layout)?
        .into_iter()
        .chain(disks.iter().filter_map(|name| name.strip_suffix(".ext4")?.parse().ok()))
        .chain(cgroups.iter().filter_map(|name| name.parse().ok()))
        .chain(jails.keys().cloned())
        .collect();
    let (inside, interfaces) = (network::inside(layout)?, ip::interfaces()?);
    if let Some(inside) = &inside {
        host.cache.set_taps(layout, &inside.interfaces, &interfaces);
    }
    if let Some(read) = inside.as_ref().and_then(|inside| inside.read_rules()) {
        host.cache.set_rules(read);
    }
    let taps = taps(layout, inside.as_ref(), &interfaces);
    let store = Store::look(layout)?;
    let one = |name: &GuestName| {
        let own = jails.get(name).map_or(&[][..], Vec::as_slice);
        let tap = taps.get(name).cloned();
        Ok(ObservedGuest { tap, ..host.guest(name).observed(own, &cgroups, &store)? })
    };
    let known: Vec<GuestName> = known.into_iter().collect();
    let mut guests = side_by_side(&known, one)?;
    guests.retain(|_, guest| *guest != ObservedGuest::default());
    Ok(ObservedHost {
        network: network::observe(layout, inside.as_ref(), &interfaces)?,
        ruleset: inside.and_then(|inside| inside.ruleset(layout)),
        policies: network::policies(layout),
        stored: store.whole,
        damaged: store.damaged,
        guests,
        quarantined: record::quarantine::all(layout)?,
        resolvers: resolver::observe(layout, hierarchy).map_err(FleetNetworkError::from)?,
        snapshot_leftovers: snapshot::has_leftovers(layout),
    })
}

/// So many guests are looked at by one thread.
const AT_ONCE: usize = 32;

/// Looks at each guest, with as many threads as there are processors for that.
fn side_by_side(
    names: &[GuestName],
    look: impl Fn(&GuestName) -> Result<ObservedGuest, ApplyError> + Sync,
) -> Result<BTreeMap<GuestName, ObservedGuest>, ApplyError> {
    let look_at = |names: &[GuestName]| -> Result<Vec<_>, ApplyError> {
        names.iter().map(|name| Ok((name.clone(), look(name)?))).collect()
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<_> = names.chunks(names.len().div_ceil(processors).max(AT_ONCE)).collect();
    let [part] = parts[..] else {
        let found: Result<Vec<_>, _> = std::thread::scope(|scope| {
            let looking: Vec<_> = parts.iter().map(|part| scope.spawn(|| look_at(part))).collect();
            looking.into_iter().map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        return Ok(found?.into_iter().flatten().collect());
    };
    Ok(look_at(part)?.into_iter().collect())
}

/// Whether a host has nothing of the fleet that could run or filter.
pub fn is_bare(observed: &ObservedHost) -> bool {
    observed.guests.is_empty()
        && observed.resolvers.is_empty()
        && !observed.network.is_there()
        && !observed.network.is_in_host
}

/// The guests that have a cgroup, whichever store they were started from.
pub fn in_cgroups(layout: &Layout, hierarchy: &Hierarchy) -> BTreeSet<GuestName> {
    hierarchy.children(&layout.cgroups()).iter().filter_map(|name| name.parse().ok()).collect()
}

/// TAPs of guests in the fleet's namespace; what an earlier sisforge left in the host's own network counts where there is
/// none.
fn taps(
    layout: &Layout,
    inside: Option<&network::NamespaceState>,
    interfaces: &[ip::Interface],
) -> BTreeMap<GuestName, ObservedTap> {
    let of_guest = |tap: &ip::Tap, is_in_host: bool| {
        let (guest, name) = (guest_of_tap(&tap.name)?, tap.name.parse().ok()?);
        let address = tap.address.map(|(address, _)| address);
        let settings = inside.filter(|_| !is_in_host).and_then(|inside| inside.taps.get(&tap.name));
        let TapSettings { hardened, rates } = settings.copied().unwrap_or_default();
        let owner = tap.owner;
        Some((guest, ObservedTap { name, owner, address, up: tap.up, is_in_host, hardened, rates }))
    };
    let here = interfaces.iter().map(|interface| (interface, true));
    let there = inside.into_iter().flat_map(|inside| &inside.interfaces).map(|interface| (interface, false));
    let taps =
        here.chain(there).filter_map(|(interface, is_in_host)| Some((interface.tap.as_ref()?, is_in_host)));
    let ours = taps.filter(|(tap, _)| layout.owns_tap(tap.alias.as_deref()));
    ours.filter_map(|(tap, is_in_host)| of_guest(tap, is_in_host)).collect()
}

impl GuestHandle<'_> {
    /// What the host has of it, but for its TAP.
    fn observed(
        self,
        jails: &[JailId],
        cgroups: &BTreeSet<String>,
        store: &Store,
    ) -> Result<ObservedGuest, ApplyError> {
        let ready: Result<Option<Ready>, Unreadable> = record::read(&self.dir().ready());
        let known_ready = ready.as_ref().ok().and_then(Option::as_ref);
        let Occupants { vmm: found, is_inside, strays } = self.occupants_by(known_ready, || jails.to_vec());
        let used = found.as_ref().and_then(|vmm| self.jail_in_use(jails, vmm));
        let disk = self.observed_disk();
        let machine = if found.is_some() || disk.is_none() { self.machine() } else { Ok(None) };
        let astray = machine.as_ref().ok().and_then(Option::as_ref);
        let astray = astray.and_then(|machine| self.astray_disk(machine, found.as_ref(), jails));
        let disk_only_open = matches!(astray, Some(Astray::OnlyOpen(_)));
        if let (Some(_), Ok(Some(machine))) = (&found, &machine) {
            self.host.cache.set_machine(self.name, machine);
        }
        let vmm = |found| {
            let vmm = self.observed_vmm(&found, (machine, ready), used, store);
            let outside_cgroup = !is_inside && vmm.outside_cgroup;
            self.host.cache.set_vmm(self.name, SeenVmm { process: found, halted: vmm.halted });
            ObservedVmm { disk_only_open, outside_cgroup, ..vmm }
        };
        Ok(ObservedGuest {
            lost_disk: astray.is_some(),
            disk,
            tap: None,
            cgroup: self.observed_cgroup(cgroups),
            idle_jails: jails.len() > usize::from(used.is_some()),
            idle_records: found.is_none() && self.has_records()?,
            strays,
            vmm: found.map(vmm),
        })
    }

    /// What is known of a process that has the place of a guest's VMM.
    fn observed_vmm(
        self,
        process: &ProcessInfo,
        (machine, ready): (Result<Option<Machine>, Unreadable>, Result<Option<Ready>, Unreadable>),
        jail: Option<JailId>,
        store: &Store,
    ) -> ObservedVmm {
        let (layout, hierarchy, name) = (self.layout(), &self.host.hierarchy, self.name);
        let mut unreadable = Vec::new();
        let machine = or_note(machine, &mut unreadable).map(|machine| store.rename(machine));
        let ready = or_note(ready, &mut unreadable).filter(|ready| ready.is_of(process));
        let paused = self.paused();
        // Of one that may be frozen for good, nobody can say that it may go on.
        let machine = machine.filter(|_| paused.is_ok());
        let paused = or_note(paused, &mut unreadable);
        let role = self.recorded_role(process).unwrap_or_else(|error| {
            unreadable.push(one_line(&error));
            Some(self.role_unread())
        });
        // One that was started for a snapshot runs no guest before it has loaded it.
        let waits = |machine: &Machine| {
            machine.restored_from.is_some() && ready.is_none() && !self.has_loaded(machine, process)
        };
        let cgroup = layout.cgroup(name);
        let root = jail.map(|jail| jail.root(layout, name));
        let damaged = root.zip(machine.as_ref()).map(|(root, machine)| store.damaged_in(&root, machine));
        ObservedVmm {
            machine: machine.filter(|machine| !waits(machine)),
            unreadable,
            jailed: jail.is_some(),
            outside_cgroup: !hierarchy.holds(&cgroup, process.id.pid),
            halted: process.state == process::STOPPED || hierarchy.is_frozen(&cgroup),
            damaged: damaged.unwrap_or_default(),
            logged: self.has_keeper() && self.halted_keeper().is_none(),
            disk_only_open: false,
            ready: ready.is_some(),
            containers: ready.map(|ready| ready.containers).unwrap_or_default(),
            paused,
            role,
        }
    }
}

/// What a record says; one that cannot be read is noted.
fn or_note<T, E: Error + 'static>(read: Result<Option<T>, E>, unreadable: &mut Vec<String>) -> Option<T> {
    read.unwrap_or_else(|error| {
        unreadable.push(one_line(&error));
        None
    })
}

impl GuestHandle<'_> {
    /// The cgroup of a guest. One that is half made, or half removed, limits nothing.
    fn observed_cgroup(self, there: &BTreeSet<String>) -> Option<ObservedCgroup> {
        let (layout, hierarchy, name) = (self.layout(), &self.host.hierarchy, self.name);
        let path = layout.cgroup(name);
        let limits = match hierarchy.limits(&path) {
            Some(limits) => Found::Whole(ObservedLimits {
                memory: limits.memory,
                pids: limits.pids,
                cpu_quota: limits.cpu_quota.map(|(quota, period)| {
                    quota.saturating_mul(CPU_PERIOD).checked_div(period).unwrap_or(quota)
                }),
                cpu_weight: limits.cpu_weight,
                // One device at most is limited: that which held the jails when the limits were set.
                io: limits.io.into_values().next().unwrap_or(IoLimits::NONE),
            }),
            None if there.contains(name.as_str()) => Found::Half,
            None => return None,
        };
        Some(ObservedCgroup { limits, oom_kills: hierarchy.oom_kills(&path) })
    }

    /// The guest's VMM: the process that was started as that, as long as it lives. Where no record says which, the first that lives in
    /// its cgroup, or, where that is gone, in one of its jails.
    pub fn vmm(self) -> Option<ProcessInfo> {
        self.occupants().vmm
    }

    /// What runs of a guest.
    pub(super) fn occupants(self) -> Occupants {
        if self.host.cache.has_ended(self.name) {
            return Occupants::default();
        }
        let ready: Option<Ready> = record::read(&self.dir().ready()).ok().flatten();
        // Where the jails cannot be read, nobody can tell what lives in them.
        self.occupants_by(ready.as_ref(), || self.jails().unwrap_or_default())
    }

    fn occupants_by(self, ready: Option<&Ready>, jails: impl FnOnce() -> Vec<JailId>) -> Occupants {
        let (layout, hierarchy, name) = (self.layout(), &self.host.hierarchy, self.name);
        // An earlier sisforge put down nothing before its guest was ready.
        let noted = || record::read(&self.dir().started()).ok().flatten().map(|StartedVmm(vmm)| vmm);
        let started = ready.map(|ready| ready.vmm).or_else(noted);
        let cgroup = layout.cgroup(name);
        let recorded = started.and_then(process::again);
        let is_inside = recorded.as_ref().is_some_and(|vmm| hierarchy.holds(&cgroup, vmm.id.pid));
        if is_inside {
            return Occupants { vmm: recorded, is_inside, strays: false };
        }
        let jails = jails();
        // In neither, it was only to become the VMM: whoever started it is gone, and so it ends.
        let recorded = recorded.filter(|vmm| self.lives_in_one_of(&jails, vmm));
        if recorded.is_some() {
            return Occupants { vmm: recorded, is_inside, strays: false };
        }
        let in_cgroup = hierarchy.procs(&cgroup);
        let first = leader(in_cgroup.into_iter().filter_map(process::inspect))
            .or_else(|| self.vmm_outside_cgroup(&jails));
        // The end of the VMM is its guest's, whatever it started lives on.
        match started {
            Some(_) => Occupants { vmm: None, is_inside, strays: first.is_some() },
            None => Occupants { vmm: first, is_inside, strays: false },
        }
    }
}

/// What runs of a guest.
#[derive(Debug, Default)]
pub(super) struct Occupants {
    pub vmm: Option<ProcessInfo>,
    /// Whether the VMM is known to be in its cgroup for each controller.
    is_inside: bool,
    /// Whether others are left of a VMM that has ended.
    pub strays: bool,
}

impl GuestHandle<'_> {
    /// Whether the root of a process is that of one of these jails.
    fn lives_in_one_of(self, jails: &[JailId], process: &ProcessInfo) -> bool {
        let root = |id: &JailId| DirId::of(&id.root(self.layout(), self.name));
        process.root.is_some() && jails.iter().any(|id| root(id) == process.root)
    }

    /// What lives in one of a guest's jails, and was there when the host was looked at: who starts a VMM has it in its cgroup.
    pub(super) fn vmm_outside_cgroup(self, jails: &[JailId]) -> Option<ProcessInfo> {
        let roots = jails.iter().filter_map(|id| DirId::of(&id.root(self.layout(), self.name)));
        // Another that has such a number by now is none of the guest's, unless it lives there too.
        let live_in = |root: DirId| {
            let pids = self.host.cache.rooted_at(root).into_iter();
            pids.filter_map(process::inspect).filter(move |process| process.root == Some(root))
        };
        leader(roots.flat_map(live_in))
    }
}

/// The VMM among the processes of its guest: the first of them, whatever number each has. KVM puts threads of the kernel
/// beside it, and a VMM that was taken over may have started others.
fn leader(processes: impl Iterator<Item = ProcessInfo>) -> Option<ProcessInfo> {
    processes.filter(|process| !process.is_kernel_thread).min_by_key(|process| process.id.start_time)
}

impl GuestHandle<'_> {
    /// What the running VMM's guest said when it was ready.
    pub fn ready(self, vmm: Option<&ProcessInfo>) -> Result<Option<Ready>, ApplyError> {
        let Some(vmm) = vmm else { return Ok(None) };
        let ready: Option<Ready> = record::read(&self.dir().ready())?;
        Ok(ready.filter(|ready| ready.is_of(vmm)))
    }

    /// A data disk, where there is one.
    fn observed_disk(self) -> Option<ObservedDisk> {
        let meta = std::fs::metadata(self.layout().disk(self.name)).ok()?;
        let private = meta.mode() & 0o7077 == 0 && meta.gid() == meta.uid();
        Some(ObservedDisk { uid: meta.uid(), private, size: self.given_size(meta.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::ProcessId;

    #[test]
    fn numbers_that_were_given_again_make_nobody_the_vmm() {
        let process = |pid, start_time, is_kernel_thread| ProcessInfo {
            id: ProcessId { pid, start_time },
            is_kernel_thread,
            ..process::inspect(std::process::id()).unwrap()
        };
        // As in a cgroup after the numbers wrapped: by number, a thread of KVM and a child come before the VMM.
        let all = [process(300, 90, true), process(301, 100, false), process(32_000, 80, false)];
        assert_eq!(leader(all.into_iter()).unwrap().id.pid, 32_000);
        assert_eq!(leader([process(300, 90, true)].into_iter()), None);
    }
}
