//! Packages: the bytes of a whole `.apk` become verified contents. Nothing is used before it is checked.
//!
//! An `.apk` (version 2) is up to three gzip members, each a tar: signatures, control (`.PKGINFO` and scripts), data. The
//! index names the SHA-1 of the compressed control member, which names the SHA-256 of the compressed data member.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use crate::base::{Diagnosis, Diagnostic, Sha256};
use crate::fleet::ScriptMoment;

use super::archive::{ArchiveError, TarEntry, TarReader};
use super::control::{ControlMember, Stated};
use super::dependency::Checksum;
use super::entry::{Entry, PackageEntries};
use super::foreign::ForeignFormat;
use super::gzip::MemberReader;
use super::info::PackageInfo;
use super::refusal::Refusal;
use super::scripts::Script;
use super::signature::KeyRing;
use super::stored::{Opened, Stored};

/// Largest data member, inflated. It is never held in memory.
pub(super) const MAX_DATA: u64 = 16 << 30;

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
#[error("package {package}: {reason}")]
pub struct PackageError {
    /// Name and version, as far as they are known.
    pub package: String,
    #[source]
    pub reason: Refusal,
}

impl Diagnostic for PackageError {
    fn diagnosis(&self) -> Diagnosis {
        self.reason.diagnosis()
    }
}

/// What an index or a lock says of a package: its bytes must agree with all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedPackage {
    pub name: String,
    pub version: String,
    pub checksum: Checksum,
    /// Bytes of the whole file.
    pub size: u64,
}

impl From<&PackageInfo> for ExpectedPackage {
    fn from(info: &PackageInfo) -> Self {
        Self {
            name: info.name.clone(),
            version: info.version.to_string(),
            checksum: info.checksum,
            size: info.size,
        }
    }
}

/// A verified package, ready to be laid out. Cheap to hold: the data stay compressed, in memory or in their file.
#[derive(Clone, Debug)]
pub struct PackageContents {
    pub info: PackageInfo,
    pub scripts: Vec<Script>,
    /// In archive order.
    pub entries: Vec<Entry>,
    /// The text that `info` was read from.
    pub(super) pkginfo: String,
    pub(super) bytes: Stored,
    /// SHA-256 of the whole file, for one that is read again.
    pub(super) sha256: Option<Sha256>,
    /// Where the data member begins; it ends with the file.
    pub(super) data: usize,
}

impl PackageContents {
    /// SHA-256 of the whole file, for one that is read again.
    pub fn sha256(&self) -> Option<Sha256> {
        self.sha256
    }

    /// SHA-256 of each script that apk would run when it installs the package for the first time.
    pub fn scripts_at_install(&self) -> BTreeMap<ScriptMoment, Sha256> {
        let scripts = self.scripts.iter();
        scripts.filter_map(|script| Some((script.kind.moment()?, Sha256::of(&script.body)))).collect()
    }

    /// The body of the script that apk would run at this moment of an installation.
    pub fn script_at(&self, at: ScriptMoment) -> Option<&[u8]> {
        self.scripts
            .iter()
            .find(|script| script.kind.moment() == Some(at))
            .map(|script| script.body.as_slice())
    }
}

impl PackageContents {
    /// Verifies the bytes of a whole `.apk` against what the index says of it: size, identity, data hash and the sum of every
    /// file. The index vouches for the package, so that its own signature is not looked at.
    pub fn verify(bytes: Arc<[u8]>, expected: &ExpectedPackage) -> Result<Self, PackageError> {
        let stored = Stored::Memory(bytes);
        let verified =
            stored.open().map_err(Refusal::Read).and_then(|opened| Verified::read(&opened, expected));
        verified.map(|verified| verified.of(stored, None)).map_err(|reason| expected.refuse(reason))
    }

    /// The same of a file, of which no more than a beginning is held in memory; gives the SHA-256 of the whole file too. Where
    /// that is known, it is checked first.
    pub fn verify_file(
        path: PathBuf,
        sha256: Option<&Sha256>,
        expected: &ExpectedPackage,
    ) -> Result<(Self, Sha256), PackageError> {
        let stored = Stored::File(path);
        let verify = || {
            let opened = stored.open().map_err(Refusal::Read)?;
            ForeignFormat::refuse(&opened.head)?;
            let found = opened.sha256(0).map_err(Refusal::Read)?;
            check_digest(sha256.unwrap_or(&found), &found)?;
            Ok((Verified::read(&opened, expected)?, found))
        };
        let (verified, found) = verify().map_err(|reason| expected.refuse(reason))?;
        Ok((verified.of(stored, Some(found)), found))
    }

    /// Is this package, which says `found` of itself, the one that an index lists?
    pub(super) fn agrees(
        &self,
        found: &ExpectedPackage,
        listed: &ExpectedPackage,
    ) -> Result<(), PackageError> {
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
    pub fn verify_signed(bytes: Arc<[u8]>, keys: &KeyRing) -> Result<(Self, String), PackageError> {
        let control = ControlMember::read(&bytes).map_err(unnamed)?;
        let key =
            keys.verify(&control.signatures, control.compressed(&bytes)).map_err(|e| unnamed(e.into()))?;
        Ok((Self::inspect(bytes)?, key))
    }

    /// Checks that a package agrees with itself: data hash and sums. Who made it is not checked.
    pub fn inspect(bytes: Arc<[u8]>) -> Result<Self, PackageError> {
        let stored = Stored::Memory(bytes);
        let opened = stored.open().map_err(|error| unnamed(Refusal::Read(error)))?;
        let control = ControlMember::read(&opened.head).map_err(unnamed)?;
        let stated = control.parse(opened.size).map_err(unnamed)?;
        let package = stated.info.id();
        let verified = Verified::data(&opened, control.data, stated);
        let verified = verified.map_err(|reason| PackageError { package, reason })?;
        drop(opened);
        Ok(verified.of(stored, None))
    }
}

fn unnamed(reason: Refusal) -> PackageError {
    PackageError { package: "(name not known yet)".into(), reason }
}

pub(super) fn check_digest(expected: &Sha256, found: &Sha256) -> Result<(), Refusal> {
    if expected == found {
        return Ok(());
    }
    Err(Refusal::Digest { expected: *expected, found: *found })
}

impl ExpectedPackage {
    fn refuse(&self, reason: Refusal) -> PackageError {
        PackageError { package: format!("{}-{}", self.name, self.version), reason }
    }
}

/// What verifying gives.
struct Verified {
    stated: Stated,
    entries: Vec<Entry>,
    data: usize,
}

impl Verified {
    fn read(opened: &Opened<'_>, expected: &ExpectedPackage) -> Result<Self, Refusal> {
        ForeignFormat::refuse(&opened.head)?;
        if opened.size != expected.size {
            return Err(Refusal::Size { expected: expected.size, found: opened.size });
        }
        let control = ControlMember::read(&opened.head)?;
        if control.checksum != expected.checksum {
            return Err(Refusal::Checksum { expected: expected.checksum, found: control.checksum });
        }
        let stated = control.parse(opened.size)?;
        if stated.info.name != expected.name || stated.info.version.as_str() != expected.version {
            return Err(Refusal::OtherPackage { found: stated.info.id() });
        }
        Self::data(opened, control.data, stated)
    }

    /// Checks the data member against what the control member says of it.
    fn data(opened: &Opened<'_>, data: usize, stated: Stated) -> Result<Self, Refusal> {
        let found = opened.sha256(data).map_err(Refusal::Read)?;
        if found != stated.data_hash {
            return Err(Refusal::DataHash { expected: stated.data_hash, found });
        }
        let mut layout = PackageEntries::default();
        if opened.size > data as u64 {
            let mut reader = TarReader::new(data_reader(opened, data)?);
            while let Some(header) = reader.next_entry()? {
                let path = header.path.clone();
                let sum = content_sum(&header, &mut reader)?;
                layout
                    .add(header, sum)
                    .map_err(|reason| Refusal::Entry { path: path.escape_debug().to_string(), reason })?;
            }
        }
        Ok(Self { stated, entries: layout.into_entries(), data })
    }

    fn of(self, bytes: Stored, sha256: Option<Sha256>) -> PackageContents {
        let Stated { info, pkginfo, scripts, .. } = self.stated;
        PackageContents { info, scripts, entries: self.entries, pkginfo, bytes, sha256, data: self.data }
    }
}

/// The data member, inflated as it is read; bytes after it are an error.
fn data_reader<'a>(opened: &'a Opened<'_>, data: usize) -> Result<impl BufRead + 'a, Refusal> {
    Ok(MemberReader::buffered(opened.reader(data).map_err(Refusal::Read)?, MAX_DATA))
}

/// SHA-1 of a file's bytes, or of a symlink's target.
fn content_sum(header: &TarEntry, reader: &mut impl BufRead) -> Result<[u8; 20], ArchiveError> {
    let mut hash = Sha1::new();
    if header.size == 0 {
        hash.update(header.link.as_bytes());
    } else {
        while let bytes @ [_, ..] = reader.fill_buf()? {
            hash.update(bytes);
            let count = bytes.len();
            reader.consume(count);
        }
    }
    Ok(hash.finalize().into())
}
