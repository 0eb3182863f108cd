//! Repositories: signed indexes and pinned packages, from the network by way of the cache, or from a directory.

use std::path::{Path, PathBuf};

use crate::apk::{Checksum, ExpectedPackage, KeyRing, PackageContents, PackageInfo};
use crate::fleet::{Fleet, RepositorySpec};
use crate::sys::beneath;
use crate::sys::fetch::{self, Cache};
use crate::sys::report::Report;

use super::indexes::{FileLocation, Indexes, SignedIndex, index_place, nowhere, package_place};
use super::listings::Listings;
use super::model::LockedPackage;
use super::wanted::spelled;

pub use super::refusal::RepositoryError;

/// Downloads at the same time: waiting for a server takes no processor.
pub const DOWNLOADS: usize = 8;

/// The repositories of a fleet, and the way to them.
pub struct Repositories<'a> {
    pub fleet: &'a Fleet,
    pub cache: &'a Cache,
    pub offline: bool,
    pub report: &'a dyn Report,
}

impl Repositories<'_> {
    fn name(&self, spec: &RepositorySpec) -> String {
        spelled(&self.fleet.root, &spec.location)
    }

    /// The keys that a repository trusts.
    pub fn keys(&self, spec: &RepositorySpec) -> Result<KeyRing, RepositoryError> {
        KeyRing::read(&spec.keys)
            .map_err(|source| RepositoryError::Keys { repository: self.name(spec), source })
    }

    /// The newest index of a repository, its signature checked. Offline, it is the one that was seen last.
    pub fn index(&self, spec: &RepositorySpec) -> Result<SignedIndex, RepositoryError> {
        let indexes = Indexes { cache: self.cache, offline: self.offline, report: self.report };
        indexes.newest(&self.name(spec), &index_place(spec), &self.keys(spec)?)
    }

    /// Pins a package that an index names: its bytes are verified against the index, and their digest is taken.
    pub fn pin(
        &self,
        spec: &RepositorySpec,
        info: &PackageInfo,
        key: &str,
    ) -> Result<LockedPackage, RepositoryError> {
        let pin = |path: PathBuf| self.pin_file(spec, info, key, &path);
        match package_place(spec, &info.id()) {
            FileLocation::Here(path) => pin(there(path, &self.name(spec), &info.name, false)?),
            FileLocation::Network(address) => {
                let had = self.cache.get_accepted(&address, Some(info.size), self.offline, self.report, pin);
                had.map_err(|errors| {
                    nowhere(&self.name(spec), errors, |source| {
                        let (package, repository) = (info.id(), self.name(spec));
                        RepositoryError::FetchPackage { package, repository, source }
                    })
                })
            }
        }
    }

    fn pin_file(
        &self,
        spec: &RepositorySpec,
        info: &PackageInfo,
        key: &str,
        path: &Path,
    ) -> Result<LockedPackage, RepositoryError> {
        let repository = self.name(spec);
        let refused = |source| match package_place(spec, &info.id()) {
            FileLocation::Here(_) => RepositoryError::Package { repository: repository.clone(), source },
            FileLocation::Network(_) => {
                RepositoryError::SentPackage { repository: repository.clone(), source }
            }
        };
        let (contents, sha256) =
            PackageContents::verify_file(path.to_owned(), None, &ExpectedPackage::from(info))
                .map_err(refused)?;
        self.listings().keep(&sha256, &contents);
        Ok(LockedPackage {
            name: info.name.clone(),
            version: info.version.to_string(),
            repository,
            checksum: info.checksum.to_string(),
            size: info.size,
            sha256,
            key: key.to_owned(),
            scripts: contents.scripts_at_install(),
        })
    }

    /// A pinned package: by the digest in the lock, and by all that the package says of itself. One that was verified on this
    /// machine before is taken as it was remembered; it is held against that when its files are read.
    pub fn package(&self, locked: &LockedPackage) -> Result<PackageContents, RepositoryError> {
        let path = self.pinned_file(locked)?;
        let checksum: Checksum = locked
            .checksum
            .parse()
            .map_err(|source| RepositoryError::Checksum { package: locked.id(), source })?;
        let (name, version) = (locked.name.clone(), locked.version.clone());
        let expected = ExpectedPackage { name, version, checksum, size: locked.size };
        let listings = self.listings();
        if let Some(remembered) = listings.find(&path, &locked.sha256, &expected) {
            return Ok(remembered);
        }
        let (package, _) = PackageContents::verify_file(path, Some(&locked.sha256), &expected)
            .map_err(|source| RepositoryError::Package { repository: locked.repository.clone(), source })?;
        listings.keep(&locked.sha256, &package);
        Ok(package)
    }

    /// What packages hold, as far as it is remembered.
    pub fn listings(&self) -> Listings {
        Listings::new(self.cache.dir())
    }

    /// The file of a pinned package, downloaded if need be.
    pub fn pinned_file(&self, locked: &LockedPackage) -> Result<PathBuf, RepositoryError> {
        match self.pinned_place(locked)? {
            FileLocation::Here(path) => there(path, &locked.repository, &locked.name, true),
            FileLocation::Network(address) => {
                let (sha256, size) = (Some(locked.sha256), Some(locked.size));
                let expected = fetch::ExpectedFile { sha256, size };
                self.cache.get(&address, expected, self.offline, self.report).map_err(|source| {
                    let (package, repository) = (locked.id(), locked.repository.clone());
                    RepositoryError::FetchPackage { package, repository, source }
                })
            }
        }
    }

    /// Whether a pinned package's file is neither in a directory nor in the cache; what is there is looked at when it is used.
    pub fn is_to_fetch(&self, locked: &LockedPackage) -> bool {
        match self.pinned_place(locked) {
            Ok(FileLocation::Here(_)) => false,
            Ok(FileLocation::Network(_)) => !self.cache.path(&locked.sha256).exists(),
            Err(_) => true,
        }
    }

    /// Where a pinned package is.
    pub fn pinned_place(&self, locked: &LockedPackage) -> Result<FileLocation, RepositoryError> {
        let spec = self.fleet.repositories.iter().find(|spec| self.name(spec) == locked.repository);
        let spec = spec.ok_or_else(|| RepositoryError::Unknown {
            package: locked.id(),
            repository: locked.repository.clone(),
        })?;
        Ok(package_place(spec, &locked.id()))
    }
}

/// A package's file in a directory, which must be there: what is not is no damaged one.
fn there(path: PathBuf, repository: &str, name: &str, is_pinned: bool) -> Result<PathBuf, RepositoryError> {
    let is_absent = std::fs::symlink_metadata(&path).is_err_and(|error| beneath::is_absent(&error));
    if !is_absent {
        return Ok(path);
    }
    let (repository, name) = (repository.to_owned(), name.to_owned());
    Err(RepositoryError::Absent { repository, path, name, is_pinned })
}
