//! Verify: whether the bytes that a fleet is made of, and runs on, are still those of their digests. Everything is read, whatever
//! its times say, and nothing is changed.
//!
//! Looked at are: downloads in the cache that `fleet.lock` pins; artifacts in `out/` that it leads to; files of the store that
//! machines, snapshots and this fleet start from. Data disks belong to guests, and have no digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::base::{FileDigest, Sha256};
use crate::build::Builder;
use crate::build::artifacts::Artifact;
use crate::lock::model::Lock;
use crate::sys::digest::digest_like;
use crate::sys::fs::{self as files, FileError};
use crate::sys::report::Unit;

use super::gc::{StorageKind, fleets, named_in_stores};
use super::{Inputs, LockedProject, RunError, Workspace, host};

/// A file whose digest is known.
#[derive(Clone, Debug)]
pub struct VerifiedFile {
    pub place: StorageKind,
    pub path: PathBuf,
    pub digest: FileDigest,
    pub state: ReadState,
}

/// Where a file is, and the digest that it should have.
type FileOfDigest = (StorageKind, FileDigest);

/// How a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadState {
    Whole,
    /// It has another digest.
    Changed(FileDigest),
    /// It cannot be read.
    Unreadable(String),
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    pub files: Vec<VerifiedFile>,
    /// What is not built yet, in words.
    pub unbuilt: Vec<String>,
    /// Whether the store was looked at, which is root's.
    pub looked_at_store: bool,
}

impl Verification {
    /// The files that are not as they should be.
    pub fn damaged(&self) -> impl Iterator<Item = &VerifiedFile> {
        self.files.iter().filter(|file| file.state != ReadState::Whole)
    }
}

/// Reads everything.
pub fn verify(workspace: &Workspace<'_>) -> Result<Verification, RunError> {
    let fleet = workspace.fleet()?;
    let locked = LockedProject::of(workspace, fleet.clone(), Inputs::Foreseen { must_fit: true })?;
    let builder = locked.builder();
    // What was written to must not count as not built.
    let artifacts = Builder { out: &builder.out.unverified(), ..builder }.artifacts()?;
    let built = artifacts.all().filter(|artifact| artifact.is_there());
    // What fleet.lock pins is what it must be, whatever stands beside it.
    let pinned: BTreeMap<&str, FileDigest> =
        locked.lock.artifact.values().map(|pin| (pin.key.as_str(), pin.digest)).collect();
    let digest = |artifact: &Artifact| {
        pinned.get(artifact.key.to_string().as_str()).copied().unwrap_or(artifact.digest)
    };
    let mut known: BTreeMap<PathBuf, FileOfDigest> =
        built.map(|artifact| (artifact.path.clone(), (StorageKind::Artifact, digest(artifact)))).collect();
    known.extend(downloads(workspace, &locked.lock)?);
    let looked_at_store = host::require_root().is_ok();
    if looked_at_store {
        let layout = fleet.head().layout();
        for digest in named_in_stores(&fleets(&fleet.host)?, &artifacts)? {
            let path = layout.file(&digest);
            if path.exists() {
                known.insert(path, (StorageKind::Stored, digest));
            }
        }
    }
    let task = workspace.report.begin("verify", Some(known.len() as u64), Unit::Steps);
    let read = |(path, (place, digest)): (PathBuf, FileOfDigest)| {
        let state = state(&path, &digest);
        task.advance(1);
        VerifiedFile { place, path, digest, state }
    };
    let files = known.into_par_iter().map(read).collect();
    task.finish("verified");
    Ok(Verification { files, unbuilt: artifacts.unbuilt(), looked_at_store })
}

fn state(path: &Path, digest: &FileDigest) -> ReadState {
    match digest_like(digest, path) {
        Ok((found, _)) if found == *digest => ReadState::Whole,
        Ok((found, _)) => ReadState::Changed(found),
        Err(error) => ReadState::Unreadable(crate::base::diagnostic::one_line(&error)),
    }
}

/// Downloads that are there and that `fleet.lock` pins.
fn downloads(workspace: &Workspace<'_>, lock: &Lock) -> Result<BTreeMap<PathBuf, FileOfDigest>, FileError> {
    let pinned = lock.downloads();
    let folder = workspace.settings.cache.join("sha256");
    let names = files::names_in(&folder)?;
    let there = names.iter().filter_map(|name| name.parse().ok()).filter(|digest| pinned.contains(digest));
    let known = |digest: Sha256| (folder.join(digest.to_string()), (StorageKind::Download, digest.into()));
    Ok(there.map(known).collect())
}
