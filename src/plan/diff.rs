//! What leads from the state that a host is in to the one that it should be in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::base::FileDigest;
use crate::base::{ByteSize, GuestName};
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::host::state::{DiskState, GuestState, HostState, Machine, MachineDisk, Paused, StoredKind};

use super::step::{GuestSteps, Plan, Step};

/// A data disk that would have to lose what is on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data disk of {guest} has {there}, and fleet.toml says {wanted}: no disk is made smaller")]
pub struct Shrinks {
    pub guest: GuestName,
    pub there: ByteSize,
    pub wanted: ByteSize,
}

impl Diagnostic for Shrinks {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.hint(
            "give it its size again in fleet.toml; for a smaller one, `sisforge disk export` what is on it, `disk rm` it, and \
             start anew",
        )
    }
}

/// The guests whose disks are larger than they should be. No plan makes them smaller.
pub fn shrinking(observed: &HostState, desired: &HostState) -> Vec<Shrinks> {
    let shrinks = |(guest, want): (&GuestName, &GuestState)| {
        let disks = [observed.guests.get(guest)?.disk?, want.disk?];
        let [there, wanted] = disks.map(|disk| ByteSize::from_bytes(disk.size));
        (there > wanted).then(|| Shrinks { guest: guest.clone(), there, wanted })
    };
    desired.guests.iter().filter_map(shrinks).collect()
}

/// The difference between two states, as steps.
pub fn diff(observed: &HostState, desired: &HostState) -> Plan {
    let mut plan =
        Plan { prepare: prepare(observed, desired), rules: rules(observed, desired), ..Plan::default() };
    let names: BTreeSet<&GuestName> = observed.guests.keys().chain(desired.guests.keys()).collect();
    let nothing = GuestState::default();
    let lodgers = lodgers(desired);
    for name in names {
        let have = observed.guests.get(name).unwrap_or(&nothing);
        match desired.guests.get(name) {
            None => plan.stop.extend(stop(name, have)),
            // Not only to save work: `up NAME` wants every other guest as it is, be it broken.
            Some(want) if want == have => {}
            Some(want) => guest(&mut plan, name, have, want, &lodgers),
        }
    }
    plan
}

/// Guests that go on from a snapshot, by the host's side of the address that they brought along: it may be another's.
fn lodgers(desired: &HostState) -> BTreeMap<Ipv4Addr, &GuestName> {
    let of_guest = |(name, guest)| -> Option<(Ipv4Addr, &GuestName)> {
        let guest: &GuestState = guest;
        guest.declared.as_ref()?;
        Some((guest.tap.as_ref()?.address, name))
    };
    desired.guests.iter().filter_map(of_guest).collect()
}

pub(super) fn prepare(observed: &HostState, desired: &HostState) -> Vec<Step> {
    let forwarding = (desired.forwarding && !observed.forwarding).then_some(Step::EnableForwarding);
    let is_missing = |(digest, kind): &(&FileDigest, &StoredKind)| {
        !observed.stored.contains_key(digest)
            && (**kind != StoredKind::Disk || is_copied(digest, observed, desired))
    };
    let missing = desired.stored.iter().filter(is_missing);
    let store = missing.map(|(digest, kind)| Step::StoreFile { digest: *digest, kind: *kind });
    let clear = observed.snapshot_leftovers.then_some(Step::ClearSnapshots);
    forwarding.into_iter().chain(clear).chain(store).collect()
}

/// Whether a guest's disk is still to be made of a stored one: a kept disk is made once.
fn is_copied(digest: &FileDigest, observed: &HostState, desired: &HostState) -> bool {
    desired.guests.iter().any(|(name, want)| {
        let has_disk = observed.guests.get(name).is_some_and(|have| have.disk.is_some());
        match want.machine.as_ref().map(|machine| machine.disk) {
            Some(MachineDisk::Ephemeral { base, .. }) => base == *digest,
            _ => !has_disk && want.disk.is_some_and(|disk| disk.base == Some(*digest)),
        }
    })
}

pub(super) fn rules(observed: &HostState, desired: &HostState) -> Vec<Step> {
    let digest = |state: &HostState| state.ruleset.as_ref().map(|ruleset| ruleset.digest);
    if digest(observed) == digest(desired) {
        return Vec::new();
    }
    vec![desired.ruleset.clone().map_or(Step::RemoveRuleset, Step::LoadRuleset)]
}

/// What is left to remove of a guest that is not wanted. Its data disk is no such thing.
fn stop(name: &GuestName, have: &GuestState) -> Option<GuestSteps> {
    let why = if have.occupied { "no longer wanted" } else { "left over" };
    let steps = removal(name, have);
    (!steps.is_empty()).then(|| GuestSteps::new(name, why, steps))
}

pub(super) fn removal(name: &GuestName, have: &GuestState) -> Vec<Step> {
    let guest = || name.clone();
    let vmm = have.occupied.then(|| Step::StopVmm { guest: guest() });
    let tap = have.tap.clone().map(|tap| Step::RemoveTap { guest: guest(), tap });
    let cgroup = have.cgroup.map(|_| Step::RemoveCgroup { guest: guest() });
    let jail = (have.jail || have.old_jails).then(|| Step::RemoveJail { guest: guest() });
    vmm.into_iter().chain(tap).chain(cgroup).chain(jail).collect()
}

fn guest(
    plan: &mut Plan,
    name: &GuestName,
    have: &GuestState,
    want: &GuestState,
    lodgers: &BTreeMap<Ipv4Addr, &GuestName>,
) {
    let Some(machine) = &want.machine else { return };
    let replaced = why_replace(have, want, machine);
    let only_disk = GuestState { disk: have.disk, ..GuestState::default() };
    let (left, why) = match &replaced {
        Some(why) => {
            plan.stop.push(GuestSteps::new(name, why, removal(name, have)));
            (&only_disk, why.as_str())
        }
        None => (have, why_start(have)),
    };
    let lodger =
        want.tap.as_ref().and_then(|tap| lodgers.get(&tap.address)).filter(|lodger| **lodger != name);
    if let (None, Some(lodger)) = (&left.machine, lodger) {
        plan.notes.push(format!(
            "{name} is not started: {lodger}, which was brought back from a snapshot, has its address"
        ));
        return;
    }
    let mut steps = GuestSteps::new(name, why, Vec::new());
    if let Some(running) = &left.machine {
        steps.steps = repair(name, left, want);
        if running != machine {
            steps.steps.insert(0, Step::AdjustVmm { guest: name.clone(), machine: machine.clone() });
        }
        // What does not come up from a snapshot does not come up later either.
        if want.declared.is_some() {
            steps.undo = removal(name, &GuestState { disk: None, ..want.clone() });
        }
    } else {
        steps.steps = start(name, left, want, machine);
        steps.undo = removal(name, &GuestState { disk: None, ..want.clone() });
    }
    steps.then.extend(clear_old_jails(name, left));
    steps.then.extend(start_containers(name, left, want));
    if !steps.steps.is_empty() || !steps.then.is_empty() {
        plan.start.push(steps);
    }
    let stays = left.machine.is_some();
    plan.notes.extend(note_on_disk(name, have, want).filter(|_| stays));
    plan.notes.extend(note_on_snapshot(name, want));
}

/// What another start would make of a guest that goes on from a snapshot.
fn note_on_snapshot(name: &GuestName, want: &GuestState) -> Option<String> {
    let (machine, declared) = (want.machine.as_ref()?, want.declared.as_ref()?);
    let snapshot = machine.restored_from.as_ref()?;
    let changed = differing(machine, declared);
    let changed =
        if changed.is_empty() { String::new() } else { format!(", with another {}", changed.join(", ")) };
    Some(format!("{name} goes on from snapshot {snapshot}: `down` and `up` would boot it anew{changed}"))
}

/// Why a guest that runs must go before it can be as it should.
fn why_replace(have: &GuestState, want: &GuestState, machine: &Machine) -> Option<String> {
    let Some(running) = &have.machine else {
        return have.occupied.then(|| "what runs is not known".to_owned());
    };
    if have.paused == Some(Paused::Frozen) {
        return Some("frozen to a snapshot".to_owned());
    }
    let whole = have.tap == want.tap && have.jail && have.cgroup.is_some();
    let same = running.adjusted_to(machine) == *machine;
    (!same || !whole).then(|| changes(running, machine, have, want))
}

fn note_on_disk(name: &GuestName, have: &GuestState, want: &GuestState) -> Option<String> {
    let [there, wanted] = [have.disk?, want.disk?].map(|disk| ByteSize::from_bytes(disk.size));
    (there < wanted)
        .then(|| format!("the data disk of {name} grows from {there} to {wanted} when {name} next starts"))
}

fn why_start(have: &GuestState) -> &'static str {
    match (
        have.machine.is_some(),
        have.jail || have.tap.is_some() || have.cgroup.is_some(),
        have.disk.is_some(),
    ) {
        (true, _, _) if have.paused.is_some() => "paused by a snapshot that was not finished",
        (true, _, _) if !have.ready => "not ready yet",
        (true, _, _) if !have.logged => "its logs are not kept",
        (true, _, _) => "drifted",
        (false, _, _) if have.oom_kills > 0 => "killed by the kernel: out of memory",
        (false, true, _) => "not running any more",
        (false, false, true) => "not running",
        (false, false, false) => "new",
    }
}

/// Puts right what can be put right while the guest runs.
fn repair(name: &GuestName, have: &GuestState, want: &GuestState) -> Vec<Step> {
    let guest = || name.clone();
    let resume = have.paused.map(|_| Step::ResumeVmm { guest: guest() });
    let cgroup = want.cgroup.filter(|_| have.cgroup != want.cgroup);
    let cgroup = cgroup.map(|limits| Step::CreateCgroup { guest: guest(), limits });
    let ready = (want.ready && !have.ready).then(|| Step::AwaitReady { guest: guest() });
    let logs = (want.logged && !have.logged).then(|| Step::KeepLogs { guest: guest() });
    resume.into_iter().chain(cgroup).chain(logs).chain(ready).collect()
}

/// What is left of earlier attempts is told where it cannot be removed, and undoes nothing.
fn clear_old_jails(name: &GuestName, have: &GuestState) -> Option<Step> {
    let left = have.old_jails || (!have.occupied && have.jail);
    left.then(|| Step::RemoveOldJails { guest: name.clone() })
}

/// Containers that have not been started since the guest's boot.
fn start_containers(name: &GuestName, have: &GuestState, want: &GuestState) -> Option<Step> {
    let missing: Vec<_> = want.containers.iter().filter(|c| !have.containers.contains(c)).cloned().collect();
    (!missing.is_empty()).then(|| Step::StartContainers { guest: name.clone(), containers: missing })
}

/// Everything that a guest needs, from its disk to its first word.
fn start(name: &GuestName, have: &GuestState, want: &GuestState, machine: &Machine) -> Vec<Step> {
    let guest = || name.clone();
    let mut steps = Vec::new();
    if let Some(disk) = want.disk {
        steps.extend(ready_disk(name, have.disk, disk));
    }
    // Before the TAP, which alone does not tell whose it is: a TAP that is left over has a cgroup beside it.
    // One in which somebody was killed is made anew, so that what it counts is this start's.
    let counts = have.cgroup.is_some() && have.oom_kills > 0;
    steps.extend(counts.then(|| Step::RemoveCgroup { guest: guest() }));
    let cgroup = want.cgroup.filter(|_| counts || have.cgroup != want.cgroup);
    steps.extend(cgroup.map(|limits| Step::CreateCgroup { guest: guest(), limits }));
    steps.extend(want.tap.clone().filter(|_| have.tap != want.tap).map(Step::CreateTap));
    steps.push(Step::CreateJail { guest: guest(), machine: machine.clone() });
    steps.push(Step::StartVmm { guest: guest(), machine: machine.clone() });
    steps.push(Step::AwaitReady { guest: guest() });
    if machine.as_started() != *machine {
        steps.push(Step::AdjustVmm { guest: guest(), machine: machine.clone() });
    }
    steps
}

/// Makes the disk of a guest that does not run, or gives it the uid and the size that it should have.
fn ready_disk(name: &GuestName, have: Option<DiskState>, want: DiskState) -> Vec<Step> {
    let guest = || name.clone();
    let Some(there) = have else {
        return want
            .base
            .map(|base| Step::CreateDisk { guest: guest(), base, uid: want.uid })
            .into_iter()
            .collect();
    };
    let given = (there.uid != want.uid).then(|| Step::ChownDisk { guest: guest(), uid: want.uid });
    let grown = (there.size < want.size).then(|| Step::GrowDisk {
        guest: guest(),
        from: there.size,
        size: want.size,
    });
    given.into_iter().chain(grown).collect()
}

/// What two machines differ in.
fn differing(running: &Machine, wanted: &Machine) -> Vec<&'static str> {
    let all = [
        ("vmm", running.vmm != wanted.vmm),
        ("uid", running.uid != wanted.uid),
        ("kernel", running.kernel != wanted.kernel),
        ("image", running.image != wanted.image),
        ("disk", running.disk != wanted.disk),
        ("container images", running.images != wanted.images),
        ("vcpus", running.vcpus != wanted.vcpus),
        ("memory", running.memory_mib != wanted.memory_mib),
        ("address", running.tap != wanted.tap || running.mac != wanted.mac),
        ("kernel command line", running.command_line != wanted.command_line),
        ("huge pages", running.spec.huge_pages != wanted.spec.huge_pages),
        ("cpu template", running.spec.cpu_template != wanted.spec.cpu_template),
        ("seccomp filter", running.spec.seccomp != wanted.spec.seccomp),
        ("log level", running.spec.log_level != wanted.spec.log_level),
        ("metrics", running.spec.metrics != wanted.spec.metrics),
        ("balloon", running.spec.balloon != wanted.spec.balloon),
        ("entropy limits", running.spec.entropy != wanted.spec.entropy),
        ("vsock", running.spec.vsock != wanted.spec.vsock),
        ("metadata", running.spec.metadata != wanted.spec.metadata),
        ("disk limits", running.spec.disk != wanted.spec.disk),
        ("network device", running.spec.network != wanted.spec.network),
    ];
    all.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect()
}

/// What makes a running guest another than the wanted one, in words.
fn changes(running: &Machine, wanted: &Machine, have: &GuestState, want: &GuestState) -> String {
    let parts = [("tap", have.tap != want.tap), ("cgroup", have.cgroup.is_none()), ("jail", !have.jail)];
    let parts = parts.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what);
    let changed: Vec<_> = differing(running, wanted).into_iter().chain(parts).collect();
    format!("{} changed", changed.join(", "))
}

#[cfg(test)]
mod tests;
