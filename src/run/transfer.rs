//! Snapshots are exported for one host, and imported there; and the ledger that counts them is looked at and made whole.

use std::path::{Path, PathBuf};

use crate::apply::ApplyError;
use crate::apply::snapshot::{self, Accepted, ExportRequest, Imported, TransferError};
use crate::base::SnapshotName;
use crate::host::layout::Layout;
use crate::host::ledger::Ledger;
use crate::host::observed::Paused;
use crate::host::snapshot::SnapshotManifest;
use crate::sys::age::{AgeIdentity, AgeRecipient};
use crate::sys::interrupt;

use super::fleet_host::{FleetHost, OpenedHost};
use super::held::Held;
use super::{RunError, Workspace, host};

/// The public half of this host's key, which is made where there is none.
pub fn recipient() -> Result<AgeRecipient, RunError> {
    host::require_root()?;
    Ok(identity()?.recipient())
}

fn identity() -> Result<AgeIdentity, RunError> {
    let identity = AgeIdentity::of_host(&Layout::host_key(), &Layout::host_key_lock());
    Ok(identity.map_err(TransferError::from).map_err(ApplyError::from)?)
}

/// A snapshot that was exported.
#[derive(Clone, Debug)]
pub struct ExportedSnapshot {
    pub path: PathBuf,
    pub manifest: SnapshotManifest,
    /// Bytes of the file.
    pub size: u64,
    /// Whether it is another host's now, so that this one cannot restore it any more.
    pub is_handed_over: bool,
}

/// Writes a snapshot to a file that one host alone can read, named after the snapshot where nothing else is said.
pub fn export(
    workspace: &Workspace<'_>,
    name: &SnapshotName,
    recipient: &AgeRecipient,
    out: Option<&Path>,
) -> Result<ExportedSnapshot, RunError> {
    let held = FleetHost::hold(workspace)?;
    let own = identity()?.recipient();
    let is_handed_over = *recipient != own;
    if is_handed_over {
        end_frozen(&held, name)?;
    }
    let path = out.map_or_else(|| PathBuf::from(format!("{name}.snapshot.age")), Path::to_owned);
    let threads = workspace.settings.jobs;
    let request = ExportRequest { name, recipient, own: &own, out: &path, threads };
    let _deferral = interrupt::defer();
    let manifest = snapshot::export(&held.host.layout, &request, workspace.report)?;
    let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    Ok(ExportedSnapshot { path, manifest, size, is_handed_over })
}

/// Sees to it that the snapshot's guest does not go on here, while it does there: one that was saved and was to end is ended, since
/// nothing but the snapshot says so; any other that runs is left, and the snapshot with it.
fn end_frozen(held: &Held<FleetHost<'_>>, name: &SnapshotName) -> Result<(), RunError> {
    let guest = snapshot::ready_manifest(&held.host.layout, name)?.guest;
    let vmm = held.observed.guests.get(&guest).and_then(|found| found.vmm.as_ref());
    let ended = match vmm {
        None => return Ok(()),
        Some(vmm) if vmm.paused == Some(Paused::Frozen) => {
            held.carry_out(held.removal(std::slice::from_ref(&guest)))?.is_complete()
        }
        Some(_) => false,
    };
    let running = || ApplyError::from(TransferError::Running { name: name.clone(), guest });
    if ended { Ok(()) } else { Err(running().into()) }
}

/// Brings a snapshot in that was exported for this host.
pub fn import(
    workspace: &Workspace<'_>,
    path: &Path,
    name: Option<&SnapshotName>,
) -> Result<Imported, RunError> {
    let held = FleetHost::hold(workspace)?;
    let identity = identity()?;
    let _deferral = interrupt::defer();
    Ok(snapshot::import(&held.host.layout, &identity, path, name, workspace.report)?)
}

/// What became of each snapshot of a fleet.
pub fn ledger(workspace: &Workspace<'_>) -> Result<Ledger, RunError> {
    Ok(snapshot::ledger(&OpenedHost::open(workspace)?.host.layout)?)
}

/// A ledger that is to be made whole; the host is held.
pub struct LedgerMending<'a> {
    held: Held<FleetHost<'a>>,
    /// Why it is not; `None` where it is.
    pub fault: Option<ApplyError>,
}

/// Holds the host and looks what is wrong with its ledger.
pub fn mending<'a>(workspace: &'a Workspace<'a>) -> Result<LedgerMending<'a>, RunError> {
    let held = FleetHost::hold(workspace)?;
    let fault = snapshot::ledger(&held.host.layout).err();
    Ok(LedgerMending { held, fault })
}

impl LedgerMending<'_> {
    /// Makes it whole. Whoever calls this has asked.
    pub fn carry_out(self) -> Result<Accepted, RunError> {
        let _deferral = interrupt::defer();
        Ok(snapshot::accept(&self.held.host.layout)?)
    }
}
