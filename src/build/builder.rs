//! Building: a project and a lock that fits it become artifacts. What is there already is found by its key, without a
//! package being opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{FileDigest, InvalidValue, Label, Sha256};
use crate::fleet::InvalidFile;
use crate::image::disk::DiskError;
use crate::image::ext4::Ext4Error;
use crate::image::layout::LayoutError;
use crate::image::read_back::ReadBackError;
use crate::lock::kernel::ConfigLineError;
use crate::lock::model::Lock;
use crate::lock::repository::{Repositories, RepositoryError};
use crate::sys::fetch::{Cache, FetchError};
use crate::sys::fs::FileError;
use crate::sys::registry::RegistryError;
use crate::sys::report::Report;
use crate::sys::tool::ToolError;

use super::artifacts::{Artifact, ArtifactKind, Artifacts, BuiltFile, OutDir};
use super::disk::{self, DiskPlan};
use super::inputs::VendorError;
use super::kernel::KernelError;
use super::key::BuildKey;
use super::project::Project;
use super::rootfs::ImagePlan;
use super::vmlinux::VmlinuxError;

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    Kernel,
    Image(Label),
    /// By the name of a declared disk, or of its link in `out/disk/`.
    Disk(Label),
}

/// An artifact and its name in `out/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    pub name: Label,
    pub artifact: Artifact,
}

/// Why something was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("fleet.lock does not fit fleet.toml: {}", .0.join("; "))]
    Stale(Vec<String>),
    #[error("the image {0} is not in fleet.lock")]
    NotLocked(Label),
    #[error("the image {image} has the package {package}, which fleet.lock does not pin")]
    NotPinned { image: Label, package: String },
    #[error("the container image {0} is not in fleet.lock")]
    ContainerNotLocked(String),
    #[error("there is no {what} {name}; there {}", if known.is_empty() { "is none".to_owned() } else { format!("are {}", known.join(", ")) })]
    Unknown { what: &'static str, name: Label, known: Vec<String> },
    #[error("{name:?} is not a valid name of an artifact")]
    Name { name: String, source: InvalidValue },
    /// What shows only when packages are opened.
    #[error(transparent)]
    Invalid(InvalidFile),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Vendor(#[from] VendorError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("cannot get the kernel source")]
    KernelSource(#[source] FetchError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    KernelConfig(#[from] ConfigLineError),
    #[error("[kernel] image is a prebuilt kernel, whose configuration is not known")]
    ReadyKernel,
    #[error("the digest of the kernel source {0} is not known yet")]
    UnpinnedKernel(String),
    #[error("building the kernel needs a compiler")]
    Toolchain(#[source] ToolError),
    #[error(transparent)]
    Vmlinux(#[from] VmlinuxError),
    #[error("{} has the SHA-256 {found}, but fleet.lock says {expected}", path.display())]
    KernelDigest { path: PathBuf, expected: Sha256, found: Sha256 },
    #[error("the image {image} cannot be laid out")]
    Layout { image: Label, source: LayoutError },
    #[error("the image {image} cannot be written")]
    Image { image: Label, source: Ext4Error },
    #[error("the data disk {disk} cannot be laid out")]
    DiskLayout { disk: Label, source: DiskError },
    #[error("the container images of the disk {disk} cannot be used")]
    ImagesLayout { disk: Label, source: DiskError },
    #[error("the container images of the disk {disk} cannot be written")]
    Images { disk: Label, source: Ext4Error },
    #[error("the data disk {disk} cannot be written")]
    Disk { disk: Label, source: Ext4Error },
    #[error("the container image {0} changed since it was locked; lock and build again")]
    ContainerChanged(String),
    #[error("a file of the image {0} changed while the image was built; build again")]
    Changed(Label),
    #[error("the {} {key} is no longer wanted", kind.folder())]
    NotWanted { kind: ArtifactKind, key: BuildKey },
    #[error("the {} {key} is not built", kind.folder())]
    NotBuilt { kind: ArtifactKind, key: BuildKey },
    #[error(transparent)]
    ReadBack(#[from] ReadBackError),
    #[error("e2fsck cannot check what was built")]
    E2fsck(#[source] ToolError),
    #[error("cannot start threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl Diagnostic for BuildError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Stale(_)
            | Self::NotLocked(_)
            | Self::NotPinned { .. }
            | Self::ContainerNotLocked(_)
            | Self::ContainerChanged(_) => Class::Invalid.hint("run `sisforge lock`"),
            Self::UnpinnedKernel(_) => Class::Invalid.hint("`sisforge lock` determines it"),
            Self::KernelDigest { .. } => {
                Class::Invalid.hint("restore that file, or accept the new one with `sisforge lock`")
            }
            Self::Unknown { .. } | Self::Name { .. } | Self::Invalid(_) => Class::Invalid.no_hint(),
            Self::ReadyKernel => Class::Invalid.hint("give [kernel] a `source` instead of an `image`"),
            Self::File(error) => error.diagnosis(),
            Self::Repository(error) => error.diagnosis(),
            Self::Vendor(error) => error.diagnosis(),
            Self::Registry(error) => error.diagnosis(),
            Self::KernelSource(error) => error.diagnosis(),
            Self::Kernel(error) => error.diagnosis(),
            Self::KernelConfig(error) => error.diagnosis(),
            Self::Toolchain(error) | Self::E2fsck(error) => error.diagnosis(),
            Self::Vmlinux(error) => error.diagnosis(),
            Self::Layout { source, .. } => source.diagnosis(),
            Self::DiskLayout { source, .. } | Self::ImagesLayout { source, .. } => source.diagnosis(),
            Self::Image { source, .. } | Self::Images { source, .. } | Self::Disk { source, .. } => {
                source.diagnosis()
            }
            Self::Changed(_) | Self::NotWanted { .. } => Class::Failed.no_hint(),
            Self::NotBuilt { .. } => Class::Failed.hint("`sisforge build` makes it"),
            Self::ReadBack(error) => error.diagnosis(),
            Self::Threads(_) => Class::Failed.hint("give it fewer with --jobs"),
        }
    }

    fn problems(&self) -> &[InvalidFile] {
        if let Self::Invalid(file) = self { file.problems() } else { &[] }
    }
}

/// Threads for one piece of work.
pub(super) fn pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()
}

/// A name in `out/`.
pub(super) fn label(name: String) -> Result<Label, BuildError> {
    name.parse().map_err(|source| BuildError::Name { name, source })
}

/// What becomes of an artifact that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingArtifact {
    Build,
    /// It is an error, [`BuildError::NotBuilt`]: for whoever only looks.
    Refuse,
    /// It is given as [`FileDigest::Unbuilt`]: for whoever tells what would be done.
    Foresee,
}

/// Everything that a build has at hand.
#[derive(Clone, Copy)]
pub struct Builder<'a> {
    pub project: &'a Project,
    pub lock: &'a Lock,
    pub out: &'a OutDir,
    pub cache: &'a Cache,
    pub jobs: usize,
    pub offline: bool,
    pub missing: MissingArtifact,
    pub report: &'a dyn Report,
}

impl<'a> Builder<'a> {
    /// The artifact of a key, made where it is missing and may be made.
    pub(super) fn obtain(
        &self,
        kind: ArtifactKind,
        key: &BuildKey,
        make: impl FnOnce(&Path) -> Result<BuiltFile, BuildError>,
    ) -> Result<Artifact, BuildError> {
        match self.missing {
            MissingArtifact::Build => self.out.obtain(kind, key, |dir| {
                // Whoever was waited for may have taken long.
                let is_wanted = self.report.is_wanted(&key.to_string());
                if is_wanted { make(dir) } else { Err(BuildError::NotWanted { kind, key: *key }) }
            }),
            MissingArtifact::Refuse => {
                self.out.find(kind, key).ok_or(BuildError::NotBuilt { kind, key: *key })
            }
            MissingArtifact::Foresee => Ok(self.out.find(kind, key).unwrap_or_else(|| Artifact {
                kind,
                key: *key,
                path: self.out.dir_of(kind, key).join(kind.file_name()),
                digest: FileDigest::Unbuilt(*key.digest()),
                size: 0,
                cached: false,
            })),
        }
    }

    pub(super) fn repositories(&self) -> Repositories<'a> {
        Repositories {
            fleet: &self.project.fleet,
            cache: self.cache,
            offline: self.offline,
            report: self.report,
        }
    }

    pub(super) fn refuse_stale(&self) -> Result<(), BuildError> {
        let reasons = self.project.stale(self.lock);
        if reasons.is_empty() { Ok(()) } else { Err(BuildError::Stale(reasons)) }
    }

    /// Builds what is selected, in the order kernel, images, disks, and gives every artifact its name in `out/`. Where
    /// something fails, what was finished before stays; nothing half-made does.
    pub fn build(&self, what: &Selection) -> Result<Vec<Built>, BuildError> {
        self.refuse_stale()?;
        match what {
            Selection::Kernel => Ok(vec![self.kernel()?]),
            Selection::Image(name) => Ok(vec![self.image(name)?]),
            Selection::Disk(name) => self.disks_named(name),
            Selection::All => {
                let mut built = vec![self.kernel()?];
                for name in self.project.fleet.images.keys() {
                    built.push(self.image(name)?);
                }
                for plan in self.disk_plans()? {
                    built.extend(self.disk(&plan)?);
                }
                Ok(built)
            }
        }
    }

    /// Builds everything, for whoever runs the fleet.
    pub fn artifacts(&self) -> Result<Artifacts, BuildError> {
        self.refuse_stale()?;
        let kernel = self.kernel()?.artifact;
        let mut images = BTreeMap::new();
        for name in self.project.fleet.images.keys() {
            images.insert(name.clone(), self.image(name)?.artifact);
        }
        let (mut disks, mut containers) = (BTreeMap::new(), BTreeMap::new());
        for plan in self.disk_plans()? {
            for Built { artifact, .. } in self.disk(&plan)? {
                let of_guests = plan.guests.iter().map(|guest| ((*guest).clone(), artifact.clone()));
                match artifact.kind {
                    ArtifactKind::Containers => containers.extend(of_guests),
                    _ => disks.extend(of_guests),
                }
            }
        }
        Ok(Artifacts { kernel, images, disks, containers })
    }

    pub(super) fn named(&self, name: Label, artifact: Artifact) -> Result<Built, BuildError> {
        if self.missing != MissingArtifact::Foresee {
            self.out.link(&artifact, &name)?;
        }
        Ok(Built { name, artifact })
    }

    /// What an image is made of.
    pub(super) fn image_plan(&self, name: &Label) -> Result<ImagePlan<'a>, BuildError> {
        let images = &self.project.fleet.images;
        let (Some((name, spec)), Some(recipes)) =
            (images.get_key_value(name), self.project.recipes.get(name))
        else {
            let known = images.keys().map(Label::to_string).collect();
            return Err(BuildError::Unknown { what: "image", name: name.clone(), known });
        };
        ImagePlan::new(name, spec, recipes, self.lock, &self.repositories())
    }

    fn image(&self, name: &Label) -> Result<Built, BuildError> {
        let (plan, repositories) = (self.image_plan(name)?, self.repositories());
        let key = plan.key()?;
        let earlier = self.out.named(ArtifactKind::Image, name);
        let write = |dir: &Path| plan.write(&key, dir, &repositories, earlier.as_deref(), self.jobs);
        self.named(name.clone(), self.obtain(ArtifactKind::Image, &key, write)?)
    }

    pub(super) fn disk_plans(&self) -> Result<Vec<DiskPlan<'a>>, BuildError> {
        disk::plan(&self.project.fleet, &self.project.recipes, self.lock)
    }

    /// A data disk, and the container images that go with it.
    fn disk(&self, plan: &DiskPlan<'_>) -> Result<Vec<Built>, BuildError> {
        let key = plan.key();
        let write = |dir: &Path| plan.write(&key, dir, self.jobs, self.report);
        let artifact = self.obtain(ArtifactKind::Disk, &key, write)?;
        // That of one that is not built is known, too.
        let artifact = Artifact { size: plan.size().bytes(), ..artifact };
        let mut built = vec![self.named(plan.name.clone(), artifact)?];
        if let Some(images) = plan.images()? {
            let key = images.key();
            let write = |dir: &Path| images.write(&key, dir, self);
            built.push(self.named(images.name.clone(), self.obtain(ArtifactKind::Containers, &key, write)?)?);
        }
        Ok(built)
    }

    fn disks_named(&self, name: &Label) -> Result<Vec<Built>, BuildError> {
        let plans = self.disk_plans()?;
        let of_images = format!("{name}.");
        let is_meant = |plan: &&DiskPlan<'_>| {
            plan.name == *name
                || plan.name.as_str().strip_prefix(&of_images).is_some_and(|image| {
                    self.project.fleet.images.keys().any(|known| known.as_str() == image)
                })
        };
        let built = plans.iter().filter(is_meant).map(|plan| self.disk(plan));
        let built = built.collect::<Result<Vec<_>, _>>()?.concat();
        if built.is_empty() {
            let known = plans.iter().map(|plan| plan.name.to_string()).collect();
            return Err(BuildError::Unknown { what: "data disk of a guest", name: name.clone(), known });
        }
        Ok(built)
    }
}
