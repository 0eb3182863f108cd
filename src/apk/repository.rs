//! A directory of packages becomes a repository: its `APKINDEX.tar.gz`, signed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::index::{Index, IndexError};
use super::info::PackageInfo;
use super::package::{PackageContents, PackageError};
use super::signature::SigningKey;
use crate::sys::fs::{self, FileError};

/// File name of an index in its directory.
pub const INDEX_FILE: &str = "APKINDEX.tar.gz";

/// Why a directory cannot be indexed.
#[derive(Debug, thiserror::Error)]
pub enum IndexingError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {reason}", .path.display())]
    Package { path: PathBuf, reason: PackageError },
    #[error("{}: a package with this content must be named {expected}", .path.display())]
    Name { path: PathBuf, expected: String },
    #[error("{} has packages for {}; a repository has one architecture", .directory.display(), .found.join(" and "))]
    Architectures { directory: PathBuf, found: Vec<String> },
    #[error("{} has no *.apk", .0.display())]
    Empty(PathBuf),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Diagnostic for IndexingError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Package { reason, .. } => {
                reason.diagnosis().or_hint("get that package again, or rebuild it")
            }
            Self::Name { .. } => Class::Invalid.hint("rename the file"),
            Self::Architectures { .. } => {
                Class::Invalid.hint("give each architecture a directory of its own")
            }
            Self::Empty(_) => Class::Invalid.hint("name a directory with packages"),
            Self::Index(error) => error.diagnosis(),
        }
    }
}

/// Reads every `*.apk` of a directory (which a repository has as `<url>/<arch>/`), sorted by name and version. Packages for
/// any architecture are listed under that of the others, as Alpine does: apk looks for their files there. Packages of
/// several architectures, or called otherwise than apk would look for them, are an error, and so is a directory without
/// any.
pub fn index_directory(directory: &Path) -> Result<Index, IndexingError> {
    let failed = FileError::when("list", directory);
    let list = std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut paths: Vec<PathBuf> = list.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "apk"));
    paths.sort();
    if paths.is_empty() {
        return Err(IndexingError::Empty(directory.to_owned()));
    }
    let mut packages = paths.par_iter().map(|path| read_package(path)).collect::<Result<Vec<_>, _>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.version.compare(&b.version)));
    let arches: BTreeSet<&str> =
        packages.iter().map(|info| info.arch.as_str()).filter(|arch| *arch != "noarch").collect();
    if arches.len() > 1 {
        let found = arches.into_iter().map(str::to_owned).collect();
        return Err(IndexingError::Architectures { directory: directory.to_owned(), found });
    }
    let from_name = || directory.file_name().and_then(|name| name.to_str()).unwrap_or("noarch").to_owned();
    let arch = arches.first().map_or_else(from_name, |arch| (*arch).to_owned());
    packages.iter_mut().for_each(|info| info.arch.clone_from(&arch));
    Ok(Index { packages, ..Index::default() })
}

/// The same as the bytes of a signed `APKINDEX.tar.gz`.
pub fn sign_directory(directory: &Path, key: &SigningKey) -> Result<Vec<u8>, IndexingError> {
    Ok(index_directory(directory)?.to_signed(key)?)
}

fn read_package(path: &Path) -> Result<PackageInfo, IndexingError> {
    let bytes = fs::read(path)?;
    let package = PackageContents::inspect(bytes.into())
        .map_err(|reason| IndexingError::Package { path: path.to_owned(), reason })?;
    let expected = package.info.file_name();
    if path.file_name().is_some_and(|name| name == expected.as_str()) {
        Ok(package.info)
    } else {
        Err(IndexingError::Name { path: path.to_owned(), expected })
    }
}
