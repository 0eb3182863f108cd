//! The tree of an image before it is written: sorted, in memory, without file contents.

use std::collections::BTreeMap;

/// A file system tree by absolute path. The root itself is `""`; every other path begins with `/`.
///
/// Invariant held by [`Tree::insert`]: the parent of every node is a directory of the same tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree<C> {
    nodes: BTreeMap<String, Node<C>>,
}

/// One inode. `C` says where a regular file's bytes come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<C> {
    pub kind: NodeKind<C>,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Sorted by name; values are raw bytes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind<C> {
    Directory,
    /// `size` in bytes.
    File {
        size: u64,
        content: C,
    },
    Symlink {
        target: String,
    },
    /// Another name of the regular file at `target`.
    HardLink {
        target: String,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}
