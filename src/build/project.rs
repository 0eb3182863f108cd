//! What a fleet is made of on this machine: `fleet.toml`, recipes, kernel configs and local files, read and not built yet.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fleet::{Fleet, KernelOption, KernelSpec, Label, SourceFiles};
use crate::image::recipe::{Parameters, RecipeError, Recipes};
use crate::lock::digest::Digests;
use crate::lock::kernel::KernelWishes;
use crate::lock::model::Lock;
use crate::lock::resolve::{Request, ResolveError, Update, resolve};
use crate::lock::stale::{other_toolchain, stale};
use crate::lock::wanted::{ConfigError, RecipePins, Wanted, WantedError, kernel_config};
use crate::sys::fetch::Cache;
use crate::sys::make;
use crate::sys::report::Report;

use super::kernel::{NeedDoubt, need_doubts};
use super::vmlinux::{self, VmlinuxError};

/// A fleet with all that it mentions.
#[derive(Clone, Debug)]
pub struct Project {
    pub fleet: Fleet,
    /// Of each image.
    pub recipes: BTreeMap<Label, Recipes>,
    /// What a lock must agree with.
    pub wanted: Wanted,
    /// `None` for a ready kernel.
    pub wishes: Option<KernelWishes>,
}

/// A fleet whose parts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("the recipes of the image {image} cannot be used")]
    Recipe { image: Label, source: RecipeError },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Wanted(#[from] WantedError),
    #[error(transparent)]
    Vmlinux(#[from] VmlinuxError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Project {
    /// Reads everything that a fleet mentions. Needs no network; large files are read only when they changed since the
    /// last time, which `<cache_dir>/digests` remembers.
    ///
    /// # Errors
    /// Where something cannot be read, or is not what `fleet.toml` says of it.
    pub fn open(fleet: Fleet, cache_dir: &Path) -> Result<Self, ProjectError> {
        let files = SourceFiles::new(&fleet.root);
        let mut recipes = BTreeMap::new();
        let mut pins = RecipePins::default();
        for (name, image) in &fleet.images {
            let loaded = Recipes::load(&image.recipes, &Parameters::new(), &files)
                .map_err(|source| ProjectError::Recipe { image: name.clone(), source })?;
            pins.digests.extend(loaded.digests().clone());
            pins.packages.insert(name.clone(), loaded.world().map(str::to_owned).collect());
            recipes.insert(name.clone(), loaded);
        }
        let config = match &fleet.kernel {
            KernelSpec::Build(build) => Some(kernel_config(&files, build)?),
            KernelSpec::Ready { .. } => None,
        };
        let wanted = Wanted::of(&fleet, &pins, config.as_ref(), &Digests::new(cache_dir))?;
        let wishes = config.map(|config| config.wishes);
        Ok(Self { fleet, recipes, wanted, wishes })
    }

    /// Why a lock no longer fits, one sentence for each thing that differs; none where it fits.
    pub fn stale(&self, lock: &Lock) -> Vec<String> {
        stale(&self.fleet, &self.wanted, lock)
    }

    /// Kernel options that the recipes need, and which recipe does.
    pub fn kernel_needs(&self) -> Vec<(Label, KernelOption)> {
        let mut needs: Vec<_> = self.recipes.values().flat_map(Recipes::kernel_needs).cloned().collect();
        needs.sort();
        needs.dedup();
        needs
    }

    /// What recipes need of the kernel and its configuration turns off, or leaves to what Kconfig makes of it. Whether it
    /// comes out on is known only once the kernel is configured; the build then fails where it does not. Nothing is known
    /// of a ready kernel.
    pub fn need_doubts(&self) -> Vec<NeedDoubt> {
        let needs = self.kernel_needs();
        self.wishes.as_ref().map_or_else(Vec::new, |wishes| need_doubts(wishes, &needs))
    }

    /// Looks whether a ready kernel is one that the fleet's VMM can start.
    ///
    /// # Errors
    /// Says why not.
    pub fn check_kernel(&self) -> Result<(), ProjectError> {
        match &self.fleet.kernel {
            KernelSpec::Ready { image, .. } => Ok(vmlinux::check(image, self.fleet.vmm)?),
            KernelSpec::Build(_) => Ok(()),
        }
    }

    /// The lock of this fleet. A lock that fits is given back as it is, without the network being used, unless an update is
    /// asked for.
    ///
    /// # Errors
    /// As [`resolve`], and where a ready kernel is one that no VMM can start.
    pub fn lock(
        &self,
        old: Option<&Lock>,
        update: &Update,
        cache: &Cache,
        offline: bool,
        report: &dyn Report,
    ) -> Result<Lock, ProjectError> {
        if let Some(old) = old.filter(|old| *update == Update::None && self.stale(old).is_empty()) {
            return Ok(old.clone());
        }
        self.check_kernel()?;
        // A machine without a compiler can lock; who builds the kernel needs one.
        let toolchain = make::toolchain().ok();
        let (fleet, wanted, toolchain) = (&self.fleet, &self.wanted, toolchain.as_deref());
        Ok(resolve(&Request { fleet, wanted, old, update, toolchain, cache, offline, report })?)
    }

    /// A note where this machine would build another kernel from the lock than the one that locked; no error.
    pub fn toolchain_note(&self, lock: &Lock) -> Option<String> {
        other_toolchain(lock, &make::toolchain().ok()?)
    }
}
