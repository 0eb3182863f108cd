//! Whether what was built is what an allowed key signed.

use std::path::Path;

use crate::build::{BuildError, Builder, Built, MissingArtifact};
use crate::lock::model::Lock;
use crate::sys::fs::{self as files, FileError};
use crate::sys::ssh_signature;

use super::{RunError, Workspace};

/// Signatures beside fleet.lock, where they are over its digests.
pub(super) fn beside(workspace: &Workspace<'_>, lock: &Lock) -> Result<Option<String>, FileError> {
    let path = workspace.digests_path();
    if files::read_text_if_present(&path)?.is_none_or(|text| text != lock.digests()) {
        return Ok(None);
    }
    files::read_text_if_present(&path.with_extension("digests.sig"))
}

/// Whether all that was built is what an allowed key signed: by signatures beside fleet.lock, by those that were seen before, or by
/// those of the registry.
pub(super) fn check(
    workspace: &Workspace<'_>,
    builder: &Builder<'_>,
    built: &[Built],
    signers: &Path,
) -> Result<(), RunError> {
    builder.check_pinned(built)?;
    let (lock, digests) = (builder.lock, builder.lock.digests());
    let what = format!("the digests in {}", workspace.lock_path().display());
    let verify = |signatures: &str| ssh_signature::verify(signers, &what, &digests, signatures);
    let kept = workspace.settings.out.join(".signatures").join(lock.digests_sha256().to_string());
    let here = [beside(workspace, lock)?, files::read_text_if_present(&kept)?];
    let mut refused = None;
    for signatures in here.into_iter().flatten() {
        match verify(&signatures) {
            Ok(_) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    let registry = builder.registry.filter(|_| !workspace.settings.offline);
    let pushed = registry.map(|registry| registry.signatures(lock));
    let pushed = pushed.transpose().map_err(BuildError::from)?.flatten();
    match (pushed, refused) {
        (Some(signatures), _) => {
            verify(&signatures)?;
            // Whoever has lost it asks again. Who tells what would be done writes nothing.
            let keeps = builder.missing != MissingArtifact::Foresee;
            if keeps { Ok(files::write(&kept, signatures.as_bytes(), 0o644)?) } else { Ok(()) }
        }
        (None, Some(refused)) => Err(refused.into()),
        (None, None) => verify("").map(drop).map_err(RunError::from),
    }
}
