//! Why a guest is started, changed or replaced, in words.

use crate::base::Found;
use crate::host::observed::{ObservedDisk, ObservedGuest, ObservedVmm, Paused, PoolRole};
use crate::host::wanted::WantedGuest;

use super::change::{self, Change};
use super::containers;

/// Why something is done to a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepReason {
    /// What was found of it, such as `new` or `its logs are not kept`.
    pub found: Vec<String>,
    /// What is to be otherwise.
    pub changes: Vec<Change>,
}

impl StepReason {
    /// One thing that was found.
    pub fn found(what: impl Into<String>) -> Self {
        Self { found: vec![what.into()], changes: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.changes.is_empty()
    }
}

impl std::fmt::Display for StepReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changes = self.changes.iter().map(ToString::to_string);
        let all: Vec<_> = self.found.iter().cloned().chain(changes).collect();
        f.write_str(&all.join(", "))
    }
}

/// Why a guest that runs must go before it can be as it should.
pub(super) fn replace(have: &ObservedGuest, want: &WantedGuest) -> Option<StepReason> {
    let vmm = have.vmm.as_ref()?;
    let Some(running) = &vmm.machine else {
        let jail = if vmm.is_of_another_store() { ", and its jail is in another store" } else { "" };
        return Some(StepReason::found(format!("what is running is not known{jail}")));
    };
    if vmm.paused == Some(Paused::Frozen) {
        return Some(StepReason::found("saved to a snapshot"));
    }
    if let Some(what) = vmm.damaged.first() {
        return Some(StepReason::found(format!("its {} was changed in the store", what.word())));
    }
    if have.is_in_host() {
        return Some(StepReason::found("moves into the network namespace"));
    }
    let wanted = want.machine();
    let is_same = running == wanted || running.adjusted_to(wanted) == *wanted;
    let changes = if is_same { Vec::new() } else { change::of_machines(running, wanted) };
    let has_tap = have.tap.as_ref().is_some_and(|tap| tap.is(&want.tap));
    let parts = [
        (!has_tap && have.tap.is_none(), "its tap is gone"),
        // That of another address or uid is told already.
        (!has_tap && have.tap.is_some() && is_same, "its tap was changed"),
        (have.cgroup.is_none(), "its cgroup is gone"),
        (!vmm.jailed, "its vmm is in no jail"),
        (vmm.disk_only_open, "its data disk has no name any more"),
        (vmm.role == Some(PoolRole::Used), "its session is over"),
        (is_another_spare(vmm, want), "another kind of spare"),
        // Whoever had it: what is in its memory and on its disk is nothing for the next.
        (want.spare.is_some() && vmm.role.is_none(), "it did not boot to be a spare"),
    ];
    let found = parts.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_owned()).collect();
    Some(StepReason { found, changes }).filter(|reason| !reason.is_empty())
}

/// Whether a guest that waits, and that nothing can be told meanwhile, waits for something else than it should.
fn is_another_spare(vmm: &ObservedVmm, want: &WantedGuest) -> bool {
    let Some(PoolRole::Spare(spare)) = &vmm.role else { return false };
    want.spare.as_ref() != Some(spare) || containers::differ(vmm, want)
}

/// Why a guest that does not run is started.
pub(super) fn start(have: &ObservedGuest) -> StepReason {
    StepReason::found(match have {
        _ if have.oom_kills() > 0 => "killed by the kernel: out of memory",
        _ if have.idle_jails || have.tap.is_some() || have.cgroup.is_some() => "no longer running",
        _ if have.disk.is_some() || have.lost_disk => "not running",
        _ => "new",
    })
}

/// What is put right of a guest while it runs.
pub(super) fn repair(have: &ObservedGuest, vmm: &ObservedVmm, want: &WantedGuest) -> StepReason {
    let tap = have.tap.as_ref();
    let limits = have.cgroup.map(|cgroup| cgroup.limits);
    let found = [
        (vmm.halted, "its vmm is stopped"),
        (vmm.outside_cgroup, "its vmm is not in its cgroup"),
        (vmm.paused.is_some(), "paused by a snapshot that was not finished"),
        (!vmm.ready, "not ready yet"),
        (vmm.role == Some(PoolRole::Raised), "not a spare yet"),
        (!vmm.logged, "its logs are not kept"),
        (have.lost_disk && have.disk.is_none(), "its data disk was removed from the store"),
        (have.lost_disk && have.disk.is_some(), "another file has the name of its data disk in the store"),
        (is_disk_open(have.disk, want), "its data disk is open to others"),
        (limits == Some(Found::Half), "its cgroup is half made"),
        (tap.is_some_and(|tap| !tap.hardened), "its tap has other settings"),
        (have.idle_jails, "jails of earlier attempts are left"),
    ];
    let found = found.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_owned());
    let machine = vmm.machine.iter().flat_map(|running| change::of_machines(running, want.machine()));
    let limits = match limits {
        Some(Found::Whole(found)) => change::of_limits(&found, &want.cgroup.into()),
        Some(Found::Half) | None => Vec::new(),
    };
    let rates =
        tap.map(|tap| change::of_rates(tap.rates, want.tap.rates.bytes_per_second())).unwrap_or_default();
    StepReason {
        found: found.chain(containers::why(vmm, want)).collect(),
        changes: machine.chain(limits).chain(rates).collect(),
    }
}

/// Whether the data disk is another's, or open to others.
pub(super) fn is_disk_open(have: Option<ObservedDisk>, want: &WantedGuest) -> bool {
    let disks = have.zip(want.disk);
    disks.is_some_and(|(there, wanted)| there.uid != wanted.uid || !there.private)
}
