//! Restore: a guest is brought back as its snapshot has it, once.

use std::path::PathBuf;

use crate::apply::snapshot;
use crate::base::{GuestName, SnapshotName};
use crate::fleet::Fleet;
use crate::host::snapshot::{DISK, Obstacle, SnapshotManifest, brought_back, differences, misplaced};
use crate::host::state::MachineDisk;
use crate::plan::{self, GuestScope, Plan};
use crate::sys::digest::digest_like;
use crate::sys::report::Silent;

use super::deployment::{Basis, BuiltFleet};
use super::error::ObstacleReason;
use super::guests::declared;
use super::held::Held;
use super::session::refuse_as_target;
use super::{Deployment, Inputs, Outcome, RunError, Workspace, host};

/// A snapshot that can be restored, on a host that is held.
pub struct Restore<'a> {
    held: Held<Deployment<'a>>,
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
    let layout = host::open(&fleet.head())?.layout;
    let manifest = snapshot::ready_manifest(&layout, snapshot)?;
    snapshot::may_restore(&layout, snapshot, &manifest)?;
    let guest = declared(target.unwrap_or(manifest.guest.as_str()), &fleet)?;
    refuse_as_target(&fleet, snapshot, &guest)?;
    let (mut held, built) = hold_built(workspace, fleet, &guest, snapshot, &manifest)?;
    let manifest = snapshot::ready_manifest(&held.host.layout, snapshot)?;
    snapshot::may_restore(&held.host.layout, snapshot, &manifest)?;
    let guest = declared(target.unwrap_or(manifest.guest.as_str()), &held.fleet)?;
    refuse_as_target(&held.fleet, snapshot, &guest)?;
    held.make_key()?;
    let basis = held.basis_of(built)?;
    let plan = planned(&held, basis, &guest, snapshot, &manifest)?;
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

/// Holds the host, with what is built by `fleet.lock`. Only where that does not fit is it written, and not before it is known that
/// nothing stands against the restore.
fn hold_built<'a>(
    workspace: &'a Workspace<'a>,
    fleet: Fleet,
    guest: &GuestName,
    snapshot: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<(Held<Deployment<'a>>, BuiltFleet), RunError> {
    match Deployment::hold_built(workspace, fleet.clone(), Inputs::Locked) {
        Err(RunError::NoLock(_) | RunError::StaleLock { .. }) if !workspace.settings.artifacts.no_build => {
            let silent = Workspace { report: &Silent, settings: workspace.settings.clone() };
            let mut found = Deployment::look(&silent, fleet.clone())?;
            let basis = found.basis(Inputs::Foreseen { must_fit: false })?;
            planned(&found, basis, guest, snapshot, manifest)?;
            Deployment::hold_built(workspace, fleet, Inputs::Refresh)
        }
        held => held,
    }
}

/// What brings the guest back; nothing where anything stands against it.
fn planned(
    found: &Deployment<'_>,
    mut basis: Basis,
    guest: &GuestName,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<Plan, RunError> {
    found.check_host_network(GuestScope::Only(std::slice::from_ref(guest)))?;
    let mut obstacles = differences(manifest, &snapshot::here(manifest.machine.vmm)?);
    let fresh = basis.wanted(&found.fleet)?;
    if let Some(wanted) = fresh.guests.get(guest) {
        let machine = brought_back(manifest, name, wanted.machine());
        obstacles.extend(misplaced(manifest, &machine, found.fleet.host.subnet));
        basis.facts.restored.insert(guest.clone(), machine);
    }
    match plan::restore(&found.observed, &basis.wanted(&found.fleet)?, guest, name, manifest) {
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
    held: &Held<Deployment<'_>>,
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
