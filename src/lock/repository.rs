//! Repositories: signed indexes and pinned packages, from the network by way of the cache, or from a directory.

use std::path::PathBuf;

use crate::apk::{
    Checksum, Expected, Index, IndexError, InvalidChecksum, KeyError, KeyRing, PackageContents, PackageError,
    PackageInfo,
};
use crate::fleet::{Fleet, RepositorySpec, Sha256, Source};
use crate::sys::fetch::{self, Cache, FetchError, get_fresh};
use crate::sys::fs::{self as files, FileError};
use crate::sys::report::Report;

use super::listings::Listings;
use super::model::LockedPackage;
use super::wanted::{ARCH, spelled};

/// Largest index that is downloaded: Alpine's community repository has 2.5 MB.
const MAX_INDEX: u64 = 256 << 20;

/// Downloads at the same time: waiting for a server takes no processor.
pub const DOWNLOADS: usize = 8;

/// Why a repository, or a package of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("the keys of the repository {repository} cannot be read")]
    Keys { repository: String, source: KeyError },
    #[error("the repository {repository} is refused")]
    Index { repository: String, source: IndexError },
    #[error("the index of the repository {repository} is not here, and this run is offline")]
    Offline { repository: String },
    #[error("the index of the repository {repository} cannot be had")]
    FetchIndex { repository: String, source: FetchError },
    #[error("{package} of the repository {repository} cannot be had")]
    FetchPackage { package: String, repository: String, source: FetchError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("a package of the repository {repository} is refused")]
    Package { repository: String, source: PackageError },
    #[error("{package} in fleet.lock is of the repository {repository}, which fleet.toml does not have")]
    Unknown { package: String, repository: String },
    #[error("{package} in fleet.lock")]
    Checksum { package: String, source: InvalidChecksum },
}

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
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn keys(&self, spec: &RepositorySpec) -> Result<KeyRing, RepositoryError> {
        KeyRing::read(&spec.keys)
            .map_err(|source| RepositoryError::Keys { repository: self.name(spec), source })
    }

    /// The newest index of a repository, its signature checked.
    ///
    /// # Errors
    /// Where it cannot be had, or no trusted key has signed it.
    pub fn index(&self, spec: &RepositorySpec) -> Result<Index, RepositoryError> {
        let repository = || self.name(spec);
        let keys = self.keys(spec)?;
        let bytes = match &spec.location {
            Source::Path(dir) => files::read(&dir.join(ARCH).join("APKINDEX.tar.gz"))?,
            Source::Url(_) if self.offline => {
                return Err(RepositoryError::Offline { repository: repository() });
            }
            Source::Url(url) => get_fresh(&format!("{url}/{ARCH}/APKINDEX.tar.gz"), MAX_INDEX)
                .map_err(|source| RepositoryError::FetchIndex { repository: repository(), source })?,
        };
        Index::verify(&bytes, &keys)
            .map_err(|source| RepositoryError::Index { repository: repository(), source })
    }

    /// Pins a package that an index names: its bytes are verified against the index, and their digest is taken.
    ///
    /// # Errors
    /// Where it cannot be had, or is not what the index says.
    pub fn pin(
        &self,
        spec: &RepositorySpec,
        info: &PackageInfo,
        key: &str,
    ) -> Result<LockedPackage, RepositoryError> {
        let path = self.file(spec, &info.id(), None, info.size)?;
        let repository = self.name(spec);
        let (contents, sha256) = PackageContents::verify_file(path, None, &Expected::from(info))
            .map_err(|source| RepositoryError::Package { repository: repository.clone(), source })?;
        let sha256 = Sha256(sha256);
        self.listings().keep(&sha256, &contents);
        Ok(LockedPackage {
            name: info.name.clone(),
            version: info.version.to_string(),
            repository,
            checksum: info.checksum.to_string(),
            size: info.size,
            sha256,
            key: key.to_owned(),
        })
    }

    /// A pinned package: by the digest in the lock, and by all that the package says of itself. One that was verified on this
    /// machine before is taken as it was remembered; it is held against that when its files are read.
    ///
    /// # Errors
    /// Where it cannot be had, or is not what the lock says.
    pub fn package(&self, locked: &LockedPackage) -> Result<PackageContents, RepositoryError> {
        let path = self.pinned_file(locked)?;
        let checksum: Checksum = locked
            .checksum
            .parse()
            .map_err(|source| RepositoryError::Checksum { package: locked.id(), source })?;
        let (name, version) = (locked.name.clone(), locked.version.clone());
        let expected = Expected { name, version, checksum, size: locked.size };
        let listings = self.listings();
        if let Some(remembered) = listings.find(&path, &locked.sha256, &expected) {
            return Ok(remembered);
        }
        let (package, _) = PackageContents::verify_file(path, Some(&locked.sha256.0), &expected)
            .map_err(|source| RepositoryError::Package { repository: locked.repository.clone(), source })?;
        listings.keep(&locked.sha256, &package);
        Ok(package)
    }

    /// What packages hold, as far as it is remembered.
    pub fn listings(&self) -> Listings {
        Listings::new(self.cache.dir())
    }

    /// The file of a pinned package, downloaded if need be.
    ///
    /// # Errors
    /// Where it cannot be had, or its repository is gone.
    pub fn pinned_file(&self, locked: &LockedPackage) -> Result<PathBuf, RepositoryError> {
        let spec = self.fleet.repositories.iter().find(|spec| self.name(spec) == locked.repository);
        let spec = spec.ok_or_else(|| RepositoryError::Unknown {
            package: locked.id(),
            repository: locked.repository.clone(),
        })?;
        self.file(spec, &locked.id(), Some(locked.sha256), locked.size)
    }

    fn file(
        &self,
        spec: &RepositorySpec,
        package: &str,
        sha256: Option<Sha256>,
        size: u64,
    ) -> Result<PathBuf, RepositoryError> {
        match &spec.location {
            Source::Path(dir) => Ok(dir.join(ARCH).join(format!("{package}.apk"))),
            Source::Url(url) => {
                let url = format!("{url}/{ARCH}/{package}.apk");
                let expected = fetch::Expected { sha256: sha256.map(|sha256| sha256.0), size: Some(size) };
                let (package, repository) = (package.to_owned(), self.name(spec));
                self.cache
                    .get(&url, expected, self.offline, self.report)
                    .map_err(|source| RepositoryError::FetchPackage { package, repository, source })
            }
        }
    }
}
