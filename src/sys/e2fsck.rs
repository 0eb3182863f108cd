//! e2fsck, looking only: what it finds wrong with a file system in a file.

use std::path::Path;

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
