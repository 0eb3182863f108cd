//! Gc: what nothing names any more goes. Of everything that goes, a build, a download or a copy makes it again, but for snapshots that
//! fleet.toml does not keep.
//!
//! Kept are: of `out/`, what a link names and what `fleet.lock` leads to; of the store, what a jail has, what a machine's record or a
//! snapshot of any fleet in it names, and what this fleet runs on; of the cache, what `fleet.lock` pins and what was read lately.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::apply::record;
use crate::apply::snapshot;
use crate::base::{FileDigest, FleetName};
use crate::build::artifacts::{ArtifactKind, Artifacts};
use crate::fleet::HostSpec;
use crate::host::layout::Layout;
use crate::host::state::Machine;
use crate::lock::model::Lock;
use crate::sys::fs::{self as files, FileError, FileLock};
use crate::sys::interrupt;

use super::built::is_build_key;
use super::retention::{self, Outdated};
use super::{Inputs, LockedProject, RunError, Workspace, host};

/// Where a file is that can be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StorageKind {
    /// An artifact in `out/`.
    Artifact,
    /// A file of the store.
    Stored,
    /// A download in the cache.
    Download,
}

/// Something that nothing names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub what: StorageKind,
    pub path: PathBuf,
    /// Bytes that it takes on the disk.
    pub size: u64,
}

/// What nothing names; the fleets of the store are held until it is dropped.
pub struct Garbage {
    pub leftovers: Vec<Leftover>,
    /// Snapshots that `[snapshots] keep` does not keep any more; nobody makes them again.
    pub outdated: Vec<Outdated>,
    layout: Layout,
    /// Whether the store was looked at, which is root's.
    pub looked_at_store: bool,
    _held: Vec<FileLock>,
}

/// Looks for it. Downloads that were read within `lately` are kept.
pub fn find(workspace: &Workspace<'_>, lately: Duration) -> Result<Garbage, RunError> {
    let fleet = workspace.fleet()?;
    let locked = LockedProject::of(workspace, fleet.clone(), Inputs::Foreseen { must_fit: true })?;
    let artifacts = locked.builder().artifacts()?;
    let looked_at_store = host::require_root().is_ok();
    let layout = fleet.head().layout();
    let (mut held, mut outdated) = (Vec::new(), Vec::new());
    let mut leftovers = artifacts_without_name(&workspace.settings.out, &artifacts)?;
    if looked_at_store {
        let fleets = fleets(&fleet.host)?;
        for layout in &fleets {
            held.push(host::hold(layout, workspace.report)?);
        }
        leftovers.extend(stored_without_name(&layout, &fleets, &artifacts)?);
        outdated = retention::due(&layout, &fleet.snapshots)?;
    }
    leftovers.extend(downloads_without_name(&workspace.settings.cache, &locked.lock, lately)?);
    Ok(Garbage { leftovers, outdated, layout, looked_at_store, _held: held })
}

impl Garbage {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.leftovers.is_empty() && self.outdated.is_empty()
    }

    /// Bytes that all of it takes on the disk.
    pub fn size(&self) -> u64 {
        let leftovers = self.leftovers.iter().map(|leftover| leftover.size);
        leftovers.chain(self.outdated.iter().map(|outdated| outdated.size)).sum()
    }

    /// Removes it.
    pub fn remove(self) -> Result<(), RunError> {
        let _deferral = interrupt::defer();
        for outdated in &self.outdated {
            retention::remove(&self.layout, outdated)?;
        }
        for leftover in &self.leftovers {
            files::remove(&leftover.path)?;
        }
        Ok(())
    }
}

fn artifacts_without_name(out: &Path, artifacts: &Artifacts) -> Result<Vec<Leftover>, FileError> {
    use ArtifactKind::{Containers, Disk, Image, Kernel};
    let mut found = Vec::new();
    for kind in [Kernel, Image, Disk, Containers] {
        let folder = out.join(kind.folder());
        let names = files::names_in(&folder)?;
        let of_lock = artifacts.all().filter(|artifact| artifact.kind == kind).map(|one| one.key.to_string());
        let targets = names.iter().filter_map(|name| fs::read_link(folder.join(name)).ok());
        let linked = targets.filter_map(|target| Some(target.file_name()?.to_str()?.to_owned()));
        let kept: BTreeSet<String> = of_lock.chain(linked).collect();
        for name in names.iter().filter(|name| is_build_key(name) && !kept.contains(*name)) {
            found.push(leftover(StorageKind::Artifact, folder.join(name)));
        }
    }
    Ok(found)
}

/// Every fleet that has something in the store.
pub(super) fn fleets(host: &HostSpec) -> Result<Vec<Layout>, FileError> {
    let names = files::names_in(&host.store)?;
    let fleets = names.iter().filter_map(|name| name.parse::<FleetName>().ok());
    let layouts = fleets.map(|fleet| Layout::new(host, &fleet));
    Ok(layouts.filter(|layout| layout.lock().exists()).collect())
}

/// The files of stores that machines and snapshots name, and those that a fleet starts from.
pub(super) fn named_in_stores(
    fleets: &[Layout],
    artifacts: &Artifacts,
) -> Result<BTreeSet<FileDigest>, RunError> {
    let mut named: BTreeSet<FileDigest> = artifacts.all().map(|artifact| artifact.digest).collect();
    for layout in fleets {
        for guest in record::guests(layout)? {
            // A record that cannot be read names nothing that could be started from.
            let machine = record::read::<Machine>(&layout.guest(&guest).machine()).ok().flatten();
            named.extend(machine.iter().flat_map(Machine::digests));
        }
        for snapshot in snapshot::list(layout)? {
            named.extend(snapshot.manifest.iter().flat_map(|manifest| manifest.machine.digests()));
        }
    }
    Ok(named)
}

fn stored_without_name(
    layout: &Layout,
    fleets: &[Layout],
    artifacts: &Artifacts,
) -> Result<Vec<Leftover>, RunError> {
    let named = named_in_stores(fleets, artifacts)?;
    let names = files::names_in(&layout.files())?;
    let digests = names.iter().filter_map(|name| name.parse::<FileDigest>().ok());
    let inode = |digest| Some((digest, fs::symlink_metadata(layout.file(&digest)).ok()?));
    let stored: Vec<_> = digests.filter_map(inode).collect();
    // A file of an earlier sisforge has two names here; a jail has another.
    let own = |meta: &fs::Metadata| {
        stored.iter().filter(|(_, other)| files::is_same_file(meta, other)).count() as u64
    };
    let unnamed = stored.iter().filter(|(digest, meta)| !named.contains(digest) && meta.nlink() <= own(meta));
    Ok(unnamed.map(|(digest, _)| leftover(StorageKind::Stored, layout.file(digest))).collect())
}

fn downloads_without_name(cache: &Path, lock: &Lock, lately: Duration) -> Result<Vec<Leftover>, FileError> {
    let pinned = lock.downloads();
    let is_pinned = |name: &String| name.parse().is_ok_and(|digest| pinned.contains(&digest));
    let folders = ["sha256", "partial"].map(|folder| cache.join(folder));
    let mut found = Vec::new();
    for folder in folders {
        for name in files::names_in(&folder)?.into_iter().filter(|name| !is_pinned(name)) {
            let path = folder.join(name);
            // What was read is noted by the file system once a day at least (`relatime`).
            let read = fs::metadata(&path).and_then(|meta| Ok(meta.accessed()?.max(meta.modified()?)));
            if read.is_ok_and(|read| SystemTime::now().duration_since(read).is_ok_and(|ago| ago >= lately)) {
                found.push(leftover(StorageKind::Download, path));
            }
        }
    }
    Ok(found)
}

fn leftover(what: StorageKind, path: PathBuf) -> Leftover {
    let size = files::allocated_within(&path);
    Leftover { what, path, size }
}
