//! A tree and its contents become an ext4 file system, in one pass: metadata first, then each archive's files straight
//! from inflating to their place in the image.
//!
//! Bytes follow from the tree, the contents and [`Ext4Options`] alone. Directories are declared first, in byte order of
//! their paths, then files archive by archive, the largest archive first, and in its own order: data lie in the order in which
//! they are read, and the longest work is begun first.

mod earlier;
mod fill;
mod raw_names;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use mkext4::sink::FileSink;
use mkext4::{FsBuilder, InodeCount, InodeHandle, Layout, Meta, Options, ROOT, SpecialKind};

use crate::base::{ByteSize, FileDigest};

use super::content::{Content, SequentialArchive};
use super::space;
use super::tree::{Node, NodeKind, Tree, parent_of};

pub(super) use raw_names::RawNames;

pub use super::error::Ext4Error;
pub use super::space::Purpose;
pub use earlier::{Earlier, FileExtents};

/// Free space that `size = "auto"` leaves. The root is mounted read-only, so it is room for nothing but a look by hand.
pub const AUTO_MARGIN: ByteSize = ByteSize::from_mib(4);

/// Part of every key of a file system: changed whenever the same tree would be given other bytes.
pub const LAYOUT: &str = "2";

/// One that a tree has is that of the file system, with its owner and mode.
pub(super) use crate::base::LOST_FOUND;

/// Times of the superblock and of what the file system brings itself, in seconds since the epoch.
const MADE_AT: i64 = 0;

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

/// A file system that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub digest: FileDigest,
    /// Bytes of the whole file.
    pub size: u64,
    /// Where the files of archives lie, as far as they have a sum.
    pub placed: Vec<FileExtents>,
}

/// Writes the file system to `path`, sparse, in place of what is there. It is whole only where this succeeds.
///
/// An archive whose files are all in an earlier image is not opened: they are copied from there. Where the size is too
/// small, the error names one that would do.
pub fn write_ext4(
    tree: &Tree<Content>,
    sources: &[&dyn SequentialArchive],
    options: &Ext4Options,
    earlier: Option<&Earlier>,
    path: &Path,
) -> Result<Written, Ext4Error> {
    let mut raw_names = RawNames::new(tree);
    let (layout, files) = lay_out(tree, options, &mut raw_names)?;
    let failed = |source| Ext4Error::Write { path: path.to_owned(), source };
    let mut sink = FileSink::create(path, layout.image_len()).map_err(failed)?;
    // Emits every byte that is not a file's. Data are put to the places that the layout gives, from several archives at
    // once, which the writer itself cannot do.
    let metadata = || {
        layout.writer(&mut sink).map_err(|error| match error {
            mkext4::Error::Io(source) => failed(source),
            error => Ext4Error::Layout(error),
        })?;
        drop(sink);
        raw_names.restore(path)
    };
    let filling = fill::Filling::new(path, &layout, earlier)?;
    match filling.run(tree, &files, sources, metadata)? {
        Some(written) => Ok(written),
        // From the beginning: what was copied may be anything.
        None => write_ext4(tree, sources, options, None, path),
    }
}

/// Regular files and pipes as they are declared, by path.
type Files<'t> = Vec<(InodeHandle, &'t str)>;

/// Declares the tree, directories before what is in them, and fixes the place of every byte.
pub(super) fn lay_out<'t>(
    tree: &'t Tree<Content>,
    options: &Ext4Options,
    raw_names: &mut RawNames<'t>,
) -> Result<(Layout, Files<'t>), Ext4Error> {
    let is_theirs = |node: &Node<Content>| node.is_directory() && tree.children(LOST_FOUND).next().is_none();
    if !tree.get(LOST_FOUND).is_none_or(is_theirs) {
        return Err(Ext4Error::LostFound);
    }
    if let Some((path, _)) = tree.iter().find(|(_, node)| !space::holds_attributes(&node.xattrs)) {
        return Err(Ext4Error::Attributes { path: path.to_owned() });
    }
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
    let files = declare(&mut builder, tree, raw_names)?;
    Ok((builder.seal().map_err(Ext4Error::Layout)?, files))
}

fn round_to_mib(bytes: u64) -> ByteSize {
    ByteSize::from_bytes(bytes.next_multiple_of(1 << 20))
}

fn seed_words(seed: &[u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|j| seed[4 * i + j])))
}

fn declare<'t>(
    builder: &mut FsBuilder,
    tree: &'t Tree<Content>,
    raw_names: &mut RawNames<'t>,
) -> Result<Files<'t>, Ext4Error> {
    let mut directories = BTreeMap::from([("", ROOT)]);
    let mut files = BTreeMap::new();
    for (path, node) in tree.iter().filter(|(path, node)| node.is_directory() && *path != LOST_FOUND) {
        let named = |source| Ext4Error::Node { path: path.to_owned(), source };
        let handle = match directories.get(parent_of(path)) {
            Some(parent) if !path.is_empty() => {
                builder.mkdir(*parent, &raw_names.name(path)?, meta(node)).map_err(named)?
            }
            _ => ROOT,
        };
        let set = builder.set_meta(handle, meta(node)).and_then(|()| set_xattrs(builder, handle, node));
        set.map_err(named)?;
        directories.insert(path, handle);
    }
    for (path, node) in in_archive_order(tree) {
        let named = |source| Ext4Error::Node { path: path.to_owned(), source };
        // The tree holds that a parent is a directory and a hard link's target a file or pipe.
        let parent = directories.get(parent_of(path)).copied().unwrap_or(ROOT);
        let name = raw_names.name(path)?;
        if let NodeKind::HardLink { target } = &node.kind {
            let file = files.get(target.as_str()).copied().unwrap_or(ROOT);
            builder.hardlink(parent, &name, file).map_err(named)?;
            continue;
        }
        let target = raw_names.target(path, node);
        let handle = declare_leaf(builder, parent, &name, node, &target).map_err(named)?;
        set_xattrs(builder, handle, node).map_err(named)?;
        if matches!(node.kind, NodeKind::File { .. } | NodeKind::Fifo) {
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
    target: &str,
) -> mkext4::Result<InodeHandle> {
    let special = |builder: &mut FsBuilder, kind| builder.mknod(parent, name, meta(node), kind);
    match &node.kind {
        NodeKind::File { size, .. } => builder.file(parent, name, meta(node), *size),
        NodeKind::CharDevice { major, minor } => {
            special(builder, SpecialKind::Char { major: *major, minor: *minor })
        }
        NodeKind::BlockDevice { major, minor } => {
            special(builder, SpecialKind::Block { major: *major, minor: *minor })
        }
        NodeKind::Symlink { .. } => builder.symlink(parent, name, target, meta(node)),
        // Directories and hard links are declared by the caller.
        NodeKind::Fifo | NodeKind::Directory | NodeKind::HardLink { .. } => {
            special(builder, SpecialKind::Fifo)
        }
    }
}

/// Everything but directories: files archive by archive, then what is inline, then what has no bytes, and last the hard
/// links, whose targets must be there.
fn in_archive_order(tree: &Tree<Content>) -> Vec<(&str, &Node<Content>)> {
    let mut bytes: BTreeMap<usize, u64> = BTreeMap::new();
    for (_, node) in tree.iter() {
        if let NodeKind::File { content: Content::Streamed { source, .. }, size } = &node.kind {
            *bytes.entry(*source).or_default() += size;
        }
    }
    let mut nodes: Vec<_> = tree.iter().filter(|(_, node)| !node.is_directory()).collect();
    nodes.sort_by_key(|(path, node)| {
        let (class, source, entry) = match &node.kind {
            NodeKind::File { content: Content::Streamed { source, entry }, .. } => (0, *source, *entry),
            NodeKind::File { content: Content::Inline(_), .. } => (1, 0, 0),
            NodeKind::HardLink { .. } => (3, 0, 0),
            _ => (2, 0, 0),
        };
        let weight = if class == 0 { bytes.get(&source).copied().unwrap_or_default() } else { 0 };
        (class, Reverse(weight), source, entry, *path)
    });
    nodes
}

fn meta(node: &Node<Content>) -> Meta {
    Meta::new(node.mode & 0o7777, node.uid, node.gid, (time_of(node), 0))
}

/// When a node was changed, as ext4 can have it: from 1901 to 2446. What is beyond is the nearest, as in the kernel.
pub(super) fn time_of(node: &Node<Content>) -> i64 {
    node.mtime.clamp(i64::from(i32::MIN), (3 << 32) + i64::from(i32::MAX))
}

fn set_xattrs(builder: &mut FsBuilder, handle: InodeHandle, node: &Node<Content>) -> mkext4::Result<()> {
    node.xattrs.iter().try_for_each(|(name, value)| builder.set_xattr(handle, name, value))
}
