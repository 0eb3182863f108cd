//! Digests of files that are read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::Digest as _;

use crate::base::{FileDigest, Sha256};

use super::fs::{FileError, refuse_pointer};
use super::sparse;

pub use super::verity::digest as verity_digest;

/// SHA-256 and length of a file; the holes of a sparse file count as the zeros that they are.
pub fn sha256_of_file(path: &Path) -> Result<(Sha256, u64), FileError> {
    let named = || FileError::when("read", path);
    let mut file = File::open(path).map_err(named())?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((Sha256(hasher.finalize().into()), size)),
            Ok(count) => {
                if size == 0 {
                    refuse_pointer(&buffer[..count]).map_err(named())?;
                }
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(named()(error)),
        }
    }
}

/// Digest of the same kind as `like`, and length, of a file.
pub fn digest_like(like: &FileDigest, path: &Path) -> Result<(FileDigest, u64), FileError> {
    match like {
        FileDigest::Verity(_) | FileDigest::Unbuilt(_) => verity_digest(path),
        FileDigest::Whole(_) => sha256_of_file(path).map(|(sha256, size)| (sha256.into(), size)),
        FileDigest::Sparse(_) => sparse::digest(path),
    }
}
