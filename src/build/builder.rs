//! Building: a project and a lock that fits it become artifacts. What is there already is found by its key, without a
//! package being opened.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::diagnostic::one_line;
use crate::base::{FileDigest, Label, Sha256};
use crate::lock::model::{Lock, LockedArtifact};
use crate::lock::repository::Repositories;
use crate::sys::digest::digest_like;
use crate::sys::fetch::Cache;
use crate::sys::fs::{self as files, FileError};
use crate::sys::report::Report;

use super::artifacts::{Artifact, ArtifactKind, Artifacts, BuiltFile, OutDir};
use super::disk::{self, DiskPlan};
use super::error::BuildError;
use super::images::ImagePuller;
use super::key::BuildKey;
use super::names::pinned_as;
use super::project::Project;
use super::remote::{FleetRegistry, PinnedFile};
use super::rootfs::ImagePlan;

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    Kernel,
    Image(Label),
    /// By the name of a declared disk, or of its link in `out/disk/`.
    Disk(Label),
}

/// An artifact and its name in `out/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    pub name: Label,
    pub artifact: Artifact,
}

impl Built {
    /// Its name in fleet.lock.
    pub fn pinned_as(&self) -> String {
        pinned_as(self.artifact.kind, &self.name)
    }
}

/// What becomes of an artifact that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingArtifact {
    Build,
    /// It is built here, whatever it is to be: for whoever compares.
    BuildAgain,
    /// It is an error, [`BuildError::NotBuilt`]: for whoever only looks.
    Refuse,
    /// It is taken from the fleet's registry, or is an error.
    Take,
    /// It is given as what fleet.lock pins it to, else as [`FileDigest::Unbuilt`]: for whoever tells what would be done.
    Foresee,
}

/// Everything that a build has at hand.
#[derive(Clone, Copy)]
pub struct Builder<'a> {
    pub project: &'a Project,
    pub lock: &'a Lock,
    pub out: &'a OutDir,
    pub cache: &'a Cache,
    pub jobs: usize,
    pub offline: bool,
    pub missing: MissingArtifact,
    /// Where artifacts are that others built.
    pub registry: Option<&'a FleetRegistry>,
    pub report: &'a dyn Report,
}

impl<'a> Builder<'a> {
    /// The artifact of a key, made where it is missing and may be made.
    pub(super) fn obtain(
        &self,
        kind: ArtifactKind,
        name: &Label,
        key: &BuildKey,
        make: impl FnOnce(&Path) -> Result<BuiltFile, BuildError>,
    ) -> Result<Artifact, BuildError> {
        if let Some(there) = self.find(kind, name, key)? {
            return Ok(there);
        }
        match self.missing {
            MissingArtifact::Build | MissingArtifact::BuildAgain => self.out.obtain(kind, key, |dir| {
                // Whoever was waited for may have taken long.
                if !self.report.is_wanted(&key.to_string()) {
                    return Err(BuildError::NotWanted { kind, key: *key });
                }
                let made = make(dir)?;
                self.hold_to_pin(kind, name, key, &dir.join(kind.file_name()), made)?;
                Ok(made)
            }),
            MissingArtifact::Take if self.pin(kind, name, key).is_none() => {
                Err(BuildError::Unpinned(vec![pinned_as(kind, name)]))
            }
            MissingArtifact::Refuse | MissingArtifact::Take => Err(BuildError::NotBuilt { kind, key: *key }),
            MissingArtifact::Foresee => {
                // Bytes follow from the key, so one that is pinned is known before it is built.
                let pin = self.pin(kind, name, key);
                Ok(Artifact {
                    kind,
                    key: *key,
                    path: self.out.dir_of(kind, key).join(kind.file_name()),
                    digest: pin.map_or(FileDigest::Unbuilt(*key.digest()), |pin| pin.digest),
                    size: pin.map_or(0, |pin| pin.size),
                    cached: false,
                    pulled: false,
                })
            }
        }
    }

    /// An artifact that need not be built: it is in `out/`, or the registry has it.
    pub(super) fn find(
        &self,
        kind: ArtifactKind,
        name: &Label,
        key: &BuildKey,
    ) -> Result<Option<Artifact>, BuildError> {
        if let Some(found) = self.out.find(kind, key) {
            if self.missing != MissingArtifact::Foresee {
                let made = BuiltFile { digest: found.digest, size: found.size };
                self.hold_to_pin(kind, name, key, &found.path, made)?;
            }
            return Ok(Some(found));
        }
        let may_build = self.missing == MissingArtifact::Build;
        let (Some(pin), Some(registry)) = (self.pin(kind, name, key), self.registry) else { return Ok(None) };
        if !may_build && self.missing != MissingArtifact::Take {
            return Ok(None);
        }
        let earlier = self.out.named(kind, name);
        let pinned_as = pinned_as(kind, name);
        let wanted = PinnedFile { kind, name: &pinned_as, pin, earlier: earlier.as_deref() };
        let take = |dir: &Path| registry.take(self.lock, &wanted, dir, self.report).map_err(BuildError::from);
        match self.out.obtain(kind, key, take) {
            Ok(artifact) => Ok(Some(Artifact { pulled: !artifact.cached, ..artifact })),
            Err(BuildError::Remote(error)) if may_build => {
                let error = one_line(&error);
                self.report.note(&format!("{error}; {pinned_as} is built instead"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What fleet.lock pins of an artifact with these inputs.
    pub(super) fn pin(&self, kind: ArtifactKind, name: &Label, key: &BuildKey) -> Option<&'a LockedArtifact> {
        self.lock.pin(&pinned_as(kind, name), &key.to_string())
    }

    /// What fleet.lock is to pin of an artifact; nothing new of a kernel that another toolchain than the lock's has built.
    pub fn new_pin(&self, built: &Built) -> Result<Option<LockedArtifact>, FileError> {
        let Artifact { kind, key, path, digest, size, .. } = &built.artifact;
        if let Some(pin) = self.pin(*kind, &built.name, key) {
            return Ok(Some(pin.clone()));
        }
        let config = path.with_file_name("config");
        let is_kernel = *kind == ArtifactKind::Kernel && config.exists();
        if is_kernel && !self.is_of_locked_toolchain() {
            return Ok(self.lock.artifact.get(&built.pinned_as()).cloned());
        }
        let config = is_kernel.then(|| files::read(&config).map(Sha256::of)).transpose()?;
        Ok(Some(LockedArtifact { key: key.to_string(), digest: *digest, size: *size, config }))
    }

    /// Holds a file to what fleet.lock pins of it.
    fn hold_to_pin(
        &self,
        kind: ArtifactKind,
        name: &Label,
        key: &BuildKey,
        path: &Path,
        made: BuiltFile,
    ) -> Result<(), BuildError> {
        let held = self.missing != MissingArtifact::BuildAgain;
        let Some(pin) = self.pin(kind, name, key).filter(|_| held) else { return Ok(()) };
        // A pin may be of another kind of digests than sisforge makes today.
        let is_same = made.digest == pin.digest || digest_like(&pin.digest, path)?.0 == pin.digest;
        if is_same {
            return Ok(());
        }
        let (name, pinned, found) = (pinned_as(kind, name), pin.digest, made.digest);
        Err(BuildError::NotAsPinned { name, pinned, found })
    }

    pub(super) fn repositories(&self) -> Repositories<'a> {
        Repositories {
            fleet: &self.project.fleet,
            cache: self.cache,
            offline: self.offline,
            report: self.report,
        }
    }

    pub(super) fn puller(&self) -> ImagePuller<'a> {
        ImagePuller { cache: self.cache, offline: self.offline, report: self.report }
    }

    pub(super) fn refuse_stale(&self) -> Result<(), BuildError> {
        let reasons = self.project.stale(self.lock);
        if reasons.is_empty() { Ok(()) } else { Err(BuildError::Stale(reasons)) }
    }

    /// Builds what is selected, in the order kernel, images, disks, and gives every artifact its name in `out/`. Where
    /// something fails, what was finished before stays; nothing half-made does.
    pub fn build(&self, what: &Selection) -> Result<Vec<Built>, BuildError> {
        self.refuse_stale()?;
        match what {
            Selection::All => Ok(self.named_artifacts()?.1),
            Selection::Kernel => Ok(vec![self.kernel()?]),
            Selection::Image(name) => Ok(vec![self.image(name)?]),
            Selection::Disk(name) => self.disks_named(name),
        }
    }

    /// Builds everything, for whoever runs the fleet.
    pub fn artifacts(&self) -> Result<Artifacts, BuildError> {
        self.named_artifacts().map(|(artifacts, _)| artifacts)
    }

    /// Builds everything, and gives the names of all in `out/` as well.
    pub fn named_artifacts(&self) -> Result<(Artifacts, Vec<Built>), BuildError> {
        self.refuse_stale()?;
        let kernel = self.kernel()?;
        let mut all = vec![kernel.clone()];
        let mut images = BTreeMap::new();
        for name in self.project.fleet.images.keys() {
            let image = self.image(name)?;
            all.push(image.clone());
            images.insert(name.clone(), image.artifact);
        }
        let (mut disks, mut containers) = (BTreeMap::new(), BTreeMap::new());
        for plan in self.disk_plans()? {
            for built in self.disk(&plan)? {
                let artifact = &built.artifact;
                let of_guests = plan.guests.iter().map(|guest| ((*guest).clone(), artifact.clone()));
                match artifact.kind {
                    ArtifactKind::Containers => containers.extend(of_guests),
                    _ => disks.extend(of_guests),
                }
                all.push(built);
            }
        }
        Ok((Artifacts { kernel: kernel.artifact, images, disks, containers }, all))
    }

    pub(super) fn named(&self, name: Label, artifact: Artifact) -> Result<Built, BuildError> {
        if self.missing != MissingArtifact::Foresee {
            self.out.link(&artifact, &name)?;
        }
        Ok(Built { name, artifact })
    }

    /// What an image is made of.
    pub(super) fn image_plan(&self, name: &Label) -> Result<ImagePlan<'a>, BuildError> {
        let images = &self.project.fleet.images;
        let (Some((name, spec)), Some(recipes)) =
            (images.get_key_value(name), self.project.recipes.get(name))
        else {
            let known = images.keys().map(Label::to_string).collect();
            return Err(BuildError::Unknown { what: "image", name: name.clone(), known });
        };
        ImagePlan::new(name, spec, recipes, self.lock, &self.repositories())
    }

    fn image(&self, name: &Label) -> Result<Built, BuildError> {
        let (plan, repositories) = (self.image_plan(name)?, self.repositories());
        let key = plan.key()?;
        let earlier = self.out.named(ArtifactKind::Image, name);
        let write = |dir: &Path| plan.write(&key, dir, &repositories, earlier.as_deref(), self.jobs);
        self.named(name.clone(), self.obtain(ArtifactKind::Image, name, &key, write)?)
    }

    pub(super) fn disk_plans(&self) -> Result<Vec<DiskPlan<'a>>, BuildError> {
        disk::plan(&self.project.fleet, &self.project.recipes, self.lock)
    }

    /// A data disk, and the container images that go with it.
    fn disk(&self, plan: &DiskPlan<'_>) -> Result<Vec<Built>, BuildError> {
        let key = plan.key();
        let write = |dir: &Path| plan.write(&key, dir, self.jobs, self.report);
        let artifact = self.obtain(ArtifactKind::Disk, &plan.name, &key, write)?;
        // That of one that is not built is known, too.
        let artifact = Artifact { size: plan.size().bytes(), ..artifact };
        let mut built = vec![self.named(plan.name.clone(), artifact)?];
        if let Some(images) = plan.images()? {
            let key = images.key();
            let write = |dir: &Path| images.write(&key, dir, self.puller(), self.jobs);
            let artifact = self.obtain(ArtifactKind::Containers, &images.name, &key, write)?;
            built.push(self.named(images.name.clone(), artifact)?);
        }
        Ok(built)
    }

    fn disks_named(&self, name: &Label) -> Result<Vec<Built>, BuildError> {
        let plans = self.disk_plans()?;
        let of_images = format!("{name}.");
        let is_meant = |plan: &&DiskPlan<'_>| {
            plan.name == *name
                || plan.name.as_str().strip_prefix(&of_images).is_some_and(|image| {
                    self.project.fleet.images.keys().any(|known| known.as_str() == image)
                })
        };
        let built = plans.iter().filter(is_meant).map(|plan| self.disk(plan));
        let built = built.collect::<Result<Vec<_>, _>>()?.concat();
        if built.is_empty() {
            let known = plans.iter().map(|plan| plan.name.to_string()).collect();
            return Err(BuildError::Unknown { what: "data disk of a guest", name: name.clone(), known });
        }
        Ok(built)
    }
}
