//! Entries of a package's data member, checked one after the other: what cannot be laid out safely is refused.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::archive::{TarEntry, TarKind};
use super::dependency::Checksum;

/// One entry of the data member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Without a leading slash; no `.`, `..` or empty part, no control character. Its directory has an entry before it, or is
    /// the root.
    pub path: String,
    pub kind: EntryKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    /// By name; where the image does not know the name, the number counts.
    pub owner: String,
    pub group: String,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Sorted by name; values are raw bytes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Of a file's bytes or of a symlink's target.
    pub sha1: Option<[u8; 20]>,
}

/// What an entry of a package or of an image is. `Content` says where a regular file's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind<Content = ()> {
    Directory,
    /// `size` in bytes.
    File {
        size: u64,
        content: Content,
    },
    /// `target` is any text: it is a name inside the image, and sisforge never follows it.
    Symlink {
        target: String,
    },
    /// Another name of the regular file at `target`, which stands earlier: in a package a path without a leading slash. Owner,
    /// mode and attributes are those of the target.
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

impl<Content> EntryKind<Content> {
    /// The same, its bytes from elsewhere.
    pub fn map<Other>(&self, content: impl FnOnce(&Content) -> Other) -> EntryKind<Other> {
        match self {
            Self::Directory => EntryKind::Directory,
            Self::File { size, content: from } => EntryKind::File { size: *size, content: content(from) },
            Self::Symlink { target } => EntryKind::Symlink { target: target.clone() },
            Self::HardLink { target } => EntryKind::HardLink { target: target.clone() },
            Self::CharDevice { major, minor } => EntryKind::CharDevice { major: *major, minor: *minor },
            Self::BlockDevice { major, minor } => EntryKind::BlockDevice { major: *major, minor: *minor },
            Self::Fifo => EntryKind::Fifo,
        }
    }

    /// A word for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symlink",
            Self::HardLink { .. } => "hard link",
            Self::CharDevice { .. } => "character device",
            Self::BlockDevice { .. } => "block device",
            Self::Fifo => "named pipe",
        }
    }
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error(
        "its name begins with './', so apk would not install it: the directory itself was packed as '.', \
         instead of its contents"
    )]
    DotSlash,
    #[error("its name is absolute, or has an empty, '.' or '..' part, or is too long")]
    Path,
    #[error("{0} contains a control character")]
    ControlCharacter(&'static str),
    #[error(
        "the directory lost+found is the file system's own, for what e2fsck recovers: nothing can be put into it"
    )]
    LostFound,
    #[error("its directory has no entry before it")]
    NoDirectory,
    #[error("its parent is not a directory")]
    BelowNoDirectory,
    #[error("it is in the archive twice")]
    Duplicate,
    #[error("it is a hard link to '{0}', which is not a regular file earlier in this package")]
    HardLink(String),
    #[error("its link has no target")]
    NoTarget,
    #[error("device nodes are allowed below dev/ only")]
    Device,
    #[error("{0:o} is not a file mode")]
    Mode(u32),
    #[error("its SHA-1 is {found}, but the archive says {stated}")]
    Sum { stated: String, found: Checksum },
    #[error("its checksum record is malformed")]
    SumRecord,
    #[error("the package's names and attributes take more than {MAX_METADATA} bytes")]
    TooMuch,
}

/// Most bytes of names, targets and attributes of one package: a bound for memory. A large real package (linux-firmware) has
/// under 1 MiB.
const MAX_METADATA: usize = 64 << 20;
/// Fixed cost of one entry in that sum.
const ENTRY_COST: usize = 256;
/// Linux `PATH_MAX`.
const MAX_PATH: usize = 4095;

pub(super) const XATTR_PREFIX: &str = "SCHILY.xattr.";
pub(super) const SUM_KEY: &str = "APK-TOOLS.checksum.SHA1";

/// Entries as they come, and what the next ones may refer to.
#[derive(Default)]
pub(super) struct PackageEntries {
    entries: Vec<Entry>,
    by_path: HashMap<String, usize>,
    metadata: usize,
}

impl PackageEntries {
    /// Checks and keeps one entry; `sum` is the SHA-1 of its bytes or target.
    pub(super) fn add(&mut self, mut header: TarEntry, sum: [u8; 20]) -> Result<(), EntryError> {
        if header.kind == TarKind::Directory {
            header.path.truncate(header.path.trim_end_matches('/').len());
        }
        check_path(&header.path)?;
        for (what, text) in
            [("its link", &header.link), ("its owner", &header.owner), ("its group", &header.group)]
        {
            if text.chars().any(char::is_control) {
                return Err(EntryError::ControlCharacter(what));
            }
        }
        self.check_place(&header.path)?;
        let kind = self.kind(&header)?;
        let xattrs = xattrs(&header)?;
        let sha1 = checked_sum(&header, sum)?;
        self.metadata += ENTRY_COST + 2 * header.path.len() + header.link.len();
        self.metadata += xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.metadata > MAX_METADATA {
            return Err(EntryError::TooMuch);
        }
        let entry = Entry {
            mode: permission_bits(header.mode)?,
            kind,
            owner: header.owner,
            group: header.group,
            uid: header.uid,
            gid: header.gid,
            mtime: header.mtime,
            xattrs,
            sha1,
            path: header.path.clone(),
        };
        self.by_path.insert(header.path, self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The entry that was added last.
    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.last()
    }

    fn at(&self, path: &str) -> Option<&Entry> {
        self.by_path.get(path).map(|index| &self.entries[*index])
    }

    fn check_place(&self, path: &str) -> Result<(), EntryError> {
        if self.at(path).is_some() {
            return Err(EntryError::Duplicate);
        }
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        match self.at(parent) {
            Some(Entry { kind: EntryKind::Directory, .. }) => Ok(()),
            Some(_) => Err(EntryError::BelowNoDirectory),
            None => Err(EntryError::NoDirectory),
        }
    }

    fn kind(&self, header: &TarEntry) -> Result<EntryKind, EntryError> {
        let (major, minor) = header.device;
        let in_dev = header.path.starts_with("dev/");
        Ok(match header.kind {
            TarKind::Directory => EntryKind::Directory,
            TarKind::File => EntryKind::File { size: header.size, content: () },
            TarKind::Symlink if header.link.is_empty() => return Err(EntryError::NoTarget),
            TarKind::Symlink => EntryKind::Symlink { target: header.link.clone() },
            TarKind::HardLink => match self.at(&header.link) {
                Some(Entry { kind: EntryKind::File { .. }, .. }) => {
                    EntryKind::HardLink { target: header.link.clone() }
                }
                _ => return Err(EntryError::HardLink(header.link.clone())),
            },
            TarKind::CharDevice if in_dev => EntryKind::CharDevice { major, minor },
            TarKind::BlockDevice if in_dev => EntryKind::BlockDevice { major, minor },
            TarKind::CharDevice | TarKind::BlockDevice => return Err(EntryError::Device),
            TarKind::Fifo => EntryKind::Fifo,
        })
    }
}

/// Whether apk installs what a package has at a path: it skips what stands at the top with a dot, and what only keeps a
/// directory from being empty.
pub(super) fn is_installed(path: &str, is_directory: bool) -> bool {
    const KEEP: &str = ".keep_";
    let name = path.rsplit('/').next().unwrap_or_default();
    let keeps = !is_directory && name.len() > KEEP.len() && name.starts_with(KEEP);
    !path.starts_with('.') && !keeps
}

impl Entry {
    /// Whether apk installs it at all.
    pub fn is_installed(&self) -> bool {
        is_installed(&self.path, self.kind == EntryKind::Directory)
    }
}

/// Old archives repeat the file type above the permission bits.
fn permission_bits(mode: u32) -> Result<u16, EntryError> {
    let bits = u16::try_from(mode).map_err(|_| EntryError::Mode(mode))?;
    Ok(bits & 0o7777)
}

/// Is this a path that can stand in a package?
pub(super) fn check_path(path: &str) -> Result<(), EntryError> {
    if path.chars().any(char::is_control) {
        return Err(EntryError::ControlCharacter("its name"));
    }
    if path == "." || path.starts_with("./") {
        return Err(EntryError::DotSlash);
    }
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    if path.len() <= MAX_PATH && path.split('/').all(is_part) { Ok(()) } else { Err(EntryError::Path) }
}

fn xattrs(header: &TarEntry) -> Result<BTreeMap<String, Vec<u8>>, EntryError> {
    let mut found = BTreeMap::new();
    for (key, value) in &header.pax {
        let Some(name) = key.strip_prefix(XATTR_PREFIX) else { continue };
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(EntryError::ControlCharacter("the name of an attribute"));
        }
        found.insert(name.to_owned(), value.clone());
    }
    Ok(found)
}

/// The sum of a file or symlink, which must be what the archive states, where it states one.
fn checked_sum(header: &TarEntry, found: [u8; 20]) -> Result<Option<[u8; 20]>, EntryError> {
    if !matches!(header.kind, TarKind::File | TarKind::Symlink) {
        return Ok(None);
    }
    if let Some(stated) = header.pax.get(SUM_KEY) {
        let stated = std::str::from_utf8(stated).map_err(|_| EntryError::SumRecord)?;
        if stated != hex::encode(found) {
            return Err(EntryError::Sum {
                stated: stated.escape_debug().to_string(),
                found: Checksum(found),
            });
        }
    }
    Ok(Some(found))
}
