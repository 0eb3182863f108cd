//! A guest at one moment, as evidence: what a snapshot is made of, in files that have no name any more. Nobody can restore them, and
//! they are gone with the process that has them.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::apply::ApplyError;
use crate::apply::linux::LinuxHost;
use crate::base::{GuestName, SnapshotName};
use crate::host::snapshot::{CORE, DISK, MEMORY, SESSION_DISK, STATE, SnapshotOrigin};
use crate::host::state::Machine;
use crate::sys::fs::{self as files, FileError};
use crate::sys::process::ProcessInfo;
use crate::sys::report::Report;

use super::create::{FrozenFiles, SnapshotRequest, freeze};

/// A guest that was captured, and goes on.
#[derive(Debug)]
pub struct Captured {
    pub machine: Machine,
    pub process: ProcessInfo,
    pub origin: SnapshotOrigin,
    pub files: Vec<CapturedFile>,
    /// For how long it stood still.
    pub still: Duration,
}

/// A file without a name. Its VMM may still write what it wrote: who reads it twice may read two things.
#[derive(Debug)]
pub struct CapturedFile {
    pub name: &'static str,
    pub file: File,
}

/// Captures a guest that runs. `name` is what it would be called if it were a snapshot.
///
/// # Errors
/// As for a snapshot; the guest then goes on, and nothing is left.
pub fn capture(
    host: &LinuxHost,
    guest: &GuestName,
    name: &SnapshotName,
    report: &dyn Report,
) -> Result<Captured, ApplyError> {
    let request = SnapshotRequest { guest, name, stop: false, core: true };
    let (mut captured, still) = freeze(host, &request, report, |written, _| take_out(written))?;
    captured.still = still;
    Ok(captured)
}

fn take_out(FrozenFiles { subject, origin, dir, .. }: FrozenFiles<'_>) -> Result<Captured, ApplyError> {
    let files =
        [DISK, SESSION_DISK, STATE, MEMORY, CORE].into_iter().filter_map(|name| open(dir, name).transpose());
    let files = files.collect::<Result<Vec<_>, _>>()?;
    files::remove(dir)?;
    let (machine, process) = (subject.machine.clone(), subject.process.clone());
    Ok(Captured { machine, process, origin, files, still: Duration::ZERO })
}

fn open(dir: &Path, name: &'static str) -> Result<Option<CapturedFile>, FileError> {
    let path = dir.join(name);
    match fs::File::open(&path) {
        Ok(file) => Ok(Some(CapturedFile { name, file })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::when("open", &path)(error)),
    }
}
