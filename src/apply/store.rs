//! The immutable files of the store. Each has the name of its digest, and a seal: a time of its last change that no write
//! leaves as it is. So one look tells whether somebody wrote to it since it was stored, and whoever runs from it can be asked
//! the same, whatever has its name by now. A file without the seal, of an earlier version of this program perhaps, is hashed.
//! Where the file system can, the kernel seals it as well, by fs-verity: then nobody can write it, whatever its name, a
//! disk that gives other bytes is found when they are read, and one question to the kernel tells the digest.
//!
//! A file that an earlier version named by another kind of digest has a second name, by which guests that run from it are
//! known to run what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use crate::base::FileDigest;
use crate::host::layout::Layout;
use crate::host::names::{IMAGES, KERNEL, ROOTFS};
use crate::host::state::{Machine, StoredKind};
use crate::sys::digest::digest_like;
use crate::sys::fs::{self as files, FileError, FileId, is_same_file};
use crate::sys::verity;

/// When every file of the store was written last, as its inode tells.
const SEAL: SystemTime = SystemTime::UNIX_EPOCH;
/// Their mode.
pub(super) const MODE: u32 = 0o444;

/// What a store holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub whole: BTreeSet<FileDigest>,
    pub damaged: BTreeSet<FileDigest>,
    /// By what an earlier sisforge called a file: what it is called today.
    pub renamed: BTreeMap<FileDigest, FileDigest>,
    /// Those that have no seal, and hold what they should all the same.
    unsealed: BTreeSet<FileId>,
}

impl Store {
    /// Looks at every file.
    pub fn look(layout: &Layout) -> Result<Self, FileError> {
        let mut store = Self::default();
        let files = present(layout)?;
        for (digest, meta) in &files {
            let path = layout.file(digest);
            let is_right = meta.is_file() && is_right(digest, meta, &path)?;
            if is_right && !is_sealed(meta) {
                store.unsealed.insert(FileId::of(meta));
            }
            if is_right && is_closed(meta) {
                store.whole.insert(*digest);
            } else {
                store.damaged.insert(*digest);
            }
        }
        let earlier = files.iter().filter(|(digest, _)| !digest.is_verity() && store.whole.contains(digest));
        for (digest, meta) in earlier {
            let now = second_name(meta, &files).map_or_else(|| of_file(layout, digest), Ok)?;
            store.renamed.insert(*digest, now);
        }
        // Whoever holds the host makes those names before anything else.
        store.whole.extend(store.renamed.values());
        Ok(store)
    }

    /// A machine that an earlier sisforge started, as it is called today.
    pub fn rename(&self, mut machine: Machine) -> Machine {
        for digest in machine.digests_mut() {
            *digest = self.renamed.get(digest).copied().unwrap_or(*digest);
        }
        machine
    }

    /// What a machine reads of the store from the jail below `root` while it runs, and that was changed.
    pub fn damaged_in(&self, root: &Path, machine: &Machine) -> Vec<StoredKind> {
        let is_damaged = |name: &str| {
            // Over no link: whoever may change what is in the root may not move the root. What is not there any more, or was replaced
            // by whoever may do so in its jail, is nothing of the store.
            let file = fs::symlink_metadata(root.join(name)).ok();
            let file = file.filter(|file| file.is_file() && file.uid() == ROOT);
            file.is_some_and(|file| !self.is_unchanged(&file))
        };
        let images = machine.images.map(|_| (IMAGES, StoredKind::Containers));
        let read = [(KERNEL, StoredKind::Kernel), (ROOTFS, StoredKind::Image)].into_iter().chain(images);
        read.filter(|(name, _)| is_damaged(name)).map(|(_, kind)| kind).collect()
    }

    fn is_unchanged(&self, meta: &Metadata) -> bool {
        is_sealed(meta) || self.unsealed.contains(&FileId::of(meta))
    }
}

/// Whose the files of the store are.
const ROOT: u32 = 0;

/// The files of the store that are there.
fn present(layout: &Layout) -> Result<Vec<(FileDigest, Metadata)>, FileError> {
    let names = files::names_in(&layout.files())?;
    let digests = names.iter().filter_map(|name| name.parse::<FileDigest>().ok());
    // One that went meanwhile is not there.
    Ok(digests
        .filter_map(|digest| Some((digest, fs::symlink_metadata(layout.file(&digest)).ok()?)))
        .collect())
}

/// The name that a file has today, where it has one.
fn second_name(meta: &Metadata, files: &[(FileDigest, Metadata)]) -> Option<FileDigest> {
    let is_it = |(digest, other): &&(FileDigest, Metadata)| digest.is_verity() && is_same_file(other, meta);
    files.iter().find(is_it).map(|(digest, _)| *digest)
}

fn of_file(layout: &Layout, digest: &FileDigest) -> Result<FileDigest, FileError> {
    Ok(verity::digest(&layout.file(digest))?.0)
}

/// Whether a file is what it should be, by as little reading as can tell.
fn is_right(digest: &FileDigest, meta: &Metadata, path: &Path) -> Result<bool, FileError> {
    match File::open(path).ok().and_then(|file| verity::measure(&file)) {
        Some(measured) if digest.is_verity() => Ok(measured == *digest),
        _ => Ok(is_sealed(meta) || holds(digest, path)?),
    }
}

/// Whether nobody wrote to a file since it was [sealed](seal).
pub(super) fn is_sealed(meta: &Metadata) -> bool {
    meta.modified().is_ok_and(|modified| modified == SEAL)
}

/// Whether nobody but root can write it.
fn is_closed(meta: &Metadata) -> bool {
    meta.mode() & 0o7777 == MODE && meta.uid() == rustix::process::geteuid().as_raw()
}

/// Whether a file holds what it should.
pub(super) fn holds(digest: &FileDigest, path: &Path) -> Result<bool, FileError> {
    Ok(digest_like(digest, path)?.0 == *digest)
}

/// Marks a file as one that nobody wrote to since.
pub(super) fn seal(file: &File) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(SEAL))
}

/// Lets nobody but root write a file that holds what it should.
pub(super) fn close(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    let owner = Some(rustix::process::geteuid().as_raw());
    std::os::unix::fs::chown(path, owner, owner)?;
    seal(&File::open(path)?)?;
    seal_by_kernel(path);
    Ok(())
}

/// Has the kernel refuse to write a file, and check what it reads of it, where its file system can. The kernel reads all of it
/// once, and keeps its tree for holes too, so one that is mostly a hole, which guests only get copies of, is left.
pub(super) fn seal_by_kernel(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let is_mostly_data = |meta: Metadata| files::allocated(&meta) >= meta.len() / 2;
    if file.metadata().is_ok_and(is_mostly_data) && verity::measure(&file).is_none() {
        // A full disk, or somebody who has it open for writing: the other seal tells as before.
        let _ = verity::enable(&file);
    }
}

/// Seals the files of a store that an earlier version of this program made, as far as they hold what they should, and names
/// them by the digest that they have today.
pub fn seal_all(layout: &Layout) -> Result<(), FileError> {
    let files = present(layout)?;
    for (digest, meta) in &files {
        let path = layout.file(digest);
        if !meta.is_file() || !is_closed(meta) || !is_right(digest, meta, &path)? {
            continue;
        }
        if !is_sealed(meta) {
            File::open(&path).and_then(|file| seal(&file)).map_err(FileError::when("seal", &path))?;
        }
        seal_by_kernel(&path);
        if !digest.is_verity() && second_name(meta, &files).is_none() {
            let today = layout.file(&of_file(layout, digest)?);
            match fs::hard_link(&path, &today) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(FileError::when("create", &today)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
