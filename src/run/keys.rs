//! Keys: public keys of distributions, for `keys` of a repository.

use std::path::{Path, PathBuf};

use crate::apk::AlpineKey;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fs::{self, FileError};

/// Why keys are not written.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{} is there already, and is another key", .0.display())]
    Another(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Diagnostic for KeysError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Another(_) => {
                Class::Invalid.hint("find out whose it is; remove it, or name another directory")
            }
            Self::File(error) => error.diagnosis(),
        }
    }
}

/// Writes the keys of Alpine's repositories of an architecture into a directory, and gives each file with its SHA-256. Another key
/// of the same name is somebody's decision, and nothing is written beside it.
pub fn write_alpine(dir: &Path, arch: &str) -> Result<Vec<(PathBuf, &'static str)>, KeysError> {
    for key in AlpineKey::all(arch) {
        let path = dir.join(key.name);
        if path.exists() && fs::read(&path)? != key.text.as_bytes() {
            return Err(KeysError::Another(path));
        }
    }
    fs::create_dir_all(dir)?;
    let written = AlpineKey::all(arch).map(|key| {
        let path = dir.join(key.name);
        fs::write(&path, key.text.as_bytes(), 0o644)?;
        Ok((path, key.sha256))
    });
    written.collect()
}
