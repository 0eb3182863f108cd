//! Why a kernel is not built.

use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::lock::kernel::ConfigLineError;
use crate::sys::fs::FileError;
use crate::sys::sandbox::SandboxError;
use crate::sys::tool::{OUT_OF_TIME, ToolError};

use super::compact::UnsupportedVmlinux;
use super::needs::UnmetNeed;
use super::source::SourceError;
use super::tools::{MissingTool, named};
use super::unmet::UnmetOption;

/// A kernel that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("building a kernel needs {}", named(.0))]
    MissingTools(Vec<MissingTool>),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("{} (patch {number} of {count}) does not apply to {}", patch.display(), kernel.display())]
    Patch { patch: PathBuf, number: usize, count: usize, kernel: PathBuf, source: ToolError },
    #[error("Kconfig could not generate a configuration")]
    Configure(#[source] ToolError),
    #[error(transparent)]
    ConfigLine(#[from] ConfigLineError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Unmet(Vec<UnmetOption>),
    #[error("the kernel does not build; its whole output is in {}", log.display())]
    Build { log: PathBuf, source: ToolError },
    #[error(transparent)]
    Layout(#[from] UnsupportedVmlinux),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Needs(Vec<UnmetNeed>),
}

impl Diagnostic for KernelError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Source(error) => error.diagnosis(),
            Self::MissingTools(_) => Class::Failed.no_hint(),
            Self::Sandbox(error) => error.diagnosis(),
            Self::Patch { source: ToolError::Failed { .. }, .. } => {
                Class::Invalid.hint("update the patch for this kernel, or remove it from [kernel] patches")
            }
            Self::Configure(ToolError::Failed { code: Some(OUT_OF_TIME), .. })
            | Self::Build { source: ToolError::Failed { code: Some(OUT_OF_TIME), .. }, .. } => {
                Class::Failed.hint("all that builds a kernel may take four hours: what does this source run?")
            }
            Self::Patch { source, .. } | Self::Configure(source) | Self::Build { source, .. } => {
                source.diagnosis()
            }
            Self::ConfigLine(error) => error.diagnosis(),
            // Each tells what to do.
            Self::Unmet(_) | Self::Needs(_) => Class::Invalid.no_hint(),
            Self::Layout(error) => error.diagnosis().of(Class::Failed),
        }
    }
}
