//! The bytes of a package's files, streamed: where they come from a file, it is held against what was verified.

use std::io::{self, BufRead, BufReader, Read};

use sha1::{Digest as _, Sha1};

use super::archive::TarReader;
use super::entry::{EntryKind, PackageEntries, SUM_KEY};
use super::gzip::{self, MemberReader};
use super::package::{MAX_DATA, PackageContents, PackageError, check_digest};
use super::refusal::Refusal;

impl PackageContents {
    /// Streams every regular file's bytes in archive order: `visit(index into entries, reader)`. What `visit` leaves unread is
    /// skipped. That a package which is read from a file is no longer what was verified may show only at the end: what
    /// was given before an error is not to be used.
    pub fn each_file<E: From<PackageError>>(
        &self,
        visit: impl FnMut(usize, &mut dyn BufRead) -> Result<(), E>,
    ) -> Result<(), E> {
        let refuse = |reason| E::from(self.refuse(reason));
        let opened = self.bytes.open().map_err(|error| refuse(Refusal::Read(error)))?;
        let size = opened.size;
        match (opened.slice(self.data), &self.sha256) {
            _ if size <= self.data as u64 => Ok(()),
            (Some(data), expected) => {
                if let Some(expected) = expected {
                    let found = opened.sha256(0).map_err(|error| refuse(Refusal::Read(error)))?;
                    check_digest(expected, &found).map_err(refuse)?;
                }
                // Bytes that have this SHA-256 were verified with the strict reader; so the fast one will do.
                match gzip::inflate_whole(data) {
                    Some(whole) => self.each_entry(whole.bytes(), visit),
                    None => self.each_entry(MemberReader::buffered(data, MAX_DATA), visit),
                }
            }
            (None, expected) => {
                let mut hashing = opened.hashing(self.data).map_err(|error| refuse(Refusal::Read(error)))?;
                self.each_entry(MemberReader::buffered(&mut hashing, MAX_DATA), visit)?;
                let found = hashing.finish().map_err(|error| refuse(Refusal::Read(error)))?;
                check_digest(expected.as_ref().unwrap_or(&found), &found).map_err(refuse)
            }
        }
    }

    /// Walks the inflated data member, and holds it against the entries.
    fn each_entry<E: From<PackageError>>(
        &self,
        data: impl BufRead,
        mut visit: impl FnMut(usize, &mut dyn BufRead) -> Result<(), E>,
    ) -> Result<(), E> {
        let refuse = |reason| E::from(self.refuse(reason));
        let mut reader = TarReader::new(data);
        let mut layout = PackageEntries::default();
        for (index, entry) in self.entries.iter().enumerate() {
            let header = reader.next_entry().map_err(|error| refuse(error.into()))?;
            let header = header.ok_or_else(|| refuse(Refusal::Listing))?;
            // A stated sum was compared with the bytes when they were verified, and is compared with the entry below; where the
            // archive states none, the bytes are all there is.
            let mut sum = entry.sha1.unwrap_or_default();
            if matches!(entry.kind, EntryKind::File { .. }) {
                if header.pax.contains_key(SUM_KEY) {
                    visit(index, &mut reader)?;
                } else {
                    let mut summing = BufReader::new(Summing { inner: &mut reader, hash: Sha1::new() });
                    visit(index, &mut summing)?;
                    io::copy(&mut summing, &mut io::sink()).map_err(|error| refuse(Refusal::Read(error)))?;
                    sum = summing.into_inner().hash.finalize().into();
                }
            }
            let path = header.path.clone();
            layout.add(header, sum).map_err(|reason| refuse(Refusal::Entry { path, reason }))?;
            if layout.last() != Some(entry) {
                return Err(refuse(Refusal::Listing));
            }
        }
        match reader.next_entry().map_err(|error| refuse(error.into()))? {
            None => Ok(()),
            Some(_) => Err(refuse(Refusal::Listing)),
        }
    }

    fn refuse(&self, reason: Refusal) -> PackageError {
        PackageError { package: self.info.id(), reason }
    }
}

/// Takes the SHA-1 of what is read of a file.
struct Summing<'a, R> {
    inner: &'a mut R,
    hash: Sha1,
}

impl<R: Read> Read for Summing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
