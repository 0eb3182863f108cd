//! What names a file by its bytes. How a file is read for it is in `sys/digest.rs`.

use std::fmt;
use std::str::FromStr;

use super::InvalidValue;

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Digest of a whole text.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl FromStr for Sha256 {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map(|()| Self(bytes))
            .map_err(|_| InvalidValue("must be a SHA-256 digest: 64 hexadecimal digits".into()))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

serde_as_text!(Sha256, FileDigest);

/// Digest of a file, written as the store names it: `verity-<hex>`; `<hex>` or `sparse-<hex>` where an earlier sisforge made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileDigest {
    /// That of fs-verity with SHA-256, blocks of 4096 bytes and no salt, as `fsverity digest` prints it.
    Verity(Sha256),
    /// SHA-256 of the bytes, as `sha256sum` prints it. Of files of an earlier sisforge, and of downloads.
    Whole(Sha256),
    /// That of [`crate::sys::sparse::digest`], of disks of an earlier sisforge.
    Sparse(Sha256),
    /// Of a file that is not built yet, so that nobody knows its bytes: the digest of what it is to be built of. Only what
    /// `plan` shows has it.
    Unbuilt(Sha256),
}

const VERITY: &str = "verity-";
const SPARSE: &str = "sparse-";

impl FileDigest {
    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        match self {
            Self::Verity(sha256) | Self::Whole(sha256) | Self::Sparse(sha256) => sha256.short(),
            Self::Unbuilt(_) => "(not built)".to_owned(),
        }
    }

    /// Whether it is of the kind that sisforge makes today.
    pub fn is_verity(&self) -> bool {
        matches!(self, Self::Verity(_))
    }

    /// Whether the file is there.
    pub fn is_built(&self) -> bool {
        !matches!(self, Self::Unbuilt(_))
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
            Self::Verity(sha256) => write!(f, "{VERITY}{sha256}"),
            Self::Whole(sha256) => write!(f, "{sha256}"),
            Self::Sparse(sha256) => write!(f, "{SPARSE}{sha256}"),
            Self::Unbuilt(sha256) => write!(f, "unbuilt-{sha256}"),
        }
    }
}

impl FromStr for FileDigest {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Some(hex) = text.strip_prefix(VERITY) {
            return hex.parse().map(Self::Verity);
        }
        match text.strip_prefix(SPARSE) {
            Some(hex) => hex.parse().map(Self::Sparse),
            None => text.parse().map(Self::Whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_of_digests_are_told_apart_by_their_text() {
        for kind in [FileDigest::Verity, FileDigest::Whole, FileDigest::Sparse] {
            let digest = kind(Sha256::of("x"));
            assert_eq!(digest.to_string().parse::<FileDigest>().unwrap(), digest);
        }
        assert_eq!(FileDigest::from(Sha256::of("x")).to_string(), Sha256::of("x").to_string());
        for wrong in ["sparse-", "verity-", "verity-00", ""] {
            assert!(wrong.parse::<FileDigest>().is_err(), "{wrong:?}");
        }
    }
}
