//! Where the bytes of a package are, and how they are read in bounded memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::Digest as _;

use crate::base::Sha256;

/// Bytes of a package that are held in memory at most; what is longer is read as it is needed, which costs less than fresh memory
/// does. Signatures and control member must lie within: real ones have some kilobytes.
const MAX_HEAD: u64 = 4 << 20;

const CHUNK: usize = 256 * 1024;

/// The bytes of a package.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Memory(Arc<[u8]>),
    File(PathBuf),
}

/// A package's bytes, opened for one look: all parts are of the same file.
pub(super) struct Opened<'a> {
    /// The beginning; for all but large packages, all of it.
    pub head: Cow<'a, [u8]>,
    /// Where there is more than the beginning.
    rest: Option<File>,
    /// Bytes in all.
    pub size: u64,
}

impl Stored {
    pub(super) fn open(&self) -> io::Result<Opened<'_>> {
        match self {
            Self::Memory(bytes) => {
                Ok(Opened { head: Cow::Borrowed(bytes), rest: None, size: bytes.len() as u64 })
            }
            Self::File(path) => Opened::read(path),
        }
    }
}

impl Opened<'_> {
    fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut head = Vec::with_capacity(size.min(MAX_HEAD) as usize);
        (&mut file).take(MAX_HEAD).read_to_end(&mut head)?;
        let rest = (size > head.len() as u64).then_some(file);
        Ok(Self { head: Cow::Owned(head), rest, size })
    }

    /// All bytes from an offset within the head on.
    pub(super) fn reader(&self, from: usize) -> io::Result<Box<dyn BufRead + '_>> {
        let head = self.head.get(from..).unwrap_or_default();
        let Some(file) = &self.rest else { return Ok(Box::new(head)) };
        let mut file = file;
        file.seek(SeekFrom::Start(self.head.len() as u64))?;
        Ok(Box::new(head.chain(BufReader::with_capacity(CHUNK, file))))
    }

    /// The same, with the SHA-256 of all bytes, those before the offset too, taken on the way.
    pub(super) fn hashing(&self, from: usize) -> io::Result<Hashing<'_>> {
        let mut hash = sha2::Sha256::new();
        hash.update(self.head.get(..from).unwrap_or_default());
        Ok(Hashing { inner: self.reader(from)?, hash })
    }

    /// The bytes from an offset within the head on, where all of them are in memory.
    pub(super) fn slice(&self, from: usize) -> Option<&[u8]> {
        if self.rest.is_some() { None } else { self.head.get(from..) }
    }

    /// SHA-256 of the bytes from an offset within the head on.
    pub(super) fn sha256(&self, from: usize) -> io::Result<Sha256> {
        let mut hash = sha2::Sha256::new();
        let mut reader = self.reader(from)?;
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                return Ok(Sha256(hash.finalize().into()));
            }
            hash.update(bytes);
            let count = bytes.len();
            reader.consume(count);
        }
    }
}

/// Takes the SHA-256 of what is read.
pub(super) struct Hashing<'a> {
    inner: Box<dyn BufRead + 'a>,
    hash: sha2::Sha256,
}

impl Hashing<'_> {
    /// SHA-256 of everything, what was not read too.
    pub(super) fn finish(mut self) -> io::Result<Sha256> {
        loop {
            match self.fill_buf()?.len() {
                0 => return Ok(Sha256(self.hash.finalize().into())),
                count => self.consume(count),
            }
        }
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl BufRead for Hashing<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What is consumed is what was filled last, so that filling again gives it without reading.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hash.update(&bytes[..count.min(bytes.len())]);
        }
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_read_whole_from_any_place_of_its_head() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        let bytes: Vec<u8> = (0..MAX_HEAD + 1000).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let stored = Stored::File(path);
        let opened = stored.open().unwrap();
        assert_eq!((opened.size, opened.head.len() as u64), (bytes.len() as u64, MAX_HEAD));
        assert!(opened.slice(0).is_none());
        for from in [0, 7, MAX_HEAD as usize] {
            let expected = Sha256::of(&bytes[from..]);
            assert_eq!(opened.sha256(from).unwrap(), expected);
            assert_eq!(opened.sha256(from).unwrap(), expected, "twice");
            let whole = Sha256::of(&bytes);
            let mut hashing = opened.hashing(from).unwrap();
            hashing.read_exact(&mut [0; 1000]).unwrap();
            hashing.fill_buf().unwrap();
            hashing.consume(500);
            assert_eq!(hashing.finish().unwrap(), whole);
        }
    }
}
