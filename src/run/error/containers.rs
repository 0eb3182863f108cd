//! What stands against requests about containers.

use crate::base::problem::suggest;
use crate::base::{Class, Diagnosis, Diagnostic, GuestName, Label};
use crate::sys::fs::FileError;

/// What stands against something about containers.
#[derive(Debug, thiserror::Error)]
pub enum ContainersError {
    #[error("secret {name}: {source}")]
    NoSecret { name: Label, source: FileError },
    #[error("no container {name:?} was started in {guest}")]
    NoContainer { guest: GuestName, name: String, started: Vec<String> },
    #[error("the Podman of {guest} tells no log of {name}: it ended with {code}")]
    NoLog { guest: GuestName, name: Label, code: i32 },
}

impl Diagnostic for ContainersError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoSecret { .. } => Class::Invalid.hint(
                "whoever starts guests needs the file: write it there, from 1 to 511999 bytes, readable for this user",
            ),
            Self::NoContainer { name, started, .. } => {
                let started = started.iter().map(String::as_str);
                Class::Invalid.hint(suggest("containers that were started in it", name, started))
            }
            Self::NoLog { .. } => Class::Failed.hint("`sisforge ps --containers` tells how it is"),
        }
    }
}
