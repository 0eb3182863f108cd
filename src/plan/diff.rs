//! What leads from the state that a host is in to the one that it should be in.

use std::collections::BTreeSet;

use crate::fleet::GuestName;
use crate::host::state::{GuestState, HostState, Machine};

use super::step::{GuestSteps, Plan, Step};

/// The difference between two states, as steps.
pub fn diff(observed: &HostState, desired: &HostState) -> Plan {
    let mut plan =
        Plan { prepare: prepare(observed, desired), rules: rules(observed, desired), ..Plan::default() };
    let names: BTreeSet<&GuestName> = observed.guests.keys().chain(desired.guests.keys()).collect();
    let nothing = GuestState::default();
    for name in names {
        let have = observed.guests.get(name).unwrap_or(&nothing);
        match desired.guests.get(name) {
            None => plan.stop.extend(stop(name, have)),
            Some(want) => guest(&mut plan, name, have, want),
        }
    }
    plan
}

fn prepare(observed: &HostState, desired: &HostState) -> Vec<Step> {
    let forwarding = (desired.forwarding && !observed.forwarding).then_some(Step::EnableForwarding);
    let missing = desired.stored.iter().filter(|(sha256, _)| !observed.stored.contains_key(sha256));
    let store = missing.map(|(sha256, kind)| Step::StoreFile { sha256: *sha256, kind: *kind });
    forwarding.into_iter().chain(store).collect()
}

fn rules(observed: &HostState, desired: &HostState) -> Vec<Step> {
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
    (!steps.is_empty()).then(|| GuestSteps { guest: name.clone(), why: why.into(), steps })
}

fn removal(name: &GuestName, have: &GuestState) -> Vec<Step> {
    let guest = || name.clone();
    let vmm = have.occupied.then(|| Step::StopVmm { guest: guest() });
    let tap = have.tap.clone().map(|tap| Step::RemoveTap { guest: guest(), tap });
    let cgroup = have.cgroup.map(|_| Step::RemoveCgroup { guest: guest() });
    let jail = have.jail.then(|| Step::RemoveJail { guest: guest() });
    vmm.into_iter().chain(tap).chain(cgroup).chain(jail).collect()
}

fn guest(plan: &mut Plan, name: &GuestName, have: &GuestState, want: &GuestState) {
    let Some(machine) = &want.machine else { return };
    let replaced = match &have.machine {
        Some(running) if running == machine && have.tap == want.tap && have.jail => None,
        Some(running) => Some(changes(running, machine, have, want)),
        None => have.occupied.then(|| "what runs is not known".to_owned()),
    };
    if let Some(why) = &replaced {
        plan.stop.push(GuestSteps { guest: name.clone(), why: why.clone(), steps: removal(name, have) });
    }
    let runs = have.machine.is_some() && replaced.is_none();
    let steps =
        if runs { repair(name, have, want) } else { start(name, have, want, machine, replaced.is_some()) };
    if !steps.is_empty() {
        let why = replaced.unwrap_or_else(|| why_start(have, runs).into());
        plan.start.push(GuestSteps { guest: name.clone(), why, steps });
    }
    if let (Some(there), Some(wanted)) = (have.disk, want.disk) {
        if there.size != wanted.size {
            plan.notes.push(format!(
                "the data disk of {name} stays as it is, {} MiB: a disk that is there is never resized or overwritten",
                there.size >> 20
            ));
        }
    }
}

fn why_start(have: &GuestState, runs: bool) -> &'static str {
    match (runs, have.jail || have.tap.is_some() || have.cgroup.is_some(), have.disk.is_some()) {
        (true, _, _) if !have.ready => "not ready yet",
        (true, _, _) => "drifted",
        (false, true, _) => "not running any more",
        (false, false, true) => "not running",
        (false, false, false) => "new",
    }
}

/// Puts right what can be put right while the guest runs.
fn repair(name: &GuestName, have: &GuestState, want: &GuestState) -> Vec<Step> {
    let guest = || name.clone();
    let cgroup = want.cgroup.filter(|_| have.cgroup != want.cgroup);
    let cgroup = cgroup.map(|limits| Step::CreateCgroup { guest: guest(), limits });
    let ready = (want.ready && !have.ready).then(|| Step::AwaitReady { guest: guest() });
    cgroup.into_iter().chain(ready).chain(start_containers(name, have, want)).collect()
}

fn start_containers(name: &GuestName, have: &GuestState, want: &GuestState) -> Option<Step> {
    let missing: Vec<_> = want.containers.iter().filter(|c| !have.containers.contains(c)).cloned().collect();
    (!missing.is_empty()).then(|| Step::StartContainers { guest: name.clone(), containers: missing })
}

/// Everything that a guest needs, from its disk to its containers. `stopped` says that the plan removes what it had.
fn start(
    name: &GuestName,
    have: &GuestState,
    want: &GuestState,
    machine: &Machine,
    stopped: bool,
) -> Vec<Step> {
    let nothing = GuestState { disk: have.disk, ..GuestState::default() };
    let have = if stopped { &nothing } else { have };
    let guest = || name.clone();
    let mut steps = Vec::new();
    if let Some(disk) = want.disk {
        match (have.disk, disk.base) {
            (None, Some(base)) => steps.push(Step::CreateDisk { guest: guest(), base, uid: disk.uid }),
            (Some(there), _) if there.uid != disk.uid => {
                steps.push(Step::ChownDisk { guest: guest(), uid: disk.uid });
            }
            _ => {}
        }
    }
    steps.extend(want.tap.clone().filter(|_| have.tap != want.tap).map(Step::CreateTap));
    let cgroup = want.cgroup.filter(|_| have.cgroup != want.cgroup);
    steps.extend(cgroup.map(|limits| Step::CreateCgroup { guest: guest(), limits }));
    steps.push(Step::CreateJail { guest: guest(), machine: machine.clone() });
    steps.push(Step::StartVmm { guest: guest(), machine: machine.clone() });
    steps.push(Step::AwaitReady { guest: guest() });
    let none_started = GuestState::default();
    steps.extend(start_containers(name, &none_started, want));
    steps
}

/// What makes a running guest another than the wanted one, in words.
fn changes(running: &Machine, wanted: &Machine, have: &GuestState, want: &GuestState) -> String {
    let all = [
        ("vmm", running.vmm != wanted.vmm),
        ("uid", running.uid != wanted.uid),
        ("kernel", running.kernel != wanted.kernel),
        ("image", running.image != wanted.image),
        ("disk", running.disk != wanted.disk),
        ("vcpus", running.vcpus != wanted.vcpus),
        ("memory", running.memory_mib != wanted.memory_mib),
        ("address", running.tap != wanted.tap || running.mac != wanted.mac),
        ("kernel command line", running.command_line != wanted.command_line),
        ("tap", have.tap != want.tap),
        ("jail", !have.jail),
    ];
    let changed: Vec<_> = all.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    format!("{} changed", changed.join(", "))
}
