//! `apk ls`, `apk solve`, `apk verify`, `apk pack`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::apk::{Chosen, Dependency, Entry, EntryKind, PackageInfo, SolveError, Trusted};
use crate::run::packing::WrittenPackage;

/// What is in an index or a package.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ApkFileJson {
    Index {
        file: PathBuf,
        description: String,
        packages: Vec<ApkPackageJson>,
        /// Records that apk would not install: name and version, and the reason.
        rejected: Vec<(String, String)>,
    },
    Package {
        file: PathBuf,
        #[serde(flatten)]
        info: Box<ApkPackageJson>,
        /// Kinds of its scripts, such as `post-install`.
        scripts: Vec<String>,
        entries: Vec<ApkEntryJson>,
    },
}

/// What an index or a `.PKGINFO` says of a package.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ApkPackageJson {
    pub name: String,
    pub version: String,
    pub arch: String,
    pub description: String,
    pub url: String,
    pub license: String,
    pub origin: Option<String>,
    /// Of the file, in bytes.
    pub size: u64,
    /// Of the installed files, in bytes.
    pub installed_size: u64,
    /// SHA-1 of the control member: `Q1` and base64.
    pub checksum: String,
    pub depends: Vec<String>,
    pub provides: Vec<String>,
    pub install_if: Vec<String>,
    pub replaces: Vec<String>,
    pub provider_priority: Option<u64>,
    pub triggers: Vec<String>,
}

/// A file in a package.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ApkEntryJson {
    pub path: String,
    /// One letter: `-` file, `d` directory, `l` symlink, `h` hard link, `c` and `b` devices, `p` named pipe.
    pub kind: String,
    /// Four octal digits.
    pub mode: String,
    pub owner: String,
    pub group: String,
    pub uid: u32,
    pub gid: u32,
    /// Of a file, in bytes.
    pub size: Option<u64>,
    /// Of a link.
    pub target: Option<String>,
    /// 40 hexadecimal digits.
    pub sha1: Option<String>,
    /// Values in hexadecimal digits.
    pub xattrs: BTreeMap<String, String>,
}

/// What apk would install, or why it cannot.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SolvedJson {
    Solved {
        /// In the order of their installation.
        packages: Vec<ChosenJson>,
    },
    Unsolvable {
        error: String,
        problems: Vec<UnmetJson>,
    },
}

/// A package that apk would install.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChosenJson {
    pub name: String,
    pub version: String,
    pub arch: String,
    /// The tag of its repository, if the package was asked for by it.
    pub tag: Option<String>,
    pub repository: String,
    /// SHA-1 of the control member: `Q1` and base64.
    pub checksum: String,
    /// Of the file, in bytes.
    pub size: u64,
    /// Of the installed files, in bytes.
    pub installed_size: u64,
}

/// A dependency that cannot be met.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnmetJson {
    /// The dependency, and why it cannot be met.
    pub what: String,
    /// The packages that lead to it, from the world on; empty if the world itself names it.
    pub by_way_of: Vec<String>,
    pub hint: Option<String>,
}

/// Whether a file is intact and signed by a trusted key.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum VerifiedJson {
    Package {
        file: PathBuf,
        ok: bool,
        /// Name and version.
        package: String,
        key: String,
        /// How many files it has.
        entries: usize,
        /// Whether the index next to it lists exactly this package.
        listed: bool,
    },
    Index {
        file: PathBuf,
        ok: bool,
        packages: usize,
        key: String,
        /// Records that apk would not install: name and version, and the reason.
        rejected: Vec<(String, String)>,
    },
    Refused {
        file: PathBuf,
        ok: bool,
        reason: String,
    },
}

/// A package that was made; one line for each.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PackedJson {
    pub name: String,
    pub version: String,
    pub file: PathBuf,
    /// What was left out or changed.
    pub notes: Vec<String>,
}

impl From<&WrittenPackage> for PackedJson {
    fn from(package: &WrittenPackage) -> Self {
        Self {
            name: package.info.name.clone(),
            version: package.info.version.to_string(),
            file: package.file.clone(),
            notes: package.notes.clone(),
        }
    }
}

impl From<&PackageInfo> for ApkPackageJson {
    fn from(info: &PackageInfo) -> Self {
        let list = |all: &[Dependency]| all.iter().map(Dependency::to_string).collect();
        Self {
            name: info.name.to_string(),
            version: info.version.to_string(),
            arch: info.arch.to_string(),
            description: info.description.clone(),
            url: info.url.clone(),
            license: info.license.clone(),
            origin: info.origin.clone(),
            size: info.size,
            installed_size: info.installed_size,
            checksum: info.checksum.to_string(),
            depends: list(&info.depends),
            provides: list(&info.provides),
            install_if: list(&info.install_if),
            replaces: list(&info.replaces),
            provider_priority: info.provider_priority,
            triggers: info.triggers.clone(),
        }
    }
}

impl ApkEntryJson {
    /// With the letter of its kind, and what it links to.
    pub fn new(entry: &Entry, kind: char, target: Option<&str>) -> Self {
        Self {
            path: entry.path.clone(),
            kind: kind.to_string(),
            mode: format!("{:04o}", entry.mode),
            owner: entry.owner.clone(),
            group: entry.group.clone(),
            uid: entry.uid,
            gid: entry.gid,
            size: if let EntryKind::File { size, .. } = entry.kind { Some(size) } else { None },
            target: target.map(str::to_owned),
            sha1: entry.sha1.map(hex::encode),
            xattrs: entry.xattrs.iter().map(|(name, value)| (name.clone(), hex::encode(value))).collect(),
        }
    }
}

impl ChosenJson {
    /// A package of the repository with this address.
    pub fn new(chosen: &Chosen<'_>, repository: &str) -> Self {
        let info = chosen.info;
        Self {
            name: info.name.to_string(),
            version: info.version.to_string(),
            arch: info.arch.to_string(),
            tag: chosen.tag.map(str::to_owned),
            repository: repository.to_owned(),
            checksum: info.checksum.to_string(),
            size: info.size,
            installed_size: info.installed_size,
        }
    }
}

impl SolvedJson {
    /// Why there is no answer; `error` says it in one line.
    pub fn unsolvable(error: String, why: &SolveError) -> Self {
        let problems = why.problems.iter().map(|problem| UnmetJson {
            what: problem.what.clone(),
            by_way_of: problem.by_way_of.clone(),
            hint: problem.hint.clone(),
        });
        Self::Unsolvable { error, problems: problems.collect() }
    }
}

impl VerifiedJson {
    /// A file that was verified, or why it is refused.
    pub fn new(file: PathBuf, result: Result<&Trusted, String>) -> Self {
        match result {
            Ok(Trusted::Package { id, key, entries, listed }) => Self::Package {
                file,
                ok: true,
                package: id.clone(),
                key: key.clone(),
                entries: *entries,
                listed: *listed,
            },
            Ok(Trusted::Index { key, packages, rejected }) => Self::Index {
                file,
                ok: true,
                packages: *packages,
                key: key.clone(),
                rejected: rejected.clone(),
            },
            Err(reason) => Self::Refused { file, ok: false, reason },
        }
    }
}
