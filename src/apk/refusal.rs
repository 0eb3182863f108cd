//! Why a package is refused.

use std::io;

use crate::base::{Class, Diagnosis, Diagnostic, Sha256};
use crate::sys::fs::input_diagnosis;

use super::archive::ArchiveError;
use super::dependency::Checksum;
use super::entry::EntryError;
use super::foreign::ForeignFormat;
use super::gzip::GzipError;
use super::index::IndexError;
use super::info::InfoError;
use super::signature::SignatureError;

/// What to do about a package that is as its maker made it: everything that is looked at once its bytes are known to be right.
const MAKERS: &str = "the package was built this way: have it rebuilt, or use another version";

/// What is wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Foreign(#[from] ForeignFormat),
    #[error("the file has {found} bytes, but the index says {expected}")]
    Size { expected: u64, found: u64 },
    #[error("its checksum is {found}, but the index says {expected}")]
    Checksum { expected: Checksum, found: Checksum },
    #[error("it says that it is {found}")]
    OtherPackage { found: String },
    #[error("signature: {0}")]
    Signature(#[from] SignatureError),
    #[error("signature member: {0}")]
    SignatureMember(IndexError),
    #[error("control member: {0}")]
    ControlGzip(#[from] GzipError),
    #[error("control member: {0}")]
    ControlArchive(ArchiveError),
    #[error("control member: {0}")]
    Control(&'static str),
    #[error("control member: .PKGINFO: {0}")]
    Info(#[from] InfoError),
    #[error("data member: its SHA-256 is {found}, but .PKGINFO says {expected}")]
    DataHash { expected: Sha256, found: Sha256 },
    #[error("data member: {0}")]
    Data(#[from] ArchiveError),
    #[error("data member: {path}: {reason}")]
    Entry { path: String, reason: EntryError },
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("its SHA-256 is {found}, but {expected} was expected")]
    Digest { expected: Sha256, found: Sha256 },
    #[error("its cached listing does not match its contents")]
    Listing,
}

impl Diagnostic for Refusal {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Signature(error) => error.diagnosis(),
            Self::SignatureMember(error) => error.diagnosis(),
            Self::Foreign(error) => error.diagnosis(),
            Self::ControlArchive(error) | Self::Data(error) => error.diagnosis().or_hint(MAKERS),
            Self::Read(error) => input_diagnosis(error),
            Self::OtherPackage { .. } | Self::Control(_) | Self::Info(_) | Self::Entry { .. } => {
                Class::Invalid.hint(MAKERS)
            }
            Self::Size { .. }
            | Self::Checksum { .. }
            | Self::ControlGzip(_)
            | Self::DataHash { .. }
            | Self::Digest { .. }
            | Self::Listing => Class::Invalid.no_hint(),
        }
    }
}
