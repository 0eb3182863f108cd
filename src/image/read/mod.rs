//! Reading images: what is in an ext4 file, whoever made it. Nothing that it says is trusted, and nothing of it is held in
//! memory but names and metadata, whose amount is bounded.

mod bytes;
mod directory;
mod inventory;
mod system;
mod volume;

use std::io;
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fs::input_diagnosis;

pub use bytes::{Side, same_bytes};
pub use inventory::{InodeKind, Inventory, InventoryEntry};
pub use system::{GroupEntry, PasswdEntry, Password, System};
pub use volume::{FileReader, Volume, VolumeInfo, check_file_system, label, uuid};

/// An image that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the image {}", image.display())]
pub struct ReadError {
    pub image: PathBuf,
    #[source]
    pub flaw: Flaw,
}

impl Diagnostic for ReadError {
    fn diagnosis(&self) -> Diagnosis {
        self.flaw.diagnosis()
    }
}

impl ReadError {
    /// About the image in a file.
    pub(super) fn of(image: &Path, flaw: Flaw) -> Self {
        Self { image: image.to_owned(), flaw }
    }
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    #[error("its file system has {expected} bytes, but the file has {found}: it is truncated")]
    Cut { expected: u64, found: u64 },
    #[error("it is not an ext4 file system that can be read: {0}")]
    NotExt4(String),
    #[error("{place}: {reason}")]
    At { place: String, reason: String },
    #[error("its names and attributes take more than {} MiB", .0 >> 20)]
    TooMuch(usize),
}

impl Diagnostic for Flaw {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Open(error) => input_diagnosis(error),
            Self::NotExt4(_) => Class::Invalid
                .hint("it must be an ext4 image with blocks of 4096 bytes, such as those in out/image/"),
            Self::Cut { .. } | Self::At { .. } => Class::Invalid.hint(
                "`e2fsck -fn` says more about it; to build an image in out/ again, remove its directory \
                 there",
            ),
            Self::TooMuch(_) => Class::Invalid.hint(
                "no image that sisforge builds is so large: it may be \
              forged",
            ),
        }
    }
}

impl Flaw {
    /// Something below a path, or in a structure that has a name.
    pub fn at(place: &str, reason: impl std::fmt::Display) -> Self {
        let place = if place.is_empty() { "/" } else { place };
        Self::At { place: place.to_owned(), reason: reason.to_string() }
    }

    /// The path, or the structure, that it is about, where it is about one.
    pub fn place(&self) -> Option<&str> {
        match self {
            Self::At { place, .. } => Some(place),
            Self::Open(_) | Self::Cut { .. } | Self::NotExt4(_) | Self::TooMuch(_) => None,
        }
    }

    fn not_ext4(error: mkext4::Error) -> Self {
        match error {
            mkext4::Error::Io(error) => Self::Open(error),
            error => Self::NotExt4(error.to_string()),
        }
    }
}
