//! The snapshots that a host has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::apply::ApplyError;
use crate::apply::record::{self, Unreadable};
use crate::base::SnapshotName;
use crate::base::text::natural_order;
use crate::host::layout::{Layout, NOT_WHOLE};
use crate::host::snapshot::{
    EXPORTED, HandedOver, MANIFEST, MEMORY, RESTORED, Restored, STATE, SnapshotManifest,
};
use crate::sys::fs::{self as files, FileError};

use super::SnapshotError;

/// Where a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// It can be restored.
    Ready,
    /// It was.
    Consumed,
}

/// One snapshot.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    pub name: SnapshotName,
    pub place: SnapshotState,
    /// `None` where it is missing or cannot be read: such a snapshot can be removed, and nothing else.
    pub manifest: Option<SnapshotManifest>,
    /// What it was restored as.
    pub restored: Option<Restored>,
    /// Which host has it now, where it was exported.
    pub exported: Option<HandedOver>,
    /// Why it cannot be restored although its files are here, where the ledger says so.
    pub spent: Option<String>,
    /// Bytes that its files take on the disk.
    pub size: u64,
    /// Whether a data disk is in it.
    pub has_disk: bool,
}

/// Every snapshot, by name.
pub fn list(layout: &Layout) -> Result<Vec<StoredSnapshot>, ApplyError> {
    let mut all = Vec::new();
    for place in [SnapshotState::Ready, SnapshotState::Consumed] {
        for name in names(&dir_of(layout, place))? {
            all.push(look_at(layout, name, place)?);
        }
    }
    all.sort_by(|a, b| natural_order(a.name.as_str(), b.name.as_str()));
    Ok(all)
}

fn dir_of(layout: &Layout, place: SnapshotState) -> std::path::PathBuf {
    match place {
        SnapshotState::Ready => layout.ready_snapshots(),
        SnapshotState::Consumed => layout.consumed_snapshots(),
    }
}

fn look_at(layout: &Layout, name: SnapshotName, place: SnapshotState) -> Result<StoredSnapshot, ApplyError> {
    let dir = dir_of(layout, place).join(name.as_str());
    Ok(StoredSnapshot {
        manifest: record::read(&dir.join(MANIFEST)).ok().flatten(),
        restored: record::read(&dir.join(RESTORED)).ok().flatten(),
        exported: record::read(&dir.join(EXPORTED)).ok().flatten(),
        spent: None,
        size: files::allocated_within(&dir),
        has_disk: dir.join(crate::host::snapshot::DISK).exists(),
        name,
        place,
    })
}

fn names(dir: &Path) -> Result<BTreeSet<SnapshotName>, ApplyError> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(FileError::when("read", dir)(error).into()),
    }
}

/// A snapshot by its name, wherever it is; a consumed one only where there is no other.
pub fn find(layout: &Layout, name: &SnapshotName) -> Result<StoredSnapshot, ApplyError> {
    for place in [SnapshotState::Ready, SnapshotState::Consumed] {
        if dir_of(layout, place).join(name.as_str()).exists() {
            return look_at(layout, name.clone(), place);
        }
    }
    Err(SnapshotError::NotFound(name.clone()).into())
}

/// The manifest of a snapshot that can be restored.
pub fn ready_manifest(layout: &Layout, name: &SnapshotName) -> Result<SnapshotManifest, ApplyError> {
    let found = find(layout, name)?;
    if found.place == SnapshotState::Consumed {
        let StoredSnapshot { restored, exported, .. } = found;
        return Err(SnapshotError::Consumed { name: name.clone(), restored, exported }.into());
    }
    let path = layout.ready_snapshot(name).join(MANIFEST);
    let read = record::read(&path).map_err(SnapshotError::Manifest)?;
    Ok(read.ok_or(SnapshotError::NoManifest(path))?)
}

/// The manifest of a snapshot that was consumed.
pub fn consumed(layout: &Layout, name: &SnapshotName) -> Result<Option<SnapshotManifest>, Unreadable> {
    record::read(&layout.consumed_snapshot(name).join(MANIFEST))
}

/// Removes a snapshot for good, wherever it is. It is out of the way of its name at once, and what is left of it by a kill
/// is cleared away.
pub fn remove(layout: &Layout, name: &SnapshotName) -> Result<(), ApplyError> {
    let found = find(layout, name)?;
    let (from, to) = (dir_of(layout, found.place).join(name.as_str()), layout.new_snapshot(name));
    files::remove(&to)?;
    fs::rename(&from, &to).map_err(FileError::when("remove", &from))?;
    Ok(files::remove(&to)?)
}

/// Whether something is there that [`clear`] removes.
pub(in crate::apply) fn has_leftovers(layout: &Layout) -> bool {
    !leftovers(layout).is_empty()
}

/// Removes what is left of snapshots that were not finished, and memory and state that were consumed already. Disks are no
/// such thing. A guest that goes on from such a memory has another link to it in its jail.
pub(in crate::apply) fn clear(layout: &Layout) -> Result<(), ApplyError> {
    Ok(leftovers(layout).iter().try_for_each(|path| files::remove(path))?)
}

fn leftovers(layout: &Layout) -> Vec<std::path::PathBuf> {
    let below = |dir| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_new = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NOT_WHOLE))
    };
    let unfinished = below(layout.snapshots()).filter(is_new);
    let consumed =
        below(layout.consumed_snapshots()).flat_map(|dir| [MEMORY, STATE].map(|name| dir.join(name)));
    unfinished.chain(consumed.filter(|path| path.exists())).collect()
}
