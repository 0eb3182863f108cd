//! What artifacts are called.

use crate::base::Label;

use super::artifacts::ArtifactKind;
use super::error::BuildError;

/// A name in `out/`.
pub(super) fn label(name: String) -> Result<Label, BuildError> {
    name.parse().map_err(|source| BuildError::Name { name, source })
}

/// The name of an artifact in fleet.lock: that of its link in `out/`.
pub(super) fn pinned_as(kind: ArtifactKind, name: &Label) -> String {
    format!("{}/{name}", kind.folder())
}
