//! What `fleet.toml` and the files beside it ask for today, found without any network: a lock is right for as long as
//! it agrees with this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{Label, Sha256};
use crate::fleet::{ContainerImage, FileContent, Fleet, KernelSpec, RepositorySpec, Source};
use crate::sys::fs::{self as files, FileError};

use crate::sys::digest::sha256_of_file;

use super::digest::Digests;
use super::kernel_config::{KernelConfig, KernelParts};
use super::model::{LockedPackage, LockedRepository};

/// What recipes ask for, as far as a lock pins it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipePins {
    /// Of every recipe that an image uses, also of those that another one extends: digest of all that it reads.
    pub digests: BTreeMap<Label, Sha256>,
    /// The packages that each image's recipes ask for.
    pub packages: BTreeMap<Label, Vec<String>>,
}

/// What a lock must agree with.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub kernel: WantedKernel,
    /// In the order of the file.
    pub repositories: Vec<WantedRepository>,
    /// apk's world of each image, sorted, nothing twice.
    pub worlds: BTreeMap<Label, Vec<String>>,
    pub recipes: BTreeMap<Label, Sha256>,
    /// By the spelling in `fleet.toml`; `None` for a tag of a registry, which may lead elsewhere each day, and for what is left to
    /// those who build.
    pub containers: BTreeMap<String, Option<Sha256>>,
    /// Files that images take from disk, by the spelling in `fleet.toml`.
    pub files: BTreeMap<String, Sha256>,
}

/// The kernel that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedKernel {
    /// As `fleet.toml` spells it.
    pub source: String,
    /// Of what is on this machine, or else what `fleet.toml` demands; `None` for an address without a digest, and where it is left
    /// to those who build.
    pub sha256: Option<Sha256>,
    /// Of the keyring that must vouch for the source.
    pub keyring: Option<Sha256>,
    /// `None` for a ready image.
    pub config: Option<Sha256>,
    pub patches: Vec<Sha256>,
    pub parts: KernelParts,
}

/// A repository that is asked for, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRepository {
    pub locked: LockedRepository,
    /// File names of keys.
    pub keys: BTreeSet<String>,
}

/// Files that `fleet.toml` mentions and that cannot be read, or are others than it says.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} has the SHA-256 {found}, but [kernel] sha256 in fleet.toml is {expected}", path.display())]
    Digest { path: PathBuf, expected: Sha256, found: Sha256 },
}

impl Diagnostic for WantedError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Digest { .. } => {
                Class::Invalid.hint("restore that file, or write the new digest into [kernel] sha256")
            }
        }
    }
}

impl Wanted {
    /// Reads what a fleet asks for; `config` is that of a kernel that is to be built. Large files are read only when they changed
    /// since `digests` saw them.
    pub fn of(
        fleet: &Fleet,
        recipes: &RecipePins,
        config: Option<&KernelConfig>,
        digests: &Digests,
    ) -> Result<Self, WantedError> {
        let worlds = fleet.images.iter().map(|(name, image)| {
            let own = recipes.packages.get(name).into_iter().flatten();
            let world: BTreeSet<&String> = own.chain(&image.packages).collect();
            (name.clone(), world.into_iter().cloned().collect())
        });
        Ok(Self {
            kernel: kernel(fleet, config, digests)?,
            repositories: fleet
                .repositories
                .iter()
                .map(|r| repository(&fleet.root, r))
                .collect::<Result<_, _>>()?,
            worlds: worlds.collect(),
            recipes: recipes.digests.clone(),
            containers: containers(fleet, digests)?,
            files: image_files(fleet, digests)?,
        })
    }
}

impl Wanted {
    /// The repository at a place, if it is still asked for.
    pub fn repository(&self, location: &str) -> Option<&WantedRepository> {
        self.repositories.iter().find(|repository| repository.locked.location == location)
    }

    /// Whether the key by which a package was chosen is still trusted for its repository.
    pub fn trusts(&self, package: &LockedPackage) -> bool {
        let mut named = self.repositories.iter().filter(|r| r.locked.location == package.repository);
        named.any(|repository| repository.keys.contains(&package.key))
    }
}

/// A path as a lock has it: relative to the fleet's directory where it is below it, or was written so.
pub fn spelled_path(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// A place as a lock has it.
pub fn spelled(root: &Path, source: &Source) -> String {
    match source {
        Source::Url(url) => url.clone(),
        Source::Path(path) => spelled_path(root, path),
    }
}

/// The reference behind the path of a container image.
fn behind(reference: &Option<String>) -> String {
    reference.as_ref().map(|reference| format!(":{reference}")).unwrap_or_default()
}

/// A container image as `fleet.toml` spells it.
pub fn spelled_container(root: &Path, image: &ContainerImage) -> String {
    match image {
        ContainerImage::OciArchive { path, reference } => {
            format!("oci-archive:{}{}", spelled_path(root, path), behind(reference))
        }
        ContainerImage::OciLayout { path, reference } => {
            format!("oci:{}{}", spelled_path(root, path), behind(reference))
        }
        ContainerImage::DockerArchive(path) => format!("docker-archive:{}", spelled_path(root, path)),
        ContainerImage::Registry(image) => image.to_string(),
    }
}

/// Digest of the kernel's source, or of a ready kernel, which must be what `fleet.toml` demands.
fn on_this_machine(
    fleet: &Fleet,
    digests: &Digests,
    path: &Path,
    expected: Option<Sha256>,
) -> Result<Option<Sha256>, WantedError> {
    if is_left_to_builders(fleet, path) {
        return Ok(expected);
    }
    match (digests.of(path)?, expected) {
        (found, Some(expected)) if found != expected => {
            Err(WantedError::Digest { path: path.to_owned(), expected, found })
        }
        (found, _) => Ok(Some(found)),
    }
}

fn kernel(
    fleet: &Fleet,
    config: Option<&KernelConfig>,
    digests: &Digests,
) -> Result<WantedKernel, WantedError> {
    let on_this_machine = |path: &Path, expected| on_this_machine(fleet, digests, path, expected);
    match &fleet.kernel {
        KernelSpec::Ready { image, sha256, .. } => Ok(WantedKernel {
            source: spelled_path(&fleet.root, image),
            sha256: on_this_machine(image, *sha256)?,
            keyring: None,
            config: None,
            patches: Vec::new(),
            parts: KernelParts::default(),
        }),
        KernelSpec::Build(build) => {
            let patches = build.patches.iter().map(|path| files::read(path).map(Sha256::of));
            Ok(WantedKernel {
                source: spelled(&fleet.root, &build.source),
                sha256: match &build.source {
                    Source::Url(_) => build.sha256,
                    Source::Path(path) => on_this_machine(path, build.sha256)?,
                },
                keyring: build
                    .keyring
                    .as_deref()
                    .map(|path| files::read(path).map(Sha256::of))
                    .transpose()?,
                config: config.map(|config| Sha256::of(config.requested.to_allconfig())),
                parts: config.map(|config| config.parts.clone()).unwrap_or_default(),
                patches: patches.collect::<Result<_, _>>()?,
            })
        }
    }
}

/// Whether a file is absent from a host that need not build: it takes from a registry what others built, and what is pinned of the
/// file stands.
fn is_left_to_builders(fleet: &Fleet, path: &Path) -> bool {
    fleet.artifacts.is_some() && !path.exists()
}

fn repository(root: &Path, spec: &RepositorySpec) -> Result<WantedRepository, FileError> {
    let mut keys = BTreeSet::new();
    for dir in &spec.keys {
        let named = || FileError::when("list", dir);
        for entry in std::fs::read_dir(dir).map_err(named())? {
            let name = entry.map_err(named())?.file_name().to_string_lossy().into_owned();
            keys.extend(Some(name).filter(|name| name.ends_with(".rsa.pub")));
        }
    }
    Ok(WantedRepository {
        locked: LockedRepository { location: spelled(root, &spec.location), tag: spec.tag.clone() },
        keys,
    })
}

/// Every container image that a fleet mentions, by its spelling.
pub fn mentioned_containers(fleet: &Fleet) -> BTreeMap<String, &ContainerImage> {
    let disks = fleet.disks.values().chain(fleet.guests.values().map(|guest| &guest.disk));
    disks.flat_map(|disk| &disk.images).map(|image| (spelled_container(&fleet.root, image), image)).collect()
}

fn containers(fleet: &Fleet, digests: &Digests) -> Result<BTreeMap<String, Option<Sha256>>, FileError> {
    let of = |(spelled, image): (String, &ContainerImage)| {
        let sha256 = match image {
            ContainerImage::OciArchive { path, .. }
            | ContainerImage::DockerArchive(path)
            | ContainerImage::OciLayout { path, .. }
                if is_left_to_builders(fleet, path) =>
            {
                None
            }
            ContainerImage::OciArchive { path, .. } | ContainerImage::DockerArchive(path) => {
                Some(digests.of(path)?)
            }
            _ => container_digest(image)?,
        };
        Ok((spelled, sha256))
    };
    mentioned_containers(fleet).into_iter().map(of).collect()
}

fn image_files(fleet: &Fleet, digests: &Digests) -> Result<BTreeMap<String, Sha256>, FileError> {
    let specs = fleet.images.values().flat_map(|image| image.files.values());
    let paths = specs.filter_map(|file| match &file.content {
        FileContent::File(path) => Some(path),
        FileContent::Inline(_) => None,
    });
    paths.map(|path| Ok((spelled_path(&fleet.root, path), digests.of(path)?))).collect()
}

/// Digest of a container image as it is now: of the archive, of a layout's index, which names everything else by digest, or
/// the one that `fleet.toml` demands of a registry.
pub fn container_digest(image: &ContainerImage) -> Result<Option<Sha256>, FileError> {
    match image {
        ContainerImage::OciArchive { path, .. } | ContainerImage::DockerArchive(path) => {
            sha256_of_file(path).map(|(sha256, _)| Some(sha256))
        }
        ContainerImage::OciLayout { path, .. } => {
            files::read(&path.join("index.json")).map(|bytes| Some(Sha256::of(bytes)))
        }
        ContainerImage::Registry(image) => Ok(image.sha256),
    }
}
