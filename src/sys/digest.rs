//! Digests of files that are read.

use std::path::Path;

use crate::base::{FileDigest, Sha256};

use super::fs::{self, FileError};
use super::sparse;

/// SHA-256 and length of a file; the holes of a sparse file count as the zeros that they are.
pub fn sha256_of_file(path: &Path) -> Result<(Sha256, u64), FileError> {
    fs::sha256(path).map(|(digest, size)| (Sha256(digest), size))
}

/// Digest and length of a file that is mostly holes.
pub fn sparse_digest(path: &Path) -> Result<(FileDigest, u64), FileError> {
    sparse::digest(path).map(|(digest, size)| (FileDigest::Sparse(Sha256(digest)), size))
}

/// Digest of the same kind as `like`, and length, of a file.
pub fn digest_like(like: &FileDigest, path: &Path) -> Result<(FileDigest, u64), FileError> {
    match like {
        FileDigest::Whole(_) => sha256_of_file(path).map(|(sha256, size)| (sha256.into(), size)),
        FileDigest::Sparse(_) => sparse_digest(path),
    }
}
