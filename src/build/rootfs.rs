//! Root images: the packages of a lock, recipes and files become `rootfs.ext4`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use crate::apk::{PackageContents, database};
use crate::base::Label;
use crate::base::text::counted;
use crate::base::uuid_from;
use crate::fleet::{FileContent, ImageSpec, Source};
use crate::image::ext4::{Earlier, Ext4Error, Ext4Options, LAYOUT, Purpose, Written, write_ext4};
use crate::image::layout::{ApkSettings, rootfs};
use crate::image::read_back::{ReadBack, read_back};
use crate::image::recipe::Recipes;
use crate::image::scripts::{self, PackageScripts};
use crate::lock::model::{Lock, LockedImage, LockedPackage};
use crate::lock::repository::{DOWNLOADS, Repositories, RepositoryError};
use crate::sys::fs::{self as files, FileError};
use crate::sys::report::Unit;

use super::artifacts::{ArtifactKind, BuiltFile};
use super::earlier;
use super::error::BuildError;
use super::key::{BuildKey, KeyBuilder};
use super::threads::thread_pool;

/// An image that is to be built: everything that its bytes depend on.
pub(super) struct ImagePlan<'a> {
    pub name: &'a Label,
    spec: &'a ImageSpec,
    recipes: &'a Recipes,
    /// In install order.
    packages: Vec<&'a LockedPackage>,
    apk: ApkSettings,
}

impl<'a> ImagePlan<'a> {
    /// Gathers what an image is made of; opens no package.
    pub fn new(
        name: &'a Label,
        spec: &'a ImageSpec,
        recipes: &'a Recipes,
        lock: &'a Lock,
        repositories: &Repositories<'_>,
    ) -> Result<Self, BuildError> {
        let locked = lock.image.get(name).ok_or_else(|| BuildError::NotLocked(name.clone()))?;
        let packages = lock.packages_of(locked).collect::<Result<Vec<_>, _>>();
        let packages =
            packages.map_err(|id| BuildError::NotPinned { image: name.clone(), package: id.to_owned() })?;
        Ok(Self { name, spec, recipes, packages, apk: apk_settings(lock, locked, repositories)? })
    }

    /// The key of the image.
    pub fn key(&self) -> Result<BuildKey, FileError> {
        let key = KeyBuilder::new("image").input("layout", LAYOUT).input("database", database::LAYOUT);
        let mut key = key.input("arch", &self.apk.arch);
        for package in &self.packages {
            key = key.input("package", package.id()).input("sha256", package.sha256.0);
        }
        key = key.recipes(self.recipes);
        for script in &self.spec.accepted {
            for sha256 in &script.sha256 {
                let name = script.name.get_ref().to_string();
                key = key.input("accepted", name).input("sha256", sha256.get_ref().0);
            }
        }
        for (path, file) in &self.spec.files {
            let content = match &file.content {
                FileContent::Inline(text) => text.clone().into_bytes(),
                FileContent::File(path) => files::read(path)?,
            };
            key = key.input("file", path.as_str()).input("content", content);
            key = key
                .input("mode", file.mode.to_le_bytes())
                .input("owner", &file.owner)
                .input("group", &file.group);
        }
        for (name, bytes) in &self.apk.keys {
            key = key.input("trusted", name).input("key", bytes);
        }
        for dependency in &self.apk.world {
            key = key.input("world", dependency.to_string());
        }
        for line in &self.apk.repositories {
            key = key.input("repository", line);
        }
        for (package, tag) in &self.apk.tags {
            key = key.input("tagged", package).input("tag", tag);
        }
        let size = self.spec.size.map_or_else(|| "auto".to_owned(), |size| size.bytes().to_string());
        Ok(key.input("size", size).finish())
    }

    /// Writes the image into an empty directory. What an earlier image has of it is copied from there.
    pub fn write(
        &self,
        key: &BuildKey,
        dir: &Path,
        repositories: &Repositories<'_>,
        earlier: Option<&Path>,
        jobs: usize,
    ) -> Result<BuiltFile, BuildError> {
        let earlier = earlier.and_then(earlier::open);
        let write = || self.write_once(key, dir, repositories, earlier.as_ref(), jobs);
        let written = match write() {
            // It may be what was remembered that is wrong; if it is the package, reading it from its beginning tells.
            Err(
                BuildError::Layout { .. }
                | BuildError::Image {
                    source: Ext4Error::Package(_) | Ext4Error::Content { .. } | Ext4Error::Unfilled { .. },
                    ..
                },
            ) => {
                let listings = repositories.listings();
                self.packages.iter().for_each(|package| listings.remove(&package.sha256));
                write()?
            }
            written => written?,
        };
        let image = dir.join(ArtifactKind::Image.file_name());
        let Written { digest, size, placed } = written;
        earlier::keep(&image, placed)?;
        Ok(BuiltFile { digest, size })
    }

    fn write_once(
        &self,
        key: &BuildKey,
        dir: &Path,
        repositories: &Repositories<'_>,
        earlier: Option<&Earlier>,
        jobs: usize,
    ) -> Result<Written, BuildError> {
        let packages = self.open_packages(repositories, jobs)?;
        self.check_scripts(&packages, repositories)?;
        let task = repositories.report.begin(&format!("write image {}", self.name), None, Unit::Steps);
        let failed = |source| BuildError::Layout { image: self.name.clone(), source };
        let root = rootfs(&packages, self.recipes, &self.spec.files, &self.apk).map_err(failed)?;
        let path = dir.join(ArtifactKind::Image.file_name());
        let options = ext4_options(key, self.spec.size, Purpose::ReadOnly);
        let written =
            thread_pool(jobs)?.install(|| write_ext4(&root.tree, &root.sources(), &options, earlier, &path));
        let written = written.map_err(|source| BuildError::Image { image: self.name.clone(), source })?;
        task.finish(&counted(root.tree.len(), "file"));
        // A file that changed while it was read would stand under the wrong key.
        if self.key()? == *key { Ok(written) } else { Err(BuildError::Changed(self.name.clone())) }
    }

    /// The lock may be older than the scripts that it lists; the packages themselves decide.
    fn check_scripts(
        &self,
        packages: &[PackageContents],
        repositories: &Repositories<'_>,
    ) -> Result<(), BuildError> {
        let scripts: Vec<_> = packages.iter().map(PackageScripts::of).collect();
        match scripts::problems(self.spec, self.recipes, &scripts) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(BuildError::Invalid(repositories.fleet.source.refuse(problems))),
        }
    }

    /// Lays the image out again and holds a written one against it.
    pub fn read_back(
        &self,
        key: &BuildKey,
        image: &Path,
        repositories: &Repositories<'_>,
        jobs: usize,
    ) -> Result<ReadBack, BuildError> {
        let packages = self.open_packages(repositories, jobs)?;
        let failed = |source| BuildError::Layout { image: self.name.clone(), source };
        let root = rootfs(&packages, self.recipes, &self.spec.files, &self.apk).map_err(failed)?;
        let options = ext4_options(key, self.spec.size, Purpose::ReadOnly);
        Ok(thread_pool(jobs)?.install(|| read_back(image, &root.tree, &root.sources(), &options))?)
    }

    /// Every package, verified against the lock.
    fn open_packages(
        &self,
        repositories: &Repositories<'_>,
        jobs: usize,
    ) -> Result<Vec<PackageContents>, BuildError> {
        fetch(&self.packages, repositories)?;
        let name = format!("verify packages of {}", self.name);
        let task = repositories.report.begin(&name, Some(self.packages.len() as u64), Unit::Steps);
        let open = |number: &usize| {
            let package = repositories.package(self.packages[*number])?;
            task.advance(1);
            Ok::<_, BuildError>((*number, package))
        };
        // The largest first, which may take as long as all others.
        let mut order: Vec<usize> = (0..self.packages.len()).collect();
        order.sort_by_key(|number| Reverse(self.packages[*number].size));
        let opened = order.par_iter().with_max_len(1).map(open);
        let mut packages = thread_pool(jobs)?.install(|| opened.collect::<Result<Vec<_>, _>>())?;
        packages.sort_unstable_by_key(|(number, _)| *number);
        task.finish(&counted(packages.len(), "package"));
        Ok(packages.into_iter().map(|(_, package)| package).collect())
    }
}

/// Downloads packages that are not in the cache.
fn fetch(packages: &[&LockedPackage], repositories: &Repositories<'_>) -> Result<(), BuildError> {
    let absent: Vec<_> = packages.iter().filter(|package| repositories.is_to_fetch(package)).collect();
    // Threads that would have nothing to do cost as much as looking.
    if absent.is_empty() {
        return Ok(());
    }
    let fetch = |locked: &&&LockedPackage| repositories.pinned_file(locked).map(drop);
    Ok(thread_pool(DOWNLOADS)?.install(|| absent.par_iter().try_for_each(fetch))?)
}

/// Label, UUID and hash seed are functions of the key.
pub(super) fn ext4_options(
    key: &BuildKey,
    size: Option<crate::base::ByteSize>,
    purpose: Purpose,
) -> Ext4Options {
    let (mut uuid, mut hash_seed) = ([0; 16], [0; 16]);
    let (first, last) = key.digest().0.split_at(16);
    uuid.copy_from_slice(first);
    hash_seed.copy_from_slice(last);
    let uuid = uuid_from(uuid);
    Ext4Options { label: format!("sis-{}", key.digest().short()), uuid, hash_seed, size, purpose }
}

/// What apk in the guest is told: the world, the repositories that have an address, and whom to trust.
fn apk_settings(
    lock: &Lock,
    locked: &LockedImage,
    repositories: &Repositories<'_>,
) -> Result<ApkSettings, RepositoryError> {
    let mut settings = ApkSettings {
        arch: locked.arch.clone(),
        world: locked.world.iter().filter_map(|dependency| dependency.parse().ok()).collect(),
        repositories: Vec::new(),
        keys: BTreeMap::new(),
        tags: tags(locked, lock),
    };
    for spec in &repositories.fleet.repositories {
        if let Source::Url(url) = &spec.location {
            settings.repositories.push(match &spec.tag {
                Some(tag) => format!("@{tag} {url}"),
                None => url.clone(),
            });
        }
        let keys = repositories.keys(spec)?;
        settings.keys.extend(keys.files().map(|(name, pem)| (name.to_owned(), pem.to_vec())));
    }
    Ok(settings)
}

/// Tags of the repositories that an image's packages were chosen from, by package.
fn tags(locked: &LockedImage, lock: &Lock) -> BTreeMap<String, String> {
    let tag_of = |package: &LockedPackage| {
        let repository = lock.repository.iter().find(|known| known.location == package.repository)?;
        Some((package.name.clone(), repository.tag.clone()?))
    };
    lock.packages_of(locked).filter_map(|package| tag_of(package.ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_named_by_its_key() {
        let key = KeyBuilder::new("image").finish();
        let options = ext4_options(&key, None, Purpose::ReadOnly);
        assert_eq!(options.label.len(), 16);
        assert_eq!((options.uuid[6] >> 4, options.uuid[8] >> 6), (8, 2));
        let other = ext4_options(&KeyBuilder::new("disk").finish(), None, Purpose::ReadOnly);
        assert!(
            options.uuid != other.uuid
                && options.hash_seed != other.hash_seed
                && options.label != other.label
        );
    }
}
