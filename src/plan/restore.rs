//! What brings a guest back from a snapshot, and what stands against it on this host.

use crate::base::{GuestName, SnapshotName};
use crate::host::snapshot::{Manifest, Obstacle};
use crate::host::state::{GuestState, HostState, Machine, MachineDisk, Paused, StoredKind};
use crate::host::vmm::guest_address;

use super::diff::{prepare, removal, rules};
use super::step::{GuestSteps, Plan, Step};

/// The steps that bring `snapshot` back as `guest`, whose wanted state is that of the snapshot already.
///
/// All that can fail comes before the snapshot is consumed; all that could give a second guest comes after it.
///
/// # Errors
/// Everything that stands against it.
pub fn restore(
    observed: &HostState,
    desired: &HostState,
    guest: &GuestName,
    snapshot: &SnapshotName,
    manifest: &Manifest,
) -> Result<Plan, Vec<Obstacle>> {
    let nothing = GuestState::default();
    let want = desired.guests.get(guest).unwrap_or(&nothing);
    let have = observed.guests.get(guest).unwrap_or(&nothing);
    let obstacles = obstacles(observed, want, guest, manifest);
    let Some(machine) = want.machine.clone().filter(|_| obstacles.is_empty()) else {
        return Err(obstacles);
    };
    let leftovers = removal(guest, have);
    let mut plan =
        Plan { prepare: prepare_for(observed, desired), rules: rules(observed, desired), ..Plan::default() };
    if !leftovers.is_empty() {
        plan.stop.push(GuestSteps::new(guest, "left over", leftovers));
    }
    let mut steps =
        GuestSteps::new(guest, &format!("from snapshot {snapshot}"), start(guest, snapshot, want, machine));
    steps.undo = removal(guest, &GuestState { disk: None, ..want.clone() });
    steps.then = vec![Step::ForgetSnapshot { snapshot: snapshot.clone() }];
    plan.start.push(steps);
    Ok(plan)
}

fn prepare_for(observed: &HostState, desired: &HostState) -> Vec<Step> {
    // What other guests would need is not brought into the store for this one.
    let mut steps = prepare(observed, desired);
    steps.retain(|step| !matches!(step, Step::StoreFile { .. }));
    steps
}

fn start(guest: &GuestName, snapshot: &SnapshotName, want: &GuestState, machine: Machine) -> Vec<Step> {
    let name = || guest.clone();
    let mut steps = Vec::new();
    steps.extend(want.cgroup.map(|limits| Step::CreateCgroup { guest: name(), limits }));
    steps.extend(want.tap.clone().map(Step::CreateTap));
    let keeps_disk = machine.disk == MachineDisk::Kept;
    steps.push(Step::CreateJail { guest: name(), machine: machine.clone() });
    steps.push(Step::StartVmm { guest: name(), machine: machine.clone() });
    steps.push(Step::ConsumeSnapshot { guest: name(), snapshot: snapshot.clone(), keeps_disk });
    steps.push(Step::LoadSnapshot { guest: name(), machine });
    steps.push(Step::AwaitReady { guest: name() });
    steps
}

fn obstacles(
    observed: &HostState,
    want: &GuestState,
    guest: &GuestName,
    manifest: &Manifest,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let machine = &manifest.machine;
    let address = guest_address(&machine.command_line);
    for (name, other) in &observed.guests {
        let running = other.machine.as_ref().filter(|_| goes_on(other));
        let has_address =
            address.is_some() && running.and_then(|m| guest_address(&m.command_line)) == address;
        // What runs without a record is cleared out of the target's way; as the one that was frozen it must not run.
        let in_the_way = goes_on(other) && (running.is_some() || name != guest);
        if in_the_way && (name == guest || *name == manifest.guest) {
            found.push(Obstacle::Running(name.clone()));
        } else if let Some(address) = address.filter(|_| has_address) {
            found.push(Obstacle::AddressTaken { address, by: name.clone() });
        }
    }
    let kept = machine.disk == MachineDisk::Kept;
    let target_keeps = want.declared.as_ref().is_some_and(|declared| declared.disk == MachineDisk::Kept);
    if want.declared.is_some() && kept != target_keeps {
        found.push(Obstacle::OtherDisk { frozen: manifest.guest.clone(), target: guest.clone(), kept });
    }
    let machine_files = machine.spec.files().map(|(_, digest)| (StoredKind::Machine, *digest));
    let images = machine.images.map(|digest| (StoredKind::Image, digest));
    let needed = [(StoredKind::Kernel, machine.kernel), (StoredKind::Image, machine.image)];
    let needed = needed.into_iter().chain(images).chain(machine_files);
    let missing = needed.filter(|(_, digest)| !observed.stored.contains_key(digest));
    found.extend(missing.map(|(kind, digest)| Obstacle::NotStored(kind, digest)));
    found
}

/// Whether a guest that was found runs, or would: one that is frozen for good does not.
fn goes_on(guest: &GuestState) -> bool {
    guest.occupied && guest.paused != Some(Paused::Frozen)
}
