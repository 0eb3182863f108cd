//! Push and pull: what was built goes through a registry, which is trusted with nothing.

use std::path::{Path, PathBuf};

use crate::base::Sha256;
use crate::build::{Built, Pushed, provenance};
use crate::fleet::ArtifactPlace;
use crate::sys::fs as files;
use crate::sys::ssh_signature;

use super::{Inputs, LockedProject, RunError, Workspace, signatures};

/// Pushes everything, which must be built and pinned, and the signatures over it, where there are any.
pub fn push(workspace: &Workspace<'_>) -> Result<(ArtifactPlace, Pushed), RunError> {
    let fleet = workspace.fleet()?;
    let place = fleet.artifacts.clone().ok_or(RunError::NoRegistry)?;
    if workspace.settings.offline {
        return Err(RunError::PushOffline);
    }
    let locked = LockedProject::of(workspace, fleet, Inputs::AsTheyAre)?;
    let builder = locked.builder();
    let (_, built) = builder.named_artifacts()?;
    let text = files::read_text(&workspace.lock_path())?;
    let signatures = signatures::beside(workspace, &locked.lock)?;
    if signatures.is_none() {
        workspace.report.note("what is pushed is not signed (`sisforge sign`)");
    }
    let client = workspace.cache()?.client().clone();
    let pushed = builder.push(&built, &text, signatures, &place, &client)?;
    Ok((place, pushed))
}

/// The statement on what was built, as it is pushed.
pub fn provenance(workspace: &Workspace<'_>) -> Result<String, RunError> {
    let locked = LockedProject::open(workspace, Inputs::AsTheyAre)?;
    let (_, built) = locked.builder().named_artifacts()?;
    Ok(provenance::statement(&locked.project, &locked.lock, &built)?)
}

/// Takes everything that fleet.lock pins and `out/` has not.
pub fn pull(workspace: &Workspace<'_>) -> Result<Vec<Built>, RunError> {
    let fleet = workspace.fleet()?;
    if fleet.artifacts.is_none() {
        return Err(RunError::NoRegistry);
    }
    let mut settings = workspace.settings.clone();
    settings.artifacts.no_build = true;
    let workspace = Workspace { settings, report: workspace.report };
    let locked = LockedProject::of(&workspace, fleet, Inputs::Locked)?;
    let (_, built) = locked.builder().named_artifacts()?;
    if let Some(signers) = &workspace.settings.artifacts.signers {
        signatures::check(&workspace, &locked.builder(), &built, signers)?;
    }
    Ok(built)
}

/// What was signed.
#[derive(Clone, Debug)]
pub struct SignedDigests {
    /// The manifest of digests; its signatures are beside it, with `.sig` behind the name.
    pub path: PathBuf,
    pub sha256: Sha256,
    pub artifacts: usize,
    /// How many signatures there are now.
    pub signatures: usize,
}

/// Signs the digests that fleet.lock pins, which must be those of today's inputs. A signature over the same digests stays.
pub fn sign(workspace: &Workspace<'_>, key: &Path) -> Result<SignedDigests, RunError> {
    let locked = LockedProject::open(workspace, Inputs::Foreseen { must_fit: true })?;
    let (_, all) = locked.builder().named_artifacts()?;
    locked.builder().check_pinned(&all)?;
    let (text, path) = (locked.lock.digests(), workspace.digests_path());
    let there = signatures::beside(workspace, &locked.lock)?.unwrap_or_default();
    let signature = ssh_signature::sign(key, &text)?;
    // Most keys sign the same text alike.
    let signatures = if there.contains(&signature) { there } else { there + &signature };
    files::write(&path, text.as_bytes(), 0o644)?;
    files::write(&path.with_extension("digests.sig"), signatures.as_bytes(), 0o644)?;
    let count = signatures.matches("BEGIN SSH SIGNATURE").count();
    let (sha256, artifacts) = (locked.lock.digests_sha256(), locked.lock.artifact.len());
    Ok(SignedDigests { path, sha256, artifacts, signatures: count })
}
