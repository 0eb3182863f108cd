//! The immutable files of the store. Each has the name of its digest, and a seal: a time of its last change that no write
//! leaves as it is. So one look tells whether somebody wrote to it since it was stored, and whoever runs from it can be asked
//! the same, whatever has its name by now. A file without the seal, of an earlier version of this program perhaps, is hashed.

use std::collections::BTreeSet;
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
use crate::sys::fs::{self as files, FileError};
use crate::sys::untrusted::{FileKind, UntrustedDir};

/// When every file of the store was written last, as its inode tells.
const SEAL: SystemTime = SystemTime::UNIX_EPOCH;
/// Their mode.
pub(super) const MODE: u32 = 0o444;

/// What a store holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub whole: BTreeSet<FileDigest>,
    pub damaged: BTreeSet<FileDigest>,
    /// Inodes that have no seal, and hold what they should all the same.
    unsealed: BTreeSet<(u64, u64)>,
}

impl Store {
    /// Looks at every file.
    pub fn look(layout: &Layout) -> Result<Self, FileError> {
        let mut store = Self::default();
        for digest in names(layout)? {
            let path = layout.file(&digest);
            // One that went meanwhile is not there.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let is_right = meta.is_file() && (is_sealed(&meta) || holds(&digest, &path)?);
            if is_right && !is_sealed(&meta) {
                store.unsealed.insert((meta.dev(), meta.ino()));
            }
            if is_right && is_closed(&meta) {
                store.whole.insert(digest);
            } else {
                store.damaged.insert(digest);
            }
        }
        Ok(store)
    }

    /// What a machine reads of the store from the jail below `root` while it runs, and that was changed.
    pub fn damaged_in(&self, root: &Path, machine: &Machine) -> Vec<StoredKind> {
        let is_damaged = |name: &str| {
            let jail = UntrustedDir::open(root, ROOT);
            // What is not there any more, or was replaced by whoever may do so in its jail, is nothing of the store.
            let node = jail.and_then(|jail| jail.node(name, FileKind::Regular));
            node.is_ok_and(|node| !self.is_unchanged(node.metadata()))
        };
        let images = machine.images.map(|_| (IMAGES, StoredKind::Containers));
        let read = [(KERNEL, StoredKind::Kernel), (ROOTFS, StoredKind::Image)].into_iter().chain(images);
        read.filter(|(name, _)| is_damaged(name)).map(|(_, kind)| kind).collect()
    }

    fn is_unchanged(&self, meta: &Metadata) -> bool {
        is_sealed(meta) || self.unsealed.contains(&(meta.dev(), meta.ino()))
    }
}

/// Whose the files of the store are.
const ROOT: u32 = 0;

fn names(layout: &Layout) -> Result<Vec<FileDigest>, FileError> {
    Ok(files::names_in(&layout.files())?.iter().filter_map(|name| name.parse().ok()).collect())
}

fn is_sealed(meta: &Metadata) -> bool {
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
    seal(&File::open(path)?)
}

/// Seals the files of a store that an earlier version of this program made, as far as they hold what they should.
pub fn seal_all(layout: &Layout) -> Result<(), FileError> {
    for digest in names(layout)? {
        let path = layout.file(&digest);
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_file() && !is_sealed(&meta) && is_closed(&meta) && holds(&digest, &path)? {
            File::open(&path).and_then(|file| seal(&file)).map_err(FileError::when("seal", &path))?;
        }
    }
    Ok(())
}
