//! Whether KVM runs a guest: proved by one of a few instructions, since a `/dev/kvm` that can be opened proves nothing.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{self, FileError};
use super::tiny_guest::{AfterText, elf};
use super::tool::{OUT_OF_TIME, Tool, ToolError};

/// Why a guest was not run, or did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("it did not exit within {} s", .0.as_secs())]
    Hangs(Duration),
    #[error("Firecracker ended with {status}: {said}")]
    Ended { status: String, said: String },
    #[error("it exited without output")]
    Silent,
}

impl Diagnostic for ProbeError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Tool(error) => error.diagnosis(),
            Self::Hangs(_) | Self::Ended { .. } | Self::Silent => Class::Failed.no_hint(),
        }
    }
}

/// What the guest says; then it resets, which ends Firecracker.
const WORD: &str = "sisforge probe\n";
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether KVM stands on the processor's own virtualization here, and so runs ordinary guests. Under another module, such as
/// `kvm_pvm`, `/dev/kvm` is there, and an ordinary kernel dies seconds into its boot.
pub fn runs_ordinary_guests() -> bool {
    let has_module = |module: &str| Path::new("/sys/module").join(module).exists();
    Path::new("/dev/kvm").exists() && ["kvm_intel", "kvm_amd"].into_iter().any(has_module)
}

/// Runs a guest of a few instructions by a Firecracker without a jail, in a directory of its own.
pub fn probe(firecracker: &Path) -> Result<(), ProbeError> {
    let dir = tempfile::tempdir().map_err(FileError::when("create a directory in", std::env::temp_dir()))?;
    let [kernel, disk, config] = ["kernel", "disk", "config.json"].map(|name| dir.path().join(name));
    fs::write_unsynced(&kernel, &elf(WORD, AfterText::Reset), 0o600)?;
    fs::write_unsynced(&disk, &[0; 4096], 0o600)?;
    let text = json!({
        "boot-source": { "kernel_image_path": kernel, "boot_args": "" },
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 32 },
        "drives": [{ "drive_id": "disk", "path_on_host": disk, "is_root_device": true, "is_read_only": true }],
    });
    fs::write_unsynced(&config, text.to_string().as_bytes(), 0o600)?;
    let tool = Tool::new(firecracker).args(["--no-api", "--level", "Error", "--config-file"]).arg(&config);
    let output = tool.within(PATIENCE).output()?;
    if output.status.code() == Some(OUT_OF_TIME) {
        return Err(ProbeError::Hangs(PATIENCE));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let last = |text: &str| text.lines().last().unwrap_or_default().to_owned();
        let said = [last(&said), last(&String::from_utf8_lossy(&output.stderr))].join(" ").trim().to_owned();
        return Err(ProbeError::Ended { status: output.status.to_string(), said });
    }
    if said.contains(WORD.trim()) { Ok(()) } else { Err(ProbeError::Silent) }
}
