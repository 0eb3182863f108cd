//! The configuration of a fleet's kernel, for whoever asks about it without building.

use crate::fleet::KernelSpec;
use crate::lock::kernel::{DotConfig, RequestedOptions};
use crate::lock::model::Lock;
use crate::sys::fetch::Cache;
use crate::sys::make;
use crate::sys::report::Report;

use super::artifacts::OutDir;
use super::configured::{ConfigLine, Configured};
use super::error::BuildError;
use super::kconfig::Symbols;
use super::kernel::{self, KernelInputs};
use super::kernel_artifact::kernel_source;
use super::kernel_notes::KernelNotes;
use super::project::Project;

/// What is asked of a kernel, and what Kconfig makes of it.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub requested: RequestedOptions,
    configured: Configured,
}

impl Configuration {
    /// Finds it out; the sources are unpacked only where the last kernel was another one.
    pub fn of(
        project: &Project,
        lock: Option<&Lock>,
        out: &OutDir,
        cache: &Cache,
        offline: bool,
        report: &dyn Report,
    ) -> Result<Self, BuildError> {
        let (KernelSpec::Build(build), Some(requested)) = (&project.fleet.kernel, &project.requested) else {
            return Err(BuildError::ReadyKernel);
        };
        let wanted = &project.wanted.kernel;
        let locked = lock.map(|lock| &lock.kernel).filter(|kernel| kernel.source == wanted.source);
        let digest = wanted.sha256.or(locked.map(|kernel| kernel.sha256));
        let source_sha256 = digest.ok_or_else(|| BuildError::UnpinnedKernel(wanted.source.clone()))?;
        let inputs = KernelInputs {
            source: kernel_source(build, source_sha256, cache, offline, report)?,
            source_sha256,
            requested: requested.clone(),
            series: project.series.clone(),
            patches: build.patches.clone(),
            patch_sha256: wanted.patches.clone(),
            toolchain: make::toolchain().map_err(BuildError::Toolchain)?,
        };
        let (notes, scratch) = (KernelNotes(out.notes()?), out.scratch("configure-", 8)?);
        let configured = kernel::configure(&inputs, &scratch.path().join("src"), &notes, report)?;
        Ok(Self { requested: requested.clone(), configured })
    }

    /// Every line with its origin. Where requested options did not survive, all of them are the error.
    pub fn lines(&self) -> Result<Vec<ConfigLine>, BuildError> {
        self.configured.check(&self.requested)?;
        Ok(self.configured.lines(&self.requested)?)
    }

    /// The final configuration, whether it fulfils the requested options or not.
    pub fn config(&self) -> Result<DotConfig, BuildError> {
        Ok(self.configured.config()?)
    }

    /// All that could be set.
    pub fn symbols(&self) -> &Symbols {
        &self.configured.symbols
    }
}
