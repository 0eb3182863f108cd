//! A fleet and the indexes of its repositories become a lock.
//!
//! What was chosen once stays for as long as it fits, as with Cargo: an image whose world and repositories are as they were
//! keeps its packages, and no index is read for it. An image that must be solved anew keeps the versions that the lock has
//! where the indexes still offer them; where the world cannot be met so, as few of them move as must.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::apk::{self, Dependency, Index, InvalidDependency, PackageInfo, SolveError};
use crate::base::Label;
use crate::base::text::counted;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::fleet::nearest;
use crate::sys::registry::RegistryError;
use crate::sys::report::Unit;

use super::address::{self, OutOfNumbers};
use super::containers;
use super::hold::{Identity, identity, least, why_moved};
use super::kernel_source::{self, KernelSourceError};
use super::model::{ARCH, LOCK_VERSION, Lock, LockedImage, LockedPackage, LockedRepository};
use super::repository::{DOWNLOADS, Repositories, RepositoryError};
use super::request::{Request, Update};
use super::wanted::Wanted;

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("the packages of the image {image} cannot be installed together")]
    Solve { image: Label, source: SolveError },
    #[error("the image {image} needs {package}")]
    World { image: Label, package: String, source: InvalidDependency },
    #[error("no image has the package {name}{}", suggestion.as_ref().map(|s| format!("; did you mean {s}?")).unwrap_or_default())]
    NotLocked { name: String, suggestion: Option<String> },
    #[error(
        "{package} comes from {first} and from {second}, and the two differ: all images of a fleet must \
      use the same one"
    )]
    TwoOfOne { package: String, first: String, second: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Kernel(#[from] KernelSourceError),
    #[error(transparent)]
    Numbers(#[from] OutOfNumbers),
    #[error("cannot start threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl Diagnostic for ResolveError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Repository(error) => error.diagnosis(),
            Self::Solve { source, .. } => source
                .diagnosis()
                .hint("change the image's `packages`, those of its recipes, or the repositories"),
            Self::World { .. } => Class::Invalid.hint(
                "correct it in the image's `packages`, or in its \
              recipes",
            ),
            Self::NotLocked { .. } => {
                Class::Invalid.hint("`--update` takes names of packages that images have, or none for all")
            }
            Self::TwoOfOne { .. } => Class::Invalid
                .hint("give one of the repositories a tag, or let both images take it from the same one"),
            Self::Registry(error) => error.diagnosis(),
            Self::Kernel(error) => error.diagnosis(),
            Self::Numbers(error) => error.diagnosis(),
            Self::Threads(_) => Class::Failed.no_hint(),
        }
    }
}

/// Makes the lock.
pub fn resolve(request: &Request<'_>) -> Result<Lock, ResolveError> {
    let (image, package) = images(request)?;
    let none = BTreeMap::new();
    let old_guests = request.old.map_or(&none, |lock| &lock.guest);
    Ok(Lock {
        version: LOCK_VERSION,
        fleet: request.fleet.name.clone(),
        kernel: kernel_source::pin(request)?,
        repository: locked_repositories(request.wanted),
        image,
        recipe: request.wanted.recipes.clone(),
        container: containers::resolve(request)?,
        file: Some(request.wanted.files.clone()),
        guest: address::numbered(request.fleet, old_guests)?,
        // Each says itself of which inputs it is.
        artifact: request.old.map(|lock| lock.artifact.clone()).unwrap_or_default(),
        package,
    })
}

fn locked_repositories(wanted: &Wanted) -> Vec<LockedRepository> {
    wanted.repositories.iter().map(|repository| repository.locked.clone()).collect()
}

type Images = (BTreeMap<Label, LockedImage>, Vec<LockedPackage>);

fn images(request: &Request<'_>) -> Result<Images, ResolveError> {
    refuse_unknown(request)?;
    let mut locked = BTreeMap::new();
    let mut packages: BTreeMap<String, LockedPackage> = BTreeMap::new();
    let mut changed = Vec::new();
    for (name, world) in &request.wanted.worlds {
        match kept(name, world, request) {
            Some((image, kept)) => {
                locked.insert(name.clone(), image.clone());
                packages.extend(kept.into_iter().map(|package| (package.id(), package.clone())));
            }
            None => changed.push((name, world)),
        }
    }
    if !changed.is_empty() {
        let universe = RepositoryIndexes::open(request)?;
        let chosen = universe.choose(&changed)?;
        for package in universe.pin(chosen.values().flatten())? {
            if let Some(other) = packages.insert(package.id(), package.clone())
                && other.sha256 != package.sha256
            {
                let (first, second) = (other.repository, package.repository.clone());
                return Err(ResolveError::TwoOfOne { package: package.id(), first, second });
            }
        }
        for (name, world) in changed {
            let chosen = chosen.get(name).into_iter().flatten();
            let packages = chosen.map(|choice| choice.info.id()).collect();
            locked.insert(name.clone(), LockedImage { arch: ARCH.into(), world: world.clone(), packages });
        }
    }
    let mut packages: Vec<LockedPackage> = packages.into_values().collect();
    packages.sort();
    Ok((locked, packages))
}

/// Naming a package that no image has is a slip of the pen.
fn refuse_unknown(request: &Request<'_>) -> Result<(), ResolveError> {
    let Update::Packages(names) = request.update else { return Ok(()) };
    let known: BTreeSet<&str> =
        request.old.iter().flat_map(|lock| &lock.package).map(|package| package.name.as_str()).collect();
    match names.iter().find(|name| !known.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let suggestion = nearest(name, known).map(str::to_owned);
            Err(ResolveError::NotLocked { name: name.clone(), suggestion })
        }
    }
}

/// The packages of an image that need not be solved anew.
fn kept<'a>(
    name: &Label,
    world: &[String],
    request: &Request<'a>,
) -> Option<(&'a LockedImage, Vec<&'a LockedPackage>)> {
    let old = request.old?;
    let image = old.image.get(name)?;
    let packages = old.packages_of(image).collect::<Result<Vec<_>, _>>().ok()?;
    let may_stay = match request.update {
        Update::None => true,
        Update::All => false,
        Update::Packages(names) => !packages.iter().any(|package| names.contains(&package.name)),
    };
    let same =
        image.world == world && image.arch == ARCH && old.repository == locked_repositories(request.wanted);
    let trusted = packages.iter().all(|package| request.wanted.trusts(package));
    (may_stay && same && trusted).then_some((image, packages))
}

/// A package that was chosen, and the position of its repository.
struct Choice {
    info: PackageInfo,
    repository: usize,
}

/// The indexes of all repositories.
struct RepositoryIndexes<'a> {
    request: &'a Request<'a>,
    repositories: Repositories<'a>,
    indexes: Vec<Index>,
    pool: rayon::ThreadPool,
}

impl<'a> RepositoryIndexes<'a> {
    fn open(request: &'a Request<'a>) -> Result<Self, ResolveError> {
        let Request { fleet, cache, offline, report, .. } = *request;
        let repositories = Repositories { fleet, cache, offline, report };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(DOWNLOADS).build()?;
        let task = report.begin("read indexes", Some(fleet.repositories.len() as u64), Unit::Steps);
        let read = |spec| {
            let signed = repositories.index(spec);
            task.advance(1);
            signed.map(|signed| signed.index)
        };
        let indexes =
            pool.install(|| fleet.repositories.par_iter().map(read).collect::<Result<Vec<Index>, _>>())?;
        task.finish(&format!(
            "{} to choose from",
            counted(indexes.iter().map(|index| index.packages.len()).sum::<usize>(), "package")
        ));
        Ok(Self { request, repositories, indexes, pool })
    }

    /// Solves each image: what the lock has stays, as far as it can.
    fn choose(
        &self,
        images: &[(&Label, &Vec<String>)],
    ) -> Result<BTreeMap<Label, Vec<Choice>>, ResolveError> {
        let held = self.held();
        let mut chosen = BTreeMap::new();
        for (image, world) in images {
            let world = parse_world(image, world)?;
            let choices = self.choose_beside(&world, &held);
            let choices =
                choices.map_err(|source| ResolveError::Solve { image: (*image).clone(), source })?;
            self.tell_moved(image, &world, &choices);
            chosen.insert((*image).clone(), choices);
        }
        Ok(chosen)
    }

    /// Solves a world: of what is held, no more moves than must.
    fn choose_beside(
        &self,
        world: &[Dependency],
        held: &BTreeSet<Identity>,
    ) -> Result<Vec<Choice>, SolveError> {
        if held.is_empty() {
            return self.solve(world, &self.indexes);
        }
        let mut held = held.clone();
        if let Update::Packages(names) = self.request.update {
            // What is named moves as far as it would in a new lock, and pulls along what it must.
            let newest = self.solve(world, &self.indexes)?;
            let named = newest.iter().filter(|choice| names.contains(&choice.info.name));
            held.extend(named.map(|choice| identity(&choice.info)));
        }
        let without = |moved: &[&str]| {
            let stays = |one: &&Identity| !moved.contains(&one.0.as_str());
            self.solve(world, &self.narrowed(&held.iter().filter(stays).cloned().collect()))
        };
        if let Ok(choices) = without(&[]) {
            return Ok(choices);
        }
        let newest = self.solve(world, &self.indexes)?;
        let there: BTreeSet<Identity> = newest.iter().map(|choice| identity(&choice.info)).collect();
        let movable: BTreeSet<&str> = held.difference(&there).map(|(name, ..)| name.as_str()).collect();
        let movable: Vec<&str> = movable.into_iter().collect();
        if without(&movable).is_err() {
            return Ok(newest);
        }
        let moved = least(&movable, &mut |moved| without(moved).is_ok());
        Ok(without(&moved).unwrap_or(newest))
    }

    /// Tells which packages moved that nobody asked to move, and why.
    fn tell_moved(&self, image: &Label, world: &[Dependency], choices: &[Choice]) {
        let (Some(old), Some(locked)) =
            (self.request.old, self.request.old.and_then(|old| old.image.get(image)))
        else {
            return;
        };
        let named = |name: &str| match self.request.update {
            Update::None => false,
            Update::All => true,
            Update::Packages(names) => names.contains(name),
        };
        let chosen: Vec<&PackageInfo> = choices.iter().map(|choice| &choice.info).collect();
        for package in old.packages_of(locked).filter_map(Result::ok).filter(|package| !named(&package.name))
        {
            let new = chosen.iter().find(|info| info.name == package.name);
            let Some(new) = new.filter(|new| identity(new) != package.identity()) else { continue };
            let mut offered = self.indexes.iter().flat_map(|index| &index.packages);
            let why = match offered.find(|info| identity(info) == package.identity()) {
                Some(old) => why_moved(old, world, &chosen),
                None => format!("no repository has {} any more", package.id()),
            };
            let note = format!("{} moves to {} besides: {why}", package.id(), new.version);
            self.request.report.note(&note);
        }
    }

    fn solve(&self, world: &[Dependency], indexes: &[Index]) -> Result<Vec<Choice>, SolveError> {
        let tags = self.request.fleet.repositories.iter().map(|spec| spec.tag.as_deref());
        let repositories: Vec<_> =
            indexes.iter().zip(tags).map(|(index, tag)| apk::Repository { index, tag }).collect();
        let chosen = apk::solve(world, &repositories, ARCH)?;
        Ok(chosen.into_iter().map(|c| Choice { info: c.info.clone(), repository: c.repository }).collect())
    }

    /// Name, version and checksum of the packages that the lock has and an index still offers.
    fn held(&self) -> BTreeSet<Identity> {
        let stays = |package: &&LockedPackage| match self.request.update {
            Update::None => true,
            Update::All => false,
            Update::Packages(names) => !names.contains(&package.name),
        };
        let locked = self.request.old.iter().flat_map(|lock| &lock.package).filter(stays);
        let locked: BTreeSet<_> = locked.map(LockedPackage::identity).collect();
        let names: BTreeSet<&str> = locked.iter().map(|(name, ..)| name.as_str()).collect();
        let offered = self.indexes.iter().flat_map(|index| &index.packages);
        let offered = offered.filter(|info| names.contains(info.name.as_str())).map(identity);
        offered.filter(|package| locked.contains(package)).collect()
    }

    /// The indexes without other versions of what is held.
    fn narrowed(&self, held: &BTreeSet<Identity>) -> Vec<Index> {
        let names: BTreeSet<&str> = held.iter().map(|(name, ..)| name.as_str()).collect();
        let stays =
            |info: &&PackageInfo| !names.contains(info.name.as_str()) || held.contains(&identity(info));
        let narrow = |index: &Index| Index {
            packages: index.packages.iter().filter(stays).cloned().collect(),
            key: index.key.clone(),
            ..Index::default()
        };
        self.indexes.iter().map(narrow).collect()
    }

    /// Pins what was chosen. What the lock has of the same identity stays as it is, without its bytes being looked at.
    fn pin<'c>(&self, chosen: impl Iterator<Item = &'c Choice>) -> Result<Vec<LockedPackage>, ResolveError> {
        let chosen: BTreeMap<_, _> =
            chosen.map(|choice| ((choice.info.id(), choice.repository), choice)).collect();
        let task = self.request.report.begin("verify packages", Some(chosen.len() as u64), Unit::Steps);
        let pin = |choice: &&Choice| {
            let package = self.pin_one(choice);
            task.advance(1);
            package
        };
        let chosen: Vec<_> = chosen.into_values().collect();
        let packages = self.pool.install(|| chosen.par_iter().map(pin).collect::<Result<Vec<_>, _>>())?;
        task.finish(&counted(packages.len(), "package"));
        Ok(packages)
    }

    fn pin_one(&self, choice: &Choice) -> Result<LockedPackage, RepositoryError> {
        let (info, repository) = (&choice.info, choice.repository);
        let location = &self.request.wanted.repositories[repository].locked.location;
        let key = self.indexes[repository].key.clone().unwrap_or_default();
        let same = |old: &&LockedPackage| {
            identity(info) == old.identity() && old.size == info.size && old.repository == *location
        };
        match self.request.old.iter().flat_map(|lock| &lock.package).find(same) {
            Some(old) => Ok(LockedPackage { key, ..old.clone() }),
            None => self.repositories.pin(&self.request.fleet.repositories[repository], info, &key),
        }
    }
}

fn parse_world(image: &Label, world: &[String]) -> Result<Vec<Dependency>, ResolveError> {
    let parse = |entry: &String| {
        let (image, package) = (image.clone(), entry.clone());
        entry.parse::<Dependency>().map_err(|source| ResolveError::World { image, package, source })
    };
    world.iter().map(parse).collect()
}
