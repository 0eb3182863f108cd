//! One layer of a container image: its tar verified, and read into a tree of what containers/storage makes of it.
//!
//! The rules are those of containers/storage's overlay driver for an unprivileged user: `.wh.NAME` becomes a character
//! device 0:0, `.wh..wh..opq` the attribute `user.overlay.opaque`; devices are left out, since such a user cannot make them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use sha2::Digest;
use tar::EntryType;

use crate::base::Sha256;
use crate::sys::oci::Descriptor;

use super::super::content::{Source, Visit};
use super::super::ext4::Ext4Error;
use super::super::tree::{Node, NodeKind, Tree, name_of, parent_of};
use super::oci::{Blobs, check_digest};
use super::split::{Crc64, SplitWriter};
use super::{ContainerError, ContainerProblem};

/// What an opaque directory of a layer carries under `overlayfs` mounted with `userxattr`.
const OPAQUE: &str = "user.overlay.opaque";

const READ_SIZE: usize = 64 * 1024;

/// How a layer's tar is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

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
}

impl Compression {
    /// From a layer's media type.
    pub(super) fn of(blob: &Descriptor) -> Result<Self, ContainerProblem> {
        let kind = blob.media_type.as_str();
        if kind.ends_with(".tar") {
            Ok(Self::None)
        } else if kind.ends_with("+gzip") || kind.ends_with(".tar.gzip") {
            Ok(Self::Gzip)
        } else {
            let text =
                format!("a layer is of the kind {kind:?}; only plain and gzip layers are taken, so not zstd");
            Err(ContainerProblem::Unsupported(text))
        }
    }
}

impl Layer {
    /// Reads a whole layer, verifies its digests, and keeps everything but the bytes of its files.
    pub(super) fn scan(
        blobs: Arc<Blobs>,
        blob: Descriptor,
        compression: Compression,
        diff_id: Sha256,
    ) -> Result<Self, ContainerProblem> {
        let mut tree = Tree::new();
        let root = Node::new(NodeKind::Directory, 0o555);
        let named = |source| ContainerProblem::Tree { layer: diff_id.short(), source };
        tree.insert("", root).map_err(named)?;
        let mut layer = Self {
            image: blobs.path().to_owned(),
            blobs,
            blob,
            compression,
            diff_id,
            diff_size: 0,
            tree,
            uids: BTreeSet::from([0]),
            gids: BTreeSet::from([0]),
            tar_split: Vec::new(),
        };
        let tap = Rc::new(RefCell::new(Tap { recording: true, bytes: Vec::new() }));
        let mut split = SplitWriter::new();
        let read = |source| ContainerProblem::Read { what: format!("layer {}", diff_id.short()), source };
        let mut entries = Vec::new();
        let size = layer
            .walk(&tap, &mut |number, entry| -> Result<(), ContainerProblem> {
                record(&tap, &mut split, entry).map_err(read)?;
                entries.push(LayerEntry::of(number, entry).map_err(|problem| ContainerProblem::Entry {
                    layer: diff_id.short(),
                    entry: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
                    problem,
                })?);
                Ok(())
            })
            .map_err(|error| match error {
                Stopped::Layer(problem) | Stopped::Visit(problem) => layer.blame(problem),
            })?;
        split.raw(&tap.borrow().bytes).map_err(read)?;
        layer.tar_split = split.finish().map_err(read)?;
        layer.diff_size = size;
        for entry in entries.into_iter().flatten() {
            layer.apply(entry)?;
        }
        Ok(layer)
    }

    /// What is to be said of a layer that cannot be read: that it is damaged, where it is.
    fn blame(&self, problem: ContainerProblem) -> ContainerProblem {
        let hash = || -> Result<(), ContainerProblem> {
            let mut packed = Hashing::new(self.blobs.stream(&self.blob)?);
            let read = |source| ContainerProblem::Read { what: "a layer".into(), source };
            io::copy(&mut packed, &mut io::sink()).map_err(read)?;
            check_digest("layer", &self.blob.digest, finish(&packed.hash).0)
        };
        hash().err().unwrap_or(problem)
    }

    /// Reads the tar from its beginning to its end and verifies both digests. Gives the size of the tar.
    fn walk<E>(
        &self,
        tap: &Rc<RefCell<Tap>>,
        visit: &mut dyn FnMut(usize, &mut TarEntry<'_>) -> Result<(), E>,
    ) -> Result<u64, Stopped<E>> {
        let read = |source| {
            Stopped::Layer(ContainerProblem::Read { what: format!("layer {}", self.diff_id.short()), source })
        };
        let packed = Hashing::new(self.blobs.stream(&self.blob).map_err(Stopped::Layer)?);
        let packed_hash = packed.hash.clone();
        let plain: Box<dyn Read> = match self.compression {
            Compression::None => Box::new(packed),
            Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
        };
        let plain = Hashing::new(plain);
        let plain_hash = plain.hash.clone();
        let mut archive = tar::Archive::new(Tapped { inner: plain, tap: tap.clone() });
        for (number, entry) in archive.entries().map_err(read)?.enumerate() {
            visit(number, &mut entry.map_err(read)?).map_err(Stopped::Visit)?;
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(read)?;
        drop(rest);
        let (packed, _) = finish(&packed_hash);
        check_digest("layer", &self.blob.digest, packed).map_err(Stopped::Layer)?;
        let (plain, size) = finish(&plain_hash);
        check_digest("unpacked layer", &format!("sha256:{}", self.diff_id), plain).map_err(Stopped::Layer)?;
        Ok(size)
    }

    /// Puts one entry into the tree, as unpacking it would.
    fn apply(&mut self, entry: LayerEntry) -> Result<(), ContainerProblem> {
        let layer = self.diff_id.short();
        let named = |source| ContainerProblem::Tree { layer: layer.clone(), source };
        let LayerEntry { path, mut node } = entry;
        self.tree.make_parents(&path, || Node::new(NodeKind::Directory, 0o755)).map_err(named)?;
        if let Some(hidden) = name_of(&path).strip_prefix(".wh.") {
            if hidden == ".wh..opq" {
                if let Some(directory) = self.tree.inode_mut(parent_of(&path)) {
                    directory.xattrs.insert(OPAQUE.into(), b"y".to_vec());
                }
            } else if !hidden.starts_with(".wh.") {
                let whiteout = Node::new(NodeKind::CharDevice { major: 0, minor: 0 }, 0);
                self.tree.insert(&format!("{}/{hidden}", parent_of(&path)), whiteout).map_err(named)?;
            }
            return Ok(());
        }
        self.uids.insert(node.uid);
        self.gids.insert(node.gid);
        if let NodeKind::HardLink { target } = &node.kind {
            // A link to a link is one to its file; a link to a symlink becomes a copy of it.
            match self.tree.get(target).map(|node| (&node.kind, node)) {
                Some((NodeKind::HardLink { target }, _)) => {
                    node.kind = NodeKind::HardLink { target: target.clone() };
                }
                Some((NodeKind::Symlink { .. }, symlink)) => node = symlink.clone(),
                _ => {}
            }
        }
        if let Some(opaque) = self.tree.get(&path).and_then(|old| old.xattrs.get(OPAQUE)) {
            node.xattrs.insert(OPAQUE.into(), opaque.clone());
        }
        self.tree.insert(&path, node).map_err(named)
    }
}

impl Source for Layer {
    fn each_file(&self, visit: Visit<'_>) -> Result<(), Ext4Error> {
        let tap = Rc::new(RefCell::new(Tap::default()));
        self.walk(&tap, &mut |number, entry| if is_file(entry) { visit(number, entry) } else { Ok(()) })
            .map(drop)
            .map_err(|error| match error {
                Stopped::Visit(error) => error,
                Stopped::Layer(problem) => ContainerError { path: self.image.clone(), problem }.into(),
            })
    }
}

/// An entry that changes the tree; `path` as in the tree.
struct LayerEntry {
    path: String,
    node: Node<usize>,
}

impl LayerEntry {
    /// `None` for what an unprivileged user cannot make, and for what is no file. Otherwise why it is refused.
    fn of(number: usize, entry: &mut TarEntry<'_>) -> Result<Option<Self>, String> {
        let path = tree_path(&entry.path_bytes())?;
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                NodeKind::File { size: entry.size(), content: number }
            }
            EntryType::Directory => NodeKind::Directory,
            EntryType::Symlink => NodeKind::Symlink { target: link_text(entry)? },
            EntryType::Link => NodeKind::HardLink { target: tree_path(link_text(entry)?.as_bytes())? },
            EntryType::Fifo => NodeKind::Fifo,
            EntryType::Char | EntryType::Block | EntryType::XGlobalHeader => return Ok(None),
            other => return Err(format!("is of a kind that is not supported ({:?})", other)),
        };
        let header = entry.header();
        let number_of = |value: io::Result<u64>| {
            value.ok().and_then(|value| u32::try_from(value).ok()).ok_or("has an owner that is no number")
        };
        let mut node = Node::new(kind, 0);
        node.mode = (header.mode().map_err(|_| "has a mode that is no number")? & 0o7777) as u16;
        node.uid = number_of(header.uid())?;
        node.gid = number_of(header.gid())?;
        node.mtime = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        extend_from_pax(&mut node, entry)?;
        Ok(Some(Self { path, node }))
    }
}

/// What PAX records say besides names and sizes, which the tar reader has taken.
fn extend_from_pax(node: &mut Node<usize>, entry: &mut TarEntry<'_>) -> Result<(), String> {
    let unreadable = "has unreadable extended headers";
    let Some(records) = entry.pax_extensions().map_err(|_| unreadable)? else { return Ok(()) };
    for record in records {
        let record = record.map_err(|_| unreadable)?;
        let (key, value) = (record.key().map_err(|_| unreadable)?, record.value_bytes());
        let text = || std::str::from_utf8(value).map_err(|_| unreadable);
        match key {
            "uid" => node.uid = text()?.parse().map_err(|_| unreadable)?,
            "gid" => node.gid = text()?.parse().map_err(|_| unreadable)?,
            "mtime" => {
                let seconds = text()?.split('.').next().unwrap_or_default();
                node.mtime = seconds.parse().map_err(|_| unreadable)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.").filter(|name| may_set(name)) {
                    node.xattrs.insert(name.to_owned(), value.to_vec());
                }
            }
        }
    }
    Ok(())
}

/// Attributes that an unprivileged user can set and that mean nothing to overlayfs.
fn may_set(name: &str) -> bool {
    name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

fn is_file(entry: &TarEntry<'_>) -> bool {
    matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous)
}

fn link_text(entry: &TarEntry<'_>) -> Result<String, String> {
    let target = entry.link_name_bytes().ok_or("is a link to nothing")?;
    String::from_utf8(target.into_owned()).map_err(|_| "is a link to what is not UTF-8".into())
}

/// `./etc/motd`, `/etc/motd` and `etc/motd/` are `/etc/motd`; the root is the empty path.
fn tree_path(name: &[u8]) -> Result<String, String> {
    let name = std::str::from_utf8(name).map_err(|_| "is not named in UTF-8")?;
    let mut path = String::new();
    for part in name.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err("leads out of the layer".into());
        }
        path.push('/');
        path.push_str(part);
    }
    Ok(path)
}

type TarEntry<'a> = tar::Entry<'a, Tapped>;

/// Writes what tar-split keeps of an entry, reading its bytes for their checksum.
fn record(tap: &RefCell<Tap>, split: &mut SplitWriter, entry: &mut TarEntry<'_>) -> io::Result<()> {
    if entry.header().entry_type() == EntryType::XGlobalHeader {
        return Ok(());
    }
    split.raw(&std::mem::take(&mut tap.borrow_mut().bytes))?;
    let mut crc = Crc64::new();
    let mut buffer = vec![0; READ_SIZE];
    tap.borrow_mut().recording = false;
    loop {
        match entry.read(&mut buffer)? {
            0 => break,
            read => crc.update(&buffer[..read]),
        }
    }
    tap.borrow_mut().recording = true;
    split.file(&entry.path_bytes(), entry.size(), crc.finish())
}

/// Why a walk ended early.
enum Stopped<E> {
    Layer(ContainerProblem),
    Visit(E),
}

/// Bytes that went by while it recorded.
#[derive(Default)]
struct Tap {
    recording: bool,
    bytes: Vec<u8>,
}

struct Tapped {
    inner: Hashing<Box<dyn Read>>,
    tap: Rc<RefCell<Tap>>,
}

impl Read for Tapped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut tap = self.tap.borrow_mut();
        if tap.recording {
            tap.bytes.extend_from_slice(&buffer[..read]);
        }
        Ok(read)
    }
}

type Hash = Rc<RefCell<(sha2::Sha256, u64)>>;

/// Hashes what is read through it, and counts it.
struct Hashing<R> {
    inner: R,
    hash: Hash,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Rc::default() }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut hash = self.hash.borrow_mut();
        hash.0.update(&buffer[..read]);
        hash.1 += read as u64;
        Ok(read)
    }
}

fn finish(hash: &Hash) -> (Sha256, u64) {
    let hash = hash.borrow();
    (Sha256(hash.0.clone().finalize().into()), hash.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_within_its_layer() {
        assert_eq!(tree_path(b"./etc/motd").unwrap(), "/etc/motd");
        assert_eq!(tree_path(b"/etc/").unwrap(), "/etc");
        assert_eq!(tree_path(b"./").unwrap(), "");
        assert!(tree_path(b"etc/../../x").is_err());
    }

    #[test]
    fn a_layer_cannot_forge_what_overlayfs_reads() {
        assert!(may_set("user.mime"));
        assert!(may_set("security.capability"));
        for name in ["user.overlay.redirect", "trusted.overlay.opaque", "security.selinux"] {
            assert!(!may_set(name), "{name}");
        }
    }
}
