//! What one look at a host found that is asked for guest by guest: of hundreds, each would else list what all others have.
//! [`super::observe`] looks anew; this process alone changes what is kept, since it holds the fleet's lock where it does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::base::GuestName;
use crate::host::layout::Layout;
use crate::sys::cgroup::Hierarchy;
use crate::sys::ip::{Interface, Tap};
use crate::sys::mount;
use crate::sys::process::{self, ChrootedProcess, DirId, ProcessInfo};

use super::ApplyError;
use super::jail::{self, JailId};
use super::record::HeldRules;

/// What is known of a host; nothing at first.
#[derive(Debug, Default)]
pub struct HostCache {
    jails: Mutex<Option<BTreeMap<GuestName, Vec<JailId>>>>,
    rooted: Mutex<Option<BTreeMap<DirId, Vec<ChrootedProcess>>>>,
    mounts: Mutex<Option<Vec<PathBuf>>>,
    halted_keepers: Mutex<Option<BTreeMap<DirId, ChrootedProcess>>>,
    taps: Mutex<BTreeMap<u32, Tap>>,
    vmms: Mutex<BTreeMap<GuestName, ProcessInfo>>,
    rules: Mutex<Option<HeldRules>>,
}

/// Gives what is known, or finds it out.
fn known<T, R>(
    cell: &Mutex<Option<T>>,
    find: impl FnOnce() -> Result<T, ApplyError>,
    take: impl FnOnce(&mut T) -> R,
) -> Result<R, ApplyError> {
    let mut held = cell.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match held.take() {
        Some(found) => found,
        None => find()?,
    };
    Ok(take(held.insert(found)))
}

impl HostCache {
    /// Forgets everything: the host may be another by now.
    pub fn again(&self) {
        *self.jails.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.rooted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.mounts.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.halted_keepers.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.vmms.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes what was read of the fleet's rules.
    pub(super) fn note_rules(&self, read: &HeldRules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
    }

    /// What was read of the fleet's rules; `None` where what was held before still holds.
    pub(super) fn read_rules(&self) -> Option<HeldRules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the VMM of a guest.
    pub(super) fn keep_vmm(&self, guest: &GuestName, vmm: &ProcessInfo) {
        self.vmms.lock().unwrap_or_else(PoisonError::into_inner).insert(guest.clone(), vmm.clone());
    }

    /// The VMM that a guest had at the time of the look, if it still lives.
    pub(super) fn vmm(&self, guest: &GuestName) -> Option<ProcessInfo> {
        let seen = self.vmms.lock().unwrap_or_else(PoisonError::into_inner).get(guest).cloned();
        seen.filter(|vmm| process::lives(vmm.pid, vmm.start_time))
    }

    /// Notes the TAPs of the fleet's namespace.
    pub(super) fn keep_taps<'a>(&self, interfaces: impl IntoIterator<Item = &'a Interface>) {
        let taps = interfaces.into_iter().filter_map(|found| Some((found.index, found.tap.clone()?)));
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).extend(taps);
    }

    /// The TAP that had this index there. The kernel gives each interface of a namespace another one.
    pub(super) fn tap(&self, index: u32) -> Option<Tap> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    /// The jails of all guests, each guest's by their attempts.
    pub fn all_jails(&self, layout: &Layout) -> Result<BTreeMap<GuestName, Vec<JailId>>, ApplyError> {
        known(&self.jails, || jail::all(layout), |jails| jails.clone())
    }

    /// The jails of one guest.
    pub(super) fn jails(&self, layout: &Layout, guest: &GuestName) -> Result<Vec<JailId>, ApplyError> {
        known(&self.jails, || jail::all(layout), |jails| jails.get(guest).cloned().unwrap_or_default())
    }

    /// Notes that a guest has these jails now.
    pub(super) fn keep_jails(&self, guest: &GuestName, places: Vec<JailId>) {
        if let Some(jails) = &mut *self.jails.lock().unwrap_or_else(PoisonError::into_inner) {
            jails.insert(guest.clone(), places);
        }
    }

    /// The processes that had this root directory at the time of the look.
    pub(super) fn rooted_at(&self, root: DirId) -> Vec<ChrootedProcess> {
        let find = || {
            let mut found: BTreeMap<DirId, Vec<ChrootedProcess>> = BTreeMap::new();
            for process in process::rooted_elsewhere() {
                found.entry(process.root).or_default().push(process);
            }
            Ok(found)
        };
        // It looks, and cannot fail.
        known(&self.rooted, find, |rooted| rooted.get(&root).cloned()).ok().flatten().unwrap_or_default()
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
        known(&self.halted_keepers, find, |halted| halted.get(&dir).copied()).ok().flatten()
    }

    /// What was mounted below a directory of a jail, deepest first.
    pub(super) fn mounts_below(&self, layout: &Layout, dir: &Path) -> Result<Vec<PathBuf>, ApplyError> {
        let jails = layout.jails();
        let below =
            |mounts: &mut Vec<PathBuf>| mounts.iter().filter(|at| at.starts_with(dir)).cloned().collect();
        let find = || {
            let real = std::fs::canonicalize(&jails).unwrap_or_else(|_| jails.clone());
            let found = mount::mounts_below(&jails)?;
            Ok(found.iter().filter_map(|at| Some(jails.join(at.strip_prefix(&real).ok()?))).collect())
        };
        known(&self.mounts, find, below)
    }
}
