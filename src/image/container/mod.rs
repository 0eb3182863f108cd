//! Container images that are there when a guest first boots: every digest verified, and written as the files that
//! containers/storage would have made of them, so that the guest has nothing to import.

mod blobs;
mod docker;
mod entry;
mod layer;
mod names;
mod oci;
mod packed;
mod platform;
mod split;
mod storage;
mod tar;

pub use layer::Layer;
pub use names::{ImageNames, full_name};
pub use oci::Image;
pub use storage::{IdMap, SubIds, add_images};

use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::fleet::ContainerImage;
use crate::sys::fs::{FileError, input_diagnosis};

use super::tree::TreeError;

/// Part of every key of a store: changed whenever the same images would be laid out otherwise.
pub const RULES: &str = "2";

/// What the images of a file are called, of whom nothing else is read or verified; none for an image of a registry, which
/// `fleet.toml` itself names.
pub fn names_in(image: &ContainerImage) -> Result<Vec<ImageNames>, ContainerError> {
    let (path, names) = match image {
        ContainerImage::OciArchive { path, reference } => {
            let names = blobs::Blobs::open_archive(path)
                .and_then(|blobs| oci::names(&blobs, path, reference.as_deref()).map(|names| vec![names]));
            (path, names)
        }
        ContainerImage::OciLayout { path, reference } => {
            let blobs = blobs::Blobs::Directory(path.clone());
            (path, oci::names(&blobs, path, reference.as_deref()).map(|names| vec![names]))
        }
        ContainerImage::DockerArchive(path) => (path, docker::names(path)),
        ContainerImage::Registry(_) => return Ok(Vec::new()),
    };
    names.map_err(|problem| ContainerError { path: path.clone(), problem })
}

/// Why a container image is refused.
#[derive(Debug, thiserror::Error)]
#[error("container image {} is refused", path.display())]
pub struct ContainerError {
    /// The archive or layout directory.
    pub path: PathBuf,
    #[source]
    pub problem: ContainerProblem,
}

impl Diagnostic for ContainerError {
    fn diagnosis(&self) -> Diagnosis {
        self.problem.diagnosis()
    }
}

/// What is wrong with a container image.
#[derive(Debug, thiserror::Error)]
pub enum ContainerProblem {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{what} cannot be read")]
    Read { what: String, source: std::io::Error },
    #[error("it contains no {0}; is it an OCI image layout?")]
    Missing(String),
    #[error("{what} does not follow the OCI image specification")]
    Json { what: String, source: serde_json::Error },
    #[error("{what} does not match its digest: expected {expected}, found {found}")]
    Digest { what: String, expected: String, found: String },
    #[error("{0}")]
    Unsupported(String),
    #[error("it is for {found}, but guests are linux/amd64")]
    Platform { found: String },
    #[error("its name {0:?} is not a valid image name")]
    Name(String),
    #[error("layer {layer} cannot be unpacked")]
    Tree { layer: String, source: TreeError },
    #[error("layer {layer}: {entry:?} {problem}")]
    Entry { layer: String, entry: String, problem: String },
    #[error(
        "{path} belongs to {kind} {id} of the container, but the user has subordinate ids for 1 to {count} \
         only"
    )]
    Unmapped { path: String, kind: &'static str, id: u32, count: u32 },
    #[error("another image of the same disk is also named {name}")]
    NameTaken { name: String },
}

impl Diagnostic for ContainerProblem {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Read { source, .. } => input_diagnosis(source),
            Self::Json { .. } | Self::Unsupported(_) => Class::Invalid.no_hint(),
            Self::Platform { .. } => {
                Class::Invalid.hint("export the image for linux/amd64, as `--platform linux/amd64` does")
            }
            Self::Name(_) => Class::Invalid.hint("use a lower-case name such as localhost/browser:1.0"),
            Self::Missing(_) => Class::Invalid.hint(
                "`podman save --format oci-archive` and `docker save` write such \
                  archives",
            ),
            Self::Digest { .. } => Class::Invalid.hint("it was damaged or changed in transit: get it again"),
            Self::Tree { source, .. } => source.diagnosis(),
            Self::Entry { .. } => Class::Invalid.no_hint(),
            Self::Unmapped { .. } => Class::Invalid.hint("give the user more `subids` in the recipe"),
            Self::NameTaken { .. } => Class::Invalid.hint("remove one of the two"),
        }
    }
}
