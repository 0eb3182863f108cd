//! What brings a guest back from a snapshot, and what stands against it on this host.

use crate::base::{GuestName, SnapshotName};
use crate::host::observed::{ObservedGuest, ObservedHost, Paused};
use crate::host::snapshot::{Obstacle, SnapshotManifest};
use crate::host::state::{Machine, MachineDisk, StoredKind};
use crate::host::wanted::{Startup, WantedGuest, WantedHost};

use super::diff::{GuestScope, prepare, removal, rules, undo};
use super::model::{GuestSteps, Plan};
use super::step::{SnapshotStep, Step};
use super::why::StepReason;

/// The steps that bring `snapshot` back as `guest`, which is wanted with the snapshot's machine already.
///
/// All that can fail comes before the snapshot is consumed; all that could give a second guest comes after it.
///
/// # Errors
/// Everything that stands against it.
pub fn restore(
    observed: &ObservedHost,
    wanted: &WantedHost,
    guest: &GuestName,
    snapshot: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<Plan, Vec<Obstacle>> {
    let want = wanted.guests.get(guest);
    let fresh = want.map(|want| match &want.startup {
        Startup::Restored { fresh, .. } => &**fresh,
        Startup::Boot(machine) | Startup::InUse(machine) => machine,
    });
    let obstacles = obstacles(observed, fresh, guest, manifest);
    let Some(want) = want.filter(|_| obstacles.is_empty()) else { return Err(obstacles) };
    let leftovers = observed.guests.get(guest).map(|have| removal(guest, have)).unwrap_or_default();
    let scope = GuestScope::Only(std::slice::from_ref(guest));
    let mut plan = Plan {
        prepare: prepare_for(observed, wanted, scope),
        rules: rules(observed, wanted, scope),
        ..Plan::default()
    };
    if !leftovers.is_empty() {
        plan.stop.push(GuestSteps::new(guest, StepReason::found("left over"), leftovers));
    }
    plan.stop.extend(end_of_frozen(observed, guest, manifest));
    let why = StepReason::found(format!("from snapshot {snapshot}"));
    let mut steps = GuestSteps::new(guest, why, start(guest, snapshot, want));
    steps.undo = undo(guest, want);
    steps.then = vec![Step::Snapshot(SnapshotStep::ForgetSnapshot { snapshot: snapshot.clone() })];
    plan.start.push(steps);
    Ok(plan)
}

/// Ends the guest that was saved, where the snapshot was made and whoever made it did not come to that: nothing but the snapshot says
/// that it must not go on.
fn end_of_frozen(
    observed: &ObservedHost,
    guest: &GuestName,
    manifest: &SnapshotManifest,
) -> Option<GuestSteps> {
    let saved = &manifest.guest;
    let have = observed.guests.get(saved).filter(|have| saved != guest && is_frozen(have))?;
    Some(GuestSteps::new(saved, StepReason::found("saved to a snapshot"), removal(saved, have)))
}

fn prepare_for(observed: &ObservedHost, wanted: &WantedHost, scope: GuestScope<'_>) -> Vec<Step> {
    // What other guests would need is not brought into the store for this one.
    let mut steps = prepare(observed, wanted, scope);
    steps.retain(|step| !matches!(step, Step::StoreFile { .. }));
    steps
}

fn start(guest: &GuestName, snapshot: &SnapshotName, want: &WantedGuest) -> Vec<Step> {
    let name = || guest.clone();
    let machine = want.machine();
    let keeps_disk = machine.disk == MachineDisk::Kept;
    vec![
        Step::CreateCgroup { guest: name(), limits: want.cgroup },
        Step::CreateTap { guest: name(), tap: want.tap.clone() },
        Step::CreateJail { guest: name(), machine: machine.clone() },
        Step::StartVmm { guest: name(), machine: machine.clone() },
        Step::Snapshot(SnapshotStep::ConsumeSnapshot {
            guest: name(),
            snapshot: snapshot.clone(),
            keeps_disk,
        }),
        Step::Snapshot(SnapshotStep::LoadSnapshot { guest: name(), machine: machine.clone() }),
        Step::AwaitReady { guest: name() },
    ]
}

/// What stands against a restore as `guest` on a host as it was found, whatever that guest would boot instead.
pub fn restore_obstacles(
    observed: &ObservedHost,
    guest: &GuestName,
    manifest: &SnapshotManifest,
) -> Vec<Obstacle> {
    obstacles(observed, None, guest, manifest)
}

/// `fresh` is what the guest would boot instead.
fn obstacles(
    observed: &ObservedHost,
    fresh: Option<&Machine>,
    guest: &GuestName,
    manifest: &SnapshotManifest,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let machine = &manifest.machine;
    let address = machine.ip;
    for (name, other) in &observed.guests {
        let running = other.machine().filter(|_| goes_on(other));
        // What runs without a record is cleared out of the target's way; as the one that was frozen it must not run.
        let in_the_way = goes_on(other) && (running.is_some() || name != guest);
        if in_the_way && (name == guest || *name == manifest.guest) {
            found.push(Obstacle::Running(name.clone()));
        } else if running.is_some_and(|running| running.ip == address) {
            found.push(Obstacle::AddressTaken { address, by: name.clone() });
        }
    }
    let kept = machine.disk == MachineDisk::Kept;
    if fresh.is_some_and(|fresh| kept != (fresh.disk == MachineDisk::Kept)) {
        found.push(Obstacle::OtherDisk { frozen: manifest.guest.clone(), target: guest.clone(), kept });
    }
    let machine_files = machine.spec.files().map(|(_, digest)| (StoredKind::Machine, *digest));
    let images = machine.images.map(|digest| (StoredKind::Containers, digest));
    let needed = [(StoredKind::Kernel, machine.kernel), (StoredKind::Image, machine.image)];
    let needed = needed.into_iter().chain(images).chain(machine_files);
    let missing = needed.filter(|(_, digest)| !observed.stored.contains(digest));
    found.extend(missing.map(|(kind, digest)| Obstacle::NotStored(kind, digest)));
    found
}

/// Whether a guest that was found runs, or would: one that is frozen for good does not.
fn goes_on(guest: &ObservedGuest) -> bool {
    guest.vmm.is_some() && !is_frozen(guest)
}

fn is_frozen(guest: &ObservedGuest) -> bool {
    guest.vmm.as_ref().is_some_and(|vmm| vmm.paused == Some(Paused::Frozen))
}
