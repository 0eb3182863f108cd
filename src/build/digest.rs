//! What names a file by its bytes: kernels and images by their SHA-256, data disks by a digest that their holes cost nothing.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fleet::{InvalidValue, Sha256};
use crate::lock::digest::digest_file;
use crate::sys::fs::FileError;
use crate::sys::sparse;

/// Digest of a file, written as the store names it: `<hex>`, or `sparse-<hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileDigest {
    /// SHA-256 of the bytes, as `sha256sum` prints it.
    Whole(Sha256),
    /// That of [`sparse::digest`]. No other program prints it.
    Sparse(Sha256),
}

const SPARSE: &str = "sparse-";

impl FileDigest {
    /// Digest of the same kind, and length, of a file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn again(self, path: &Path) -> Result<(Self, u64), FileError> {
        match self {
            Self::Whole(_) => digest_file(path).map(|(sha256, size)| (Self::Whole(sha256), size)),
            Self::Sparse(_) => Self::sparse(path),
        }
    }

    /// Digest and length of a file that is mostly holes.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn sparse(path: &Path) -> Result<(Self, u64), FileError> {
        sparse::digest(path).map(|(digest, size)| (Self::Sparse(Sha256(digest)), size))
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        let (Self::Whole(sha256) | Self::Sparse(sha256)) = self;
        sha256.short()
    }
}

impl From<Sha256> for FileDigest {
    fn from(sha256: Sha256) -> Self {
        Self::Whole(sha256)
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(sha256) => write!(f, "{sha256}"),
            Self::Sparse(sha256) => write!(f, "{SPARSE}{sha256}"),
        }
    }
}

impl FromStr for FileDigest {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.strip_prefix(SPARSE) {
            Some(hex) => hex.parse().map(Self::Sparse),
            None => text.parse().map(Self::Whole),
        }
    }
}

impl Serialize for FileDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_kinds_of_digests_are_told_apart_by_their_text() {
        for digest in [FileDigest::Whole(Sha256::of("x")), FileDigest::Sparse(Sha256::of("x"))] {
            assert_eq!(digest.to_string().parse::<FileDigest>().unwrap(), digest);
        }
        assert_eq!(FileDigest::from(Sha256::of("x")).to_string(), Sha256::of("x").to_string());
        assert!("sparse-".parse::<FileDigest>().is_err());
    }
}
