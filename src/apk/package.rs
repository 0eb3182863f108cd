//! Packages: the bytes of a whole `.apk` become verified contents. Nothing is used before it is checked.
//!
//! An `.apk` (version 2) is up to three gzip members, each a tar: signatures, control (`.PKGINFO` and scripts), data. The
//! index names the SHA-1 of the compressed control member, which names the SHA-256 of the compressed data member.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::archive::{ArchiveError, TarEntry, TarReader};
use super::dependency::Checksum;
use super::entry::{EntryError, Layout};
use super::gzip::{self, GzipError, MemberReader};
use super::index::{IndexError, signatures};
use super::info::{Draft, InfoError, PackageInfo};
use super::signature::{KeyRing, SignatureError};

pub use super::entry::{Entry, EntryKind};

/// Largest control member, inflated: `.PKGINFO` and a few scripts.
const MAX_CONTROL: u64 = 16 << 20;
/// Largest data member, inflated. It is never held in memory.
const MAX_DATA: u64 = 16 << 30;

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
#[error("package {package}: {reason}")]
pub struct PackageError {
    /// Name and version, as far as they are known.
    pub package: String,
    #[source]
    pub reason: Refusal,
}

/// What is wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the file has {found} bytes, the index says {expected}")]
    Size { expected: u64, found: u64 },
    #[error("its checksum is {found}, the index says {expected}")]
    Checksum { expected: Checksum, found: Checksum },
    #[error("it calls itself {found}")]
    OtherPackage { found: String },
    #[error("signature: {0}")]
    Signature(#[from] SignatureError),
    #[error("signature member: {0}")]
    SignatureMember(IndexError),
    #[error("control member: {0}")]
    ControlGzip(#[from] GzipError),
    #[error("control member: {0}")]
    ControlArchive(ArchiveError),
    #[error("control member: {0}")]
    Control(&'static str),
    #[error("control member: .PKGINFO: {0}")]
    Info(#[from] InfoError),
    #[error("data member: its SHA-256 is {found}, .PKGINFO says {expected}")]
    DataHash { expected: String, found: String },
    #[error("data member: {0}")]
    Data(#[from] ArchiveError),
    #[error("data member: {path}: {reason}")]
    Entry { path: String, reason: EntryError },
}

/// What an index or a lock says of a package: its bytes must agree with all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub name: String,
    pub version: String,
    pub checksum: Checksum,
    /// Bytes of the whole file.
    pub size: u64,
}

impl Expected {
    fn refuse(&self, reason: Refusal) -> PackageError {
        PackageError { package: format!("{}-{}", self.name, self.version), reason }
    }
}

impl From<&PackageInfo> for Expected {
    fn from(info: &PackageInfo) -> Self {
        Self {
            name: info.name.clone(),
            version: info.version.to_string(),
            checksum: info.checksum,
            size: info.size,
        }
    }
}

/// A verified package, ready to be laid out. Cheap to hold: the data stay compressed.
#[derive(Clone, Debug)]
pub struct PackageContents {
    pub info: PackageInfo,
    pub scripts: Vec<Script>,
    /// In archive order.
    pub entries: Vec<Entry>,
    bytes: Arc<[u8]>,
    /// Where the data member begins in `bytes`; it ends with them.
    data: usize,
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
    PreDeinstall,
    PostDeinstall,
    PreUpgrade,
    PostUpgrade,
    Trigger,
}

impl ScriptKind {
    const ALL: [Self; 7] = [
        Self::PreInstall,
        Self::PostInstall,
        Self::PreDeinstall,
        Self::PostDeinstall,
        Self::PreUpgrade,
        Self::PostUpgrade,
        Self::Trigger,
    ];

    /// apk's word for it: the script's file is `.<word>` in a package.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreInstall => "pre-install",
            Self::PostInstall => "post-install",
            Self::PreDeinstall => "pre-deinstall",
            Self::PostDeinstall => "post-deinstall",
            Self::PreUpgrade => "pre-upgrade",
            Self::PostUpgrade => "post-upgrade",
            Self::Trigger => "trigger",
        }
    }
}

impl PackageContents {
    /// Verifies the bytes of a whole `.apk` against what the index says of it: size, identity, data hash and the sum of every
    /// file. The index vouches for the package, so that its own signature is not looked at.
    ///
    /// # Errors
    /// Where anything is not as it should be, with the package, the member and the reason.
    pub fn verify(bytes: Arc<[u8]>, expected: &Expected) -> Result<Self, PackageError> {
        let refuse = |reason| expected.refuse(reason);
        let found = bytes.len() as u64;
        if found != expected.size {
            return Err(refuse(Refusal::Size { expected: expected.size, found }));
        }
        let control = Control::read(&bytes).map_err(refuse)?;
        if control.checksum != expected.checksum {
            let found = control.checksum;
            return Err(refuse(Refusal::Checksum { expected: expected.checksum, found }));
        }
        let (info, scripts, data_hash) = control.parse(found).map_err(refuse)?;
        if info.name != expected.name || info.version.as_str() != expected.version {
            return Err(refuse(Refusal::OtherPackage { found: info.id() }));
        }
        let data = control.data;
        Self::check_data(bytes, data, info, scripts, &data_hash)
    }

    /// Is this package, which says `found` of itself, the one that an index lists?
    pub(super) fn agrees(&self, found: &Expected, listed: &Expected) -> Result<(), PackageError> {
        let refusal = if found.size != listed.size {
            Refusal::Size { expected: listed.size, found: found.size }
        } else if found.checksum != listed.checksum {
            Refusal::Checksum { expected: listed.checksum, found: found.checksum }
        } else if (&found.name, &found.version) != (&listed.name, &listed.version) {
            Refusal::OtherPackage { found: self.info.id() }
        } else {
            return Ok(());
        };
        Err(listed.refuse(refusal))
    }

    /// Verifies a package that no index vouches for, by its own signature; gives the file name of the key too.
    ///
    /// # Errors
    /// As [`PackageContents::verify`], and where no trusted key has signed it.
    pub fn verify_signed(bytes: Arc<[u8]>, keys: &KeyRing) -> Result<(Self, String), PackageError> {
        let unknown = |reason| PackageError { package: "(name not known yet)".into(), reason };
        let control = Control::read(&bytes).map_err(unknown)?;
        let key =
            keys.verify(&control.signatures, control.compressed(&bytes)).map_err(|e| unknown(e.into()))?;
        Ok((Self::inspect(bytes)?, key))
    }

    /// Checks that a package agrees with itself: data hash and sums. Who made it is not checked.
    ///
    /// # Errors
    /// As [`PackageContents::verify`].
    pub fn inspect(bytes: Arc<[u8]>) -> Result<Self, PackageError> {
        let unknown = |reason| PackageError { package: "(name not known yet)".into(), reason };
        let control = Control::read(&bytes).map_err(unknown)?;
        let (info, scripts, data_hash) = control.parse(bytes.len() as u64).map_err(unknown)?;
        let data = control.data;
        Self::check_data(bytes, data, info, scripts, &data_hash)
    }

    fn check_data(
        bytes: Arc<[u8]>,
        data: usize,
        info: PackageInfo,
        scripts: Vec<Script>,
        data_hash: &[u8; 32],
    ) -> Result<Self, PackageError> {
        let mut package = Self { info, scripts, entries: Vec::new(), bytes, data };
        let found = Sha256::digest(package.data());
        if found[..] != data_hash[..] {
            let (expected, found) = (hex::encode(data_hash), hex::encode(found));
            return Err(package.refuse(Refusal::DataHash { expected, found }));
        }
        package.entries = package.read_entries().map_err(|reason| package.refuse(reason))?;
        Ok(package)
    }

    fn refuse(&self, reason: Refusal) -> PackageError {
        PackageError { package: self.info.id(), reason }
    }

    fn data(&self) -> &[u8] {
        &self.bytes[self.data..]
    }

    fn read_entries(&self) -> Result<Vec<Entry>, Refusal> {
        let mut layout = Layout::default();
        if self.data().is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = TarReader::new(MemberReader::new(self.data(), MAX_DATA));
        while let Some(header) = reader.next_entry()? {
            let path = header.path.clone();
            let refuse = |reason| Refusal::Entry { path: path.escape_debug().to_string(), reason };
            let sum = content_sum(&header, &mut reader)?;
            layout.add(header, sum).map_err(refuse)?;
        }
        Ok(layout.into_entries())
    }

    /// Streams every regular file's bytes in archive order: `visit(index into entries, reader)`. What `visit` leaves unread is
    /// skipped.
    ///
    /// # Errors
    /// What `visit` gives. The bytes were verified before, so that reading them fails only where memory does.
    pub fn each_file<E: From<PackageError>>(
        &self,
        mut visit: impl FnMut(usize, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.data().is_empty() {
            return Ok(());
        }
        let mut reader = TarReader::new(MemberReader::new(self.data(), MAX_DATA));
        let mut index = 0;
        while reader.next_entry().map_err(|error| self.refuse(error.into()))?.is_some() {
            if matches!(self.entries[index].kind, EntryKind::File { .. }) {
                visit(index, &mut reader)?;
            }
            index += 1;
        }
        Ok(())
    }
}

/// SHA-1 of a file's bytes, or of a symlink's target.
fn content_sum(header: &TarEntry, reader: &mut impl Read) -> Result<[u8; 20], ArchiveError> {
    let mut hash = Sha1::new();
    if header.size == 0 {
        hash.update(header.link.as_bytes());
    } else {
        io::copy(reader, &mut hash)?;
    }
    Ok(hash.finalize().into())
}

/// The control member, and where its neighbours are.
struct Control {
    signatures: Vec<super::signature::Signature>,
    inflated: Vec<u8>,
    checksum: Checksum,
    /// Where the control member begins and the data member begins.
    start: usize,
    data: usize,
}

impl Control {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let (signatures, signed) = signatures(bytes).map_err(Refusal::SignatureMember)?;
        let member = gzip::first_member(signed, MAX_CONTROL)?;
        Ok(Self {
            signatures,
            checksum: Checksum::of(member.compressed),
            start: bytes.len() - signed.len(),
            data: bytes.len() - member.rest.len(),
            inflated: member.inflated,
        })
    }

    fn compressed<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.data]
    }

    fn parse(&self, size: u64) -> Result<(PackageInfo, Vec<Script>, [u8; 32]), Refusal> {
        let mut reader = TarReader::new(&self.inflated[..]);
        let mut files = BTreeMap::new();
        while let Some(entry) = reader.next_entry().map_err(Refusal::ControlArchive)? {
            if !entry.path.starts_with('.') || entry.path.contains('/') {
                return Err(Refusal::Control("it holds a file that belongs into the data member"));
            }
            let mut body = Vec::new();
            reader.read_to_end(&mut body).map_err(|error| Refusal::ControlArchive(error.into()))?;
            if files.insert(entry.path, body).is_some() {
                return Err(Refusal::Control("a file stands in it twice"));
            }
        }
        if files.contains_key(".INSTALL") {
            return Err(Refusal::Control("it holds .INSTALL, which apk no longer knows"));
        }
        let info = files.remove(".PKGINFO").ok_or(Refusal::Control("it has no .PKGINFO"))?;
        let info = String::from_utf8(info).map_err(|_| Refusal::Control(".PKGINFO is not UTF-8"))?;
        let draft = Draft::from_pkginfo(&info)?;
        let data_hash = draft.data_hash.ok_or(InfoError::Missing("datahash"))?;
        let script =
            |kind: ScriptKind| files.remove(&format!(".{}", kind.as_str())).map(|body| Script { kind, body });
        let scripts = ScriptKind::ALL.into_iter().filter_map(script).collect();
        Ok((draft.finish(self.checksum, size)?, scripts, data_hash))
    }
}
