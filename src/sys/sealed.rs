//! Files whose damage is seen: the SHA-256 of what follows, then what follows. They are not synced, since a loss of power
//! costs no more than making them anew.

use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::fs::{FileError, open_regular, write_unsynced};

/// Bytes of a digest.
const DIGEST: usize = 32;

/// Writes a file, atomically.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let digest: [u8; DIGEST] = Sha256::digest(bytes).into();
    write_unsynced(path, &[&digest[..], bytes].concat(), 0o644)
}

/// Reads a file; `None` where there is none, or where it is not what was written.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = open_regular(path).ok()??;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let (digest, rest) = bytes.split_first_chunk::<DIGEST>()?;
    if Sha256::digest(rest)[..] != digest[..] {
        return None;
    }
    bytes.drain(..DIGEST);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(read(&path), None);
        write(&path, b"some bytes").unwrap();
        assert_eq!(read(&path).as_deref(), Some(&b"some bytes"[..]));
        let good = std::fs::read(&path).unwrap();
        // What a loss of power leaves: a part, or zeros in the place of a part.
        for bad in [&good[..DIGEST + 4], &good[..10], b"", &[&good[..DIGEST + 4], &[0; 6][..]].concat()] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read(&path), None);
        }
        std::fs::remove_file(&path).unwrap();
        crate::sys::fs::make_pipe(&path).unwrap();
        assert_eq!(read(&path), None);
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("zeros")).unwrap();
        assert_eq!(read(&dir.path().join("zeros")), None);
    }
}
