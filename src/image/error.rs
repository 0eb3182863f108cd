//! Why an image is not made.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::apk::PackageError;
use crate::base::{ByteSize, Class, Diagnosis, Diagnostic, LOST_FOUND};
use crate::sys::fs::{FileError, input_diagnosis, io_diagnosis};

use super::tree::TreeError;

/// Why a file system was not made.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    #[error("the content needs {needed}, but `size` is {size}")]
    TooSmall { size: ByteSize, needed: ByteSize },
    #[error("{path} cannot be stored in ext4")]
    Node { path: String, source: mkext4::Error },
    #[error(
        "{path} has more extended attributes than ext4 has room for, which is about 4000 bytes for one file"
    )]
    Attributes { path: String },
    #[error("{LOST_FOUND} must be an empty directory: e2fsck puts recovered files there")]
    LostFound,
    #[error("{path:?} is not UTF-8, and its directory holds too many names for that")]
    RawName { path: String },
    #[error("the file system cannot be laid out")]
    Layout(#[source] mkext4::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {file}")]
    Content { file: String, source: io::Error },
    #[error("{count} files of the tree have no source")]
    Unfilled { count: usize },
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Container(#[from] ContainerError),
}

impl Diagnostic for Ext4Error {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::TooSmall { .. } => {
                Class::Invalid.hint("give it a larger `size`, or remove something from it")
            }
            Self::Node { .. } | Self::RawName { .. } => Class::Invalid.no_hint(),
            Self::Attributes { .. } => Class::Invalid.hint("remove some of them, or leave that file out"),
            Self::LostFound => Class::Invalid.hint("leave it out of the package, the recipe or `files`"),
            Self::Layout(_) | Self::Unfilled { .. } => Class::Failed.no_hint(),
            Self::Write { source, .. } => io_diagnosis(source),
            Self::Content { source, .. } => input_diagnosis(source),
            Self::Package(error) => error.diagnosis(),
            Self::Container(error) => error.diagnosis(),
        }
    }
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
            // What comes of no system call comes of the bytes.
            Self::Read { source, .. } if source.raw_os_error().is_some() => input_diagnosis(source),
            Self::Read { source, .. } if source.kind() == ErrorKind::Unsupported => Class::Invalid.no_hint(),
            Self::Read { .. } => Class::Invalid.hint("it was cut off or damaged: get that image again"),
            Self::Json { .. } | Self::Unsupported(_) => Class::Invalid.no_hint(),
            Self::Platform { .. } => {
                Class::Invalid.hint("export the image for linux/amd64, as `--platform linux/amd64` does")
            }
            Self::Name(_) => Class::Invalid.hint(
                "use a lower-case name such as localhost/browser:1.0, of at most 255 characters before its tag",
            ),
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
