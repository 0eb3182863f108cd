//! Sbom: the bill of materials of an image.

use serde_json::Value;

use crate::image::sbom::{Format, Sources, document};
use crate::lock::model::Lock;
use crate::sys::digest::sha256_of_file;

use super::error::SbomError;
use super::{RunError, Workspace};

/// The bill of an image by any of its names, dated at `epoch` (`SOURCE_DATE_EPOCH`), or at the build of its newest package.
pub fn of_image(
    workspace: &Workspace<'_>,
    named: &str,
    format: Format,
    epoch: Option<&str>,
) -> Result<Value, RunError> {
    let image = workspace.open_image(named)?;
    if image.system.packages.is_empty() {
        return Err(SbomError::NoPackages(image.volume.path().to_owned()).into());
    }
    let lock = Lock::read(&workspace.lock_path())?;
    let created = epoch.map(seconds).transpose()?;
    let sources = Sources { sha256: sha256_of_file(image.volume.path())?.0, lock: lock.as_ref(), created };
    Ok(document(&image, &sources, format))
}

/// Seconds that a bill can be dated at: up to the year 9999, as RFC 3339 has it.
fn seconds(text: &str) -> Result<u64, SbomError> {
    const LAST: u64 = 253_402_300_799;
    let seconds = text.parse().ok().filter(|seconds| *seconds <= LAST);
    seconds.ok_or_else(|| SbomError::Epoch(text.to_owned()))
}
