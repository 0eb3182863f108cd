//! `fleet.lock`: everything that was chosen, so that the same bytes are made again anywhere.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::fleet::{FleetName, GuestName, InterfaceName, Label, Sha256};

/// The format that this version writes and reads.
pub const LOCK_VERSION: u32 = 1;

/// A whole `fleet.lock`. Tables are sorted by name, so that a change shows in its own lines alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub version: u32,
    pub fleet: FleetName,
    pub kernel: LockedKernel,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image: BTreeMap<Label, LockedImage>,
    /// Digest of all that a recipe reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recipe: BTreeMap<Label, Sha256>,
    /// Container images on data disks, by their spelling in `fleet.toml`: digest of the archive, or of a layout's
    /// `index.json`, which pins the rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub container: BTreeMap<String, Sha256>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guest: BTreeMap<GuestName, LockedGuest>,
    /// By name, then version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub package: Vec<LockedPackage>,
}

/// The kernel's inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedKernel {
    /// The source or the ready image, as `fleet.toml` spells it.
    pub source: String,
    /// Of the tarball, of a source directory's sorted files, or of the ready image.
    pub sha256: Sha256,
    /// Of the merged wishes; absent for a ready image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Sha256>,
    /// Compiler, assembler and linker that the lock was made with: others make other bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<String>,
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
}

impl LockedPackage {
    /// `name-version`, as [`LockedImage::packages`] refers to it.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// The numbers of a guest, kept for as long as it stays in the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedGuest {
    pub uid: u32,
    /// The guest's address; its host side is the one below it, in a /30.
    pub ip: Ipv4Addr,
    pub mac: String,
    pub tap: InterfaceName,
}

/// A lock file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    #[error(transparent)]
    File(#[from] crate::sys::fs::FileError),
    #[error("{path} is not a lock file of this version: {reason}")]
    Malformed { path: String, reason: String },
}

impl Lock {
    /// Reads a lock; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read or does not parse.
    pub fn read(path: &std::path::Path) -> Result<Option<Self>, LockFileError> {
        let Some(text) = crate::sys::fs::read_text_if_present(path)? else { return Ok(None) };
        let malformed =
            |reason: String| LockFileError::Malformed { path: path.display().to_string(), reason };
        let lock: Self = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if lock.version != LOCK_VERSION {
            return Err(malformed(format!(
                "its version is {}, this sisforge knows {LOCK_VERSION}",
                lock.version
            )));
        }
        Ok(Some(lock))
    }

    /// The text of the file.
    ///
    /// # Errors
    /// Never for a lock that this crate made; the type is the serializer's.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        let body = toml::to_string_pretty(self)?;
        Ok(format!("# Written by `sisforge lock`. Commit it; do not edit it.\n{body}"))
    }

    /// The packages of an image, in install order. `None` stands for one that the lock does not list.
    pub fn packages_of<'a>(
        &'a self,
        image: &'a LockedImage,
    ) -> impl Iterator<Item = Option<&'a LockedPackage>> {
        let by_id: BTreeMap<String, &LockedPackage> = self.package.iter().map(|p| (p.id(), p)).collect();
        image.packages.iter().map(move |id| by_id.get(id).copied())
    }
}

/// What differs between two locks, one line each, for people.
pub fn changes(old: Option<&Lock>, new: &Lock) -> Vec<String> {
    let mut lines = Vec::new();
    let old_packages: BTreeMap<&str, &LockedPackage> =
        old.iter().flat_map(|lock| &lock.package).map(|p| (p.name.as_str(), p)).collect();
    let new_packages: BTreeMap<&str, &LockedPackage> =
        new.package.iter().map(|p| (p.name.as_str(), p)).collect();
    for (name, package) in &new_packages {
        match old_packages.get(name) {
            None => lines.push(format!("add {name} {}", package.version)),
            Some(before) if before.version != package.version => {
                lines.push(format!("update {name} {} -> {}", before.version, package.version));
            }
            Some(before) if before.sha256 != package.sha256 => {
                lines.push(format!(
                    "rebuild {name} {}: another package behind the same version",
                    package.version
                ));
            }
            Some(_) => {}
        }
    }
    for (name, package) in &old_packages {
        if !new_packages.contains_key(name) {
            lines.push(format!("remove {name} {}", package.version));
        }
    }
    lines.extend(changes_by_name("recipe", old.map(|l| &l.recipe), &new.recipe));
    lines.extend(changes_by_name("container image", old.map(|l| &l.container), &new.container));
    lines.extend(changes_by_name("guest", old.map(|l| &l.guest), &new.guest));
    if let Some(old) = old.filter(|old| old.kernel != new.kernel) {
        lines.push(kernel_change(&old.kernel, &new.kernel));
    }
    lines
}

fn kernel_change(old: &LockedKernel, new: &LockedKernel) -> String {
    let changed = [
        ("source", old.source != new.source || old.sha256 != new.sha256),
        ("config", old.config != new.config),
        ("patches", old.patches != new.patches),
        ("toolchain", old.toolchain != new.toolchain),
    ];
    let changed: Vec<_> = changed.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    format!("update kernel: {}", changed.join(", "))
}

fn changes_by_name<K: Ord + std::fmt::Display, V: PartialEq>(
    kind: &str,
    old: Option<&BTreeMap<K, V>>,
    new: &BTreeMap<K, V>,
) -> Vec<String> {
    let nothing = BTreeMap::new();
    let old = old.unwrap_or(&nothing);
    let added = new.iter().filter_map(|(name, value)| match old.get(name) {
        None => Some(format!("add {kind} {name}")),
        Some(before) if before != value => Some(format!("update {kind} {name}")),
        Some(_) => None,
    });
    let removed =
        old.keys().filter(|name| !new.contains_key(name)).map(|name| format!("remove {kind} {name}"));
    added.chain(removed).collect()
}
