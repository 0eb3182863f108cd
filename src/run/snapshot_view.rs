//! A snapshot, looked at: what it is, and whether it would be restored now.

use std::time::{Duration, SystemTime};

use crate::apply::snapshot::{self, SnapshotError, SnapshotState, StoredSnapshot};
use crate::base::SnapshotName;
use crate::base::diagnostic::one_line;
use crate::base::time::parse_rfc3339;
use crate::host::ledger::LedgerLine;
use crate::host::snapshot::{SnapshotManifest, differences, misplaced};
use crate::plan::restore_obstacles;

use super::fleet_host::FleetHost;
use super::{RunError, Workspace};

/// A snapshot, and what stands against it.
#[derive(Clone, Debug)]
pub struct SnapshotView {
    pub stored: StoredSnapshot,
    /// Since it was made, by the host's clock; `None` where that is not known, or lies in the future.
    pub age: Option<Duration>,
    /// What the ledger says of it last.
    pub counted: Option<LedgerLine>,
    /// Why a restore would be refused now, one sentence each.
    pub refusals: Vec<String>,
}

/// Looks at a snapshot, and at its host. With `verify`, every byte of its files is read; else their sizes tell.
pub fn view(workspace: &Workspace<'_>, name: &SnapshotName, verify: bool) -> Result<SnapshotView, RunError> {
    let found = FleetHost::look(workspace)?;
    let layout = &found.host.layout;
    let stored = snapshot::find(layout, name)?;
    let Some(manifest) = stored.manifest.clone() else {
        let refusals =
            snapshot::ready_manifest(layout, name).err().iter().map(|error| one_line(error)).collect();
        return Ok(SnapshotView { stored, age: None, counted: None, refusals });
    };
    let created = parse_rfc3339(&manifest.created).ok();
    let age = created.and_then(|created| SystemTime::now().duration_since(created).ok());
    let ledger = snapshot::ledger(layout);
    let counted = ledger.ok().and_then(|ledger| ledger.fate(manifest.id()).map(|fate| fate.line.clone()));
    let refusals = match stored.place {
        SnapshotState::Ready => against(workspace, &found, name, &manifest, verify)?,
        SnapshotState::Consumed => {
            let (restored, exported) = (stored.restored.clone(), stored.exported.clone());
            vec![SnapshotError::Consumed { name: name.clone(), restored, exported }.to_string()]
        }
    };
    Ok(SnapshotView { stored, age, counted, refusals })
}

/// What stands against a restore as the guest that it was.
fn against(
    workspace: &Workspace<'_>,
    found: &FleetHost<'_>,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
    verify: bool,
) -> Result<Vec<String>, RunError> {
    let layout = &found.host.layout;
    let mut refusals: Vec<String> = Vec::new();
    refusals.extend(snapshot::may_restore(layout, name, manifest).err().iter().map(|error| one_line(error)));
    let fleet = workspace.fleet();
    match &fleet {
        Ok(fleet) if fleet.guests.contains_key(&manifest.guest) => {}
        Ok(_) => refusals.push(format!("fleet.toml has no guest {}; --as names another", manifest.guest)),
        Err(_) => refusals.push("fleet.toml cannot be read: `sisforge check` says why".to_owned()),
    }
    let mut obstacles = match snapshot::here(manifest.machine.vmm) {
        Ok(here) => differences(manifest, &here),
        Err(error) => {
            refusals.push(one_line(&error));
            Vec::new()
        }
    };
    obstacles.extend(match verify {
        true => snapshot::check_files(layout, name, manifest)?,
        false => snapshot::check_sizes(layout, name, manifest),
    });
    if let Ok(fleet) = fleet {
        obstacles.extend(misplaced(manifest, &manifest.machine, fleet.host.subnet));
    }
    obstacles.extend(restore_obstacles(&found.observed, &manifest.guest, manifest));
    refusals.extend(obstacles.iter().map(ToString::to_string));
    Ok(refusals)
}
