//! What stands against a bill of materials.

use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic};

/// Why there is no bill.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    #[error("{} has no package database, /lib/apk/db/installed", .0.display())]
    NoPackages(PathBuf),
    #[error("SOURCE_DATE_EPOCH is {0:?}, and must be whole seconds since 1970")]
    Epoch(String),
}

impl Diagnostic for SbomError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoPackages(_) => Class::Invalid.hint(
                "a bill of materials needs an image that was made of packages, such as those in out/image/",
            ),
            Self::Epoch(_) => {
                Class::Invalid.hint("unset it to date the bill at the build of the newest package")
            }
        }
    }
}
