//! What files take on a disk, and what its file system has left.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of one of the blocks that stat(2) counts, whatever the file system's own are.
const STAT_BLOCK: u64 = 512;

/// Bytes that a file takes on its disk, holes left out; of a directory, itself alone.
pub fn allocated(meta: &Metadata) -> u64 {
    meta.blocks() * STAT_BLOCK
}

/// Bytes that a file, or a directory and all that is in it, takes on the disk; what cannot be looked at counts for nothing.
pub fn allocated_within(path: &Path) -> u64 {
    // Without recursion: whoever wrote it decides how deep it is.
    let (mut waiting, mut total) = (vec![path.to_owned()], 0);
    while let Some(path) = waiting.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        total += allocated(&meta);
        if meta.is_dir() {
            waiting.extend(fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

/// What is free on a file system, for whoever is not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    pub bytes: u64,
    /// How many can still be made; `None` where the file system does not count them.
    pub files: Option<u64>,
}

/// What is free on the file system of a file or directory.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let stat = rustix::fs::statvfs(path)?;
    let files = (stat.f_files != 0).then_some(stat.f_favail);
    Ok(FreeSpace { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), files })
}

/// What is there of a path: itself, or the nearest directory above it, on whose file system it would be made. `None` where nothing
/// is, as of a relative one.
pub fn existing_ancestor(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_made_yet_will_stand_below_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing_ancestor(&dir.path().join("a/b")), Some(dir.path()));
        assert_eq!(existing_ancestor(dir.path()), Some(dir.path()));
        assert_eq!(existing_ancestor(Path::new("is-not-here/a")), None);
    }

    #[test]
    fn holes_take_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert!(allocated(&fs::metadata(&path).unwrap()) < 1 << 20);
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        assert!(
            (1 << 20..2 << 20).contains(&allocated_within(dir.path())),
            "{}",
            allocated_within(dir.path())
        );
    }
}
