//! Names and link targets that are not UTF-8. mkext4 takes text alone: it is given stand-ins of the same length, which are put right
//! in the written metadata, with the checksums of what holds them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mkext4::csum;
use mkext4::reader::Fs;
use mkext4::spec::{DirentIter, iflags};

use super::super::content::Content;
use super::super::space::BLOCK;
use super::super::tree::{Node, NodeKind, Tree, name_of, parent_of, unescaped};
use super::Ext4Error;

/// Longest target of a symlink that lies in its inode.
const FAST_TARGET: usize = 59;

/// Where an inode has its target or the root of its extents (`i_block`), and the two halves of its checksum.
const I_BLOCK: usize = 0x28;
const CHECKSUM_LOW: usize = 0x7c;
const CHECKSUM_HIGH: usize = 0x82;

/// Stand-ins for the names of one tree.
pub(in super::super) struct RawNames<'t> {
    tree: &'t Tree<Content>,
    /// By path in the tree.
    names: BTreeMap<&'t str, String>,
    /// Paths that are stand-ins.
    taken: BTreeSet<String>,
    /// Symlinks whose target has one.
    targets: BTreeMap<&'t str, &'t str>,
}

impl<'t> RawNames<'t> {
    pub fn new(tree: &'t Tree<Content>) -> Self {
        Self { tree, names: BTreeMap::new(), taken: BTreeSet::new(), targets: BTreeMap::new() }
    }

    /// The name that mkext4 is given for a path.
    pub fn name(&mut self, path: &'t str) -> Result<Cow<'t, str>, Ext4Error> {
        let Cow::Owned(bytes) = unescaped(name_of(path)) else { return Ok(Cow::Borrowed(name_of(path))) };
        let width = bytes.len();
        let free = (0..10_000).map(|number| format!("{number:0width$}")).find(|name| {
            let path = format!("{}/{name}", parent_of(path));
            name.len() == width && self.tree.get(&path).is_none() && !self.taken.contains(&path)
        });
        let name = free.ok_or_else(|| Ext4Error::RawName { path: path.to_owned() })?;
        self.taken.insert(format!("{}/{name}", parent_of(path)));
        self.names.insert(path, name.clone());
        Ok(Cow::Owned(name))
    }

    /// The target that mkext4 is given for a symlink; empty for what is none.
    pub fn target(&mut self, path: &'t str, node: &'t Node<Content>) -> Cow<'t, str> {
        let NodeKind::Symlink { target } = &node.kind else { return Cow::Borrowed("") };
        let Cow::Owned(bytes) = unescaped(target) else { return Cow::Borrowed(target) };
        self.targets.insert(path, target);
        Cow::Owned("?".repeat(bytes.len()))
    }

    /// A path by the names that mkext4 was given.
    fn given(&self, path: &str) -> String {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        let names = ends.filter(|end| *end > 0).map(|end| {
            let path = &path[..end];
            self.names.get(path).map_or(name_of(path), String::as_str)
        });
        names.fold(String::new(), |given, name| given + "/" + name)
    }

    /// Puts every stand-in right in a written file system.
    pub fn restore(&self, image: &Path) -> Result<(), Ext4Error> {
        if self.names.is_empty() && self.targets.is_empty() {
            return Ok(());
        }
        let failed = |source| Ext4Error::Write { path: image.to_owned(), source };
        let file = File::options().read(true).write(true).open(image).map_err(failed)?;
        let fs = Fs::open(file.try_clone().map_err(failed)?).map_err(Ext4Error::Layout)?;
        let mut patches: Vec<(u64, Vec<u8>)> = Vec::new();
        let directories: BTreeSet<&str> = self.names.keys().map(|path| parent_of(path)).collect();
        for directory in directories {
            patches.extend(self.directory(&fs, directory)?);
        }
        for (path, target) in &self.targets {
            patches.push(self.link(&fs, path, &unescaped(target)).map_err(Ext4Error::Layout)?);
        }
        let write =
            |(offset, bytes): &(u64, Vec<u8>)| -> io::Result<()> { file.write_all_at(bytes, *offset) };
        patches.iter().try_for_each(write).map_err(failed)
    }

    /// The blocks of a directory with its real names.
    fn directory(&self, fs: &Fs<File>, directory: &str) -> Result<Vec<(u64, Vec<u8>)>, Ext4Error> {
        let wrong = Ext4Error::Layout;
        let real: BTreeMap<&[u8], &str> = self
            .names
            .iter()
            .filter(|(path, _)| parent_of(path) == directory)
            .map(|(path, name)| (name.as_bytes(), name_of(path)))
            .collect();
        let number = fs.resolve(&self.given(directory)).map_err(wrong)?;
        let inode = fs.inode(number).map_err(wrong)?;
        if inode.flags & iflags::INDEX != 0 {
            // It is ordered by a hash of the names.
            let name = real.values().next().copied().unwrap_or_default();
            return Err(Ext4Error::RawName { path: format!("{directory}/{name}") });
        }
        let seed = csum::inode_seed(fs.fs_seed(), number, inode.generation);
        let mut patches = Vec::new();
        for extent in fs.extents(number, &inode).map_err(wrong)? {
            for block in extent.physical..extent.physical + u64::from(extent.len) {
                let mut bytes = fs.read_block(block).map_err(wrong)?;
                let entries: Vec<(usize, Vec<u8>)> = DirentIter::new(&bytes)
                    .map(|entry| entry.map(|entry| (entry.offset + 8, entry.name.to_vec())))
                    .collect::<Result<_, _>>()
                    .map_err(wrong)?;
                for (at, given) in entries {
                    if let Some(name) = real.get(given.as_slice()) {
                        bytes[at..at + given.len()].copy_from_slice(&unescaped(name));
                    }
                }
                let sum = csum::dirent_block(seed, &bytes).to_le_bytes();
                let end = bytes.len();
                bytes[end - 4..].copy_from_slice(&sum);
                patches.push((block * BLOCK, bytes));
            }
        }
        Ok(patches)
    }

    /// A symlink's target, where it lies.
    fn link(&self, fs: &Fs<File>, path: &str, target: &[u8]) -> mkext4::Result<(u64, Vec<u8>)> {
        let number = fs.resolve(&self.given(path))?;
        let inode = fs.inode(number)?;
        if target.len() > FAST_TARGET {
            let block = fs.extents(number, &inode)?.first().map_or(0, |extent| extent.physical);
            return Ok((block * BLOCK, target.to_vec()));
        }
        let mut raw = fs.inode_raw(number)?;
        raw[I_BLOCK..I_BLOCK + target.len()].copy_from_slice(target);
        let [low @ .., high_0, high_1] =
            csum::inode(fs.fs_seed(), number, inode.generation, &raw).to_le_bytes();
        raw[CHECKSUM_LOW..CHECKSUM_LOW + 2].copy_from_slice(&low);
        raw[CHECKSUM_HIGH..CHECKSUM_HIGH + 2].copy_from_slice(&[high_0, high_1]);
        let in_group = u64::from(fs.superblock().inodes_per_group);
        let (group, index) = ((u64::from(number) - 1) / in_group, (u64::from(number) - 1) % in_group);
        let table = fs.group_desc(group)?.inode_table;
        Ok((table * BLOCK + index * raw.len() as u64, raw))
    }
}
