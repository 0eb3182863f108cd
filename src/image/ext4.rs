//! A tree and its contents become an ext4 file system, in one pass: metadata first, then each archive's files straight
//! from inflating to their place in the image.
//!
//! Bytes follow from the tree, the contents and [`Ext4Options`] alone. Directories are declared first, in byte order of
//! their paths, then files in the order of their archives, so that data lie in the order they are read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use mkext4::sink::FileSink;
use mkext4::{FsBuilder, InodeCount, InodeHandle, Layout, Meta, Options, ROOT, SpecialKind};
use rayon::prelude::*;

use crate::apk::PackageError;
use crate::fleet::ByteSize;

use super::container::ContainerError;
use super::content::{Content, Source};
use super::space;
use super::tree::{Node, NodeKind, Tree, name_of, parent_of};

/// Free space that `size = "auto"` leaves. The root is mounted read-only, so it is room for nothing but a look by hand.
pub const AUTO_MARGIN: ByteSize = ByteSize::from_mib(4);

/// Times of the superblock and of what the file system brings itself, in seconds since the epoch.
const MADE_AT: i64 = 0;

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// What a file system is like besides its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ext4Options {
    /// At most 16 bytes.
    pub label: String,
    pub uuid: [u8; 16],
    /// Seed of the hash that orders large directories.
    pub hash_seed: [u8; 16],
    /// `None` is `"auto"`: what the tree needs, and [`AUTO_MARGIN`], rounded up to a MiB.
    pub size: Option<ByteSize>,
    pub purpose: Purpose,
}

/// What a file system is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Mounted read-only: inodes for what is there, the smallest journal.
    ReadOnly,
    /// Written to by a guest: an inode for each 16 KiB, and a journal of 1/64 of the disk (4 to 128 MiB).
    ReadWrite,
}

/// Why a file system was not made.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    #[error("the content needs {needed}, and the size is given as {size}")]
    TooSmall { size: ByteSize, needed: ByteSize },
    #[error("{path} does not fit ext4")]
    Node { path: String, source: mkext4::Error },
    #[error("the file system cannot be laid out")]
    Layout(#[source] mkext4::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {file}")]
    Content { file: String, source: io::Error },
    #[error("{count} files of the tree are in no source")]
    Unfilled { count: usize },
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// Writes the file system to `path`, sparse, in place of what is there. It is whole only where this succeeds.
///
/// # Errors
/// Where the size is too small, naming the size that would do; where a source is not what it was when it was verified;
/// where writing fails.
pub fn write_ext4(
    tree: &Tree<Content>,
    sources: &[&dyn Source],
    options: &Ext4Options,
    path: &Path,
) -> Result<(), Ext4Error> {
    let (layout, files) = lay_out(tree, options)?;
    let failed = |source| Ext4Error::Write { path: path.to_owned(), source };
    let mut sink = FileSink::create(path, layout.image_len()).map_err(failed)?;
    // Emits every byte that is not a file's. Data follow at the places that the layout gives, from several archives at
    // once, which the writer itself cannot do.
    layout.writer(&mut sink).map_err(|error| match error {
        mkext4::Error::Io(source) => failed(source),
        error => Ext4Error::Layout(error),
    })?;
    Filling { path, image: sink.into_file(), layout: &layout, tree, files }.run(sources)
}

/// Regular files as they are declared, by path.
type Files<'t> = Vec<(InodeHandle, &'t str)>;

/// Declares the tree, directories before what is in them, and fixes the place of every byte.
pub(super) fn lay_out<'t>(
    tree: &'t Tree<Content>,
    options: &Ext4Options,
) -> Result<(Layout, Files<'t>), Ext4Error> {
    let needed = space::needed(tree, options.purpose, options.size);
    let size = options.size.unwrap_or_else(|| round_to_mib(needed.bytes() + AUTO_MARGIN.bytes()));
    // Whole blocks: what is over, up to 4095 bytes, is left out.
    let size_in_blocks = size.bytes() / space::BLOCK * space::BLOCK;
    if size_in_blocks < needed.bytes() {
        return Err(Ext4Error::TooSmall { size, needed: round_to_mib(needed.bytes()) });
    }
    let mut settings = Options::new(size_in_blocks, options.uuid, MADE_AT);
    settings.hash_seed = seed_words(&options.hash_seed);
    settings.label = Some(options.label.clone());
    settings.inodes = InodeCount::Exact(space::inodes(tree, options.purpose, size_in_blocks));
    settings.journal_blocks = Some(space::journal_blocks(options.purpose, size_in_blocks));
    settings.reserved_percent = 0;
    let mut builder = FsBuilder::new(settings).map_err(Ext4Error::Layout)?;
    let files = declare(&mut builder, tree)?;
    Ok((builder.seal().map_err(Ext4Error::Layout)?, files))
}

fn round_to_mib(bytes: u64) -> ByteSize {
    ByteSize::from_bytes(bytes.next_multiple_of(1 << 20))
}

fn seed_words(seed: &[u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|j| seed[4 * i + j])))
}

fn declare<'t>(builder: &mut FsBuilder, tree: &'t Tree<Content>) -> Result<Files<'t>, Ext4Error> {
    let mut directories = BTreeMap::from([("", ROOT)]);
    let mut files = BTreeMap::new();
    for (path, node) in tree.iter().filter(|(_, node)| node.is_directory()) {
        let named = |source| Ext4Error::Node { path: path.to_owned(), source };
        let handle = match directories.get(parent_of(path)) {
            Some(parent) if !path.is_empty() => {
                builder.mkdir(*parent, name_of(path), meta(node)).map_err(named)?
            }
            _ => ROOT,
        };
        builder.set_meta(handle, meta(node)).map_err(named)?;
        set_xattrs(builder, handle, node).map_err(named)?;
        directories.insert(path, handle);
    }
    for (path, node) in in_archive_order(tree) {
        let named = |source| Ext4Error::Node { path: path.to_owned(), source };
        // The tree holds that a parent is a directory and a hard link's target a file.
        let parent = directories.get(parent_of(path)).copied().unwrap_or(ROOT);
        if let NodeKind::HardLink { target } = &node.kind {
            let target = files.get(target.as_str()).copied().unwrap_or(ROOT);
            builder.hardlink(parent, name_of(path), target).map_err(named)?;
            continue;
        }
        let handle = declare_leaf(builder, parent, name_of(path), node).map_err(named)?;
        set_xattrs(builder, handle, node).map_err(named)?;
        if matches!(node.kind, NodeKind::File { .. }) {
            files.insert(path, handle);
        }
    }
    Ok(files.into_iter().map(|(path, handle)| (handle, path)).collect())
}

fn declare_leaf(
    builder: &mut FsBuilder,
    parent: InodeHandle,
    name: &str,
    node: &Node<Content>,
) -> mkext4::Result<InodeHandle> {
    let special = |builder: &mut FsBuilder, kind| builder.mknod(parent, name, meta(node), kind);
    match &node.kind {
        NodeKind::File { size, .. } => builder.file(parent, name, meta(node), *size),
        NodeKind::Symlink { target } => builder.symlink(parent, name, target, meta(node)),
        NodeKind::CharDevice { major, minor } => {
            special(builder, SpecialKind::Char { major: *major, minor: *minor })
        }
        NodeKind::BlockDevice { major, minor } => {
            special(builder, SpecialKind::Block { major: *major, minor: *minor })
        }
        // Directories and hard links are declared by the caller.
        NodeKind::Fifo | NodeKind::Directory | NodeKind::HardLink { .. } => {
            special(builder, SpecialKind::Fifo)
        }
    }
}

/// Everything but directories: files as their archives hold them, then what is inline, then what has no bytes, and
/// last the hard links, whose targets must be there.
fn in_archive_order(tree: &Tree<Content>) -> Vec<(&str, &Node<Content>)> {
    let mut nodes: Vec<_> = tree.iter().filter(|(_, node)| !node.is_directory()).collect();
    nodes.sort_by_key(|(path, node)| {
        let (class, source, entry) = match &node.kind {
            NodeKind::File { content: Content::Streamed { source, entry }, .. } => (0, *source, *entry),
            NodeKind::File { content: Content::Inline(_), .. } => (1, 0, 0),
            NodeKind::HardLink { .. } => (3, 0, 0),
            _ => (2, 0, 0),
        };
        (class, source, entry, *path)
    });
    nodes
}

fn meta(node: &Node<Content>) -> Meta {
    Meta::new(node.mode & 0o7777, node.uid, node.gid, (node.mtime, 0))
}

fn set_xattrs(builder: &mut FsBuilder, handle: InodeHandle, node: &Node<Content>) -> mkext4::Result<()> {
    node.xattrs.iter().try_for_each(|(name, value)| builder.set_xattr(handle, name, value))
}

/// Copying file data into an image whose metadata are written.
struct Filling<'a> {
    path: &'a Path,
    image: File,
    layout: &'a Layout,
    tree: &'a Tree<Content>,
    files: Files<'a>,
}

/// Files of one archive that the image holds, by entry.
type Wanted<'a> = HashMap<usize, (InodeHandle, &'a str, u64)>;

impl Filling<'_> {
    fn run(&self, sources: &[&dyn Source]) -> Result<(), Ext4Error> {
        let mut streamed: Vec<Wanted<'_>> = sources.iter().map(|_| Wanted::new()).collect();
        let mut strays = 0;
        for (handle, path) in &self.files {
            let Some(NodeKind::File { size, content }) = self.tree.get(path).map(|node| &node.kind) else {
                continue;
            };
            match content {
                Content::Inline(bytes) => self.fill(*handle, path, *size, &mut &bytes[..])?,
                Content::Streamed { source, entry } => match streamed.get_mut(*source) {
                    Some(wanted) => drop(wanted.insert(*entry, (*handle, path, *size))),
                    None => strays += 1,
                },
            }
        }
        let expected: usize = streamed.iter().map(Wanted::len).sum();
        let filled = AtomicUsize::new(0);
        sources.par_iter().zip(&streamed).filter(|(_, wanted)| !wanted.is_empty()).try_for_each(
            |(source, wanted)| {
                source.each_file(&mut |entry, reader| {
                    let Some((handle, path, size)) = wanted.get(&entry) else { return Ok(()) };
                    filled.fetch_add(1, Ordering::Relaxed);
                    self.fill(*handle, path, *size, reader)
                })
            },
        )?;
        let count = strays + expected.saturating_sub(filled.into_inner());
        if count > 0 { Err(Ext4Error::Unfilled { count }) } else { Ok(()) }
    }

    /// Copies exactly `size` bytes to the extents of a file; the rest of its last block is a hole already.
    fn fill(
        &self,
        handle: InodeHandle,
        file: &str,
        size: u64,
        reader: &mut dyn Read,
    ) -> Result<(), Ext4Error> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        for (mut offset, length) in self.layout.extents(handle) {
            let mut left = length;
            while left > 0 {
                let chunk = &mut buffer[..left.min(CHUNK as u64) as usize];
                reader
                    .read_exact(chunk)
                    .map_err(|source| Ext4Error::Content { file: file.to_owned(), source })?;
                self.image
                    .write_all_at(chunk, offset)
                    .map_err(|source| Ext4Error::Write { path: self.path.to_owned(), source })?;
                offset += chunk.len() as u64;
                left -= chunk.len() as u64;
            }
        }
        Ok(())
    }
}
