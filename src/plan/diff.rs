//! What leads from the state that a host is in to the one that it should be in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::base::{ByteSize, Class, Diagnosis, Diagnostic, FileDigest, Found, GuestName};
use crate::host::firewall::Ruleset;
use crate::host::network::NetworkSpec;
use crate::host::observed::{
    ObservedGuest, ObservedHost, ObservedNetwork, ObservedResolver, ObservedRuleset, ObservedVmm, PoolRole,
};
use crate::host::policy::{self, PolicyChange};
use crate::host::publish::{self, PublishedChange};
use crate::host::resolver::Resolver;
use crate::host::state::{Machine, MachineDisk, StoredKind};
use crate::host::wanted::{Startup, WantedDisk, WantedGuest, WantedHost};

use super::model::{GuestSteps, Plan};
use super::step::{ContainerStep, DiskStep, NetworkStep, PoolStep, SnapshotStep, Step};
use super::why::StepReason;
use super::{change, containers, why};

/// The guests that a plan is for. Nothing is done to any other, be it broken or not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestScope<'a> {
    All,
    Only(&'a [GuestName]),
}

impl GuestScope<'_> {
    /// Whether the plan is for this guest.
    #[must_use]
    pub fn contains(self, guest: &GuestName) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(guest),
        }
    }
}

/// A data disk that would have to lose what is on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data disk of {guest} has {there}, but fleet.toml says {wanted}: a disk cannot be made smaller")]
pub struct DiskWouldShrink {
    pub guest: GuestName,
    pub there: ByteSize,
    pub wanted: ByteSize,
}

impl Diagnostic for DiskWouldShrink {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.hint(
            "set its old size in fleet.toml again; for a smaller disk, save its content with `sisforge disk \
             export`, remove it with `disk rm`, and start with a new one",
        )
    }
}

/// The guests of a plan whose disks are larger than they should be. No plan makes them smaller.
pub fn shrinking(
    observed: &ObservedHost,
    wanted: &WantedHost,
    guests: GuestScope<'_>,
) -> Vec<DiskWouldShrink> {
    let shrinks = |(guest, want): (&GuestName, &WantedGuest)| {
        let sizes = [observed.guests.get(guest)?.disk?.size, want.disk?.size];
        let [there, wanted] = sizes.map(ByteSize::from_bytes);
        (there > wanted).then(|| DiskWouldShrink { guest: guest.clone(), there, wanted })
    };
    wanted.guests.iter().filter(|(name, _)| guests.contains(name)).filter_map(shrinks).collect()
}

/// What makes a host as it should be, as far as these guests are concerned, as steps. What the host itself should have is
/// brought to it in any case; what it should not have is taken from it where the plan is for all guests.
pub fn diff(observed: &ObservedHost, wanted: &WantedHost, guests: GuestScope<'_>) -> Plan {
    plan(observed, wanted, guests, &[])
}

/// What makes these guests as they should be, and starts each anew, whether anything of it changed or not.
pub fn restart(observed: &ObservedHost, wanted: &WantedHost, guests: &[GuestName]) -> Plan {
    plan(observed, wanted, GuestScope::Only(guests), guests)
}

/// What brings the rules of the network to what is wanted, and nothing else: no guest is touched, nor any file stored.
pub fn reload(observed: &ObservedHost, wanted: &WantedHost) -> Plan {
    let rules = rules(observed, wanted, GuestScope::Only(&[]));
    let policy_changes = policy_changes(observed, &rules);
    let published_changes = published_changes(observed, &rules);
    Plan { rules, policy_changes, published_changes, ..Plan::default() }
}

fn plan(observed: &ObservedHost, wanted: &WantedHost, guests: GuestScope<'_>, anew: &[GuestName]) -> Plan {
    let mut plan = Plan {
        prepare: prepare(observed, wanted, guests),
        rules: rules(observed, wanted, guests),
        ..Plan::default()
    };
    plan.policy_changes = policy_changes(observed, &plan.rules);
    plan.published_changes = published_changes(observed, &plan.rules);
    plan.notes.extend(notes_on_store(observed, &plan.prepare));
    let all: BTreeSet<&GuestName> = observed.guests.keys().chain(wanted.guests.keys()).collect();
    let nothing = ObservedGuest::default();
    let restored = restored_addresses(wanted);
    for name in all.into_iter().filter(|name| guests.contains(name)) {
        let have = observed.guests.get(name).unwrap_or(&nothing);
        plan.notes.extend(notes_on_records(name, have));
        match wanted.guests.get(name) {
            None => plan.stop.extend(stop(name, have)),
            Some(want) => {
                let asked = anew.contains(name) && have.vmm.is_some();
                let replaced =
                    why::replace(have, want).or_else(|| asked.then(|| StepReason::found("restart")));
                guest(&mut plan, name, (have, replaced), want, &restored);
            }
        }
    }
    plan
}

/// Guests that were brought back from a snapshot, by the host's side of the address that they brought along: it may be
/// another's.
fn restored_addresses(wanted: &WantedHost) -> BTreeMap<Ipv4Addr, &GuestName> {
    let is_restored = |guest: &WantedGuest| matches!(guest.startup, Startup::Restored { .. });
    let restored = wanted.guests.iter().filter(|(_, guest)| is_restored(guest));
    restored.map(|(name, guest)| (guest.tap.address, name)).collect()
}

pub(super) fn prepare(observed: &ObservedHost, wanted: &WantedHost, guests: GuestScope<'_>) -> Vec<Step> {
    let is_missing = |(digest, kind): &(&FileDigest, &StoredKind)| {
        !observed.stored.contains(digest)
            && (**kind != StoredKind::Disk || is_copied(digest, observed, wanted, guests))
    };
    let missing = wanted.stored.iter().filter(is_missing);
    let store = missing.map(|(digest, kind)| Step::StoreFile { digest: *digest, kind: *kind });
    let clear = observed.snapshot_leftovers.then_some(Step::Snapshot(SnapshotStep::ClearSnapshots));
    clear.into_iter().chain(store).collect()
}

/// Whether a guest's disk is still to be made of a stored one: a kept disk is made once.
fn is_copied(
    digest: &FileDigest,
    observed: &ObservedHost,
    wanted: &WantedHost,
    guests: GuestScope<'_>,
) -> bool {
    wanted.guests.iter().filter(|(name, _)| guests.contains(name)).any(|(name, want)| {
        let has_disk = || observed.guests.get(name).is_some_and(|have| have.disk.is_some());
        match want.machine().disk {
            MachineDisk::Ephemeral { base, .. } => base == *digest,
            MachineDisk::Kept => want.disk.is_some_and(|disk| disk.base == *digest) && !has_disk(),
        }
    })
}

/// The namespace, its rules, and only then the way out of it. They are removed with the last guest alone: whoever is not
/// spoken of may need them.
pub(super) fn rules(observed: &ObservedHost, wanted: &WantedHost, guests: GuestScope<'_>) -> Vec<Step> {
    let have = &observed.network;
    let is = |loaded: Option<ObservedRuleset>, wanted: &Ruleset| {
        loaded == Some(ObservedRuleset::Loaded(wanted.digest))
    };
    let mut steps = Vec::new();
    let network = wanted.network.as_ref();
    steps.extend(
        network
            .filter(|_| have.namespace != Some(Found::Whole(())))
            .map(|_| Step::Network(NetworkStep::CreateNamespace)),
    );
    // There before guests are led to them; those of before go when nobody is any more.
    let (start, stop) = resolvers(observed, wanted, guests);
    steps.extend(start);
    let ruleset = wanted.ruleset.as_ref().filter(|ruleset| !is(observed.ruleset, ruleset));
    steps.extend(ruleset.map(|ruleset| Step::Network(NetworkStep::LoadRuleset(ruleset.clone()))));
    if let Some(network) = network {
        let host_rules = (!is(have.rules, &network.rules.ruleset))
            .then(|| Step::Network(NetworkStep::LoadHostRules(network.rules.clone())));
        steps.extend(host_rules);
        let lacks = told_lacks(have, &network.spec);
        let connect = (!lacks.is_empty())
            .then(|| Step::Network(NetworkStep::ConnectNamespace { network: network.spec.clone(), lacks }));
        steps.extend(connect);
    }
    steps.extend(stop);
    if guests == GuestScope::All {
        let is_left = network.is_none() && (have.is_there() || observed.ruleset.is_some());
        steps.extend(is_left.then_some(Step::Network(NetworkStep::RemoveNetwork)));
        steps.extend(have.is_in_host.then_some(Step::Network(NetworkStep::RemoveEarlierNetwork)));
    }
    steps
}

/// What [`ObservedNetwork::lacks`] finds, with old and new rates where only those of the pair differ.
fn told_lacks(have: &ObservedNetwork, wanted: &NetworkSpec) -> Vec<String> {
    let rates = match have.pair {
        Some(Found::Whole(found)) if (found.mtu, found.subnet) == (wanted.pair.mtu, wanted.pair.subnet) => {
            change::of_rates(found.rates, wanted.pair.rates)
        }
        _ => Vec::new(),
    };
    let is_told = |what: &&str| *what == "pair" && !rates.is_empty();
    let others = have.lacks(wanted).into_iter().filter(|what| !is_told(what)).map(str::to_owned);
    rates.iter().map(ToString::to_string).chain(others).collect()
}

/// What rules that are loaded open and close, where it is known what was loaded before.
fn policy_changes(observed: &ObservedHost, rules: &[Step]) -> Vec<PolicyChange> {
    let loaded = rules.iter().find_map(|step| match step {
        Step::Network(NetworkStep::LoadRuleset(ruleset)) => Some(&ruleset.policies),
        _ => None,
    });
    let both = observed.policies.as_ref().zip(loaded);
    both.map(|(old, new)| policy::changes(old, new)).unwrap_or_default()
}

/// What rules of the host that are loaded open and close.
fn published_changes(observed: &ObservedHost, rules: &[Step]) -> Vec<PublishedChange> {
    let old = &observed.network.published;
    let new = rules.iter().find_map(|step| match step {
        Step::Network(NetworkStep::LoadHostRules(rules)) => Some(rules.published.as_slice()),
        Step::Network(NetworkStep::RemoveNetwork) => Some(&[]),
        _ => None,
    });
    new.map(|new| publish::changes(old, new)).unwrap_or_default()
}

/// The resolvers that are to be started, and those that are to go.
fn resolvers(observed: &ObservedHost, wanted: &WantedHost, guests: GuestScope<'_>) -> (Vec<Step>, Vec<Step>) {
    let runs = |seat: &u16, resolver: &Resolver| {
        observed.resolvers.get(seat) == Some(&ObservedResolver::Running(resolver.digest))
    };
    let start = wanted.resolvers.iter().filter(|(seat, resolver)| !runs(seat, resolver));
    let start =
        start.map(|(_, resolver)| Step::Network(NetworkStep::StartResolver(resolver.clone()))).collect();
    let are_known = wanted.ruleset.is_some() || guests == GuestScope::All;
    let stop = observed.resolvers.keys().filter(|seat| are_known && !wanted.resolvers.contains_key(seat));
    (start, stop.map(|seat| Step::Network(NetworkStep::StopResolver { seat: *seat })).collect())
}

/// What is left to remove of a guest that is not wanted. Its data disk is no such thing.
fn stop(name: &GuestName, have: &ObservedGuest) -> Option<GuestSteps> {
    let found = match &have.vmm {
        Some(ObservedVmm { role: Some(PoolRole::Used), .. }) => "its session is over",
        Some(_) => "no longer wanted",
        None => "left over",
    };
    let steps = removal(name, have);
    (!steps.is_empty()).then(|| GuestSteps::new(name, StepReason::found(found), steps))
}

/// Removes what is there of a guest, but for its data disk.
pub(super) fn removal(name: &GuestName, have: &ObservedGuest) -> Vec<Step> {
    let guest = || name.clone();
    let role = have.vmm.as_ref().and_then(|vmm| vmm.role.as_ref());
    // First: where it was handed out meanwhile, nothing is done to it.
    let spare =
        matches!(role, Some(PoolRole::Spare(_))).then(|| Step::Pool(PoolStep::EndSpare { guest: guest() }));
    let disk = have.lost_disk.then(|| Step::Disk(DiskStep::RelinkDisk { guest: guest() }));
    let vmm = (have.vmm.is_some() || have.strays).then(|| Step::StopVmm { guest: guest() });
    let tap = have.tap.as_ref().map(|tap| Step::RemoveTap { guest: guest(), tap: tap.name.clone() });
    let cgroup = have.cgroup.map(|_| Step::RemoveCgroup { guest: guest() });
    let jail = have.has_leftovers().then(|| Step::RemoveJail { guest: guest() });
    spare.into_iter().chain(disk).chain(vmm).chain(tap).chain(cgroup).chain(jail).collect()
}

/// Removes whatever was made of a guest that did not come up, but for its data disk.
pub(super) fn undo(name: &GuestName, want: &WantedGuest) -> Vec<Step> {
    let guest = || name.clone();
    vec![
        Step::StopVmm { guest: guest() },
        Step::RemoveTap { guest: guest(), tap: want.tap.name.clone() },
        Step::RemoveCgroup { guest: guest() },
        Step::RemoveJail { guest: guest() },
    ]
}

fn guest(
    plan: &mut Plan,
    name: &GuestName,
    (have, replaced): (&ObservedGuest, Option<StepReason>),
    want: &WantedGuest,
    restored: &BTreeMap<Ipv4Addr, &GuestName>,
) {
    let (disk, lost_disk) = (have.disk, have.lost_disk);
    let only_disk = ObservedGuest { disk, lost_disk, ..ObservedGuest::default() };
    let (left, why) = match &replaced {
        Some(why) => {
            plan.stop.push(GuestSteps::new(name, why.clone(), removal(name, have)));
            (&only_disk, why.clone())
        }
        None => {
            (have, have.vmm.as_ref().map_or_else(|| why::start(have), |vmm| why::repair(have, vmm, want)))
        }
    };
    // Whoever had it has lost it; what comes in its place is not theirs.
    if replaced.is_some() && matches!(want.startup, Startup::InUse(_)) {
        return;
    }
    plan.stop.extend(left.strays.then(|| end_strays(name)));
    let holder = restored.get(&want.tap.address).filter(|holder| **holder != name);
    if let (None, Some(holder)) = (&left.vmm, holder) {
        plan.notes.push(format!(
            "{name} is not started: {holder}, which was restored from a snapshot, has its address"
        ));
        return;
    }
    let mut steps = GuestSteps::new(name, why, Vec::new());
    if let Some(vmm) = &left.vmm {
        steps.steps = repair(name, left, vmm, want);
        // What does not come up from a snapshot does not come up later either.
        if let Startup::Restored { .. } = want.startup {
            steps.undo = undo(name, want);
        }
    } else {
        steps.steps = start(name, left, want);
        steps.undo = undo(name, want);
    }
    steps.then.extend(clear_idle_jails(name, left));
    steps.then.extend(container_steps(name, left, want));
    steps.then.extend(make_spare(name, left, want));
    if !steps.steps.is_empty() || !steps.then.is_empty() {
        plan.start.push(steps);
    }
    let stays = left.vmm.is_some();
    plan.notes.extend(note_on_disk(name, have, want).filter(|_| stays));
    plan.notes.extend(note_on_snapshot(name, want));
}

/// Ends what a VMM left, before anything of its guest is made anew, or where it is not to be started again.
fn end_strays(name: &GuestName) -> GuestSteps {
    let why = StepReason::found("its vmm has ended, and left processes");
    GuestSteps::new(name, why, vec![Step::StopVmm { guest: name.clone() }])
}

/// What is stored anew though a file of its name is there.
fn notes_on_store(observed: &ObservedHost, prepare: &[Step]) -> Vec<String> {
    let damaged = |step: &Step| match step {
        Step::StoreFile { digest, kind } if observed.damaged.contains(digest) => Some(format!(
            "the {} {} in the store was changed since it was stored",
            kind.word(),
            digest.short()
        )),
        _ => None,
    };
    prepare.iter().filter_map(damaged).collect()
}

/// What could not be read of a guest that runs.
fn notes_on_records<'a>(name: &'a GuestName, have: &'a ObservedGuest) -> impl Iterator<Item = String> + 'a {
    have.vmm.iter().flat_map(|vmm| &vmm.unreadable).map(move |why| format!("{name}: {why}"))
}

/// What another start would make of a guest that was brought back from a snapshot.
fn note_on_snapshot(name: &GuestName, want: &WantedGuest) -> Option<String> {
    let Startup::Restored { machine, fresh } = &want.startup else { return None };
    let snapshot = machine.restored_from.as_ref()?;
    let booted = Machine { restored_from: None, ..machine.clone() };
    let changed: Vec<_> = change::of_machines(&booted, fresh).into_iter().map(|change| change.what).collect();
    let changed =
        if changed.is_empty() { String::new() } else { format!(", with another {}", changed.join(", ")) };
    Some(format!(
        "{name} was restored from snapshot {snapshot}: `down` and `up` would boot it from \
      scratch{changed}"
    ))
}

fn has_wanted_limits(have: &ObservedGuest, want: &WantedGuest) -> bool {
    have.cgroup.is_some_and(|cgroup| cgroup.limits == Found::Whole(want.cgroup.into()))
}

fn note_on_disk(name: &GuestName, have: &ObservedGuest, want: &WantedGuest) -> Option<String> {
    let [there, wanted] = [have.disk?.size, want.disk?.size].map(ByteSize::from_bytes);
    (there < wanted)
        .then(|| format!("the data disk of {name} grows from {there} to {wanted} when {name} next starts"))
}

/// Puts right what can be put right while the guest runs.
fn repair(name: &GuestName, have: &ObservedGuest, vmm: &ObservedVmm, want: &WantedGuest) -> Vec<Step> {
    let guest = || name.clone();
    let machine = want.machine();
    let adjust = (vmm.machine.as_ref() != Some(machine))
        .then(|| Step::AdjustVmm { guest: guest(), machine: machine.clone() });
    let resume = vmm.paused.map(|_| Step::ResumeVmm { guest: guest() });
    let cgroup =
        (!has_wanted_limits(have, want)).then(|| Step::CreateCgroup { guest: guest(), limits: want.cgroup });
    let join = vmm.outside_cgroup.then(|| Step::JoinCgroup { guest: guest() });
    // Before it is told anything.
    let unhalt = vmm.halted.then(|| Step::ContinueVmm { guest: guest() });
    let disk = have.lost_disk.then(|| Step::Disk(DiskStep::RelinkDisk { guest: guest() }));
    let close = want.disk.filter(|_| why::is_disk_open(have.disk, want));
    let close = close.map(|disk| Step::Disk(DiskStep::ChownDisk { guest: guest(), uid: disk.uid }));
    let is_set = have.tap.as_ref().is_some_and(|tap| tap.is_set(&want.tap));
    let tap = (!is_set).then(|| Step::CreateTap { guest: guest(), tap: want.tap.clone() });
    let logs = (!vmm.logged).then(|| Step::KeepLogs { guest: guest() });
    let ready = (!vmm.ready).then(|| Step::AwaitReady { guest: guest() });
    [cgroup, join, unhalt, adjust, resume, disk, close, tap, logs, ready].into_iter().flatten().collect()
}

/// What is left of earlier attempts is told where it cannot be removed, and undoes nothing.
fn clear_idle_jails(name: &GuestName, have: &ObservedGuest) -> Option<Step> {
    have.idle_jails.then(|| Step::RemoveOldJails { guest: name.clone() })
}

/// What is done to the containers of a guest once it is ready.
fn container_steps(name: &GuestName, have: &ObservedGuest, want: &WantedGuest) -> Vec<Step> {
    let guest = || name.clone();
    let started = have.vmm.as_ref().map_or(&[][..], |vmm| &vmm.containers);
    // Those of a snapshot belong to it.
    let boots = matches!(want.startup, Startup::Boot(_));
    let gone = containers::undeclared(started, want).filter(|_| boots);
    let gone: Vec<_> = gone.map(|one| one.container.name.clone()).collect();
    let missing: Vec<_> = containers::missing(started, want).cloned().collect();
    let awaited = want.containers.iter().filter(|one| containers::is_awaited(started, one));
    let awaited: Vec<_> = awaited.cloned().collect();
    let remove = (!gone.is_empty())
        .then(|| Step::Containers(ContainerStep::RemoveContainers { guest: guest(), containers: gone }));
    let start = (!missing.is_empty())
        .then(|| Step::Containers(ContainerStep::StartContainers { guest: guest(), containers: missing }));
    let wait = (!awaited.is_empty())
        .then(|| Step::Containers(ContainerStep::AwaitHealthy { guest: guest(), containers: awaited }));
    [remove, start, wait].into_iter().flatten().collect()
}

/// Last, since nothing can be told to one that is paused.
fn make_spare(name: &GuestName, have: &ObservedGuest, want: &WantedGuest) -> Option<Step> {
    let spare = want.spare.clone()?;
    let is_one = have.vmm.as_ref().is_some_and(|vmm| matches!(vmm.role, Some(PoolRole::Spare(_))));
    (!is_one).then(|| Step::Pool(PoolStep::MakeSpare { guest: name.clone(), spare }))
}

/// Everything that a guest needs, from its disk to its first word.
fn start(name: &GuestName, have: &ObservedGuest, want: &WantedGuest) -> Vec<Step> {
    let guest = || name.clone();
    let machine = want.machine();
    let mut steps = Vec::new();
    if let Some(disk) = want.disk {
        steps.extend(ready_disk(name, have, disk));
    }
    // Before the TAP, which alone does not tell whose it is: a TAP that is left over has a cgroup beside it.
    // One in which somebody was killed is made anew, so that what it counts is this start's.
    let counts = have.oom_kills() > 0;
    steps.extend(counts.then(|| Step::RemoveCgroup { guest: guest() }));
    if counts || !has_wanted_limits(have, want) {
        steps.push(Step::CreateCgroup { guest: guest(), limits: want.cgroup });
    }
    // Made anew, so that nothing comes to it that another guest, or an earlier start, had asked for.
    steps.extend(have.tap.as_ref().map(|tap| Step::RemoveTap { guest: guest(), tap: tap.name.clone() }));
    steps.push(Step::CreateTap { guest: guest(), tap: want.tap.clone() });
    steps.push(Step::CreateJail { guest: guest(), machine: machine.clone() });
    steps.push(Step::StartVmm { guest: guest(), machine: machine.clone() });
    let spare = want.spare.clone();
    steps.extend(spare.map(|spare| Step::Pool(PoolStep::RaiseSpare { guest: guest(), spare })));
    steps.push(Step::AwaitReady { guest: guest() });
    if machine.as_started() != *machine {
        steps.push(Step::AdjustVmm { guest: guest(), machine: machine.clone() });
    }
    steps
}

/// Makes the disk of a guest that does not run, or gives it the uid and the size that it should have.
fn ready_disk(name: &GuestName, have: &ObservedGuest, want: WantedDisk) -> Vec<Step> {
    let guest = || name.clone();
    let give = || Step::Disk(DiskStep::ChownDisk { guest: guest(), uid: want.uid });
    if have.lost_disk {
        return vec![Step::Disk(DiskStep::RelinkDisk { guest: guest() }), give()];
    }
    let Some(there) = have.disk else {
        return vec![Step::Disk(DiskStep::CreateDisk { guest: guest(), base: want.base, uid: want.uid })];
    };
    let given = (there.uid != want.uid || !there.private).then(give);
    let grown = (there.size < want.size)
        .then(|| Step::Disk(DiskStep::GrowDisk { guest: guest(), from: there.size, size: want.size }));
    given.into_iter().chain(grown).collect()
}

#[cfg(test)]
mod tests;
