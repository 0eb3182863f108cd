//! What a fleet is made of on this machine: `fleet.toml`, recipes, kernel configs and local files, read and not built yet.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{KernelOption, Label};
use crate::fleet::{Fleet, ImageSpec, InvalidFile, KernelSpec, Problem, SourceFiles};
use crate::image::recipe::{RecipeError, Recipes};
use crate::image::scripts::{self, PackageScripts};
use crate::lock::digest::Digests;
use crate::lock::kernel::RequestedOptions;
use crate::lock::kernel_config::{ConfigError, kernel_config};
use crate::lock::model::Lock;
use crate::lock::request::{Request, Update};
use crate::lock::resolve::{ResolveError, resolve};
use crate::lock::stale::stale;
use crate::lock::wanted::{RecipePins, Wanted, WantedError};
use crate::sys::fetch::Cache;
use crate::sys::make;
use crate::sys::report::Report;

use super::needs::{Need, NeedDoubt, NeededBy, need_doubts};
use super::series;
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
    pub requested: Option<RequestedOptions>,
    /// The Linux series that the kernel's base is for, where it says so.
    pub series: Option<String>,
}

/// A fleet whose parts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("the recipes of the image {image} cannot be used")]
    Recipe { image: Label, source: RecipeError },
    /// Everything that is wrong with recipes, and with what `fleet.toml` says of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Invalid(Vec<InvalidFile>),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Wanted(#[from] WantedError),
    #[error(transparent)]
    Vmlinux(#[from] VmlinuxError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Diagnostic for ProjectError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Recipe { source, .. } => source.diagnosis(),
            Self::Invalid(_) => Class::Invalid.no_hint(),
            Self::Config(error) => error.diagnosis(),
            Self::Wanted(error) => error.diagnosis(),
            Self::Vmlinux(error) => error.diagnosis(),
            Self::Resolve(error) => error.diagnosis(),
        }
    }

    fn problems(&self) -> &[InvalidFile] {
        match self {
            Self::Recipe { source, .. } => source.problems(),
            Self::Invalid(files) => files,
            Self::Config(_) | Self::Wanted(_) | Self::Vmlinux(_) | Self::Resolve(_) => &[],
        }
    }
}

/// What is wrong with recipes, each file once whatever images use it.
#[derive(Default)]
struct Invalid {
    files: Vec<InvalidFile>,
    /// Places in `fleet.toml`.
    given: Vec<Problem>,
}

impl Invalid {
    fn add(&mut self, files: Vec<InvalidFile>, given: Vec<Problem>) {
        for file in files {
            match self.files.iter_mut().find(|known| known.path == file.path) {
                None => self.files.push(file),
                Some(known) => {
                    let new = file.problems.into_iter().filter(|problem| !known.problems.contains(problem));
                    let new: Vec<_> = new.collect();
                    known.problems.extend(new);
                }
            }
        }
        self.given.extend(given);
    }

    /// Fails unless nothing was added.
    fn none(mut self, fleet: &Fleet) -> Result<(), ProjectError> {
        let folder = fleet.source.path.parent().unwrap_or(Path::new(""));
        for file in &mut self.files {
            let is_beside = fleet.root.join(&file.path).exists();
            file.path = if is_beside {
                folder.join(&file.path)
            } else {
                format!("{} (built in)", file.path.display()).into()
            };
        }
        if !self.given.is_empty() {
            self.files.insert(0, fleet.source.refuse(self.given));
        }
        if self.files.is_empty() { Ok(()) } else { Err(ProjectError::Invalid(self.files)) }
    }
}

impl Project {
    /// Reads everything that a fleet mentions. Needs no network; large files are read only when they changed since the
    /// last time, which `<cache_dir>/digests` remembers.
    pub fn open(fleet: Fleet, cache_dir: &Path) -> Result<Self, ProjectError> {
        let files = SourceFiles::within(&fleet.root, &fleet.project);
        let mut recipes = BTreeMap::new();
        let mut pins = RecipePins::default();
        let mut invalid = Invalid::default();
        for (name, image) in &fleet.images {
            let loaded = match Recipes::load(&image.recipes, &image.parameters, &files) {
                Ok(loaded) => loaded,
                Err(RecipeError::Invalid { files, given }) => {
                    invalid.add(files, given);
                    continue;
                }
                Err(source) => return Err(ProjectError::Recipe { image: name.clone(), source }),
            };
            pins.digests.extend(loaded.digests().clone());
            pins.packages.insert(name.clone(), loaded.world().map(str::to_owned).collect());
            recipes.insert(name.clone(), loaded);
        }
        invalid.none(&fleet)?;
        let config = match &fleet.kernel {
            KernelSpec::Build(build) => Some(kernel_config(&files, build)?),
            KernelSpec::Ready { .. } => None,
        };
        let wanted = Wanted::of(&fleet, &pins, config.as_ref(), &Digests::new(cache_dir))?;
        let series = config.as_ref().and_then(|config| config.series.clone());
        let requested = config.map(|config| config.requested);
        Ok(Self { fleet, recipes, wanted, requested, series })
    }

    /// Why a lock no longer fits, one sentence for each thing that differs; none where it fits.
    pub fn stale(&self, lock: &Lock) -> Vec<String> {
        stale(&self.fleet, &self.wanted, lock)
    }

    /// Kernel options that recipes and machines need, and which of them does.
    pub fn kernel_needs(&self) -> Vec<Need> {
        let recipes = self
            .recipes
            .values()
            .flat_map(Recipes::kernel_needs)
            .map(|(recipe, option)| Need { whose: NeededBy::Recipe(recipe.clone()), option: option.clone() });
        let machines = self.fleet.guests.iter().flat_map(|(name, guest)| {
            let declared = guest.machine_name.as_ref().or(guest.pool.as_ref().map(|member| &member.pool));
            let whose = NeededBy::Machine(declared.map_or(name.as_str(), |name| name.as_str()).to_owned());
            let options = guest.machine.kernel_needs().filter_map(|option| KernelOption::parse(option).ok());
            options.map(move |option| Need { whose: whose.clone(), option })
        });
        let mut needs: Vec<_> = recipes.chain(machines).collect();
        needs.sort();
        needs.dedup();
        needs
    }

    /// What recipes and machines need of the kernel and its configuration turns off, or leaves to what Kconfig makes of it. Whether it
    /// comes out on is known only once the kernel is configured; the build then fails where it does not. Nothing is known
    /// of a ready kernel.
    pub fn need_doubts(&self) -> Vec<NeedDoubt> {
        let needs = self.kernel_needs();
        self.requested.as_ref().map_or_else(Vec::new, |requested| need_doubts(requested, &needs))
    }

    /// What is worth knowing of the kernel's series, as its base and the name of its source tell it.
    pub fn series_notes(&self) -> Vec<String> {
        let (KernelSpec::Build(build), Some(series)) = (&self.fleet.kernel, &self.series) else {
            return Vec::new();
        };
        let source = &self.wanted.kernel.source;
        let named = series::of_file_name(source);
        let other = named.filter(|named| named != series).map(|named| {
            format!("the kernel base {} is for Linux {series}, but {source} looks like {named}", build.base)
        });
        let unsupported = (series != series::SUPPORTED).then(|| {
            format!(
                "Firecracker supports guests and snapshots with Linux {}, but the kernel base {} is for \
                 {series}",
                series::SUPPORTED,
                build.base
            )
        });
        other.into_iter().chain(unsupported).collect()
    }

    /// Looks whether a ready kernel is one that the fleet's VMM can start.
    fn check_kernel(&self) -> Result<(), ProjectError> {
        match vmlinux::problem(&self.fleet)? {
            Some(problem) => Err(ProjectError::Invalid(vec![self.fleet.source.refuse(vec![problem])])),
            None => Ok(()),
        }
    }

    /// The lock of this fleet, whatever its scripts. A lock that fits is given back as it is, without the network being used,
    /// unless an update is asked for.
    pub fn choose(
        &self,
        old: Option<&Lock>,
        update: &Update,
        cache: &Cache,
        offline: bool,
        report: &dyn Report,
    ) -> Result<Lock, ProjectError> {
        if let Some(old) = old.filter(|old| *update == Update::None && self.stale(old).is_empty()) {
            // A lock of an earlier version pins no files.
            let files = Some(&self.wanted.files).filter(|files| !files.is_empty()).cloned();
            return Ok(Lock { file: old.file.clone().or(files), ..old.clone() });
        }
        self.check_kernel()?;
        // A machine without a compiler can lock; who builds the kernel needs one.
        let toolchain = make::toolchain().ok();
        let (fleet, wanted, toolchain) = (&self.fleet, &self.wanted, toolchain.as_deref());
        Ok(resolve(&Request { fleet, wanted, old, update, toolchain, cache, offline, report })?)
    }

    /// Each image that a lock has, with its recipes and the scripts of its packages.
    pub fn scripts<'a>(
        &'a self,
        lock: &'a Lock,
    ) -> impl Iterator<Item = (&'a Label, &'a ImageSpec, &'a Recipes, Vec<PackageScripts>)> {
        self.fleet.images.iter().filter_map(|(name, image)| {
            let (recipes, locked) = (self.recipes.get(name)?, lock.image.get(name)?);
            let packages = lock.packages_of(locked).filter_map(Result::ok).map(PackageScripts::locked);
            Some((name, image, recipes, packages.collect()))
        })
    }

    /// Looks whether every package script that a lock lists is covered or accepted, and whether every acceptance accepts one.
    pub fn check_scripts(&self, lock: &Lock) -> Result<(), ProjectError> {
        let scripts = self.scripts(lock);
        let problems: Vec<Problem> = scripts
            .flat_map(|(_, image, recipes, packages)| scripts::problems(image, recipes, &packages))
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ProjectError::Invalid(vec![self.fleet.source.refuse(problems)]))
        }
    }
}
