//! How much room a tree takes on ext4: an upper bound that is close, from the layout that mkext4 documents.

use std::collections::BTreeMap;

use crate::base::ByteSize;

use super::content::Content;
use super::tree::{NodeKind, Tree, name_of, parent_of};

/// What a file system is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Mounted read-only: inodes for what is there, the smallest journal.
    ReadOnly,
    /// Written to by a guest: an inode for each 16 KiB, and a journal of 1/64 of the disk (4 to 128 MiB).
    ReadWrite,
}

/// Bytes of a block.
pub const BLOCK: u64 = 4096;

/// Blocks of a block group: as many as one bitmap block counts.
const GROUP: u64 = 32768;

/// The least that jbd2 takes (`JBD2_MIN_JOURNAL_BLOCKS`).
const SMALLEST_JOURNAL: u64 = 1024;

/// mkext4 keeps a journal below a quarter of its file system.
const SMALLEST: u64 = 4 * SMALLEST_JOURNAL;

/// Inodes 1 to 11: those that ext4 reserves, and lost+found.
const RESERVED_INODES: u64 = 11;

/// Bytes of a disk for each inode, as mke2fs has it.
const BYTES_PER_INODE: u64 = 16384;

/// Room for attributes within a 256-byte inode, its header and end marker taken off.
const INLINE_XATTRS: u64 = 88;

/// Bytes of the longest target of a symlink that ext4 holds: a block, less the zero behind it.
pub const LONGEST_TARGET: usize = 4095;

/// Whether ext4 has room for a node's attributes: in their order as many as go into the inode, and one block for the rest.
pub fn holds_attributes(xattrs: &BTreeMap<String, Vec<u8>>) -> bool {
    const NAMESPACES: [&str; 4] = ["user.", "trusted.", "security.", "system."];
    let mut sizes: Vec<(usize, usize, &str, u64)> = Vec::new();
    for (name, value) in xattrs {
        // Names of access lists are numbers.
        let space = NAMESPACES.iter().position(|space| name.starts_with(space)).unwrap_or_default();
        let short = name.split_once('.').map_or(name.as_str(), |(_, short)| short);
        let short = if short.starts_with("posix_acl_") { "" } else { short };
        let bytes = 16 + padded(short.len()) + padded(value.len());
        sizes.push((space, short.len(), short, bytes));
    }
    sizes.sort();
    let mut inline = 0;
    let rest = sizes.iter().map(|(.., bytes)| *bytes).skip_while(|bytes| {
        inline += bytes;
        inline <= INLINE_XATTRS
    });
    rest.sum::<u64>() + 36 <= BLOCK
}

/// A size that is sure to hold the tree. It depends on the size asked for where journal and inodes do.
pub fn needed(tree: &Tree<Content>, purpose: Purpose, asked: Option<ByteSize>) -> ByteSize {
    let content = content_blocks(tree);
    let asked = asked.map_or(0, |size| size.bytes() / BLOCK);
    let mut total = SMALLEST;
    loop {
        let counted = total.max(asked) * BLOCK;
        let inodes = u64::from(inodes(tree, purpose, counted));
        let journal = u64::from(journal_blocks(purpose, counted));
        let wanted = (content + overhead(total.max(asked), inodes) + journal).max(SMALLEST);
        if wanted <= total {
            return ByteSize::from_bytes(total * BLOCK);
        }
        total = wanted;
    }
}

/// How many inodes a file system of so many bytes gets.
pub fn inodes(tree: &Tree<Content>, purpose: Purpose, bytes: u64) -> u32 {
    let links = tree.iter().filter(|(_, node)| matches!(node.kind, NodeKind::HardLink { .. })).count() as u64;
    let used = tree.len() as u64 - links + RESERVED_INODES;
    let count = match purpose {
        Purpose::ReadOnly => used,
        // Half of the usual share stays free, however many files are there already.
        Purpose::ReadWrite => (bytes / BYTES_PER_INODE).max(used + bytes / BYTES_PER_INODE / 2),
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How many blocks the journal gets.
pub fn journal_blocks(purpose: Purpose, bytes: u64) -> u32 {
    let blocks = match purpose {
        Purpose::ReadOnly => SMALLEST_JOURNAL,
        Purpose::ReadWrite => (bytes / BLOCK / 64).clamp(SMALLEST_JOURNAL, 32768),
    };
    blocks as u32
}

/// Superblocks, descriptors, bitmaps, inode tables, lost+found.
fn overhead(total: u64, inodes: u64) -> u64 {
    let groups = total.div_ceil(GROUP);
    let descriptors = (groups * 32).div_ceil(BLOCK);
    let copies = 1 + (1..groups).filter(|group| holds_copy(*group)).count() as u64;
    // Sixteen inodes to a block; each group's table is rounded up, and one table in each run of sixteen groups may have to
    // be moved past a copy of the superblock, leaving its first place unused.
    let tables = inodes.div_ceil(16) + groups;
    let moved = if groups > 1 { groups.div_ceil(16) * tables.div_ceil(groups) } else { 0 };
    copies * (1 + descriptors) + 2 * groups + tables + moved + 4
}

/// Whether a group holds a copy of the superblock: group 1 and the powers of 3, 5 and 7 (`sparse_super`).
fn holds_copy(group: u64) -> bool {
    let is_power = |base: u64| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    [3, 5, 7].into_iter().any(is_power)
}

fn content_blocks(tree: &Tree<Content>) -> u64 {
    let mut entries: BTreeMap<&str, u64> = BTreeMap::new();
    let mut blocks = 0;
    for (path, node) in tree.iter() {
        if !path.is_empty() {
            *entries.entry(parent_of(path)).or_default() += record_bytes(name_of(path));
        }
        blocks += match &node.kind {
            NodeKind::Directory => {
                entries.entry(path).or_default();
                0
            }
            NodeKind::File { size, .. } => file_blocks(*size),
            NodeKind::Symlink { target } if target.len() > 59 => 1,
            _ => 0,
        };
        let xattrs: u64 =
            node.xattrs.iter().map(|(name, value)| 16 + padded(name.len()) + padded(value.len())).sum();
        blocks += u64::from(xattrs > INLINE_XATTRS);
    }
    blocks + entries.values().map(|bytes| directory_blocks(*bytes)).sum::<u64>()
}

fn padded(bytes: usize) -> u64 {
    bytes.next_multiple_of(4) as u64
}

fn record_bytes(name: &str) -> u64 {
    8 + padded(name.len())
}

/// Data, and a block for the extent tree of a file that may lie in more than the four pieces an inode names itself.
fn file_blocks(size: u64) -> u64 {
    let data = size.div_ceil(BLOCK);
    let pieces = 2 * (data / GROUP) + 2;
    data + if pieces > 4 { 1 + pieces / 256 } else { 0 }
}

/// A block loses at most its longest record and its checksum; more than one block gets an index above.
fn directory_blocks(record_bytes: u64) -> u64 {
    // ".", ".." and, in the root, "lost+found"
    let bytes = record_bytes + 12 + 12 + 20;
    if bytes <= BLOCK - 24 {
        return 1;
    }
    let leaves = bytes.div_ceil(BLOCK - 12 - 264);
    leaves + 2 + leaves / 500
}

#[cfg(test)]
mod tests {
    use super::super::ext4::{Ext4Options, RawNames, lay_out};
    use super::super::tree::Node;
    use super::*;

    fn tree(files: impl IntoIterator<Item = (String, u64)>) -> Tree<Content> {
        let mut tree = Tree::new();
        for (entry, (path, size)) in files.into_iter().enumerate() {
            tree.make_parents(&path, || Node::new(NodeKind::Directory, 0o755)).unwrap();
            let kind = NodeKind::File { size, content: Content::Streamed { source: 0, entry } };
            tree.insert(&path, Node::new(kind, 0o644)).unwrap();
        }
        tree
    }

    #[test]
    fn attributes_fit_where_ext4_takes_them() {
        let options = Ext4Options {
            label: String::new(),
            uuid: [1; 16],
            hash_seed: [1; 16],
            size: None,
            purpose: Purpose::ReadOnly,
        };
        let takes = |xattrs: &[(&str, usize)]| {
            let mut tree = tree([("/a".to_owned(), 1)]);
            let xattrs = xattrs.iter().map(|(name, size)| (name.to_string(), vec![1; *size])).collect();
            let holds = holds_attributes(&xattrs);
            tree.get_mut("/a").unwrap().xattrs = xattrs;
            let laid = lay_out(&tree, &options, &mut RawNames::new(&tree));
            assert_eq!(laid.is_ok(), holds);
            if let Err(error) = &laid {
                assert!(error.to_string().starts_with("/a has more extended attributes"), "{error}");
            }
            holds
        };
        assert!(takes(&[("user.a", 4040)]) && !takes(&[("user.a", 4041)]));
        assert!(takes(&[("user.a", 60), ("user.b", 4040)]) && !takes(&[("user.a", 70), ("user.b", 4040)]));
        assert!(takes(&[("security.capability", 20), ("user.bb", 3990)]));
        assert!(!takes(&[("user.a", 2000), ("trusted.a", 2000), ("user.b", 100)]));
    }

    #[test]
    fn what_is_needed_is_enough_and_little_more() {
        let name = |n: u64| format!("{n:0>200}");
        let trees = [
            tree([]),
            tree((0..40_000).map(|n| (format!("/{n}"), 1))),
            tree((0..5_000).map(|n| (format!("/d/{}", name(n)), 0))),
            tree((0..3_000).map(|n| (format!("/{n}/a/b/c"), n * 7))),
            tree([("/large".to_owned(), 9 << 30)]),
            tree((0..5).map(|n| (format!("/{n}"), 140 << 20))),
        ];
        for (at, tree) in trees.iter().enumerate() {
            for purpose in [Purpose::ReadOnly, Purpose::ReadWrite] {
                let size = needed(tree, purpose, None);
                let options = |size| Ext4Options {
                    label: String::new(),
                    uuid: [1; 16],
                    hash_seed: [1; 16],
                    size: Some(size),
                    purpose,
                };
                lay_out(tree, &options(size), &mut RawNames::new(tree))
                    .unwrap_or_else(|error| panic!("{at} {purpose:?} {size}: {error:?}"));
                let data: u64 = tree
                    .iter()
                    .map(|(_, node)| match node.kind {
                        NodeKind::File { size, .. } => size.next_multiple_of(BLOCK),
                        NodeKind::Directory => BLOCK,
                        _ => 0,
                    })
                    .sum();
                assert!(
                    size.bytes() < data * 12 / 10 + (20 << 20),
                    "{at} {purpose:?}: {size} for {data} bytes"
                );
            }
        }
    }
}
