//! What can go wrong with evidence.

use std::path::PathBuf;

use crate::base::problem::InvalidFile;
use crate::base::{Class, Diagnosis, Diagnostic, GuestName};
use crate::image::read::Flaw;
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
    #[error("the {disk} in {} cannot be read", path.display())]
    Disk {
        path: PathBuf,
        disk: &'static str,
        member: &'static str,
        #[source]
        flaw: Flaw,
    },
    #[error("there is a file {} already", .0.display())]
    Exists(PathBuf),
    #[error("{} is no archive of evidence", path.display())]
    NoEvidence { path: PathBuf },
    #[error("{} is damaged or was changed: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} has no {what}{}", path.display(), why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Without { path: PathBuf, what: String, why: Option<String> },
    #[error("no evidence of {guest} was taken, and it is cut off from every network since")]
    NotTaken {
        guest: GuestName,
        #[source]
        source: Box<EvidenceError>,
    },
    #[error(transparent)]
    Journal(#[from] ReplayError),
}

const WHO_SIGNED: &str = "without --signers, `sisforge forensics verify` tells the key that signed it; an allowed signer is a line of that \
     file (ssh-keygen(1), ALLOWED SIGNERS), with namespaces=\"sisforge\" or none";

impl Diagnostic for EvidenceError {
    fn problems(&self) -> &[InvalidFile] {
        match self {
            Self::Run(error) => error.problems(),
            _ => &[],
        }
    }

    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Run(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Signature(SshSignatureError::Refused { .. }) => Class::Invalid.hint(WHO_SIGNED),
            Self::Signature(error) => error.diagnosis(),
            Self::Disk { path, member, .. } => {
                let file = path.display();
                Class::Invalid.hint(format!(
                    "`sisforge forensics cat {file} {member} >{member}` takes it out: debugfs and `e2fsck -fn` tell more of it, and what \
                     else can be read is listed by `sisforge forensics files {file}`"
                ))
            }
            Self::Exists(_) => Class::Invalid.hint("name another with --out: no evidence is overwritten"),
            Self::NoEvidence { .. } => Class::Invalid.hint("`sisforge forensics GUEST` writes one"),
            Self::Damaged { .. } => Class::Invalid.hint("take another copy: this one proves nothing"),
            Self::Without { .. } => {
                Class::Invalid.hint(
                    "`sisforge forensics verify FILE` lists what is in it; a path on the data disk begins with `/`, \
                     which is the user's home",
                )
            }
            Self::NotTaken { guest, source } => {
                let diagnosis = source.diagnosis();
                let release = format!("`sisforge release {guest}` brings it back");
                let hint = diagnosis.hint.as_ref().map_or(release.clone(), |hint| format!("{hint}; {release}"));
                diagnosis.hint(hint)
            }
            Self::Journal(error) => error.diagnosis(),
        }
    }
}
