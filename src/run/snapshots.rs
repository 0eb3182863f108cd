//! Snapshots are made, listed and removed.

use std::time::Duration;

use crate::apply::Host;
use crate::apply::snapshot::{self, MadeSnapshot, SnapshotState, StoredSnapshot};
use crate::base::diagnostic::one_line;
use crate::base::time::now;
use crate::base::{GuestName, InvalidValue, SnapshotName};
use crate::host::snapshot::{Obstacle, SnapshotManifest, differences};
use crate::sys::interrupt;

use super::fleet_host::{FleetHost, OpenedHost};
use super::guests::declared_or_there;
use super::held::Held;
use super::retention::{self, Outdated};
use super::session::refuse_handed_out;
use super::{Outcome, RunError, Workspace};

/// A snapshot that was made; the host is held.
pub struct CreatedSnapshot<'a> {
    held: Held<FleetHost<'a>>,
    /// Until the guest runs, or is ended.
    _deferral: interrupt::Deferral,
    pub name: SnapshotName,
    pub manifest: SnapshotManifest,
    /// Bytes that its files take on the disk.
    pub size: u64,
    /// For how long the guest stood still.
    pub paused_for: Duration,
    /// What would keep it from being restored, although it was just made.
    pub obstacles: Vec<Obstacle>,
    /// Earlier ones that fleet.toml does not keep any more, and that are gone.
    pub outdated: Vec<Outdated>,
}

/// Takes a snapshot of a running guest, called `name`, or by the guest and the time. One that is to `stop` is left paused, and
/// [`CreatedSnapshot::end`] ends it.
pub fn create<'a>(
    workspace: &'a Workspace<'a>,
    guest: &str,
    name: Option<SnapshotName>,
    stop: bool,
) -> Result<CreatedSnapshot<'a>, RunError> {
    let held = FleetHost::hold(workspace)?;
    let guest = declared_or_there(guest, &held.declared, &held.host)?;
    refuse_handed_out(workspace, &held.host, &guest)?;
    let name = match name {
        Some(name) => name,
        None => default_name(&guest, &now())?,
    };
    let deferral = interrupt::defer();
    let request = snapshot::SnapshotRequest { guest: &guest, name: &name, stop, core: false };
    let (MadeSnapshot { manifest, here }, paused_for) =
        snapshot::create(&held.host, &request, workspace.report)?;
    let size = snapshot::find(&held.host.layout, &name)?.size;
    let obstacles = differences(&manifest, &here);
    // It is whole, whatever becomes of the others. What a file keeps that cannot be read is not known.
    let keep = workspace.fleet().map(|fleet| fleet.snapshots).unwrap_or_default();
    let outdated = retention::keep_to(&held.host.layout, &keep).unwrap_or_else(|error| {
        workspace.report.note(&format!("earlier snapshots are kept: {}", one_line(&error)));
        Vec::new()
    });
    Ok(CreatedSnapshot { held, _deferral: deferral, name, manifest, size, paused_for, obstacles, outdated })
}

impl CreatedSnapshot<'_> {
    /// Ends the guest, which is not to run beside its snapshot.
    pub fn end(mut self) -> Result<Outcome, RunError> {
        // Its snapshot is whole, and it would stand still until the next `up`.
        self.held.host.heeds_signals = false;
        self.held.observed = self.held.host.observe()?;
        let plan = self.held.removal(std::slice::from_ref(&self.manifest.guest));
        self.held.carry_out(plan)
    }
}

/// Such as `alice-20261125-175316`.
pub(super) fn default_name(guest: &GuestName, now: &str) -> Result<SnapshotName, InvalidValue> {
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = digits.split_at(digits.len().min(8));
    format!("{guest}-{day}-{time}").parse()
}

/// Every snapshot that can be restored, or with `all` also those that were.
pub fn list(workspace: &Workspace<'_>, all: bool) -> Result<Vec<StoredSnapshot>, RunError> {
    let host = OpenedHost::open(workspace)?.host;
    let mut found = snapshot::list(&host.layout)?;
    // What is wrong with one that is not whole, `snapshot ledger` tells.
    let ledger = snapshot::ledger(&host.layout).ok();
    for one in found.iter_mut().filter(|one| one.place == SnapshotState::Ready) {
        let Some(manifest) = &one.manifest else { continue };
        one.spent = match ledger.as_ref().map(|ledger| ledger.fate(manifest.id())) {
            Some(Some(fate)) if fate.is_open() => None,
            Some(Some(fate)) => Some(fate.line.event.words()),
            Some(None) => Some("not known to the ledger".to_owned()),
            None => Some("not restored while the ledger is not whole".to_owned()),
        };
    }
    found.retain(|one| all || one.place == SnapshotState::Ready);
    Ok(found)
}

/// A snapshot that is to be removed for good; the host is held.
pub struct Removal<'a> {
    held: Held<FleetHost<'a>>,
    pub snapshot: StoredSnapshot,
}

/// Holds the host and finds a snapshot that is to be removed.
pub fn removal<'a>(workspace: &'a Workspace<'a>, name: &SnapshotName) -> Result<Removal<'a>, RunError> {
    let held = FleetHost::hold(workspace)?;
    let snapshot = snapshot::find(&held.host.layout, name)?;
    Ok(Removal { held, snapshot })
}

impl Removal<'_> {
    /// Removes it. Whoever calls this has asked.
    pub fn carry_out(self) -> Result<(), RunError> {
        let _deferral = interrupt::defer();
        Ok(snapshot::remove(&self.held.host.layout, &self.snapshot.name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_without_a_name_is_called_after_its_guest_and_the_time() {
        let name = default_name(&"alice".parse().unwrap(), "2026-11-25T17:53:16Z").unwrap();
        assert_eq!(name.as_str(), "alice-20261125-175316");
    }
}
