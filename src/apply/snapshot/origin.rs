//! What a VMM and its host are like, as far as a snapshot depends on it.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use crate::apply::ApplyError;
use crate::apply::control::driver;
use crate::fleet::VmmKind;
use crate::host::snapshot::SnapshotOrigin;
use crate::host::vmm;
use crate::sys::cpu;
use crate::sys::digest::sha256_of_file;
use crate::sys::tool::{self, Tool, ToolError};

/// What this host has to go on with a snapshot.
pub fn here(vmm: VmmKind) -> Result<SnapshotOrigin, ApplyError> {
    let program = installed(vmm)?;
    // Side by side: each takes milliseconds, of a restore's few.
    let (text, state_format, sha256) = std::thread::scope(|scope| {
        let text = scope.spawn(|| Tool::new(&program).arg("--version").text());
        let format = scope.spawn(|| driver(vmm).state_format(&program));
        let sha256 = sha256_of_file(&program);
        (joined(text), joined(format), sha256)
    });
    Ok(SnapshotOrigin {
        vmm_version: parse_version(&text?).to_owned(),
        vmm_sha256: sha256?.0,
        state_format: state_format?,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpu: cpu::this_host()?,
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn installed(vmm: VmmKind) -> Result<PathBuf, ToolError> {
    let name = vmm::of(vmm).program();
    tool::find(name).ok_or_else(|| ToolError::Missing { tool: name.to_owned() })
}

/// The origin of a snapshot of a VMM that runs, by its own program; `here` is what is installed now.
pub(super) fn of_process(here: &SnapshotOrigin, pid: u32) -> Result<SnapshotOrigin, ApplyError> {
    let running = sha256_of_file(Path::new(&format!("/proc/{pid}/exe")))?.0;
    // A program of the jail is not run by root, so that of another build has no version that is known. A restore would
    // refuse it for its digest.
    let version = |text: String| if here.vmm_sha256 == running { text } else { "another build".to_owned() };
    Ok(SnapshotOrigin {
        vmm_version: version(here.vmm_version.clone()),
        state_format: here.state_format.clone().map(version),
        vmm_sha256: running,
        ..here.clone()
    })
}

/// Reads `1.16.1` from `Firecracker v1.16.1`, `7.2.22` from `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    let word = |word: &&str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
    first.split_whitespace().find(word).unwrap_or_default().trim_start_matches('v')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("Firecracker v1.16.1\n\n2026-11-25T17:57:38 exiting\n"), "1.16.1");
        assert_eq!(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), "7.2.22");
        assert_eq!(parse_version(""), "");
    }
}
