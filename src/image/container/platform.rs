//! What an image is for: guests are Linux on amd64.

use crate::sys::oci::{Descriptor, Platform};

use super::ContainerProblem;

const WANTED: (&str, &str) = ("linux", "amd64");

/// Refuses an image that no guest can run. What is not stated is taken.
pub(super) fn check_platform(platform: &Platform) -> Result<(), ContainerProblem> {
    let is = |stated: &str, wanted| stated.is_empty() || stated == wanted;
    if is(&platform.os, WANTED.0) && is(&platform.architecture, WANTED.1) {
        return Ok(());
    }
    Err(ContainerProblem::Platform { found: text(platform) })
}

/// BuildKit's attestations stand beside the images that they are about.
fn is_unknown(platform: &Platform) -> bool {
    platform.os == "unknown" && platform.architecture == "unknown"
}

fn text(platform: &Platform) -> String {
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
}

/// The images of an index that are for guests: those that say so, of which those that the most processors run; where none does,
/// those that say nothing. The error is that all are for other platforms.
pub(super) fn choose(manifests: Vec<Descriptor>) -> Result<Vec<Descriptor>, ContainerProblem> {
    let is_image = |manifest: &Descriptor| !manifest.platform.as_ref().is_some_and(is_unknown);
    let images: Vec<Descriptor> = manifests.into_iter().filter(is_image).collect();
    let rank = |image: &Descriptor| image.platform.as_ref().and_then(Platform::rank);
    let lowest = images.iter().filter_map(rank).min();
    let is_ours = |image: &&Descriptor| lowest.is_some() && rank(image) == lowest;
    let ours: Vec<Descriptor> = images.iter().filter(is_ours).cloned().collect();
    let for_any: Vec<Descriptor> = images.iter().filter(|image| image.platform.is_none()).cloned().collect();
    let found: Vec<String> = images.iter().filter_map(|image| image.platform.as_ref()).map(text).collect();
    if !ours.is_empty() {
        Ok(ours)
    } else if !for_any.is_empty() || found.is_empty() {
        Ok(for_any)
    } else {
        Err(ContainerProblem::Platform { found: found.join(", ") })
    }
}
