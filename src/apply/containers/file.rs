//! What containers name on the host: read, bounded, and compared by digest.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::base::Sha256;
use crate::fleet::LARGEST_KUBE;
use crate::host::container::secret_digest;
use crate::host::layout::Layout;
use crate::sys::fs::{self as files, FileError};

/// Bytes of a secret, of which Podman takes less than 512,000 (containers/common `pkg/secrets`).
const LARGEST_SECRET: u64 = 511_999;

/// A secret; it is not empty.
pub fn secret(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, LARGEST_SECRET)
}

/// A `kube` file; it is not empty.
pub fn kube(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, LARGEST_KUBE)
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let wrong = |why: String| FileError::when("read", path)(io::Error::new(ErrorKind::InvalidData, why));
    let found = path.metadata().map_err(FileError::when("read", path))?;
    if !found.is_file() {
        return Err(wrong("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(FileError::when("read", path))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(FileError::when("read", path))?;
    match bytes.len() as u64 {
        0 => Err(wrong("it is empty".to_owned())),
        length if length > most => Err(wrong(format!("it has more than {most} bytes"))),
        _ => Ok(bytes),
    }
}

/// By which a fleet's secrets are compared; `None` where the host has no key yet, and so no guest that was ever reached. It is the key
/// by which the host reaches its guests: who may read that, may read their secrets in them.
pub fn secret_key(layout: &Layout) -> Result<Option<Vec<u8>>, FileError> {
    layout.key().exists().then(|| files::read(&layout.key())).transpose()
}

/// The digest of a secret for comparison. Without a key it is that of nothing.
pub fn digest(key: Option<&[u8]>, secret: &[u8]) -> Sha256 {
    key.map_or(Sha256([0; 32]), |key| secret_digest(key, secret))
}
