//! Repositories: signed indexes and pinned packages, from the network by way of the cache, or from a directory.

use std::path::{Path, PathBuf};

use crate::apk::{
    Checksum, DAMAGED, ExpectedPackage, IndexError, InvalidChecksum, KeyError, KeyRing, PackageContents,
    PackageError, PackageInfo, Refusal,
};
use crate::base::diagnostic::{each, together};
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::fleet::{Fleet, RepositorySpec};
use crate::sys::fetch::{self, Cache, FetchError};
use crate::sys::fs::FileError;
use crate::sys::report::Report;

use super::indexes::{FileLocation, Indexes, SignedIndex, index_place, nowhere, package_place};
use super::listings::Listings;
use super::model::LockedPackage;
use super::wanted::spelled;

/// Downloads at the same time: waiting for a server takes no processor.
pub const DOWNLOADS: usize = 8;

/// Why a repository, or a package of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("the keys of the repository {repository} cannot be read")]
    Keys { repository: String, source: KeyError },
    #[error("the repository {repository} is refused")]
    Index { repository: String, source: IndexError },
    #[error("the index of the repository {repository} is not in the cache, and this run is offline")]
    Offline { repository: String },
    #[error("cannot get the index of the repository {repository}")]
    FetchIndex { repository: String, source: FetchError },
    #[error("cannot get {package} from the repository {repository}")]
    FetchPackage { package: String, repository: String, source: FetchError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("a package of the repository {repository} is refused")]
    Package { repository: String, source: PackageError },
    /// The same of one that a server sent, which may send another the next time.
    #[error("a package of the repository {repository} is refused")]
    SentPackage { repository: String, source: PackageError },
    #[error("{package} in fleet.lock comes from the repository {repository}, which fleet.toml does not have")]
    Unknown { package: String, repository: String },
    #[error("{package} in fleet.lock")]
    Checksum { package: String, source: InvalidChecksum },
    /// In the order of the places, the repository's own address first.
    #[error("none of the {} URLs of the repository {repository} works: {}", errors.len(), each(errors))]
    Nowhere { repository: String, errors: Vec<RepositoryError> },
}

impl Diagnostic for RepositoryError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Keys { source, .. } => source.diagnosis(),
            Self::Index { source, .. } => source.diagnosis().or_hint(DAMAGED),
            Self::Offline { .. } => Class::Failed.hint("run once without --offline"),
            Self::FetchIndex { source, .. } | Self::FetchPackage { source, .. } => source.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Package { source: PackageError { reason: Refusal::Digest { .. }, .. }, .. } => Class::Invalid.hint(
                "fleet.lock pins a different file, and this one may be damaged: restore that file. A new one is taken when its \
                 repository is indexed again (`sisforge apk index`), and then with `sisforge lock --update`",
            ),
            Self::Package { source, .. } => source.diagnosis().or_hint(DAMAGED),
            // What has a hint of its own is its maker's mistake, whoever sends it.
            Self::SentPackage { source, .. } => match source.diagnosis() {
                maker @ Diagnosis { hint: Some(_), .. } => maker,
                damaged => damaged.of(Class::Failed).hint(DAMAGED),
            },
            Self::Unknown { .. } => Class::Invalid.hint("run `sisforge lock`"),
            Self::Checksum { .. } => Class::Invalid.hint("restore fleet.lock from Git, or remove it and run \
              `sisforge lock`"),
            Self::Nowhere { errors, .. } => together(errors),
        }
    }
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
            FileLocation::Here(path) => pin(path),
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
            FileLocation::Here(path) => Ok(path),
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
