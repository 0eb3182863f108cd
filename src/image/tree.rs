//! The tree of an image before it is written: sorted, in memory, without file contents.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::apk::EntryKind;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::links::{FollowRules, follow};

/// A file system tree by absolute path. The root itself is `""`; every other path begins with `/`.
///
/// Invariants held by [`Tree::insert`]: the root is a directory, the parent of every node is a directory of the
/// same tree, and the target of every hard link is a regular file or a pipe of the same tree.
#[derive(Clone, Debug, PartialEq)]
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
pub type NodeKind<C> = EntryKind<C>;

/// Why a node cannot stand where it was meant to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error(
        "{path:?} is not a valid path in an image: it must be absolute, without '.', '..' or doubled \
      slashes"
    )]
    BadPath { path: String },
    #[error("{path} cannot be created: {parent} is not a directory")]
    ParentIsNoDirectory { path: String, parent: String },
    #[error("{path} would replace a directory that is not empty")]
    DirectoryInUse { path: String },
    #[error("{path} is a hard link to {target}, which is not a regular file or pipe of the image")]
    BadLink { path: String, target: String },
}

impl Diagnostic for TreeError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::BadPath { .. }
            | Self::ParentIsNoDirectory { .. }
            | Self::DirectoryInUse { .. }
            | Self::BadLink { .. } => Class::Invalid.no_hint(),
        }
    }
}

impl<C> Node<C> {
    /// A node of `root:root`, dated at the epoch, without attributes.
    pub fn new(kind: NodeKind<C>, mode: u16) -> Self {
        Self { kind, mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }

    /// The same node, owned by `uid:gid`.
    pub fn owned_by(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    /// Whether hard links may lead to it.
    fn may_have_names(&self) -> bool {
        matches!(self.kind, NodeKind::File { .. } | NodeKind::Fifo)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory)
    }
}

/// The directory that a path stands in: `""` for `/etc`, `/etc` for `/etc/motd`.
pub fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The last part of a path.
pub fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn is_tree_path(path: &str) -> bool {
    let is_part =
        |part: &str| !matches!(part, "" | "." | "..") && unescaped(part).len() <= 255 && !part.contains('\0');
    path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_part))
}

/// Stands for the byte 0 of a name that is not UTF-8; the next 255 characters of this private plane for the other bytes.
const RAW_BYTE: u32 = 0x10_FE00;

fn raw_byte(c: char) -> Option<u8> {
    u32::from(c).checked_sub(RAW_BYTE).and_then(|byte| u8::try_from(byte).ok())
}

/// A name or link target of any bytes, as a tree has it: what is not UTF-8 byte by byte as characters that stand for it.
/// [`unescaped`] gives the same bytes back.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let raw = |text: &mut String, bytes: &[u8]| {
        text.extend(bytes.iter().filter_map(|byte| char::from_u32(RAW_BYTE + u32::from(*byte))));
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match raw_byte(c) {
                None => text.push(c),
                Some(_) => raw(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        raw(&mut text, chunk.invalid());
    }
    text
}

/// The bytes of a name of a tree, as they are in a file system.
pub fn unescaped(name: &str) -> Cow<'_, [u8]> {
    // The first byte of all characters that stand for others.
    if !name.as_bytes().contains(&0xf4) {
        return Cow::Borrowed(name.as_bytes());
    }
    let mut bytes = Vec::with_capacity(name.len());
    for c in name.chars() {
        match raw_byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

impl<C> Tree<C> {
    /// A tree with nothing but its root directory, `root:root` and 0755.
    pub fn new() -> Self {
        Self { nodes: BTreeMap::from([(String::new(), Node::new(NodeKind::Directory, 0o755))]) }
    }

    /// The node at a path, links not followed.
    pub fn get(&self, path: &str) -> Option<&Node<C>> {
        self.nodes.get(path)
    }

    /// The node at a path, for changes to its metadata; its kind must stay what it is.
    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Node<C>> {
        self.nodes.get_mut(path)
    }

    /// The node that holds a path's metadata and bytes: the target's where the path is a hard link. Its kind must
    /// not be changed to or from a directory or file.
    pub(super) fn inode_mut(&mut self, path: &str) -> Option<&mut Node<C>> {
        let path = match &self.nodes.get(path)?.kind {
            NodeKind::HardLink { target } => target.clone(),
            _ => path.to_owned(),
        };
        self.nodes.get_mut(&path)
    }

    /// Every node, the root first, each directory before what is in it (byte order of paths).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node<C>)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// How many nodes there are, the root counted.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The full paths of what stands directly in a directory, in byte order.
    pub fn children<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a str> {
        self.below(directory).filter(move |path| parent_of(path) == directory)
    }

    /// Everything below a directory. Paths such as `/a-b` sort between `/a` and `/a/b`, so the range starts at the slash.
    fn below<'a>(&'a self, directory: &str) -> impl Iterator<Item = &'a str> + use<'a, C> {
        let prefix = format!("{directory}/");
        self.nodes
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .map(|(path, _)| path.as_str())
            .take_while(move |path| path.starts_with(&prefix))
    }

    /// Puts a node at a path, in place of what is there. Where that was a regular file with other names, the bytes stay
    /// under those names, as they would on disk. A directory that holds something is not replaced.
    pub fn insert(&mut self, path: &str, node: Node<C>) -> Result<(), TreeError> {
        if !is_tree_path(path) {
            return Err(TreeError::BadPath { path: path.to_owned() });
        }
        if path.is_empty() {
            if !node.is_directory() {
                return Err(TreeError::DirectoryInUse { path: "/".into() });
            }
        } else if !self.get(parent_of(path)).is_some_and(Node::is_directory) {
            let parent = parent_of(path);
            let parent = if parent.is_empty() { "/" } else { parent }.to_owned();
            return Err(TreeError::ParentIsNoDirectory { path: path.to_owned(), parent });
        }
        if let NodeKind::HardLink { target } = &node.kind
            && (!self.get(target).is_some_and(Node::may_have_names) || target == path)
        {
            return Err(TreeError::BadLink { path: path.to_owned(), target: target.clone() });
        }
        let old = self.get(path);
        if old.is_some_and(Node::is_directory) && !node.is_directory() && self.below(path).next().is_some() {
            return Err(TreeError::DirectoryInUse { path: path.to_owned() });
        }
        let old = self.nodes.insert(path.to_owned(), node);
        if let Some(old) = old.filter(Node::may_have_names) {
            self.rehome_links(path, old);
        }
        Ok(())
    }

    /// Takes a symlink away; `false` where there is none.
    pub(super) fn remove_symlink(&mut self, path: &str) -> bool {
        let is_symlink = self.get(path).is_some_and(|node| matches!(node.kind, NodeKind::Symlink { .. }));
        is_symlink && self.nodes.remove(path).is_some()
    }

    /// Takes away what is at a path and all below it; bytes stay under the other names that they have elsewhere.
    pub(super) fn remove_all(&mut self, path: &str) {
        let below: Vec<String> = self.below(path).map(str::to_owned).collect();
        for name in below.iter().rev().map(String::as_str).chain([path]) {
            if let Some(old) = self.nodes.remove(name).filter(Node::may_have_names) {
                self.rehome_links(name, old);
            }
        }
    }

    /// Gives the inode of a path that was taken to the first of its other names.
    fn rehome_links(&mut self, path: &str, inode: Node<C>) {
        let is_link = |node: &Node<C>| matches!(&node.kind, NodeKind::HardLink { target } if target == path);
        let names: Vec<String> =
            self.nodes.iter().filter(|(_, node)| is_link(node)).map(|(name, _)| name.clone()).collect();
        let Some((first, others)) = names.split_first() else { return };
        self.nodes.insert(first.clone(), inode);
        for name in others {
            if let Some(node) = self.nodes.get_mut(name) {
                node.kind = NodeKind::HardLink { target: first.clone() };
            }
        }
    }

    /// Makes the directories above a path that are missing, each as `make` gives it.
    pub fn make_parents(&mut self, path: &str, make: impl Fn() -> Node<C>) -> Result<(), TreeError> {
        let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).skip(1).collect();
        for at in slashes {
            if self.get(&path[..at]).is_none() {
                self.insert(&path[..at], make())?;
            }
        }
        Ok(())
    }

    /// The path that the kernel would open: symlinks among the directories above followed, the last part not. What does not
    /// exist is left as it is. `None` where the links lead in a circle, or above the root, where the kernel would stay in it:
    /// a link that means to leave is not followed.
    pub fn real_path(&self, path: &str) -> Option<String> {
        self.resolved(path, false)
    }

    /// The same as the kernel has it for whoever has the tree as root: above it is the root again.
    pub(super) fn real_path_within(&self, path: &str) -> Option<String> {
        self.resolved(path, true)
    }

    fn resolved(&self, path: &str, stays_within: bool) -> Option<String> {
        let target = |path: &str| match self.get(path).map(|node| &node.kind) {
            Some(NodeKind::Symlink { target }) => Some(Some(target.as_str())),
            _ => Some(None),
        };
        follow(path, FollowRules { last: false, stays_within }, target)
    }
}

impl<C> Default for Tree<C> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Node<&'static str> {
        Node::new(NodeKind::Directory, 0o755)
    }

    fn file(content: &'static str) -> Node<&'static str> {
        Node::new(NodeKind::File { size: content.len() as u64, content }, 0o644)
    }

    fn link(target: &str) -> Node<&'static str> {
        Node::new(NodeKind::HardLink { target: target.into() }, 0o644)
    }

    fn tree(nodes: &[(&str, Node<&'static str>)]) -> Tree<&'static str> {
        let mut tree = Tree::new();
        for (path, node) in nodes {
            tree.insert(path, node.clone()).unwrap();
        }
        tree
    }

    #[test]
    fn a_node_stands_in_a_directory() {
        let mut tree = tree(&[("/a", file("x"))]);
        let parent = |path: &str, parent: &str| {
            Err(TreeError::ParentIsNoDirectory { path: path.into(), parent: parent.into() })
        };
        assert_eq!(tree.insert("/a/b", file("y")), parent("/a/b", "/a"));
        assert_eq!(tree.insert("/none/b", file("y")), parent("/none/b", "/none"));
        for wrong in ["a", "/", "/a/", "//a", "/./a", "/../a"] {
            assert_eq!(tree.insert(wrong, file("y")), Err(TreeError::BadPath { path: wrong.into() }));
        }
    }

    #[test]
    fn a_directory_that_holds_something_is_not_replaced_by_a_file() {
        let mut tree =
            tree(&[("/d", directory()), ("/d-e", file("")), ("/e", directory()), ("/d/f", file(""))]);
        assert_eq!(tree.insert("/d", file("x")), Err(TreeError::DirectoryInUse { path: "/d".into() }));
        tree.insert("/e", file("x")).unwrap();
        tree.insert("/d", Node { mode: 0o700, ..directory() }).unwrap();
        assert!(tree.get("/d/f").is_some());
    }

    #[test]
    fn children_are_the_direct_ones_in_byte_order() {
        let tree = tree(&[
            ("/a", directory()),
            ("/a-b", file("")),
            ("/a/z", directory()),
            ("/a/b", file("")),
            ("/a/z/c", file("")),
        ]);
        assert_eq!(tree.children("/a").collect::<Vec<_>>(), ["/a/b", "/a/z"]);
        assert_eq!(tree.children("").collect::<Vec<_>>(), ["/a", "/a-b"]);
    }

    #[test]
    fn bytes_of_a_replaced_file_stay_under_its_other_names() {
        let mut tree = tree(&[("/a", file("old")), ("/b", link("/a")), ("/c", link("/a"))]);
        tree.insert("/a", file("new")).unwrap();
        assert_eq!(tree, self::tree(&[("/a", file("new")), ("/b", file("old")), ("/c", link("/b"))]));
    }

    #[test]
    fn a_real_path_follows_the_links_above_its_last_part() {
        let symlink = |target: &str| Node::new(NodeKind::Symlink { target: target.into() }, 0o777);
        let tree = tree(&[
            ("/usr", directory()),
            ("/usr/lib", directory()),
            ("/usr/lib/up", symlink("../../lib")),
            ("/lib", symlink("usr/lib")),
            ("/round", symlink("/round")),
        ]);
        let real = |path| tree.real_path(path);
        assert_eq!(real("/lib/x").as_deref(), Some("/usr/lib/x"));
        assert_eq!(real("/lib/up/up/none/x").as_deref(), Some("/usr/lib/none/x"));
        assert_eq!(real("/lib").as_deref(), Some("/lib"));
        assert_eq!(real("/round/x"), None);
        assert_eq!(real("/usr/../../etc/x"), None);
    }

    #[test]
    fn what_is_removed_leaves_its_bytes_to_other_names() {
        let nodes = [("/d", directory()), ("/d/a", file("x")), ("/d/b", link("/d/a")), ("/e", link("/d/a"))];
        let mut tree = tree(&nodes);
        tree.remove_all("/d");
        assert_eq!(tree, self::tree(&[("/e", file("x"))]));
        tree.remove_all("/none");
        assert_eq!(tree.len(), 2);
    }

    #[test]
    fn names_of_any_bytes_come_back() {
        let stands_for_a_byte = "\u{10FE41}".as_bytes();
        for name in
            [b"plain".as_slice(), "f\u{f6}\u{10ffff}".as_bytes(), b"f\xf6.txt\xff", b"", stands_for_a_byte]
        {
            let text = escaped(name);
            assert_eq!(&*unescaped(&text), name, "{text:?}");
            assert_eq!(
                text.as_bytes() == name,
                !matches!(name, b"f\xf6.txt\xff") && name != stands_for_a_byte
            );
        }
        let mut tree: Tree<()> = Tree::new();
        let long = format!("/{}", escaped(&[0xff; 255]));
        tree.insert(&long, Node::new(NodeKind::Fifo, 0)).unwrap();
        assert!(tree.insert(&format!("{long}x"), Node::new(NodeKind::Fifo, 0)).is_err());
    }

    #[test]
    fn a_hard_link_needs_a_file() {
        let mut tree = tree(&[("/d", directory())]);
        let error = |target: &str| Err(TreeError::BadLink { path: "/l".into(), target: target.into() });
        assert_eq!(tree.insert("/l", link("/d")), error("/d"));
        assert_eq!(tree.insert("/l", link("/none")), error("/none"));
    }
}
