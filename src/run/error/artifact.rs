//! What stands against an artifact that somebody names.

use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic};

/// Why an artifact was not found.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("{named:?} is {what}")]
    Unknown { named: String, what: String, hint: String },
    #[error("several build keys begin with {0}")]
    SeveralKeys(String),
    #[error("the configuration of {} is not known", .0.display())]
    NoConfiguration(PathBuf),
}

impl Diagnostic for ArtifactError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Unknown { hint, .. } => Class::Invalid.hint(hint.clone()),
            Self::SeveralKeys(_) => Class::Invalid.hint("write more of its digits"),
            Self::NoConfiguration(_) => {
                Class::Invalid.hint("name its config file; `sisforge build` puts it next to the kernel")
            }
        }
    }
}
