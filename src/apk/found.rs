//! Package and index files on disk, found and checked by the whole chain of trust.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::index::{Index, IndexError};
use super::package::{ExpectedPackage, PackageContents, PackageError};
use super::repository::INDEX_FILE;
use super::signature::KeyRing;
use crate::sys::fs::{self, FileError};

/// Why a file is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("it is named {found}, but apk expects {expected}")]
    Name { found: String, expected: String },
}

impl Diagnostic for VerifyError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Index(error) => error.diagnosis(),
            Self::Package(error) => error.diagnosis(),
            Self::Name { .. } => Class::Invalid.hint("rename the file"),
        }
    }
}

/// A file that is what its makers made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    Index {
        key: String,
        packages: usize,
        /// Records that apk would not install, with the reason.
        rejected: Vec<(String, String)>,
    },
    Package {
        id: String,
        key: String,
        entries: usize,
        /// Does the index beside it list it, as it is?
        listed: bool,
    },
}

/// Is this the file of an index, going by its name?
pub fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// The packages and indexes among these files and below these directories, sorted; a file that is named is taken as it is.
pub fn package_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let list = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let mut below: Vec<_> =
                list.map_err(FileError::when("list", path))?.into_iter().map(|entry| entry.path()).collect();
            below.retain(|path| {
                let is_apk = path.extension().is_some_and(|extension| extension == "apk");
                is_apk || path.is_dir() || path.file_name().is_some_and(|name| name == INDEX_FILE)
            });
            below.sort();
            found.extend(package_files(&below)?);
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

/// The indexes among these files that hold by their signatures: what they say of the packages beside them.
#[derive(Debug, Default)]
pub struct IndexedPackages {
    by_directory: BTreeMap<PathBuf, BTreeMap<String, ExpectedPackage>>,
}

impl IndexedPackages {
    /// Reads the indexes; one that is not to be trusted says nothing.
    pub fn read(files: &[PathBuf], keys: &KeyRing) -> Self {
        let mut listings = Self::default();
        for path in files.iter().filter(|path| is_index(path)) {
            let Ok(bytes) = fs::read(path) else { continue };
            let Ok(index) = Index::verify(&bytes, keys) else { continue };
            let listed = index.packages.iter().map(|info| (info.file_name(), ExpectedPackage::from(info)));
            listings.by_directory.insert(directory(path), listed.collect());
        }
        listings
    }
}

fn directory(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// Checks one file: an index by its signature, a package by its own signature, by the index beside it where that lists it,
/// and each file in it by its sum.
pub fn check_file(path: &Path, keys: &KeyRing, listings: &IndexedPackages) -> Result<Trusted, VerifyError> {
    let bytes = fs::read(path)?;
    if is_index(path) {
        let index = Index::verify(&bytes, keys)?;
        let (packages, rejected) = (index.packages.len(), index.rejected);
        return Ok(Trusted::Index { key: index.key.unwrap_or_default(), packages, rejected });
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let listing = listings.by_directory.get(&directory(path));
    let expected = listing.and_then(|listing| listing.get(&name));
    let (package, key) = PackageContents::verify_signed(bytes.into(), keys)?;
    let found = ExpectedPackage::from(&package.info);
    if let Some(expected) = expected {
        package.agrees(&found, expected)?;
    } else if listing.is_some() && package.info.file_name() != name {
        return Err(VerifyError::Name { found: name, expected: package.info.file_name() });
    }
    let (id, entries) = (package.info.id(), package.entries.len());
    Ok(Trusted::Package { id, key, entries, listed: expected.is_some() })
}
