//! File data into an image whose metadata are written: from archives, several at a time, or from an earlier image.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mkext4::{InodeHandle, Layout};
use serde::{Deserialize, Serialize};

use super::super::content::{Content, SequentialArchive};
use super::super::space::BLOCK;
use super::super::tree::{NodeKind, Tree};
use super::{Ext4Error, Files, Written};
use crate::base::Sha256;
use crate::sys::verity::{self, KnownBlocks};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// Bytes copied at a time from an earlier image.
const COPIED: u64 = 4 << 20;

/// Where each piece of a file begins, in bytes from the beginning of an image, and its length.
type Pieces = Vec<(u64, u64)>;

/// A file's bytes within an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileExtents {
    /// SHA-1 of the bytes, as the file's package states it.
    pub sum: [u8; 20],
    pub size: u64,
    /// In their order.
    pub pieces: Pieces,
    /// SHA-256 of each block of the pieces, one after the other.
    pub blocks: Vec<[u8; 32]>,
}

/// An image that was written before: its files need not be inflated again.
#[derive(Debug)]
pub struct Earlier {
    image: File,
    /// By sum and size.
    files: HashMap<([u8; 20], u64), FileExtents>,
}

impl Earlier {
    /// An image, and where its files lie.
    pub fn new(image: File, placed: Vec<FileExtents>) -> Self {
        Self { image, files: placed.into_iter().map(|file| ((file.sum, file.size), file)).collect() }
    }
}

/// One file of an archive that the image is to hold.
struct WantedFile<'a> {
    handle: InodeHandle,
    path: &'a str,
    size: u64,
}

/// Files of one archive, by entry.
type OfSource<'a> = HashMap<usize, WantedFile<'a>>;

/// Bytes that lie in an earlier image, and where they belong.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    from: u64,
    to: u64,
    length: u64,
}

/// The data of an image whose metadata are written.
pub(super) struct Filling<'a> {
    path: &'a Path,
    image: File,
    layout: &'a Layout,
    earlier: Option<&'a Earlier>,
    /// What its writers know of its digest.
    known: KnownBlocks,
}

impl<'a> Filling<'a> {
    pub fn new(path: &'a Path, layout: &'a Layout, earlier: Option<&'a Earlier>) -> Result<Self, Ext4Error> {
        let image = File::options().read(true).write(true).open(path);
        let image = image.map_err(|source| Ext4Error::Write { path: path.to_owned(), source })?;
        Ok(Self { path, image, layout, earlier, known: KnownBlocks::none(layout.image_len()) })
    }

    /// Writes the bytes of every file of the tree.
    pub fn run(
        &self,
        tree: &Tree<Content>,
        files: &Files<'_>,
        sources: &[&dyn SequentialArchive],
    ) -> Result<Written, Ext4Error> {
        let wanted = self.inline(tree, files, sources.len())?;
        self.streamed(sources, &wanted)
    }

    /// Writes what is inline; gives what is to come from archives.
    fn inline<'t>(
        &self,
        tree: &'t Tree<Content>,
        files: &Files<'t>,
        sources: usize,
    ) -> Result<Vec<OfSource<'t>>, Ext4Error> {
        let mut streamed: Vec<OfSource<'_>> = (0..sources).map(|_| OfSource::new()).collect();
        let mut strays = 0;
        for (handle, path) in files {
            let Some(NodeKind::File { size, content }) = tree.get(path).map(|node| &node.kind) else {
                continue;
            };
            let wanted = WantedFile { handle: *handle, path, size: *size };
            match content {
                Content::Inline(bytes) => self.copy(&wanted, &mut &bytes[..])?,
                Content::Streamed { source, entry } => match streamed.get_mut(*source) {
                    Some(of_source) => drop(of_source.insert(*entry, wanted)),
                    None => strays += 1,
                },
            }
        }
        if strays > 0 { Err(Ext4Error::Unfilled { count: strays }) } else { Ok(streamed) }
    }

    /// Writes what comes from archives, in the order in which they lie in the image.
    fn streamed(
        &self,
        sources: &[&dyn SequentialArchive],
        wanted: &[OfSource<'_>],
    ) -> Result<Written, Ext4Error> {
        let begin = |source: &usize| {
            let files = wanted[*source].values();
            files.filter_map(|file| Some(self.layout.extents(file.handle).first()?.0)).min()
        };
        let mut order: Vec<usize> = (0..sources.len()).filter(|source| !wanted[*source].is_empty()).collect();
        order.sort_by_key(|source| (begin(source).unwrap_or(u64::MAX), *source));
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some(source) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.source(sources[*source], &wanted[*source]) {
                    next.store(order.len(), Ordering::Relaxed);
                    failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
                }
            }
        };
        rayon::scope(|scope| (0..rayon::current_num_threads()).for_each(|_| scope.spawn(|_| work())));
        if let Some(error) = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            return Err(error);
        }
        let (digest, size) =
            verity::digest_of(&self.image, Some(&self.known)).map_err(|source| self.failed(source))?;
        let placed =
            sources.iter().zip(wanted).flat_map(|(source, wanted)| self.placed(*source, wanted)).collect();
        Ok(Written { digest, size, placed })
    }

    /// Writes the files of one archive.
    fn source(&self, source: &dyn SequentialArchive, wanted: &OfSource<'_>) -> Result<(), Ext4Error> {
        if let Some(earlier) = self.earlier
            && let Some(runs) = self.runs(earlier, source, wanted)
            && self.copy_runs(earlier, &runs).map_err(|source| self.failed(source))?
        {
            self.note_copied(earlier, source, wanted);
            return Ok(());
        }
        let mut filled = 0;
        source.each_file(&mut |entry, reader| {
            let Some(wanted) = wanted.get(&entry) else { return Ok(()) };
            filled += 1;
            self.copy(wanted, reader)
        })?;
        let count = wanted.len() - filled;
        if count > 0 { Err(Ext4Error::Unfilled { count }) } else { Ok(()) }
    }

    /// Where an archive's files lie in an earlier image, in few pieces; `None` where one of them is not there.
    fn runs(
        &self,
        earlier: &Earlier,
        source: &dyn SequentialArchive,
        wanted: &OfSource<'_>,
    ) -> Option<Vec<Run>> {
        let mut runs = Vec::new();
        for (entry, file) in wanted {
            let there = earlier.files.get(&(source.sum(*entry)?, file.size))?;
            let found = between(&there.pieces, &self.layout.extents(file.handle));
            if found.iter().map(|run| run.length).sum::<u64>() != file.size {
                return None;
            }
            runs.extend(found);
        }
        runs.sort_by_key(|run| run.to);
        Some(merged(runs))
    }

    /// Copies from an earlier image; `false` where the file system does not do so at all.
    fn copy_runs(&self, earlier: &Earlier, runs: &[Run]) -> io::Result<bool> {
        let mut is_begun = false;
        for run in runs {
            let (mut from, mut to, mut left) = (run.from, run.to, run.length);
            while left > 0 {
                let (source, target) = (Some(&mut from), Some(&mut to));
                let most = left.min(COPIED) as usize;
                match rustix::fs::copy_file_range(&earlier.image, source, &self.image, target, most) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(copied) => left -= copied as u64,
                    Err(_) if !is_begun => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
                is_begun = true;
            }
        }
        Ok(true)
    }

    /// Notes the digests of what was copied from an earlier image.
    fn note_copied(&self, earlier: &Earlier, source: &dyn SequentialArchive, wanted: &OfSource<'_>) {
        for (entry, file) in wanted {
            let there = source.sum(*entry).and_then(|sum| earlier.files.get(&(sum, file.size)));
            if let Some(there) = there {
                let blocks = self.blocks(file.handle).zip(&there.blocks);
                blocks.for_each(|(block, digest)| self.known.set(block, Sha256(*digest)));
            }
        }
    }

    /// The blocks of a file, in their order.
    fn blocks(&self, file: InodeHandle) -> impl Iterator<Item = u64> {
        let extents = self.layout.extents(file).into_iter();
        extents.flat_map(|(offset, length)| offset / BLOCK..(offset + length).div_ceil(BLOCK))
    }

    /// Copies exactly a file's bytes to its extents; the rest of its last block is a hole already.
    fn copy(&self, wanted: &WantedFile<'_>, reader: &mut dyn BufRead) -> Result<(), Ext4Error> {
        let unread = |source| Ext4Error::Content { file: wanted.path.to_owned(), source };
        let mut block = [0; BLOCK as usize];
        for (mut offset, length) in self.layout.extents(wanted.handle) {
            let mut left = length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let there = reader.fill_buf().map_err(unread)?.len();
                // Whole blocks, but for the last one.
                let count = if there >= most { most } else { there / block.len() * block.len() };
                let written = if count > 0 {
                    let bytes = reader.fill_buf().map_err(unread)?;
                    self.put(&bytes[..count], offset)?;
                    reader.consume(count);
                    count
                } else {
                    let bytes = &mut block[..most.min(BLOCK as usize)];
                    reader.read_exact(bytes).map_err(unread)?;
                    self.put(bytes, offset)?;
                    bytes.len()
                };
                offset += written as u64;
                left -= written as u64;
            }
        }
        Ok(())
    }

    /// Writes bytes that begin with a block, and notes its digest.
    fn put(&self, bytes: &[u8], offset: u64) -> Result<(), Ext4Error> {
        self.image.write_all_at(bytes, offset).map_err(|source| self.failed(source))?;
        self.known.write(offset, bytes);
        Ok(())
    }

    fn placed(&self, source: &dyn SequentialArchive, wanted: &OfSource<'_>) -> Vec<FileExtents> {
        let place = |(entry, file): (&usize, &WantedFile<'_>)| {
            let blocks = self.blocks(file.handle).map(|block| Some(self.known.get(block)?.0));
            let (sum, pieces) = (source.sum(*entry)?, self.layout.extents(file.handle));
            Some(FileExtents { sum, size: file.size, pieces, blocks: blocks.collect::<Option<_>>()? })
        };
        let mut placed: Vec<FileExtents> = wanted.iter().filter_map(place).collect();
        placed.sort_by(|a, b| a.pieces.cmp(&b.pieces));
        placed
    }

    fn failed(&self, source: io::Error) -> Ext4Error {
        Ext4Error::Write { path: self.path.to_owned(), source }
    }
}

/// What to copy of a file that lies in some pieces and is to lie in others.
fn between(there: &[(u64, u64)], here: &[(u64, u64)]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut there = there.iter().copied();
    let mut left = (0, 0);
    for &(mut to, mut wanted) in here {
        while wanted > 0 {
            if left.1 == 0 {
                let Some(next) = there.next() else { return runs };
                left = next;
            }
            let length = wanted.min(left.1);
            runs.push(Run { from: left.0, to, length });
            left = (left.0 + length, left.1 - length);
            (to, wanted) = (to + length, wanted - length);
        }
    }
    runs
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
        assert_eq!(between(&there, &[(0, 35)]), [run(100, 0, 10), run(200, 10, 25)]);
        assert_eq!(
            between(&there, &[(0, 5), (50, 20), (90, 10)]),
            [run(100, 0, 5), run(105, 50, 5), run(200, 55, 15), run(215, 90, 10)]
        );
        assert_eq!(between(&[], &[]), []);
    }

    #[test]
    fn files_side_by_side_in_both_images_are_copied_together() {
        let run = |from, to, length| Run { from, to, length };
        let apart =
            vec![run(0, 4096, 100), run(4096, 8192, 4096), run(16384, 12288, 1), run(20480, 20480, 1)];
        assert_eq!(merged(apart), [run(0, 4096, 8192), run(16384, 12288, 1), run(20480, 20480, 1)]);
    }
}
