//! What lies in an image that was written before: the next one is given it by the kernel, without inflating it again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::super::space::BLOCK;
use crate::base::Sha256;
use crate::sys::sparse::is_no_room;

/// Bytes copied at a time.
const COPIED: u64 = 4 << 20;

/// Bytes of the digest of a block.
const DIGEST: usize = 32;

/// Where each piece of a file begins, in bytes from the beginning of an image, and its length.
pub(super) type Pieces = Vec<(u64, u64)>;

/// A file's bytes within an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileExtents {
    /// SHA-256 of the archive that it is of.
    pub archive: [u8; 32],
    /// Its number there.
    pub entry: u64,
    pub size: u64,
    /// In their order.
    pub pieces: Pieces,
    /// SHA-256 of each block of the pieces, one after the other: 32 bytes each.
    pub blocks: ByteBuf,
}

impl FileExtents {
    /// SHA-256 of each block, in their order.
    pub(super) fn digests(&self) -> impl Iterator<Item = Sha256> {
        self.blocks.as_chunks::<DIGEST>().0.iter().map(|digest| Sha256(*digest))
    }
}

/// An image that was written before: its files need not be inflated again.
#[derive(Debug)]
pub struct Earlier {
    image: File,
    /// What it was like when it was found to be whole.
    stamp: Stamp,
    /// By archive and entry, so that the same bytes come from here as from there, whatever sums files state.
    files: HashMap<([u8; 32], u64), FileExtents>,
}

/// What no write leaves as it is: length, and the times of the last changes of bytes and of the inode.
type Stamp = (u64, (i64, i64), (i64, i64));

fn stamp(file: &File) -> io::Result<Stamp> {
    let meta = file.metadata()?;
    Ok((meta.len(), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())))
}

impl Earlier {
    /// An image that nobody touched, and where its files lie.
    pub fn new(image: File, placed: Vec<FileExtents>) -> io::Result<Self> {
        let files = placed.into_iter().map(|file| ((file.archive, file.entry), file)).collect();
        Ok(Self { stamp: stamp(&image)?, image, files })
    }

    /// A file of an archive.
    pub(super) fn file(&self, archive: Sha256, entry: usize) -> Option<&FileExtents> {
        self.files.get(&(archive.0, entry as u64))
    }

    /// Copies runs into another image; `false` where that cannot be done, or where this one was written to meanwhile. One thread does
    /// it: the kernel lets one write to a file at a time, and what waits for that turns round on its processor.
    ///
    /// # Errors
    /// Where there is no room for the other image.
    pub(super) fn copy(&self, mut runs: Vec<Run>, image: &File) -> io::Result<bool> {
        runs.sort_unstable_by_key(|run| run.to);
        for run in merged(runs) {
            let (mut from, mut to, mut left) = (run.from, run.to, run.length);
            while left > 0 {
                let (source, target) = (Some(&mut from), Some(&mut to));
                let most = left.min(COPIED) as usize;
                match rustix::fs::copy_file_range(&self.image, source, image, target, most) {
                    Ok(0) => return Ok(false),
                    Ok(copied) => left -= copied as u64,
                    Err(Errno::INTR) => {}
                    Err(error) if is_no_room(error) => return Err(error.into()),
                    // A file system that copies nothing, or a disk that cannot read it: packages are read instead.
                    Err(_) => return Ok(false),
                }
            }
        }
        Ok(stamp(&self.image)? == self.stamp)
    }
}

/// Bytes that lie in an earlier image, and where they belong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    from: u64,
    to: u64,
    length: u64,
}

/// What to copy of a file that lies in some pieces and is to lie in others; `None` where it is shorter there.
pub(super) fn between(there: &[(u64, u64)], here: &[(u64, u64)]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let mut there = there.iter().copied();
    let mut left = (0, 0);
    for &(mut to, mut wanted) in here {
        while wanted > 0 {
            if left.1 == 0 {
                left = there.next()?;
            }
            let length = wanted.min(left.1);
            runs.push(Run { from: left.0, to, length });
            left = (left.0 + length, left.1 - length);
            (to, wanted) = (to + length, wanted - length);
        }
    }
    Some(runs)
}

/// Puts together what lies side by side in both images: files begin at whole blocks, and the rest of a file's last block is
/// zeros in both.
fn merged(runs: Vec<Run>) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) => {
                let padded = last.length.next_multiple_of(BLOCK);
                if last.from + padded == run.from && last.to + padded == run.to {
                    last.length = padded + run.length;
                } else {
                    merged.push(run);
                }
            }
            None => merged.push(run),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_copied_from_its_pieces_to_its_pieces() {
        let run = |from, to, length| Run { from, to, length };
        let there = [(100, 10), (200, 25)];
        assert_eq!(between(&there, &[(0, 35)]), Some(vec![run(100, 0, 10), run(200, 10, 25)]));
        assert_eq!(
            between(&there, &[(0, 5), (50, 20), (90, 10)]),
            Some(vec![run(100, 0, 5), run(105, 50, 5), run(200, 55, 15), run(215, 90, 10)])
        );
        assert_eq!((between(&[], &[]), between(&there, &[(0, 36)])), (Some(vec![]), None));
    }

    #[test]
    fn files_side_by_side_in_both_images_are_copied_together() {
        let run = |from, to, length| Run { from, to, length };
        let apart =
            vec![run(0, 4096, 100), run(4096, 8192, 4096), run(16384, 12288, 1), run(20480, 20480, 1)];
        assert_eq!(merged(apart), [run(0, 4096, 8192), run(16384, 12288, 1), run(20480, 20480, 1)]);
    }

    #[test]
    fn what_was_written_to_while_it_was_copied_is_not_taken() {
        let (earlier, image) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        earlier.set_len(8192).unwrap();
        image.set_len(8192).unwrap();
        let runs = || vec![Run { from: 0, to: 4096, length: 4096 }];
        let writer = earlier.try_clone().unwrap();
        let earlier = Earlier::new(earlier, Vec::new()).unwrap();
        assert!(earlier.copy(runs(), &image).unwrap());
        writer.set_len(8191).unwrap();
        assert!(!earlier.copy(runs(), &image).unwrap());
        // It ends before what is to be copied: nothing of it is of use, and that is no error.
        writer.set_len(0).unwrap();
        assert!(!earlier.copy(runs(), &image).unwrap());
    }

    #[test]
    fn a_file_is_known_by_its_archive_and_its_number_there() {
        let placed = |archive: u8, entry: u64| FileExtents {
            archive: [archive; 32],
            entry,
            size: 1,
            pieces: vec![(u64::from(archive) << 20 | entry << 12, 1)],
            blocks: ByteBuf::new(),
        };
        let all = [placed(1, 0), placed(1, 1), placed(2, 0)];
        let earlier = Earlier::new(tempfile::tempfile().unwrap(), all.to_vec()).unwrap();
        assert_eq!(earlier.file(Sha256([1; 32]), 1), Some(&all[1]));
        assert_eq!(earlier.file(Sha256([2; 32]), 0), Some(&all[2]));
        assert_eq!(earlier.file(Sha256([2; 32]), 1), None);
    }
}
