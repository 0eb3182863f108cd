//! Packages: whole-file bytes become verified contents. Nothing is used before it is checked.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use super::dependency::{Checksum, Dependency};
use super::version::Version;

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
#[error("{package}: {reason}")]
pub struct PackageError {
    /// Name and version, or the file, as far as it is known.
    pub package: String,
    pub reason: String,
}

/// A verified package, ready to be laid out.
#[derive(Clone, Debug)]
pub struct PackageContents {
    pub info: PackageInfo,
    pub scripts: Vec<Script>,
    /// In archive order.
    pub entries: Vec<Entry>,
    /// The compressed data member, inflated again for each reading.
    data: Arc<[u8]>,
}

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PackageInfo {
    pub name: String,
    pub version: Version,
    pub arch: String,
    pub description: String,
    pub url: String,
    pub license: String,
    pub origin: Option<String>,
    pub maintainer: Option<String>,
    pub commit: Option<String>,
    /// Seconds since the epoch.
    pub build_date: Option<u64>,
    /// Bytes on disk, as the package says.
    pub installed_size: u64,
    pub depends: Vec<Dependency>,
    pub install_if: Vec<Dependency>,
    pub provides: Vec<Dependency>,
    pub replaces: Vec<Dependency>,
    pub provider_priority: Option<u64>,
    pub replaces_priority: Option<i64>,
    /// Directories that the trigger script watches.
    pub triggers: Vec<String>,
    /// Identity: SHA-1 of the compressed control member.
    pub checksum: Checksum,
    /// Bytes of the whole `.apk`.
    pub size: u64,
}

/// A script of a package. sisforge never runs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub kind: ScriptKind,
    pub body: Vec<u8>,
}

/// When apk would run a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptKind {
    PreInstall,
    PostInstall,
    PreUpgrade,
    PostUpgrade,
    PreDeinstall,
    PostDeinstall,
    Trigger,
}

/// One entry of the data member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Without a leading slash; no `.`, `..` or empty part, no control character. Its directory has an entry before it,
    /// or is the root.
    pub path: String,
    pub kind: EntryKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub owner: String,
    pub group: String,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Of a file's bytes or of a symlink's target.
    pub sha1: Option<[u8; 20]>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: String,
    },
    /// Another name of the regular file at `target`: a path without leading slash that stands earlier.
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

impl PackageContents {
    /// Verifies the bytes of a whole `.apk` and parses it.
    ///
    /// # Errors
    /// Where anything is not as it should be.
    pub fn verify(bytes: Arc<[u8]>) -> Result<Self, PackageError> {
        let _ = bytes;
        Err(PackageError { package: String::new(), reason: "not built yet".into() })
    }

    /// Streams every regular file's bytes in archive order: `visit(index into entries, reader)`.
    ///
    /// # Errors
    /// What `visit` gives.
    pub fn each_file<E: From<PackageError>>(
        &self,
        mut visit: impl FnMut(usize, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        visit(0, &mut &self.data[..])
    }
}
