//! A written image, read back and held against the tree that it was made of: every path, owner, attribute, link and byte.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::base::{Diagnosis, Diagnostic};

use super::content::{Content, SequentialArchive};
use super::ext4::{Ext4Error, Ext4Options, LOST_FOUND, time_of};
use super::read::{Flaw, InodeKind, Inventory, InventoryEntry, ReadError, Side, Volume, same_bytes};
use super::space::BLOCK;
use super::tree::{Node, NodeKind, Tree};

/// What one path, or the file system itself, has otherwise than it was to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mismatch {
    pub path: String,
    pub what: String,
}

impl Mismatch {
    fn at(path: &str, what: String) -> Self {
        Self { path: if path.is_empty() { "/" } else { path }.to_owned(), what }
    }
}

/// What was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// How many paths were compared.
    pub paths: usize,
    /// How many bytes of files were compared.
    pub bytes: u64,
    /// By path; none where the image is what it was to be.
    pub mismatches: Vec<Mismatch>,
}

/// Why an image cannot be compared with its tree.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the inputs of the image cannot be read again")]
    Source(#[from] Ext4Error),
}

impl Diagnostic for ReadBackError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Read(error) => error.diagnosis(),
            Self::Source(error) => error.diagnosis(),
        }
    }
}

/// Reads an image back and compares it with the tree, the sources and the options that it was written from. What
/// differs is no error.
pub fn read_back(
    image: &Path,
    tree: &Tree<Content>,
    sources: &[&dyn SequentialArchive],
    options: &Ext4Options,
) -> Result<ReadBack, ReadBackError> {
    let volume = Volume::open(image)?;
    let inventory = Inventory::of(&volume)?;
    let mut found = volume_mismatches(&volume, options)?;
    let mut links: BTreeMap<&str, u16> = BTreeMap::new();
    for (_, node) in tree.iter() {
        if let NodeKind::HardLink { target } = &node.kind {
            *links.entry(target).or_default() += 1;
        }
    }
    for (path, node) in tree.iter().filter(|(path, _)| *path != LOST_FOUND) {
        let more_names = links.get(path).copied().unwrap_or(0);
        for what in differences(&inventory, tree, path, node, more_names) {
            found.push(Mismatch::at(path, what));
        }
    }
    for (path, entry) in inventory.iter().filter(|(path, _)| tree.get(path).is_none()) {
        let what = format!("this {} is unexpected", entry.kind.name());
        found.push(Mismatch::at(path, what));
    }
    let comparing = Comparing { volume: &volume, inventory: &inventory, tree, found: Mutex::new(Vec::new()) };
    let bytes = comparing.run(sources)?;
    found.extend(comparing.found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    found.sort();
    Ok(ReadBack { paths: tree.len(), bytes, mismatches: found })
}

fn volume_mismatches(volume: &Volume, options: &Ext4Options) -> Result<Vec<Mismatch>, ReadError> {
    let facts = volume.facts()?;
    let mut found = Vec::new();
    let mut compare = |name: &str, wanted: String, is: String| {
        if wanted != is {
            let what = format!("its {name} is {is}, not {wanted}");
            found.push(Mismatch { path: "the file system".into(), what });
        }
    };
    compare("label", options.label.clone(), facts.label);
    compare("UUID", hex::encode(options.uuid), facts.uuid.replace('-', ""));
    if let Some(size) = options.size {
        // Whole blocks, as it is written.
        compare("size", (size.bytes() / BLOCK * BLOCK).to_string(), facts.size.to_string());
    }
    Ok(found)
}

/// In what an entry differs from its node, its bytes aside.
fn differences(
    inventory: &Inventory,
    tree: &Tree<Content>,
    path: &str,
    node: &Node<Content>,
    more_names: u16,
) -> Vec<String> {
    let Some(entry) = inventory.get(path) else { return vec!["it is not there".into()] };
    if let NodeKind::HardLink { target } = &node.kind {
        let same = inventory.get(target).is_some_and(|other| other.inode == entry.inode);
        let is_known = tree.get(target).is_some();
        return if same && is_known {
            Vec::new()
        } else {
            vec![format!("it is not a hard link to {target}")]
        };
    }
    let wanted = kind(&node.kind);
    if std::mem::discriminant(&wanted) != std::mem::discriminant(&entry.kind) {
        return vec![format!("it is a {}, not a {}", entry.kind.name(), wanted.name())];
    }
    let mut found = Vec::new();
    let mut compare = |name: &str, wanted: String, is: String| {
        if wanted != is {
            found.push(format!("its {name} is {is}, not {wanted}"));
        }
    };
    compare(detail(&wanted).0, detail(&wanted).1, detail(&entry.kind).1);
    compare("mode", format!("{:o}", node.mode & 0o7777), format!("{:o}", entry.mode));
    compare("owner", format!("{}:{}", node.uid, node.gid), format!("{}:{}", entry.uid, entry.gid));
    compare("time", time_of(node).to_string(), entry.mtime.to_string());
    let attributes = |xattrs: &BTreeMap<String, Vec<u8>>| {
        let all = xattrs.iter().map(|(name, value)| format!("{name}={}", hex::encode(value)));
        all.collect::<Vec<_>>().join(" ")
    };
    compare("attributes", attributes(&node.xattrs), attributes(&entry.xattrs));
    if !matches!(wanted, InodeKind::Directory) {
        compare("number of names", (more_names + 1).to_string(), entry.links.to_string());
    }
    found
}

/// What an image has for a node; a hard link is the file that it leads to.
fn kind(node: &NodeKind<Content>) -> InodeKind {
    match node {
        NodeKind::Directory => InodeKind::Directory,
        NodeKind::File { size, .. } => InodeKind::File { size: *size },
        NodeKind::HardLink { .. } => InodeKind::File { size: 0 },
        NodeKind::Symlink { target } => InodeKind::Symlink { target: target.clone() },
        NodeKind::CharDevice { major, minor } => InodeKind::CharDevice { major: *major, minor: *minor },
        NodeKind::BlockDevice { major, minor } => InodeKind::BlockDevice { major: *major, minor: *minor },
        NodeKind::Fifo => InodeKind::Fifo,
    }
}

/// What an entry has besides its bytes and metadata, and what that is called.
fn detail(kind: &InodeKind) -> (&'static str, String) {
    match kind {
        InodeKind::File { size } => ("size", size.to_string()),
        InodeKind::Symlink { target } => ("target", target.clone()),
        InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
            ("device", format!("{major}:{minor}"))
        }
        InodeKind::Directory | InodeKind::Fifo | InodeKind::Socket => ("kind", kind.name().to_owned()),
    }
}

/// Comparing the bytes of files, archive by archive.
struct Comparing<'a> {
    volume: &'a Volume,
    inventory: &'a Inventory,
    tree: &'a Tree<Content>,
    found: Mutex<Vec<Mismatch>>,
}

impl Comparing<'_> {
    /// Gives how many bytes were compared.
    fn run(&self, sources: &[&dyn SequentialArchive]) -> Result<u64, ReadBackError> {
        let mut streamed: Vec<HashMap<usize, (&str, u64)>> = sources.iter().map(|_| HashMap::new()).collect();
        let mut bytes = 0;
        for (path, node) in self.tree.iter() {
            let NodeKind::File { size, content } = &node.kind else { continue };
            bytes += size;
            match content {
                Content::Inline(inline) => self.compare(path, *size, &mut &inline[..])?,
                Content::Streamed { source, entry } => match streamed.get_mut(*source) {
                    Some(wanted) => drop(wanted.insert(*entry, (path, *size))),
                    None => return Err(Ext4Error::Unfilled { count: 1 }.into()),
                },
            }
        }
        let expected: usize = streamed.iter().map(HashMap::len).sum();
        let visited = AtomicUsize::new(0);
        sources.par_iter().zip(&streamed).filter(|(_, wanted)| !wanted.is_empty()).try_for_each(
            |(source, wanted)| {
                let mut unread = None;
                source.each_file(&mut |entry, reader| {
                    let Some((path, size)) = wanted.get(&entry) else { return Ok(()) };
                    visited.fetch_add(1, Ordering::Relaxed);
                    match self.compare(path, *size, reader) {
                        Ok(()) => Ok(()),
                        Err(ReadBackError::Source(error)) => Err(error),
                        Err(ReadBackError::Read(error)) => {
                            unread.get_or_insert(error);
                            Ok(())
                        }
                    }
                })?;
                unread.map_or(Ok(()), |error| Err(ReadBackError::Read(error)))
            },
        )?;
        match expected - visited.into_inner() {
            0 => Ok(bytes),
            count => Err(Ext4Error::Unfilled { count }.into()),
        }
    }

    fn compare(&self, path: &str, size: u64, wanted: &mut dyn Read) -> Result<(), ReadBackError> {
        // A file that is not there has been told already.
        let Some(InventoryEntry { inode, kind: InodeKind::File { .. }, .. }) = self.inventory.get(path)
        else {
            return Ok(());
        };
        let mut is = self.volume.bytes_of(*inode)?;
        match same_bytes(wanted, &mut is, size) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let mismatch = Mismatch::at(path, "its content differs".into());
                self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(mismatch);
                Ok(())
            }
            Err((Side::Left, source)) => Err(Ext4Error::Content { file: path.to_owned(), source }.into()),
            Err((Side::Right, error)) => Err(ReadError::of(self.volume.path(), Flaw::at(path, error)).into()),
        }
    }
}
