//! The kernel as an artifact: built, or a ready image that is taken in.

use std::path::{Path, PathBuf};

use crate::base::{Label, Sha256};
use crate::fleet::{KernelBuild, KernelSpec, Source, VmmKind};
use crate::lock::kernel::DotConfig;
use crate::lock::stale::other_toolchain;
use crate::sys::digest::sha256_of_file;
use crate::sys::fetch::{Cache, ExpectedFile, MirroredUrl};
use crate::sys::fs::{self as files, FileError};
use crate::sys::make;
use crate::sys::report::Report;

use super::artifacts::{Artifact, ArtifactKind, BuiltFile};
use super::builder::{Builder, Built, MissingArtifact};
use super::error::BuildError;
use super::kernel::{self, KernelInputs};
use super::kernel_error::KernelError;
use super::kernel_notes::KernelNotes;
use super::key::KeyBuilder;
use super::names::label;
use super::needs::check_needs;
use super::vmlinux;

/// Name of a ready image in `out/kernel/`; a kernel that is built has that of its base.
const READY: &str = "ready";

impl Builder<'_> {
    /// The kernel of the fleet.
    pub(super) fn kernel(&self) -> Result<Built, BuildError> {
        let (name, artifact) = match &self.project.fleet.kernel {
            KernelSpec::Ready { image, .. } => {
                let name = label(READY.into())?;
                let artifact = self.ready_kernel(&name, image, self.project.fleet.vmm)?;
                (name, artifact)
            }
            KernelSpec::Build(build) => (build.base.clone(), self.built_kernel(build)?),
        };
        self.named(name, artifact)
    }

    fn ready_kernel(&self, name: &Label, image: &Path, vmm: VmmKind) -> Result<Artifact, BuildError> {
        let expected = self.lock.kernel.sha256;
        if !self.project.kernel_needs().is_empty() {
            let text = "[kernel] image is a prebuilt kernel: whether it has the options that recipes and \
              machines need is not known until a guest boots";
            self.report.note(text);
        }
        // Each VMM asks something else of a kernel.
        let key = KeyBuilder::new("ready kernel").input("image", expected.0).input("vmm", format!("{vmm:?}"));
        self.obtain(ArtifactKind::Kernel, name, &key.finish(), |dir| {
            let copy = dir.join(ArtifactKind::Kernel.file_name());
            std::fs::copy(image, &copy).map_err(FileError::when("copy", image))?;
            check_digest(image, sha256_of_file(&copy)?.0, expected)?;
            vmlinux::check(image, vmm)?;
            Ok(BuiltFile::of(&copy)?)
        })
    }

    fn built_kernel(&self, build: &KernelBuild) -> Result<Artifact, BuildError> {
        let inputs = |toolchain| KernelInputs {
            // Where it is plays no part in the key, and is found when the kernel is built.
            source: PathBuf::new(),
            source_sha256: self.lock.kernel.sha256,
            requested: self.project.requested.clone().unwrap_or_default(),
            series: self.project.series.clone(),
            patches: build.patches.clone(),
            patch_sha256: self.lock.kernel.patches.clone(),
            toolchain,
        };
        let artifact = match self.pinned_kernel(build, &inputs)? {
            Some(pinned) => pinned,
            None => {
                let inputs = inputs(self.toolchain()?);
                self.obtain(ArtifactKind::Kernel, &build.base, &inputs.key(), |dir| {
                    let inputs = KernelInputs { source: self.kernel_source(build)?, ..inputs.clone() };
                    kernel::build(&inputs, dir, &KernelNotes(self.out.notes()?), self.jobs, self.report)?;
                    Ok(BuiltFile::of(&dir.join(ArtifactKind::Kernel.file_name()))?)
                })?
            }
        };
        if !artifact.is_there() {
            return Ok(artifact);
        }
        // A recipe may need more than it did when the kernel was built.
        let config = artifact.path.with_file_name("config");
        let config = DotConfig::parse(&config.display().to_string(), &files::read_text(&config)?)?;
        check_needs(&config, &self.project.kernel_needs()).map_err(KernelError::Needs)?;
        Ok(artifact)
    }

    /// The kernel that fleet.lock pins, where it is to be had: by the toolchain of the lock, be it another than this machine's.
    fn pinned_kernel(
        &self,
        build: &KernelBuild,
        inputs: &dyn Fn(String) -> KernelInputs,
    ) -> Result<Option<Artifact>, BuildError> {
        let locked = self.lock.kernel.toolchain.clone();
        let Some(locked) = locked.filter(|_| self.missing != MissingArtifact::BuildAgain) else {
            return Ok(None);
        };
        let key = inputs(locked).key();
        if self.pin(ArtifactKind::Kernel, &build.base, &key).is_none() {
            return Ok(None);
        }
        self.find(ArtifactKind::Kernel, &build.base, &key)
    }

    /// Whether this machine builds kernels as that of the lock does.
    pub(super) fn is_of_locked_toolchain(&self) -> bool {
        make::toolchain().ok().is_none_or(|toolchain| Some(toolchain) == self.lock.kernel.toolchain)
    }

    /// The compiler of this machine, and a note where the lock has another. A kernel that is built already needs none.
    fn toolchain(&self) -> Result<String, BuildError> {
        match (make::toolchain(), &self.lock.kernel.toolchain) {
            (Ok(toolchain), _) => {
                if let Some(note) = other_toolchain(self.lock, &toolchain) {
                    self.report.note(&note);
                }
                Ok(toolchain)
            }
            (Err(_), Some(locked)) => Ok(locked.clone()),
            (Err(error), None) => Err(BuildError::Toolchain(error)),
        }
    }

    /// The source of the kernel, on this machine and as the lock has it.
    pub(super) fn kernel_source(&self, build: &KernelBuild) -> Result<PathBuf, BuildError> {
        kernel_source(build, self.lock.kernel.sha256, self.cache, self.offline, self.report)
    }
}

/// The source of a kernel on this machine.
pub(super) fn kernel_source(
    build: &KernelBuild,
    expected: Sha256,
    cache: &Cache,
    offline: bool,
    report: &dyn Report,
) -> Result<PathBuf, BuildError> {
    match &build.source {
        // Its digest was compared when the project was read.
        Source::Path(path) => Ok(path.clone()),
        Source::Url(url) => {
            let address = MirroredUrl { url: url.clone(), mirrors: build.mirrors.clone() };
            let pinned = ExpectedFile { sha256: Some(expected), size: None };
            // Hashed also where it was there before: a kernel is built from nothing that was not checked.
            let cache = cache.clone().verifying();
            cache.get(&address, pinned, offline, report).map_err(BuildError::KernelSource)
        }
    }
}

fn check_digest(path: &Path, found: Sha256, expected: Sha256) -> Result<(), BuildError> {
    if found == expected {
        return Ok(());
    }
    Err(BuildError::KernelDigest { path: path.to_owned(), expected, found })
}
