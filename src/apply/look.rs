//! What one look at a host found that is asked for guest by guest: of hundreds, each would else list what all others have.
//! [`super::observe`] looks anew; this process alone changes what is kept, since it holds the fleet's lock where it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::GuestName;
use crate::host::layout::Layout;
use crate::host::state::Machine;
use crate::sys::cgroup::Hierarchy;
use crate::sys::ip::Interface;
use crate::sys::process::{self, ChrootedProcess, DirId, ProcessInfo};
use crate::sys::{mount, tap};

use super::ApplyError;
use super::jail_id::{self, JailId};
use super::record::KernelRules;

/// What is known of a host; nothing at first.
#[derive(Debug, Default)]
pub struct HostCache(Mutex<KnownHost>);

/// What was found, `None` where nobody looked yet, and what this process did since.
#[derive(Debug, Default)]
struct KnownHost {
    jails: Option<BTreeMap<GuestName, Vec<JailId>>>,
    rooted: Option<BTreeMap<DirId, Vec<u32>>>,
    mounts: Option<Vec<PathBuf>>,
    keepers: Option<BTreeMap<DirId, u32>>,
    halted_keepers: Option<BTreeMap<DirId, ChrootedProcess>>,
    taps: BTreeMap<String, LeavingTap>,
    vmms: BTreeMap<GuestName, SeenVmm>,
    machines: BTreeMap<GuestName, Arc<Machine>>,
    /// Guests of whose VMMs nothing is left since this process ended them, and the same of keepers.
    ended: BTreeSet<GuestName>,
    ended_keepers: BTreeSet<GuestName>,
    rules: Option<KernelRules>,
}

/// The interfaces of a guest in the fleet's namespace, which go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingTap {
    /// Of the TAP, and of what its packets wait on. The kernel gives each interface of a namespace another one.
    pub indices: Vec<u32>,
    /// The host's on it.
    pub address: Option<Ipv4Addr>,
}

/// The VMM of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenVmm {
    pub process: ProcessInfo,
    /// Whether somebody stopped it, or froze it.
    pub halted: bool,
}

/// Gives what is known, or finds it out.
fn get_or_find<T>(
    cell: &mut Option<T>,
    find: impl FnOnce() -> Result<T, ApplyError>,
) -> Result<&mut T, ApplyError> {
    let found = match cell.take() {
        Some(found) => found,
        None => find()?,
    };
    Ok(cell.insert(found))
}

impl HostCache {
    fn found(&self) -> MutexGuard<'_, KnownHost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: the host may be another by now.
    pub fn clear(&self) {
        *self.found() = KnownHost::default();
    }

    /// Notes what was read of the fleet's rules.
    pub(super) fn set_rules(&self, read: &KernelRules) {
        self.found().rules = Some(read.clone());
    }

    /// What was read of the fleet's rules; `None` where what was held before still holds.
    pub(super) fn read_rules(&self) -> Option<KernelRules> {
        self.found().rules.clone()
    }

    /// Notes the VMM of a guest.
    pub(super) fn set_vmm(&self, guest: &GuestName, vmm: SeenVmm) {
        self.found().vmms.insert(guest.clone(), vmm);
    }

    /// The VMM that a guest had at the time of the look, if it still lives.
    pub(super) fn vmm(&self, guest: &GuestName) -> Option<SeenVmm> {
        let seen = self.found().vmms.get(guest).cloned();
        seen.filter(|vmm| process::lives(vmm.process.id))
    }

    /// Notes the machine of a guest that runs, as its record tells it.
    pub(super) fn set_machine(&self, guest: &GuestName, machine: &Machine) {
        let machine = Arc::new(machine.clone());
        self.found().machines.insert(guest.clone(), machine);
    }

    /// What a guest ran at the time of the look.
    pub(super) fn machine(&self, guest: &GuestName) -> Option<Arc<Machine>> {
        self.found().machines.get(guest).cloned()
    }

    /// Notes that its record tells of another one now, or is gone.
    pub(super) fn forget_machine(&self, guest: &GuestName) {
        self.found().machines.remove(guest);
    }

    /// Notes that nothing of a guest's VMM is left, in its cgroup or in its jails.
    pub(super) fn set_ended(&self, guest: &GuestName) {
        self.found().ended.insert(guest.clone());
    }

    /// Notes that the keeper of a guest's logs has ended.
    pub(super) fn set_keeper_ended(&self, guest: &GuestName) {
        self.found().ended_keepers.insert(guest.clone());
    }

    /// Notes that a guest is another from now on.
    pub(super) fn forget_end(&self, guest: &GuestName) {
        let mut found = self.found();
        found.ended.remove(guest);
        found.ended_keepers.remove(guest);
        found.machines.remove(guest);
    }

    /// Whether nothing runs of a guest whose VMM this process ended.
    pub(super) fn has_ended(&self, guest: &GuestName) -> bool {
        self.found().ended.contains(guest)
    }

    /// Whether the keeper of a guest's logs was seen to have ended.
    pub(super) fn keeper_has_ended(&self, guest: &GuestName) -> bool {
        self.found().ended_keepers.contains(guest)
    }

    /// Notes the TAPs of the fleet's namespace, but those whose names are also in the host's own network.
    pub(super) fn set_taps(&self, layout: &Layout, inside: &[Interface], on_host: &[Interface]) {
        let on_host: BTreeSet<&str> = on_host.iter().map(|found| found.name.as_str()).collect();
        let indices: BTreeMap<&str, u32> =
            inside.iter().map(|found| (found.name.as_str(), found.index)).collect();
        let ours = inside.iter().filter_map(|found| Some((found.index, found.tap.as_ref()?)));
        let ours = ours
            .filter(|(_, tap)| layout.owns_tap(tap.alias.as_deref()) && !on_host.contains(tap.name.as_str()));
        let seen = ours.map(|(index, tap)| {
            let queue = indices.get(tap::queue_of(&tap.name).as_str()).copied();
            let address = tap.address.map(|(address, _)| address);
            (tap.name.clone(), LeavingTap { indices: queue.into_iter().chain([index]).collect(), address })
        });
        self.found().taps.extend(seen);
    }

    /// What goes with a guest's TAP, where that was seen and nobody changed it since.
    pub(super) fn leaving_tap(&self, name: &str) -> Option<LeavingTap> {
        self.found().taps.get(name).cloned()
    }

    /// Notes that a TAP is another one now, or none.
    pub(super) fn forget_tap(&self, name: &str) {
        self.found().taps.remove(name);
    }

    /// The jails of all guests, each guest's by their attempts.
    pub fn all_jails(&self, layout: &Layout) -> Result<BTreeMap<GuestName, Vec<JailId>>, ApplyError> {
        get_or_find(&mut self.found().jails, || jail_id::all(layout)).cloned()
    }

    /// The jails of one guest.
    pub(super) fn jails(&self, layout: &Layout, guest: &GuestName) -> Result<Vec<JailId>, ApplyError> {
        let mut found = self.found();
        Ok(get_or_find(&mut found.jails, || jail_id::all(layout))?.get(guest).cloned().unwrap_or_default())
    }

    /// Notes that a guest has these jails now; whether any guest has one.
    pub(super) fn set_jails(&self, guest: &GuestName, now: Vec<JailId>) -> bool {
        let mut found = self.found();
        let Some(jails) = &mut found.jails else { return true };
        if now.is_empty() {
            jails.remove(guest);
        } else {
            jails.insert(guest.clone(), now);
        }
        !jails.is_empty()
    }

    /// The numbers of the processes that had this root directory at the time of the look; others may have them by now.
    pub(super) fn rooted_at(&self, root: DirId) -> Vec<u32> {
        let find = || {
            let mut found: BTreeMap<DirId, Vec<u32>> = BTreeMap::new();
            for (pid, root) in process::rooted_elsewhere() {
                found.entry(root).or_default().push(pid);
            }
            Ok(found)
        };
        // It looks, and cannot fail.
        let mut found = self.found();
        get_or_find(&mut found.rooted, find)
            .ok()
            .and_then(|rooted| rooted.get(&root).cloned())
            .unwrap_or_default()
    }

    /// The keeper of a guest's logs, which is rooted in that guest's directory, where it was stopped.
    pub(super) fn halted_keeper(
        &self,
        hierarchy: &Hierarchy,
        layout: &Layout,
        dir: DirId,
    ) -> Option<ChrootedProcess> {
        let find = || {
            let keepers = hierarchy.procs(&layout.keepers_cgroup());
            let stopped = keepers.into_iter().filter_map(process::stopped);
            Ok(stopped.map(|keeper| (keeper.root, keeper)).collect())
        };
        // It looks, and cannot fail.
        get_or_find(&mut self.found().halted_keepers, find).ok()?.get(&dir).copied()
    }

    /// The number of the process that was rooted in a guest's directory at the time of the look, as the keeper of its logs is.
    pub(super) fn keeper(&self, hierarchy: &Hierarchy, layout: &Layout, dir: DirId) -> Option<u32> {
        let find = || {
            let keepers = hierarchy.procs(&layout.keepers_cgroup());
            Ok(keepers.into_iter().filter_map(|pid| Some((process::root(pid)?, pid))).collect())
        };
        // It looks, and cannot fail.
        get_or_find(&mut self.found().keepers, find).ok()?.get(&dir).copied()
    }

    /// What was mounted below a directory of a jail, deepest first.
    pub(super) fn mounts_below(&self, layout: &Layout, dir: &Path) -> Result<Vec<PathBuf>, ApplyError> {
        let jails = layout.jails();
        let find = || {
            let real = std::fs::canonicalize(&jails).unwrap_or_else(|_| jails.clone());
            let found = mount::mounts_below(&jails)?;
            Ok(found.iter().filter_map(|at| Some(jails.join(at.strip_prefix(&real).ok()?))).collect())
        };
        let mut found = self.found();
        Ok(get_or_find(&mut found.mounts, find)?.iter().filter(|at| at.starts_with(dir)).cloned().collect())
    }
}
