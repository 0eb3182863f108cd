//! Retention: snapshots that fleet.toml does not keep any more go. Whoever removes them holds the host, so that none is being
//! restored.

use std::time::SystemTime;

use crate::apply::ApplyError;
use crate::apply::snapshot::{self, SnapshotState, StoredSnapshot};
use crate::base::SnapshotName;
use crate::base::time::parse_rfc3339;
use crate::fleet::SnapshotKeep;
use crate::host::layout::Layout;
use crate::host::ledger::LedgerEvent;
use crate::host::retention::{KeptSnapshot, RetentionReason, outdated};

use super::events::{self, FleetEvent};

/// A snapshot that goes, and why.
#[derive(Clone, Debug)]
pub struct Outdated {
    pub name: SnapshotName,
    /// Bytes that it takes on the disk.
    pub size: u64,
    pub why: RetentionReason,
}

/// Those that go now.
pub fn due(layout: &Layout, keep: &SnapshotKeep) -> Result<Vec<Outdated>, ApplyError> {
    if *keep == SnapshotKeep::default() {
        return Ok(Vec::new());
    }
    // A ledger that is not whole is somebody's to look at first: until then nothing goes.
    let ledger = snapshot::ledger(layout)?;
    let kept = |StoredSnapshot { name, place, manifest, size, .. }| {
        let manifest = manifest.filter(|_| place == SnapshotState::Ready)?;
        // What cannot be restored, as a copy of what was, is nothing that another would go for; `snapshot rm` removes it.
        let line = &ledger.fate(manifest.id()).filter(|fate| fate.is_open())?.line;
        // What was brought back was asked for since: it is as old as its import.
        let since =
            if matches!(line.event, LedgerEvent::Imported { .. }) { &line.at } else { &manifest.created };
        let created = parse_rfc3339(since).ok();
        Some(KeptSnapshot { name, guest: manifest.guest, order: line.number, created, size })
    };
    let all = snapshot::list(layout)?.into_iter().filter_map(kept).collect();
    let outdated = outdated(all, keep, SystemTime::now()).into_iter();
    Ok(outdated.map(|(KeptSnapshot { name, size, .. }, why)| Outdated { name, size, why }).collect())
}

/// Removes them, and gives those that are gone.
pub(super) fn keep_to(layout: &Layout, keep: &SnapshotKeep) -> Result<Vec<Outdated>, ApplyError> {
    let due = due(layout, keep)?;
    for outdated in &due {
        remove(layout, outdated)?;
    }
    Ok(due)
}

/// Removes one.
pub(super) fn remove(layout: &Layout, Outdated { name, why, .. }: &Outdated) -> Result<(), ApplyError> {
    snapshot::remove(layout, name)?;
    let (snapshot, why) = (name.to_string(), why.to_string());
    events::record(layout, [FleetEvent::SnapshotOutdated { snapshot, why }]);
    Ok(())
}
