//! File data into an image that is laid out: from archives, several at a time, or from an earlier image.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mkext4::{InodeHandle, Layout};
use serde_bytes::ByteBuf;

use super::super::content::{Content, SequentialArchive};
use super::super::space::BLOCK;
use super::super::tree::{NodeKind, Tree};
use super::earlier::{Earlier, FileExtents, Run, between};
use super::{Ext4Error, Files, Written};
use crate::base::Sha256;
use crate::sys::sparse;
use crate::sys::verity::{self, KnownBlocks};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// One file of an archive that the image is to hold.
struct WantedFile<'a> {
    handle: InodeHandle,
    path: &'a str,
    size: u64,
}

/// A file whose bytes are in memory.
type Inline<'a> = (WantedFile<'a>, &'a [u8]);

/// Files of one archive, by entry.
type OfSource<'a> = HashMap<usize, WantedFile<'a>>;

/// An archive, and its files that the image is to hold.
struct Archive<'a> {
    source: &'a dyn SequentialArchive,
    files: &'a OfSource<'a>,
}

/// Where what archives hold comes from.
struct Shares<'a> {
    /// Bytes of an earlier image.
    runs: Vec<Run>,
    /// Archives all of whose files are there.
    kept: Vec<Archive<'a>>,
    /// Those that are to be read.
    read: Vec<Archive<'a>>,
}

/// The data of an image that is laid out.
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

    /// Writes the bytes of every file of the tree, and whatever is no file's by the way. While the kernel copies what an earlier image
    /// holds, all else is done; `None` where that could not be copied, and what is there now is of no use.
    pub fn run(
        self,
        tree: &Tree<Content>,
        files: &Files<'_>,
        sources: &[&dyn SequentialArchive],
        metadata: impl FnOnce() -> Result<(), Ext4Error> + Send,
    ) -> Result<Option<Written>, Ext4Error> {
        self.allocate(files).map_err(|source| self.failed(source))?;
        let (inline, streamed) = self.wanted(tree, files, sources.len())?;
        let Shares { runs, kept, read } = self.shares(sources, &streamed);
        let copy = || self.earlier.map_or(Ok(true), |earlier| earlier.copy(runs, &self.image));
        let small = || {
            metadata()?;
            inline.iter().try_for_each(|(file, bytes)| self.copy(file, &mut &bytes[..]))
        };
        let all_else = || {
            let (is_small_done, is_read) = rayon::join(small, || self.read(&read));
            is_small_done.and(is_read)?;
            kept.iter().for_each(|archive| self.note_kept(archive));
            let placed = || kept.iter().chain(&read).flat_map(|archive| self.placed(archive)).collect();
            let digest = || verity::digest_of(&self.image, Some(&self.known));
            let (placed, digest) = rayon::join(placed, digest);
            let (digest, size) = digest.map_err(|source| self.failed(source))?;
            Ok::<_, Ext4Error>(Written { digest, size, placed })
        };
        let (copied, written) = rayon::join(copy, all_else);
        let (is_copied, written) = (copied.map_err(|source| self.failed(source))?, written?);
        Ok(is_copied.then_some(written))
    }

    /// Asks for the blocks of all files, which lie side by side.
    fn allocate(&self, files: &Files<'_>) -> io::Result<()> {
        let pieces = || files.iter().flat_map(|(handle, _)| self.layout.extents(*handle));
        let begin = pieces().map(|(offset, _)| offset).min().unwrap_or_default();
        let end = pieces().map(|(offset, length)| offset + length).max().unwrap_or_default();
        sparse::allocate(&self.image, begin, end - begin)
    }

    /// What is inline, and what is to come from each archive.
    fn wanted<'t>(
        &self,
        tree: &'t Tree<Content>,
        files: &Files<'t>,
        sources: usize,
    ) -> Result<(Vec<Inline<'t>>, Vec<OfSource<'t>>), Ext4Error> {
        let mut streamed: Vec<OfSource<'_>> = (0..sources).map(|_| OfSource::new()).collect();
        let (mut inline, mut strays) = (Vec::new(), 0);
        for (handle, path) in files {
            let Some(NodeKind::File { size, content }) = tree.get(path).map(|node| &node.kind) else {
                continue;
            };
            let wanted = WantedFile { handle: *handle, path, size: *size };
            match content {
                Content::Inline(bytes) => inline.push((wanted, &bytes[..])),
                Content::Streamed { source, entry } => match streamed.get_mut(*source) {
                    Some(of_source) => drop(of_source.insert(*entry, wanted)),
                    None => strays += 1,
                },
            }
        }
        if strays > 0 { Err(Ext4Error::Unfilled { count: strays }) } else { Ok((inline, streamed)) }
    }

    /// Which archives lie in an earlier image, and which are to be read, those whose files come first in the image first.
    fn shares<'s>(&self, sources: &[&'s dyn SequentialArchive], wanted: &'s [OfSource<'_>]) -> Shares<'s> {
        let archives = sources.iter().zip(wanted).map(|(source, files)| Archive { source: *source, files });
        let mut archives: Vec<_> = archives.filter(|archive| !archive.files.is_empty()).collect();
        archives.sort_by_key(|archive| self.begin(archive));
        let mut shares = Shares { runs: Vec::new(), kept: Vec::new(), read: Vec::new() };
        for archive in archives {
            match self.runs(&archive) {
                Some(found) => {
                    shares.runs.extend(found);
                    shares.kept.push(archive);
                }
                None => shares.read.push(archive),
            }
        }
        shares
    }

    /// Where an archive's first file lies.
    fn begin(&self, archive: &Archive<'_>) -> u64 {
        let first = |file: &WantedFile<'_>| Some(self.layout.extents(file.handle).first()?.0);
        archive.files.values().filter_map(first).min().unwrap_or(u64::MAX)
    }

    /// Writes the files of archives, several at a time, the first ones first.
    fn read(&self, archives: &[Archive<'_>]) -> Result<(), Ext4Error> {
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some(archive) = archives.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.read_one(archive) {
                    next.store(archives.len(), Ordering::Relaxed);
                    failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
                }
            }
        };
        let threads = rayon::current_num_threads().min(archives.len());
        rayon::scope(|scope| (0..threads).for_each(|_| scope.spawn(|_| work())));
        let failure = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.map_or(Ok(()), Err)
    }

    /// Writes the files of one archive.
    fn read_one(&self, archive: &Archive<'_>) -> Result<(), Ext4Error> {
        let mut filled = 0;
        archive.source.each_file(&mut |entry, reader| {
            let Some(wanted) = archive.files.get(&entry) else { return Ok(()) };
            filled += 1;
            self.copy(wanted, reader)
        })?;
        let count = archive.files.len() - filled;
        if count > 0 { Err(Ext4Error::Unfilled { count }) } else { Ok(()) }
    }

    /// Where an archive's files lie in an earlier image; `None` where one of them is not there.
    fn runs(&self, archive: &Archive<'_>) -> Option<Vec<Run>> {
        let mut runs = Vec::new();
        let sha256 = archive.source.sha256()?;
        for (entry, file) in archive.files {
            let there = self.earlier?.file(sha256, *entry).filter(|there| there.size == file.size)?;
            runs.extend(between(&there.pieces, &self.layout.extents(file.handle))?);
        }
        Some(runs)
    }

    /// Notes the digests of an archive's files, all of which an earlier image has.
    fn note_kept(&self, archive: &Archive<'_>) {
        let Some((earlier, sha256)) = self.earlier.zip(archive.source.sha256()) else { return };
        for (entry, file) in archive.files {
            let there = earlier.file(sha256, *entry);
            let digests = there.into_iter().flat_map(FileExtents::digests);
            self.blocks(file.handle).zip(digests).for_each(|(block, digest)| self.known.set(block, digest));
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

    fn placed(&self, archive: &Archive<'_>) -> Vec<FileExtents> {
        let Some(Sha256(sha256)) = archive.source.sha256() else { return Vec::new() };
        let place = |(entry, file): (&usize, &WantedFile<'_>)| {
            let (entry, pieces) = (*entry as u64, self.layout.extents(file.handle));
            let mut blocks = ByteBuf::new();
            for block in self.blocks(file.handle) {
                blocks.extend(self.known.get(block)?.0);
            }
            Some(FileExtents { archive: sha256, entry, size: file.size, pieces, blocks })
        };
        let mut placed: Vec<FileExtents> = archive.files.iter().filter_map(place).collect();
        placed.sort_by(|a, b| a.pieces.cmp(&b.pieces));
        placed
    }

    fn failed(&self, source: io::Error) -> Ext4Error {
        Ext4Error::Write { path: self.path.to_owned(), source }
    }
}
