//! `check`, `build`, `fetch`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::build::artifacts::ArtifactKind;
use crate::build::{self, Built};
use crate::image::read_back::{self, Mismatch};
use crate::run::check as run;
use crate::sys::e2fsck::FsckOutcome;

/// A fleet that nothing is wrong with.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckedJson {
    /// Always `true`: what is wrong is an error.
    pub ok: bool,
    /// How many guests there are.
    pub guests: usize,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
    /// Why fleet.lock does not fit, one sentence each; none where it fits or is not there.
    pub lock_differs: Vec<String>,
}

/// A file in `out/`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ArtifactJson {
    /// What it is called in `out/`.
    pub name: String,
    pub kind: ArtifactKindJson,
    /// The build key: of all inputs.
    pub key: String,
    /// The file, absolute.
    pub path: PathBuf,
    pub digest: String,
    /// In bytes, holes included.
    pub size: u64,
    /// Whether it was there before.
    pub cached: bool,
    /// Whether it was taken from a registry just now, and not built.
    pub pulled: bool,
}

/// What an artifact is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactKindJson {
    Kernel,
    /// A root image.
    Image,
    /// What data disks begin with.
    Disk,
    /// A store of container images.
    Containers,
}

/// An artifact that was built twice and read back.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ComparisonJson {
    #[serde(flatten)]
    pub artifact: ArtifactJson,
    /// Offset of the first byte that differs; `null` where all are the same.
    pub first_difference: Option<u64>,
    /// What is in the file system, and what was to be; a kernel holds none.
    pub file_system: Option<FileSystem>,
}

/// What reading a file system back has shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FileSystem {
    pub read_back: ReadBackJson,
    pub e2fsck: E2fsck,
}

/// Against what it was made of.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReadBackJson {
    /// How many paths were compared.
    pub paths: usize,
    /// How many bytes of files were compared.
    pub bytes: u64,
    /// What is not as it was to be.
    pub mismatches: Vec<DifferenceJson>,
}

/// A path that is not as it was to be.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DifferenceJson {
    pub path: String,
    pub what: String,
}

/// What e2fsck says of a file system.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum E2fsck {
    Clean,
    /// What it printed.
    Faulty(String),
    NotInstalled,
}

/// A file that a build takes from the network.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InputJson {
    /// `name-version` of a package, `kernel source`, or the container image that a file is of.
    pub name: String,
    pub url: String,
    pub sha256: String,
    /// In bytes.
    pub size: u64,
    /// Where it is on this machine.
    pub path: PathBuf,
}

impl From<&run::Checked> for CheckedJson {
    fn from(checked: &run::Checked) -> Self {
        Self {
            ok: true,
            guests: checked.project.fleet.guests.len(),
            notes: checked.notes.clone(),
            lock_differs: checked.lock_differs.clone(),
        }
    }
}

impl From<&Built> for ArtifactJson {
    fn from(Built { name, artifact }: &Built) -> Self {
        Self {
            name: name.to_string(),
            kind: match artifact.kind {
                ArtifactKind::Kernel => ArtifactKindJson::Kernel,
                ArtifactKind::Image => ArtifactKindJson::Image,
                ArtifactKind::Disk => ArtifactKindJson::Disk,
                ArtifactKind::Containers => ArtifactKindJson::Containers,
            },
            key: artifact.key.to_string(),
            path: artifact.path.clone(),
            digest: artifact.digest.to_string(),
            size: artifact.size,
            cached: artifact.cached,
            pulled: artifact.pulled,
        }
    }
}

impl From<&build::Comparison> for ComparisonJson {
    fn from(comparison: &build::Comparison) -> Self {
        Self {
            artifact: ArtifactJson::from(&comparison.built),
            first_difference: comparison.first_difference,
            file_system: comparison.file_system.as_ref().map(FileSystem::from),
        }
    }
}

impl From<&build::FileSystemCheck> for FileSystem {
    fn from(check: &build::FileSystemCheck) -> Self {
        let read_back::ReadBack { paths, bytes, mismatches } = &check.read_back;
        let difference =
            |Mismatch { path, what }: &Mismatch| DifferenceJson { path: path.clone(), what: what.clone() };
        let mismatches = mismatches.iter().map(difference).collect();
        let e2fsck = match &check.e2fsck {
            FsckOutcome::Clean => E2fsck::Clean,
            FsckOutcome::Faulty(text) => E2fsck::Faulty(text.clone()),
            FsckOutcome::NotInstalled => E2fsck::NotInstalled,
        };
        Self { read_back: ReadBackJson { paths: *paths, bytes: *bytes, mismatches }, e2fsck }
    }
}

impl From<&build::Input> for InputJson {
    fn from(input: &build::Input) -> Self {
        Self {
            name: input.name.clone(),
            url: input.url.clone(),
            sha256: input.sha256.to_string(),
            size: input.size,
            path: input.path.clone(),
        }
    }
}
