//! Why something was not built.

use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic, FileDigest, InvalidValue, Label, Sha256};
use crate::fleet::InvalidFile;
use crate::image::disk::DiskError;
use crate::image::ext4::Ext4Error;
use crate::image::layout::LayoutError;
use crate::image::read::ReadError;
use crate::image::read_back::ReadBackError;
use crate::lock::kernel::ConfigLineError;
use crate::lock::repository::RepositoryError;
use crate::sys::fetch::FetchError;
use crate::sys::fs::FileError;
use crate::sys::registry::RegistryError;
use crate::sys::tool::ToolError;

use super::artifacts::ArtifactKind;
use super::kernel_error::KernelError;
use super::key::BuildKey;
use super::remote::RemoteError;
use super::vmlinux::VmlinuxError;

/// `is home` and `are root, home`.
fn there_is(known: &[String]) -> String {
    match known {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        all => format!("are {}", all.join(", ")),
    }
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
    #[error("there is no {what} {name}; there {}", there_is(known))]
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
    #[error("{name} has the digest {found}, but fleet.lock pins {pinned} for the same inputs")]
    NotAsPinned { name: String, pinned: FileDigest, found: FileDigest },
    #[error("fleet.lock does not pin {}, as of today's inputs", .0.join(", "))]
    Unpinned(Vec<String>),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Inspect(#[from] ReadError),
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
            Self::NotAsPinned { .. } | Self::Unpinned(_) => self.of_a_pin(),
            Self::Remote(error) => error.diagnosis(),
            Self::Inspect(error) => error.diagnosis(),
            Self::ReadBack(error) => error.diagnosis(),
            Self::Threads(_) => Class::Failed.hint("give it fewer with --jobs"),
        }
    }

    fn problems(&self) -> &[InvalidFile] {
        if let Self::Invalid(file) = self { file.problems() } else { &[] }
    }
}

impl BuildError {
    /// What is told of pins.
    fn of_a_pin(&self) -> Diagnosis {
        match self {
            Self::NotAsPinned { .. } => Class::Failed.hint(
                "`sisforge build --check` tells whether this machine builds the same twice; if the pin is wrong, remove its \
                 [artifact] table from fleet.lock and build again",
            ),
            _ => Class::Failed.hint("whoever builds pins it: `sisforge build`; then commit fleet.lock"),
        }
    }
}

/// A vendor directory that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VendorError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} contains other files but no {LIST}, so it is not a vendor directory", .0.display())]
    Foreign(PathBuf),
    #[error("{url} has no place in a vendor directory: its path has an empty, '.' or '..' part")]
    Place { url: String },
    #[error("{} changed while it was copied", .0.display())]
    Changed(PathBuf),
}

impl Diagnostic for VendorError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Foreign(_) => Class::Invalid.hint("name a directory that is empty or not there yet"),
            Self::Place { .. } => Class::Invalid.no_hint(),
            Self::Changed(_) => Class::Failed.hint("run the same command again"),
        }
    }
}

/// The list of a vendor directory's files and their digests, as `sha256sum -c` reads it.
pub(super) const LIST: &str = "SHA256SUMS";
