//! e2fsck: what it finds wrong with a file system in a file, and the journal of one that was not unmounted.

use std::path::Path;

use crate::base::{Diagnosis, Diagnostic};

use super::fs::FileError;
use super::sandbox::{Sandbox, SandboxError};
use super::tool::{Tool, ToolError};

/// What e2fsck says of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsckOutcome {
    Clean,
    /// What it printed.
    Faulty(String),
    /// It is not here to be asked.
    NotInstalled,
}

/// `FSCK_UNCORRECTED` of e2fsck(8): there are faults, and none was to be corrected.
const UNCORRECTED: i32 = 4;

/// `FSCK_NONDESTRUCT` of e2fsck(8): what was to be corrected is.
const CORRECTED: i32 = 1;

/// Lets e2fsck check every structure (`-f`) and change nothing (`-n`).
pub fn check(image: &Path) -> Result<FsckOutcome, ToolError> {
    let call = Tool::new("e2fsck").args(["-f", "-n"]).arg(image);
    let output = match call.output() {
        Err(ToolError::Missing { .. }) => return Ok(FsckOutcome::NotInstalled),
        output => output?,
    };
    match output.status.code() {
        Some(0) => Ok(FsckOutcome::Clean),
        Some(code) if code & UNCORRECTED != 0 => {
            Ok(FsckOutcome::Faulty(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
        }
        code => Err(ToolError::Failed {
            command: call.command_line(),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code,
        }),
    }
}

/// A journal that was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the journal of the file system cannot be replayed")]
    Failed(#[source] ToolError),
}

impl Diagnostic for ReplayError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Sandbox(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Failed(error) => error.diagnosis(),
        }
    }
}

/// Replays the journal of the file system in a file of a directory, and corrects nothing else. Whoever wrote it may be hostile: root
/// has that done in a sandbox, to whose user the directory then belongs.
pub fn replay_journal(dir: &Path, name: &str) -> Result<(), ReplayError> {
    let sandbox = Sandbox::find(&["e2fsck"])?;
    sandbox.hand_over(dir)?;
    let call =
        sandbox.call("e2fsck", dir).args(["-E", "journal_only", "-y"]).arg(sandbox.inside(dir).join(name));
    let output = call.output().map_err(ReplayError::Failed)?;
    match output.status.code() {
        Some(0 | CORRECTED) => Ok(()),
        code => Err(ReplayError::Failed(ToolError::Failed {
            command: call.command_line(),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code,
        })),
    }
}
