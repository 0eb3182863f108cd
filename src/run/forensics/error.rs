//! What can go wrong with evidence.

use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::image::read::ReadError;
use crate::run::RunError;
use crate::sys::e2fsck::ReplayError;
use crate::sys::fs::FileError;
use crate::sys::ssh_signature::SshSignatureError;

/// An archive that was not written, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Signature(#[from] SshSignatureError),
    #[error(transparent)]
    Image(#[from] ReadError),
    #[error("there is a file {} already", .0.display())]
    Exists(PathBuf),
    #[error("{} is no archive of evidence", path.display())]
    NoEvidence { path: PathBuf },
    #[error("{} is damaged or was changed: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} has no {what}{}", path.display(), why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Without { path: PathBuf, what: String, why: Option<String> },
    #[error(transparent)]
    Journal(#[from] ReplayError),
}

const WHO_SIGNED: &str = "without --signers, `sisforge forensics verify` tells the key that signed it; an allowed signer is a line of that \
     file (ssh-keygen(1), ALLOWED SIGNERS), with namespaces=\"sisforge\" or none";

impl Diagnostic for EvidenceError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Run(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Signature(SshSignatureError::Refused { .. }) => Class::Invalid.hint(WHO_SIGNED),
            Self::Signature(error) => error.diagnosis(),
            Self::Image(error) => error.diagnosis(),
            Self::Exists(_) => Class::Invalid.hint("name another with --out: no evidence is overwritten"),
            Self::NoEvidence { .. } => Class::Invalid.hint("`sisforge forensics GUEST` writes one"),
            Self::Damaged { .. } => Class::Invalid.hint("take another copy: this one proves nothing"),
            Self::Without { .. } => {
                Class::Invalid.hint(
                    "`sisforge forensics verify FILE` lists what is in it; a path on the data disk begins with `/`, \
                     which is the user's home",
                )
            }
            Self::Journal(error) => error.diagnosis(),
        }
    }
}
