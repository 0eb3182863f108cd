//! What stands against requests about data disks.

use std::path::PathBuf;

use crate::base::{ByteSize, Class, Diagnosis, Diagnostic, GuestName};

/// Why a data disk is not copied, replaced or removed.
#[derive(Debug, thiserror::Error)]
pub enum DataDiskError {
    #[error("there is no data disk of {name:?}")]
    Unknown { name: String, hint: String },
    #[error("{0} is running, and its disk is in use")]
    InUse(GuestName),
    #[error("{0} has a data disk already")]
    Exists(String),
    #[error("{0} has no persistent disk: it is removed together with its jail")]
    Ephemeral(GuestName),
    #[error("{} has {size}, but the disk of {name} should have {wanted}", from.display())]
    TooLarge { from: PathBuf, size: ByteSize, name: String, wanted: ByteSize },
    #[error("{} is not a file", .0.display())]
    NoFile(PathBuf),
    #[error("{} already exists", .0.display())]
    FileExists(PathBuf),
}

impl Diagnostic for DataDiskError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::{Failed, Invalid};
        match self {
            Self::Unknown { hint, .. } => Invalid.hint(hint.clone()),
            Self::InUse(guest) => Failed.hint(format!("`sisforge down {guest}` first")),
            Self::Exists(_) => {
                Failed.hint("`sisforge disk export` saves it; with --replace it is replaced, and lost")
            }
            Self::Ephemeral(_) => {
                Invalid.hint("members of pools, and disks with `backing = \"tmpfs\"`, are ephemeral")
            }
            Self::TooLarge { .. } => Invalid.hint("give the disk its size in fleet.toml"),
            Self::NoFile(_) => Invalid.no_hint(),
            Self::FileExists(_) => Invalid.hint("remove it, or name another file"),
        }
    }
}
