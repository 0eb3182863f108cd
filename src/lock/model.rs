//! `fleet.lock`: everything that was chosen, so that the same bytes are made again anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize, Serializer};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{FileDigest, FleetName, GuestName, InterfaceName, Label, Sha256};
use crate::fleet::ScriptMoment;

/// The architecture of every guest: apk's and the kernel's name for it. The host's is the same, as KVM needs it.
pub const ARCH: &str = "x86_64";

/// The format that this version writes and reads.
pub const LOCK_VERSION: u32 = 1;

/// A whole `fleet.lock`. Tables are sorted by name, so that a change shows in its own lines alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub version: u32,
    pub fleet: FleetName,
    pub kernel: LockedKernel,
    /// In the order of `fleet.toml`, which decides between equal packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repository: Vec<LockedRepository>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image: BTreeMap<Label, LockedImage>,
    /// Digest of all that a recipe reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recipe: BTreeMap<Label, Sha256>,
    /// Container images on data disks, by their spelling in `fleet.toml`: digest of the archive, or of a layout's
    /// `index.json`, which pins the rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub container: BTreeMap<String, Sha256>,
    /// Files that images take from disk, by their spelling in `fleet.toml`; absent in locks of earlier versions, which are
    /// right without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<BTreeMap<String, Sha256>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", serialize_with = "by_bytes")]
    pub guest: BTreeMap<GuestName, LockedGuest>,
    /// What was built, by `KIND/NAME` as in `out/`; `build` and `up` write it. Absent in locks of earlier versions, and of what was
    /// not built since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifact: BTreeMap<String, LockedArtifact>,
    /// By name, then version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub package: Vec<LockedPackage>,
}

/// Writes guests in the order of bytes, as every table of the file is: so no lock changes by the order in which people list names.
fn by_bytes<S: Serializer>(guests: &BTreeMap<GuestName, LockedGuest>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(guests.iter().map(|(name, guest)| (name.as_str(), guest)).collect::<BTreeMap<_, _>>())
}

/// The kernel's inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedKernel {
    /// The source or the ready image, as `fleet.toml` spells it.
    pub source: String,
    /// Of the tarball, of a source directory's sorted files, or of the ready image.
    pub sha256: Sha256,
    /// Of the keyring whose keys vouched for `sha256`, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<Sha256>,
    /// Of the merged options; absent for a ready image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Sha256>,
    /// Compiler, assembler and linker that the lock was made with: others make other bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<String>,
    /// Of each file of kernel-configs that `config` was made of, the digest of its options: they tell what changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Sha256>,
    /// The options of `fleet.toml` itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A repository that packages were chosen from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRepository {
    /// As `fleet.toml` spells it.
    pub location: String,
    /// `@tag` of apk's pinning, without the `@`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl std::fmt::Display for LockedRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "@{tag} {}", self.location),
            None => f.write_str(&self.location),
        }
    }
}

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    pub arch: String,
    /// What was asked for: recipes' and the file's own packages, sorted.
    pub world: Vec<String>,
    /// `name-version` in install order, which decides who owns a file that two packages bring.
    pub packages: Vec<String>,
}

/// One package, pinned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    pub name: String,
    pub version: String,
    /// The repository as `fleet.toml` spells it.
    pub repository: String,
    /// `Q1...`: apk's identity of the package.
    pub checksum: String,
    /// Bytes of the `.apk`.
    pub size: u64,
    pub sha256: Sha256,
    /// File name of the key that signed the index.
    pub key: String,
    /// SHA-256 of each script that apk would run when it installs the package; locks of earlier versions have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<ScriptMoment, Sha256>,
}

impl LockedPackage {
    /// `name-version`, as [`LockedImage::packages`] refers to it.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// What tells whether an index still lists it: name, version and checksum.
    pub(super) fn identity(&self) -> (String, String, String) {
        (self.name.clone(), self.version.clone(), self.checksum.clone())
    }
}

/// The numbers of a guest, kept for as long as it stays in the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedGuest {
    pub uid: u32,
    /// The guest's address; its host side is the one below it, in a /30.
    pub ip: Ipv4Addr,
    pub mac: crate::base::MacAddress,
    pub tap: InterfaceName,
    /// Ports of the host that lead to it, by what its policy calls them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<Label, u16>,
}

/// An artifact, pinned. It is right for as long as its inputs are: bytes follow from inputs alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedArtifact {
    /// The build key. Of an artifact with other inputs the pin says nothing.
    pub key: String,
    pub digest: FileDigest,
    /// In bytes, holes included.
    pub size: u64,
    /// Of the configuration that stands beside a kernel which was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Sha256>,
}

/// A lock file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    #[error(transparent)]
    File(#[from] crate::sys::fs::FileError),
    #[error("{path} is not a valid lock file: {reason}")]
    Malformed { path: String, reason: String },
    #[error("{path}:{line}: there is a merge conflict")]
    Conflict { path: String, line: usize },
    #[error(
        "{path} was written by a newer sisforge: its version is {version}; this sisforge knows up to \
         version {LOCK_VERSION}"
    )]
    Newer { path: String, version: u32 },
}

/// What every version of a lock has.
#[derive(Deserialize)]
struct LockVersion {
    version: u32,
}

impl Diagnostic for LockFileError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Malformed { .. } => Class::Invalid.hint(
                "restore it from Git, or remove it and run `sisforge lock`, which chooses all \
                  versions again",
            ),
            Self::Conflict { .. } => Class::Invalid.hint(
                "take one side, as with `git checkout --ours fleet.lock`, then run `sisforge lock`, which \
                 adds what the other needs",
            ),
            Self::Newer { .. } => Class::Invalid.hint("use that sisforge, or a newer one"),
        }
    }
}

impl Lock {
    /// Reads a lock; `None` where there is none.
    pub fn read(path: &std::path::Path) -> Result<Option<Self>, LockFileError> {
        let Some(text) = crate::sys::fs::read_text_if_present(path)? else { return Ok(None) };
        let malformed =
            |reason: String| LockFileError::Malformed { path: path.display().to_string(), reason };
        let named = || path.display().to_string();
        let is_mark = |line: &str| ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark));
        if let Some(line) = text.lines().position(is_mark) {
            return Err(LockFileError::Conflict { path: named(), line: line + 1 });
        }
        // Before the rest, which a newer version may write otherwise.
        match toml::from_str(&text).map(|LockVersion { version }| version) {
            Ok(version) if version > LOCK_VERSION => Err(LockFileError::Newer { path: named(), version }),
            Ok(version) if version < LOCK_VERSION => {
                Err(malformed(format!("there was no version {version}")))
            }
            _ => Ok(Some(toml::from_str(&text).map_err(|error| malformed(error.to_string()))?)),
        }
    }

    /// The text of the file.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        let body = toml::to_string_pretty(self)?;
        Ok(format!("# Written by `sisforge lock`. Commit it; do not edit it.\n{body}"))
    }

    /// The digests of all that is downloaded by it: the kernel's source or ready image, and packages.
    pub fn downloads(&self) -> BTreeSet<Sha256> {
        self.package.iter().map(|package| package.sha256).chain([self.kernel.sha256]).collect()
    }

    /// The packages of an image, in install order; the `name-version` of one that the lock does not list.
    pub fn packages_of<'a>(
        &'a self,
        image: &'a LockedImage,
    ) -> impl Iterator<Item = Result<&'a LockedPackage, &'a str>> {
        let by_id: BTreeMap<String, &LockedPackage> = self.package.iter().map(|p| (p.id(), p)).collect();
        image.packages.iter().map(move |id| by_id.get(id).copied().ok_or(id.as_str()))
    }
}
