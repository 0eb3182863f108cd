//! Restore: a guest is brought back as it was frozen, once.

use std::path::PathBuf;

use crate::apply::snapshot;
use crate::base::{GuestName, SnapshotName};
use crate::host::snapshot::{DISK, Obstacle, SnapshotManifest, brought_back, differences, misplaced};
use crate::host::state::MachineDisk;
use crate::plan::{self, GuestScope, Plan};
use crate::sys::digest::digest_like;

use super::deployment::{BuiltFleet, Held};
use super::error::ObstacleReason;
use super::guests::declared;
use super::{Deployment, Inputs, Outcome, RunError, Workspace, host};

/// A snapshot that can be restored, on a host that is held.
pub struct Restore<'a> {
    held: Held<'a>,
    pub plan: Plan,
    /// The guest that goes on from it.
    pub guest: GuestName,
    /// Where the data disk that the guest has will be kept, if the snapshot's takes its place and it is another.
    pub set_aside: Option<PathBuf>,
}

/// Holds the host and looks whether a snapshot can be restored there, as its own guest or as another.
pub fn prepare<'a>(
    workspace: &'a Workspace<'a>,
    snapshot: &SnapshotName,
    target: Option<&str>,
) -> Result<Restore<'a>, RunError> {
    let fleet = workspace.fleet()?;
    // Nothing is built for one that is not there; looked at again once nobody else can change it.
    let layout = host::open(&fleet.host, &fleet.name)?.layout;
    snapshot::may_restore(&layout, snapshot, &snapshot::ready_manifest(&layout, snapshot)?)?;
    let built = BuiltFleet::before_hold(workspace, &fleet, Inputs::Refresh)?;
    let mut held = Deployment::hold(workspace, fleet)?;
    let manifest = snapshot::ready_manifest(&held.host.layout, snapshot)?;
    snapshot::may_restore(&held.host.layout, snapshot, &manifest)?;
    let guest = declared(target.unwrap_or(manifest.guest.as_str()), &held.fleet)?;
    held.make_key()?;
    let plan = planned(&mut held, built, &guest, snapshot, &manifest)?;
    let damaged = snapshot::check_seals(&held.host.layout, snapshot, &manifest)?;
    if !damaged.is_empty() {
        return Err(refused(snapshot, &guest, &damaged));
    }
    let set_aside = set_aside(&held, &guest, snapshot, &manifest)?;
    Ok(Restore { held, plan, guest, set_aside })
}

impl Restore<'_> {
    /// Brings the guest back. Whoever calls this has asked where a disk is set aside.
    pub fn carry_out(self) -> Result<Outcome, RunError> {
        self.held.carry_out(self.plan)
    }
}

/// What brings the guest back; nothing where anything stands against it.
fn planned(
    held: &mut Held<'_>,
    built: BuiltFleet,
    guest: &GuestName,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<Plan, RunError> {
    held.is_converted(GuestScope::Only(std::slice::from_ref(guest)))?;
    let mut basis = held.basis_of(built)?;
    let mut obstacles = differences(manifest, &snapshot::here(manifest.machine.vmm)?);
    let fresh = basis.state(&held.fleet)?;
    if let Some(wanted) = fresh.guests.get(guest) {
        let machine = brought_back(manifest, name, wanted.machine());
        obstacles.extend(misplaced(manifest, &machine, held.fleet.host.subnet));
        basis.facts.restored.insert(guest.clone(), machine);
    }
    match plan::restore(&held.observed, &basis.state(&held.fleet)?, guest, name, manifest) {
        Ok(plan) if obstacles.is_empty() => Ok(plan),
        outcome => {
            obstacles.extend(outcome.err().into_iter().flatten());
            Err(refused(name, guest, &obstacles))
        }
    }
}

fn refused(snapshot: &SnapshotName, guest: &GuestName, obstacles: &[Obstacle]) -> RunError {
    let running = obstacles.iter().filter_map(|obstacle| match obstacle {
        Obstacle::Running(guest) => Some(guest.clone()),
        _ => None,
    });
    let running = running.collect();
    let (snapshot, guest) = (snapshot.clone(), guest.clone());
    RunError::NotRestored { snapshot, guest, running, obstacles: ObstacleReason::first_of(obstacles) }
}

fn set_aside(
    held: &Held<'_>,
    guest: &GuestName,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<Option<PathBuf>, RunError> {
    let layout = &held.host.layout;
    let disk = layout.disk(guest);
    let Some(record) = manifest.files.get(DISK).filter(|_| manifest.machine.disk == MachineDisk::Kept) else {
        return Ok(None);
    };
    if !disk.exists() || digest_like(&record.digest, &disk)?.0 == record.digest {
        return Ok(None);
    }
    let mut aside = (1..).map(|number| layout.disk_before(guest, name, number));
    Ok(aside.find(|path| !path.exists()))
}
