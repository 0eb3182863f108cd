//! Repositories: signed indexes and pinned packages, from the network by way of the cache, or from a directory.

use std::path::PathBuf;
use std::sync::Arc;

use crate::apk::{
    Checksum, Expected, INDEX_FILE, Index, IndexError, InvalidChecksum, KeyError, KeyRing, PackageContents,
    PackageError, PackageInfo,
};
use crate::fleet::{Fleet, RepositorySpec, Sha256, Source};
use crate::sys::fetch::{self, Cache, FetchError, get_fresh};
use crate::sys::fs::{self as files, FileError};
use crate::sys::report::Report;

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
    #[error(
        "{package} of the repository {repository} has the SHA-256 {found}, and fleet.lock says {expected}"
    )]
    Digest { package: String, repository: String, expected: Sha256, found: Sha256 },
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
        newest_index(&self.name(spec), &spec.location, ARCH, &self.keys(spec)?, self.offline)
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
        let bytes: Arc<[u8]> = files::read(&path)?.into();
        let sha256 = Sha256::of(&bytes);
        let repository = self.name(spec);
        PackageContents::verify(bytes, &Expected::from(info))
            .map_err(|source| RepositoryError::Package { repository: repository.clone(), source })?;
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

    /// A pinned package, whole and verified: by the digest in the lock, and by all that the package says of itself.
    ///
    /// # Errors
    /// Where it cannot be had, or is not what the lock says.
    pub fn package(&self, locked: &LockedPackage) -> Result<PackageContents, RepositoryError> {
        let bytes: Arc<[u8]> = files::read(&self.pinned_file(locked)?)?.into();
        let found = Sha256::of(&bytes);
        let repository = || locked.repository.clone();
        if found != locked.sha256 {
            let (package, expected) = (locked.id(), locked.sha256);
            return Err(RepositoryError::Digest { package, repository: repository(), expected, found });
        }
        let checksum: Checksum = locked
            .checksum
            .parse()
            .map_err(|source| RepositoryError::Checksum { package: locked.id(), source })?;
        let (name, version) = (locked.name.clone(), locked.version.clone());
        PackageContents::verify(bytes, &Expected { name, version, checksum, size: locked.size })
            .map_err(|source| RepositoryError::Package { repository: repository(), source })
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

/// The newest index of a repository for machines of `arch`, its signature checked; `name` is what errors call it.
///
/// # Errors
/// Where it cannot be had, or no trusted key has signed it.
pub fn newest_index(
    name: &str,
    location: &Source,
    arch: &str,
    keys: &KeyRing,
    offline: bool,
) -> Result<Index, RepositoryError> {
    let repository = || name.to_owned();
    let bytes = match location {
        Source::Path(dir) => files::read(&dir.join(arch).join(INDEX_FILE))?,
        Source::Url(_) if offline => return Err(RepositoryError::Offline { repository: repository() }),
        Source::Url(url) => get_fresh(&format!("{url}/{arch}/{INDEX_FILE}"), MAX_INDEX)
            .map_err(|source| RepositoryError::FetchIndex { repository: repository(), source })?,
    };
    Index::verify(&bytes, keys).map_err(|source| RepositoryError::Index { repository: repository(), source })
}
