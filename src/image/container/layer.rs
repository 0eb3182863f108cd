//! One layer of a container image: its tar verified, and read into a tree of what containers/storage makes of it.
//!
//! The rules are those of containers/storage's overlay driver for an unprivileged user: `.wh.NAME` becomes a character
//! device 0:0, `.wh..wh..opq` the attribute `user.overlay.opaque`; devices are left out, since such a user cannot make them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use sha2::Digest;

use crate::base::Sha256;
use crate::sys::oci::Descriptor;

use super::super::content::{SequentialArchive, Visit};
use super::super::error::Ext4Error;
use super::super::space::{LONGEST_TARGET, holds_attributes};
use super::super::tree::{Node, NodeKind, Tree, TreeError, name_of, parent_of, unescaped};
use super::blobs::{Blobs, check_digest};
use super::entry::{Blocked, LayerEntry, placed};
use super::packed::Compression;
use super::split::{Crc64, SplitWriter};
use super::tar::{self, EntryType, Header, LayerReader};
use super::{ContainerError, ContainerProblem};

/// What an opaque directory of a layer carries under `overlayfs` mounted with `userxattr`.
const OPAQUE: &str = "user.overlay.opaque";

const READ_SIZE: usize = 64 * 1024;

/// A verified layer.
#[derive(Debug)]
pub struct Layer {
    blobs: Arc<Blobs>,
    pub(super) image: PathBuf,
    pub(super) blob: Descriptor,
    pub(super) compression: Compression,
    /// Digest of the unpacked tar.
    pub diff_id: Sha256,
    /// Bytes of the unpacked tar.
    pub diff_size: u64,
    /// Files by the number of their entry in the tar; owners as the container sees them.
    pub(super) tree: Tree<usize>,
    pub(super) uids: BTreeSet<u32>,
    pub(super) gids: BTreeSet<u32>,
    pub(super) tar_split: Vec<u8>,
    /// Devices, which are left out.
    left_out: BTreeSet<String>,
}

impl Layer {
    /// Reads a whole layer, verifies its digests, and keeps everything but the bytes of its files.
    pub(super) fn scan(
        blobs: Arc<Blobs>,
        blob: Descriptor,
        diff_id: Sha256,
    ) -> Result<Self, ContainerProblem> {
        let read = |source| ContainerProblem::Read { what: format!("layer {}", diff_id.short()), source };
        let mut tree = Tree::new();
        let root = Node::new(NodeKind::Directory, 0o555);
        tree.insert("", root).map_err(|source| ContainerProblem::Tree { layer: diff_id.short(), source })?;
        let mut layer = Self {
            image: blobs.path().to_owned(),
            compression: Compression::of(&mut blobs.stream(&blob)?).map_err(read)?,
            blobs,
            blob,
            diff_id,
            diff_size: 0,
            tree,
            uids: BTreeSet::from([0]),
            gids: BTreeSet::from([0]),
            tar_split: Vec::new(),
            left_out: BTreeSet::new(),
        };
        let mut split = SplitWriter::new();
        for (name, entry) in layer.entries(&mut split)? {
            layer.apply(entry).map_err(|refused| match refused {
                Refused::Tree(source) => ContainerProblem::Tree { layer: diff_id.short(), source },
                Refused::Place(blocked) => ContainerProblem::Entry {
                    layer: diff_id.short(),
                    entry: name,
                    problem: blocked.to_string(),
                },
            })?;
        }
        layer.check_room()?;
        layer.tar_split = split.finish().map_err(read)?;
        Ok(layer)
    }

    /// The entries of the tar with their names in it, in its order. Notes how many bytes the tar has.
    fn entries(&mut self, split: &mut SplitWriter) -> Result<Vec<(String, LayerEntry)>, ContainerProblem> {
        let mut entries = Vec::new();
        let layer = self.diff_id;
        let walked = self.walk(Some(split), |number, header, _| {
            let name = String::from_utf8_lossy(&header.path).into_owned();
            match LayerEntry::of(number, header) {
                Ok(entry) => entries.extend(entry.map(|entry| (name, entry))),
                Err(problem) => {
                    return Err(ContainerProblem::Entry { layer: layer.short(), entry: name, problem });
                }
            }
            Ok(())
        });
        self.diff_size = walked.map_err(|error| match error {
            Stopped::Layer(problem) | Stopped::Visit(problem) => self.blame(problem),
        })?;
        Ok(entries)
    }

    /// Refuses what no ext4 has room for, where its image can still be named.
    fn check_room(&self) -> Result<(), ContainerProblem> {
        for (path, node) in self.tree.iter() {
            let problem = match &node.kind {
                NodeKind::Symlink { target } if unescaped(target).len() > LONGEST_TARGET => {
                    format!(
                        "leads to a path of {} bytes: ext4 holds {LONGEST_TARGET}",
                        unescaped(target).len()
                    )
                }
                _ if !holds_attributes(&node.xattrs) => {
                    "has more extended attributes than ext4 has room for, which is about 4000 bytes"
                        .to_owned()
                }
                _ => continue,
            };
            return Err(ContainerProblem::Entry {
                layer: self.diff_id.short(),
                entry: path.to_owned(),
                problem,
            });
        }
        Ok(())
    }

    /// What is to be said of a layer that cannot be read: that it is damaged, where it is.
    fn blame(&self, problem: ContainerProblem) -> ContainerProblem {
        let hash = || -> Result<(), ContainerProblem> {
            let mut packed = HashingReader::new(self.blobs.stream(&self.blob)?);
            let read = |source| ContainerProblem::Read { what: "a layer".into(), source };
            io::copy(&mut packed, &mut io::sink()).map_err(read)?;
            check_digest("layer", &self.blob.digest, finish(&packed.hash).0)
        };
        hash().err().unwrap_or(problem)
    }

    /// Reads the tar from its beginning to its end and verifies both digests. Gives the size of the tar. Where it is split, the
    /// bytes of files are read for that, and not by `visit`.
    fn walk<E>(
        &self,
        mut split: Option<&mut SplitWriter>,
        mut visit: impl FnMut(usize, &Header, &mut dyn Read) -> Result<(), E>,
    ) -> Result<u64, Stopped<E>> {
        let read = |source| {
            Stopped::Layer(ContainerProblem::Read { what: format!("layer {}", self.diff_id.short()), source })
        };
        let packed = HashingReader::new(self.blobs.stream(&self.blob).map_err(Stopped::Layer)?);
        let packed_hash = packed.hash.clone();
        let plain = HashingReader::new(self.compression.unpack(Box::new(packed)).map_err(read)?);
        let plain_hash = plain.hash.clone();
        let mut reader =
            if split.is_some() { LayerReader::recording(plain) } else { LayerReader::new(plain) };
        let mut number = 0;
        while let Some(header) = reader.next().map_err(read)? {
            match &mut split {
                Some(split) => {
                    visit(number, &header, &mut io::empty()).map_err(Stopped::Visit)?;
                    record(&mut reader, split, &header).map_err(read)?;
                }
                None => match &header.sparse {
                    Some(map) => visit(number, &header, &mut map.expand(&mut reader)),
                    None => visit(number, &header, &mut reader),
                }
                .map_err(Stopped::Visit)?,
            }
            number += 1;
        }
        record_rest(&mut reader, split).map_err(read)?;
        let (packed, _) = finish(&packed_hash);
        check_digest("layer", &self.blob.digest, packed).map_err(Stopped::Layer)?;
        let (plain, size) = finish(&plain_hash);
        check_digest("unpacked layer", &format!("sha256:{}", self.diff_id), plain).map_err(Stopped::Layer)?;
        Ok(size)
    }

    /// Puts one entry into the tree, as unpacking it would.
    fn apply(&mut self, entry: LayerEntry) -> Result<(), Refused> {
        let LayerEntry { path, node } = entry;
        if let Some(node) = &node {
            self.uids.insert(node.uid);
            self.gids.insert(node.gid);
        }
        let hidden = name_of(&path).strip_prefix(".wh.");
        let path = match placed(&self.tree, &path) {
            // Below what an earlier whiteout hides, there is nothing to hide.
            Err(Blocked::NoDirectory(_)) if hidden.is_some() => return Ok(()),
            path => path?,
        };
        self.tree.make_parents(&path, || Node::new(NodeKind::Directory, 0o755))?;
        if path.is_empty() {
            // The root is what it is below all layers.
            return Ok(());
        }
        if let Some(hidden) = name_of(&path).strip_prefix(".wh.").map(str::to_owned) {
            return Ok(self.hide(parent_of(&path), &hidden, node)?);
        }
        let merges = |old: &Node<usize>, new: &Option<Node<usize>>| {
            old.is_directory() && new.as_ref().is_some_and(Node::is_directory)
        };
        let old = self.tree.get(&path).filter(|old| merges(old, &node)).map(|old| old.xattrs.clone());
        if old.is_none() {
            self.tree.remove_all(&path);
        }
        let Some(mut node) = node.map(|node| self.resolved(node)).transpose()?.flatten() else {
            self.left_out.insert(path);
            return Ok(());
        };
        for (name, value) in old.into_iter().flatten() {
            node.xattrs.entry(name).or_insert(value);
        }
        Ok(self.tree.insert(&path, node)?)
    }

    /// A node as it stands in the tree; `None` for another name of a device, which is left out with it.
    fn resolved(&mut self, node: Node<usize>) -> Result<Option<Node<usize>>, Refused> {
        let NodeKind::HardLink { target } = &node.kind else { return Ok(Some(node)) };
        let target = placed(&self.tree, target)?;
        let is_left_out = self.tree.get(&target).is_none() && self.left_out.contains(&target);
        Ok((!is_left_out).then(|| self.linked(target, node)))
    }

    /// A hard link as the tree has it: a link to a link is one to its file, whose owner and mode become those that are stated last;
    /// a link to a symlink becomes a copy of it.
    fn linked(&mut self, target: String, link: Node<usize>) -> Node<usize> {
        match self.tree.get(&target).map(|node| &node.kind) {
            Some(NodeKind::File { .. } | NodeKind::Fifo | NodeKind::HardLink { .. }) => {}
            Some(NodeKind::Directory) | None => return Node { kind: NodeKind::HardLink { target }, ..link },
            Some(_) => return self.tree.get(&target).cloned().unwrap_or(link),
        }
        let file = match self.tree.get(&target).map(|node| &node.kind) {
            Some(NodeKind::HardLink { target: file }) => file.clone(),
            _ => target,
        };
        if let Some(inode) = self.tree.inode_mut(&file) {
            (inode.mode, inode.uid, inode.gid, inode.mtime) = (link.mode, link.uid, link.gid, link.mtime);
            inode.xattrs.extend(link.xattrs.clone());
        }
        Node { kind: NodeKind::HardLink { target: file }, ..link }
    }

    /// A whiteout hides what is below the layer: a name, or all of a directory. What the layer itself has there stays; of a
    /// directory, nothing that is below shows through.
    fn hide(&mut self, directory: &str, hidden: &str, node: Option<Node<usize>>) -> Result<(), TreeError> {
        let path = format!("{directory}/{hidden}");
        let opaque = if hidden == ".wh..opq" { directory } else { path.as_str() };
        if let Some(there) = self.tree.get(opaque) {
            if there.is_directory()
                && let Some(directory) = self.tree.inode_mut(opaque)
            {
                directory.xattrs.insert(OPAQUE.into(), b"y".to_vec());
            }
            return Ok(());
        }
        let (uid, gid) = node.map_or((0, 0), |node| (node.uid, node.gid));
        let whiteout = Node::new(NodeKind::CharDevice { major: 0, minor: 0 }, 0).owned_by(uid, gid);
        self.tree.insert(&path, whiteout)
    }
}

/// Why an entry cannot stand in its layer.
enum Refused {
    Tree(TreeError),
    Place(Blocked),
}

impl From<TreeError> for Refused {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<Blocked> for Refused {
    fn from(blocked: Blocked) -> Self {
        Self::Place(blocked)
    }
}

impl SequentialArchive for Layer {
    fn each_file(&self, visit: Visit<'_>) -> Result<(), Ext4Error> {
        self.walk(None, |number, header, content| match header.kind {
            EntryType::File => {
                let capacity = header.size.clamp(1, READ_SIZE as u64) as usize;
                visit(number, &mut BufReader::with_capacity(capacity, content))
            }
            _ => Ok(()),
        })
        .map(drop)
        .map_err(|error| match error {
            Stopped::Visit(error) => error,
            Stopped::Layer(problem) => ContainerError { path: self.image.clone(), problem }.into(),
        })
    }
}

/// Writes what tar-split keeps of an entry, reading its bytes for their checksum. A sparse file cannot be given back from its
/// unpacked bytes, so that its stored ones are kept.
fn record<R: tar::TarSource>(
    reader: &mut LayerReader<R>,
    split: &mut SplitWriter,
    header: &Header,
) -> io::Result<()> {
    if header.kind == EntryType::Global {
        return Ok(());
    }
    if header.sparse.is_some() {
        return reader.record_content(&mut |bytes| split.raw(bytes));
    }
    split.raw(&reader.take_raw())?;
    let mut crc = Crc64::new();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            read => crc.update(&buffer[..read]),
        }
    }
    split.file(&header.path, header.size, crc.finish())
}

/// What follows the last entry is read, so that it is hashed, and kept.
fn record_rest<R: tar::TarSource>(
    reader: &mut LayerReader<R>,
    split: Option<&mut SplitWriter>,
) -> io::Result<()> {
    let Some(split) = split else { return io::copy(reader.source(), &mut io::sink()).map(drop) };
    split.raw(&reader.take_raw())?;
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match reader.source().read(&mut buffer)? {
            0 => return Ok(()),
            read => split.raw(&buffer[..read])?,
        }
    }
}

/// Why a walk ended early.
enum Stopped<E> {
    Layer(ContainerProblem),
    Visit(E),
}

type Hash = Rc<RefCell<(sha2::Sha256, u64)>>;

/// Hashes what is read through it, and counts it.
struct HashingReader<R> {
    inner: R,
    hash: Hash,
}

impl<R> HashingReader<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Rc::default() }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut hash = self.hash.borrow_mut();
        hash.0.update(&buffer[..read]);
        hash.1 += read as u64;
        Ok(read)
    }
}

impl<R: Read> tar::TarSource for HashingReader<R> {}

fn finish(hash: &Hash) -> (Sha256, u64) {
    let hash = hash.borrow();
    (Sha256(hash.0.clone().finalize().into()), hash.1)
}
