//! Why a repository, or a package of it, cannot be used.

use std::path::PathBuf;

use crate::apk::{DAMAGED, IndexError, InvalidChecksum, KeyError, PackageError, Refusal};
use crate::base::diagnostic::{each, together};
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fetch::{FetchError, UnexpectedBody};
use crate::sys::fs::FileError;

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
    /// Of a directory.
    #[error("the repository {repository} has no {}", path.display())]
    Absent { repository: String, path: PathBuf, name: String, is_pinned: bool },
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
            Self::FetchIndex { source, .. } => source.diagnosis(),
            Self::FetchPackage { source, .. } => match source.what_came() {
                Some(UnexpectedBody::Other) => source.diagnosis().hint(OTHER_PACKAGE),
                Some(UnexpectedBody::Nothing) => source.diagnosis().hint(GONE_PACKAGE),
                Some(UnexpectedBody::Page) | None => source.diagnosis(),
            },
            Self::Absent { name, is_pinned: true, .. } => Class::Invalid.hint(format!(
                "put that file back, or take what the repository has now: `sisforge lock --update {name}`"
            )),
            Self::Absent { is_pinned: false, .. } => {
                Class::Invalid.hint("put it there, or index the repository again: `sisforge apk index`")
            }
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

/// What to do where a server sends something else than the package that the index or fleet.lock names.
const OTHER_PACKAGE: &str = "a file that was cut off or replaced is mended where it is served; where the repository has another version \
     by now, `sisforge lock --update` takes that";

/// What to do where a server has a package no longer.
const GONE_PACKAGE: &str = "`sisforge lock --update` takes the versions that the repository has now";
