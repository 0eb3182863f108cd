//! Every file of an image with its metadata, in memory; contents stay where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use mkext4::spec::inode::FileType;
use mkext4::spec::{Inode, ROOT_INO};

use super::super::links::{FollowRules, follow};
use super::super::tree::{escaped, name_of, parent_of};
use super::volume::Volume;
use super::{Flaw, ReadError};

/// Longest path: as the kernel has it (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Most memory for names, attributes and link targets of one image. A million files take about a quarter of it.
const MAX_METADATA: usize = 1 << 30;

/// About what an entry takes beside its name and attributes.
const ENTRY_COST: usize = 200;

/// The files of an image by absolute path, in names as a tree has them; the root itself is `""`. The empty `lost+found` of a file
/// system's maker is left out.
#[derive(Debug)]
pub struct Inventory {
    entries: BTreeMap<String, InventoryEntry>,
}

/// One name in an image, with the inode behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryEntry {
    /// Names of one file have one number.
    pub inode: u32,
    /// Names that the file system says the inode has.
    pub links: u16,
    pub kind: InodeKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// By full name, such as `security.capability`; values are raw bytes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InodeKind {
    Directory,
    /// `size` in bytes.
    File {
        size: u64,
    },
    Symlink {
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
    Socket,
}

impl InodeKind {
    /// A word for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symlink",
            Self::CharDevice { .. } => "character device",
            Self::BlockDevice { .. } => "block device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
        }
    }
}

impl InventoryEntry {
    /// Bytes of content; 0 for all but regular files.
    pub fn size(&self) -> u64 {
        match self.kind {
            InodeKind::File { size } => size,
            _ => 0,
        }
    }
}

impl Inventory {
    /// Reads the metadata of every file.
    pub fn of(volume: &Volume) -> Result<Self, ReadError> {
        let mut walk = Walk::of(volume);
        walk.run().map_err(|flaw| volume.error(flaw))?;
        Ok(Self::made_of(walk.entries))
    }

    /// The same of a file system that may be damaged: what can be read of it, and what cannot.
    pub fn salvage(volume: &Volume) -> Result<(Self, Vec<Flaw>), ReadError> {
        let mut walk = Walk { left_out: Some(Vec::new()), ..Walk::of(volume) };
        walk.run().map_err(|flaw| volume.error(flaw))?;
        let left_out = walk.left_out.take().unwrap_or_default();
        Ok((Self::made_of(walk.entries), left_out))
    }

    fn made_of(mut entries: BTreeMap<String, InventoryEntry>) -> Self {
        let is_empty = !entries.keys().any(|path| path.starts_with("/lost+found/"));
        if is_empty {
            entries.retain(|path, entry| path != "/lost+found" || entry.kind != InodeKind::Directory);
        }
        Self { entries }
    }

    /// Every entry in byte order of the paths, the root first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &InventoryEntry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The entry at a path, links not followed.
    pub fn get(&self, path: &str) -> Option<&InventoryEntry> {
        self.entries.get(path)
    }

    /// How many entries there are, the root counted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 1
    }

    /// The path that something is really at, symlinks followed; `None` where there is nothing.
    pub fn real_path(&self, path: &str) -> Option<String> {
        self.resolve(path, true)
    }

    /// The same with the last part not followed: where a name itself is.
    pub fn place_of(&self, path: &str) -> Option<String> {
        self.resolve(path, false)
    }

    fn resolve(&self, path: &str, last: bool) -> Option<String> {
        let target = |path: &str| match &self.entries.get(path)?.kind {
            InodeKind::Symlink { target } => Some(Some(target.as_str())),
            _ => Some(None),
        };
        follow(path, FollowRules { last, stays_within: true }, target)
    }

    /// The text of a file that is looked at whole, symlinks followed; `None` where there is no such file. One of more
    /// than `most` bytes, or that is not UTF-8, is an error.
    pub fn text(&self, volume: &Volume, path: &str, most: u64) -> Result<Option<String>, ReadError> {
        let Some(real) = self.real_path(path) else { return Ok(None) };
        let Some(InventoryEntry { inode, kind: InodeKind::File { size }, .. }) = self.entries.get(&real)
        else {
            return Ok(None);
        };
        let failed = |reason: String| volume.error(Flaw::at(path, reason));
        if *size > most {
            return Err(failed(format!("it has {size} bytes, but at most {most} are read")));
        }
        let mut bytes = Vec::new();
        volume.bytes_of(*inode)?.read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        String::from_utf8(bytes).map(Some).map_err(|_| failed("it is not UTF-8".into()))
    }

    /// Names of each file that has several, in byte order, by inode number.
    pub fn hard_links(&self) -> BTreeMap<u32, Vec<&str>> {
        let mut names: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (path, entry) in self.iter().filter(|(_, entry)| entry.kind != InodeKind::Directory) {
            names.entry(entry.inode).or_default().push(path);
        }
        names.retain(|_, names| names.len() > 1);
        names
    }
}

/// Reading directory by directory.
struct Walk<'a> {
    volume: &'a Volume,
    entries: BTreeMap<String, InventoryEntry>,
    /// Directories that have been entered: each has one name.
    seen: BTreeSet<u32>,
    /// Bytes of memory so far, about.
    metadata: usize,
    /// What cannot be read, where the rest is wanted nevertheless.
    left_out: Option<Vec<Flaw>>,
}

impl<'a> Walk<'a> {
    fn of(volume: &'a Volume) -> Self {
        Self { volume, entries: BTreeMap::new(), seen: BTreeSet::new(), metadata: 0, left_out: None }
    }
}

impl Walk<'_> {
    /// What can be done without, where that is so.
    fn salvaged<T>(&mut self, read: Result<T, Flaw>) -> Result<Option<T>, Flaw> {
        match (read, &mut self.left_out) {
            (Ok(read), _) => Ok(Some(read)),
            (Err(flaw), Some(left_out)) if !matches!(flaw, Flaw::TooMuch(_)) => {
                left_out.push(flaw);
                Ok(None)
            }
            (Err(flaw), _) => Err(flaw),
        }
    }

    fn run(&mut self) -> Result<(), Flaw> {
        self.add(String::new(), ROOT_INO)?;
        let mut open = vec![(String::new(), ROOT_INO)];
        while let Some((directory, number)) = open.pop() {
            if !self.seen.insert(number) {
                self.salvaged::<()>(Err(Flaw::at(&directory, "this directory has a second name")))?;
                continue;
            }
            let names = self.names(&directory, number);
            for (name, number) in self.salvaged(names)?.unwrap_or_default() {
                let path = format!("{directory}/{name}");
                let added = self.add(path.clone(), number);
                if self.salvaged(added)? == Some(true) {
                    open.push((path, number));
                }
            }
        }
        Ok(())
    }

    fn names(&mut self, directory: &str, number: u32) -> Result<Vec<(String, u32)>, Flaw> {
        let inode = self.volume.inode(number).map_err(|error| Flaw::at(directory, error))?;
        let mut names = Vec::new();
        let mut metadata = self.metadata;
        let visited = self.volume.each_name(number, &inode, |number, name| {
            if !is_name(name) {
                let name = name.escape_ascii();
                let flaw = Flaw::at(directory, format!("{name:?} cannot be the name of a file"));
                return Err(DirectoryError::Name(flaw));
            }
            metadata += ENTRY_COST;
            if metadata > MAX_METADATA {
                return Err(DirectoryError::Name(Flaw::TooMuch(MAX_METADATA)));
            }
            names.push((escaped(name), number));
            Ok(())
        });
        visited.map(|()| names).map_err(|failure| match failure {
            DirectoryError::Structure(error) => Flaw::at(directory, error),
            DirectoryError::Name(flaw) => flaw,
        })
    }

    /// Adds a name; tells whether it is a directory.
    fn add(&mut self, path: String, number: u32) -> Result<bool, Flaw> {
        let entry = self.read(number).map_err(|error| Flaw::at(&path, error))?;
        let own: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let target = if let InodeKind::Symlink { target } = &entry.kind { target.len() } else { 0 };
        self.metadata += ENTRY_COST + path.len() + own + target;
        if self.metadata > MAX_METADATA {
            return Err(Flaw::TooMuch(MAX_METADATA));
        }
        if path.len() > MAX_PATH {
            return Err(Flaw::at(parent_of(&path), "names are nested too deep below it"));
        }
        let is_directory = entry.kind == InodeKind::Directory;
        if path.is_empty() && !is_directory {
            return Err(Flaw::at("", "the root is not a directory"));
        }
        if let Some(twice) = self.entries.insert(path.clone(), entry) {
            let kind = twice.kind.name();
            return Err(Flaw::at(parent_of(&path), format!("it has the {kind} {} twice", name_of(&path))));
        }
        Ok(is_directory)
    }

    fn read(&self, number: u32) -> Result<InventoryEntry, mkext4::Error> {
        let inode = self.volume.inode(number)?;
        let mut xattrs = BTreeMap::new();
        for attribute in self.volume.xattrs(number, &inode)? {
            let name = attribute.full_name().and_then(|name| String::from_utf8(name).ok());
            let name = name.ok_or_else(|| mkext4::Error::Unsupported("an attribute of this name".into()))?;
            xattrs.insert(name, attribute.value);
        }
        Ok(InventoryEntry {
            inode: number,
            links: inode.links_count,
            kind: self.kind(number, &inode)?,
            mode: inode.mode & 0o7777,
            uid: inode.uid,
            gid: inode.gid,
            mtime: seconds(&inode),
            xattrs,
        })
    }

    fn kind(&self, number: u32, inode: &Inode) -> Result<InodeKind, mkext4::Error> {
        let (major, minor) = inode.dev_numbers().unwrap_or_default();
        Ok(match inode.file_type() {
            FileType::Dir => InodeKind::Directory,
            FileType::Regular => InodeKind::File { size: inode.size },
            FileType::Symlink => {
                let target = self.volume.target(number, inode)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(mkext4::Error::Unsupported("a symlink whose target is not a path".into()));
                }
                InodeKind::Symlink { target: escaped(&target) }
            }
            FileType::CharDev => InodeKind::CharDevice { major, minor },
            FileType::BlockDev => InodeKind::BlockDevice { major, minor },
            FileType::Fifo => InodeKind::Fifo,
            FileType::Socket => InodeKind::Socket,
            FileType::Unknown => {
                let why = format!("inode {number} has an unknown file type");
                return Err(mkext4::Error::Corrupt { what: "inode", why });
            }
        })
    }
}

/// Why a directory cannot be read: its structures, or what they name.
enum DirectoryError {
    Structure(mkext4::Error),
    Name(Flaw),
}

impl From<mkext4::Error> for DirectoryError {
    fn from(error: mkext4::Error) -> Self {
        Self::Structure(error)
    }
}

/// Whether a name can stand in a directory.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|b| matches!(b, b'/' | 0))
}

/// Seconds since the epoch: 32 bits with a sign, and two more bits that count epochs of 2^32 seconds.
fn seconds(inode: &Inode) -> i64 {
    i64::from(inode.mtime as i32) + (i64::from(inode.mtime_extra & 3) << 32)
}
