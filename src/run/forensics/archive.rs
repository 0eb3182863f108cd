//! Archives of evidence: a tar file of plain members, compressed by zstd, that any tar reads. Digests are taken of what is written, as
//! it is written, so that the manifest comes last; its signatures come behind it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use crate::base::Sha256;
use crate::host::evidence::{EvidenceManifest, EvidenceMember, FORMAT, MANIFEST, SIGNATURE};
use crate::sys::fs::{FileError, NewFile};
use crate::sys::{interrupt, ssh_signature};

use super::error::EvidenceError;

/// Level of zstd: memory and disks are mostly zeros, and time counts.
const LEVEL: i32 = 3;
/// Largest manifest, and signatures over one.
const MAX_MANIFEST: u64 = 16 << 20;
const MAX_SIGNATURES: u64 = 1 << 20;
/// Most members: a guest has some dozens of files, and each that is named takes memory of whoever reads.
const MAX_MEMBERS: usize = 10_000;

/// An archive that is being written. Dropped before it is [finished](Self::finish), it leaves nothing.
pub struct ArchiveWriter {
    tar: tar::Builder<zstd::Encoder<'static, File>>,
    file: NewFile,
    path: PathBuf,
    /// Seconds since the epoch, that members have as their time.
    time: u64,
    pub members: BTreeMap<String, EvidenceMember>,
}

impl ArchiveWriter {
    /// Begins an archive, which as many threads compress.
    pub fn create(path: &Path, time: u64, threads: usize) -> Result<Self, FileError> {
        let named = || FileError::when("write", path);
        let mut file = NewFile::create(path)?;
        let mut encoder =
            zstd::Encoder::new(file.file().try_clone().map_err(named())?, LEVEL).map_err(named())?;
        encoder.include_checksum(true).map_err(named())?;
        encoder.multithread(u32::try_from(threads).unwrap_or(1)).map_err(named())?;
        let tar = tar::Builder::new(encoder);
        Ok(Self { tar, file, path: path.to_owned(), time, members: BTreeMap::new() })
    }

    /// Adds so many bytes; what is there of them is read once. Whoever wrote a file may cut it meanwhile, and that must keep nobody
    /// from the rest: zeros stand for what is gone. Gives how many.
    pub fn add(&mut self, name: &str, size: u64, bytes: impl Read) -> Result<u64, FileError> {
        let mut there = PresentBytes { inner: bytes.take(size), count: 0 };
        let mut hashed = Hashed::of((&mut there).chain(io::repeat(0)).take(size));
        self.append(name, size, &mut hashed)?;
        let member = hashed.member();
        self.members.insert(name.to_owned(), member);
        Ok(size - there.count)
    }

    /// The same of a text.
    pub fn add_text(&mut self, name: &str, text: &str) -> Result<(), FileError> {
        self.add(name, text.len() as u64, text.as_bytes()).map(drop)
    }

    fn append(&mut self, name: &str, size: u64, bytes: impl Read) -> Result<(), FileError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        self.tar.append_data(&mut header, name, bytes).map_err(FileError::when("write", &self.path))
    }

    /// Adds the manifest and the signatures over it, and gives the archive its name. There must be no file of that name.
    pub fn finish(mut self, manifest: &str, signatures: &str) -> Result<(), FileError> {
        for (name, text) in [(MANIFEST, manifest), (SIGNATURE, signatures)] {
            self.append(name, text.len() as u64, text.as_bytes())?;
        }
        let Self { tar, file, path, .. } = self;
        tar.into_inner().and_then(zstd::Encoder::finish).map_err(FileError::when("write", &path))?;
        file.persist(0o600)
    }
}

/// Counts what is read.
struct PresentBytes<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for PresentBytes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// Takes a digest of what is read, until somebody asks this process to end.
struct Hashed<R> {
    inner: R,
    hasher: sha2::Sha256,
    count: u64,
}

impl<R> Hashed<R> {
    fn of(inner: R) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), count: 0 }
    }

    /// What was read.
    fn member(self) -> EvidenceMember {
        EvidenceMember { size: self.count, sha256: Sha256(self.hasher.finalize().into()) }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        interrupt::check()?;
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

/// An archive that was read to its end, and whose members are what its manifest says.
#[derive(Debug)]
pub struct ReadArchive {
    pub manifest: EvidenceManifest,
    /// Of the manifest's text.
    pub sha256: Sha256,
    /// By which keys it is signed, whosever they are.
    pub signed_by: Vec<String>,
    /// The manifest and the signatures over it, as they stand there.
    pub text: String,
    pub signatures: String,
}

impl ReadArchive {
    /// Whether an allowed key signed it; gives whose that is.
    pub fn verify(&self, path: &Path, signers: &Path) -> Result<String, EvidenceError> {
        let what = format!("the manifest of {}", path.display());
        Ok(ssh_signature::verify(signers, &what, &self.text, &self.signatures)?)
    }
}

/// Reads a whole archive. Each member is given to `visit` as it comes, before it is known whether it is what it should be.
///
/// # Errors
/// Where it is none, or a byte of it is not what was signed.
pub fn read(
    path: &Path,
    mut visit: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), EvidenceError>,
) -> Result<ReadArchive, EvidenceError> {
    let file = File::open(path).map_err(FileError::when("read", path))?;
    // Of one frame, as it is written: what stands behind it is no part of what was signed.
    let decoder = zstd::Decoder::new(file).map_err(|error| broken(path, error))?.single_frame();
    let mut archive = tar::Archive::new(BufReader::new(decoder));
    let mut parts = ReadParts::default();
    // As they stand there: extensions of tar would have this program hold whatever is said to be a name.
    let entries = archive.entries().map_err(|error| broken(path, error))?;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| match parts.found.is_empty() {
            true => EvidenceError::NoEvidence { path: path.to_owned() },
            false => broken(path, error),
        })?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !entry.header().entry_type().is_file() {
            return Err(wrong(path, format!("{name} is no file")));
        }
        if parts.found.len() >= MAX_MEMBERS {
            return Err(wrong(path, format!("it has more than {MAX_MEMBERS} members")));
        }
        let size = entry.size();
        parts.take(path, &name, &mut entry, |bytes| visit(&name, size, bytes))?;
    }
    let read = parts.held(path)?;
    require_end(path, archive.into_inner())?;
    Ok(read)
}

/// Most zeros behind the last member: tar(1) fills up a block, whose size `--blocking-factor` sets.
const MAX_PADDING: u64 = 1 << 20;

/// Looks whether nothing but padding stands behind the last member, and nothing at all behind the frame, whose checksum is read by
/// this.
fn require_end(
    path: &Path,
    rest: BufReader<zstd::Decoder<'_, BufReader<File>>>,
) -> Result<(), EvidenceError> {
    let behind = || wrong(path, "something was appended to it that its manifest does not know".to_owned());
    let mut rest = rest.take(MAX_PADDING + 1);
    let mut padding = Vec::new();
    rest.read_to_end(&mut padding).map_err(|error| broken(path, error))?;
    if padding.len() as u64 > MAX_PADDING || padding.iter().any(|byte| *byte != 0) {
        return Err(behind());
    }
    let mut file = rest.into_inner().into_inner().finish();
    match file.read(&mut [0]).map_err(|error| broken(path, error))? {
        0 => Ok(()),
        _ => Err(behind()),
    }
}

fn wrong(path: &Path, reason: String) -> EvidenceError {
    EvidenceError::Damaged { path: path.to_owned(), reason }
}

/// What cannot be read of a file was damaged; where this process was asked to end, nothing was.
fn broken(path: &Path, error: io::Error) -> EvidenceError {
    match error.kind() {
        io::ErrorKind::Interrupted => FileError::when("read", path)(error).into(),
        _ => wrong(path, error.to_string()),
    }
}

/// The members of an archive as they come.
#[derive(Default)]
struct ReadParts {
    found: BTreeMap<String, EvidenceMember>,
    manifest: Option<String>,
    signatures: Option<String>,
}

impl ReadParts {
    fn take(
        &mut self,
        path: &Path,
        name: &str,
        entry: &mut impl Read,
        visit: impl FnOnce(&mut dyn Read) -> Result<(), EvidenceError>,
    ) -> Result<(), EvidenceError> {
        let broken = |error| broken(path, error);
        match (name, &self.manifest, &self.signatures) {
            (MANIFEST, None, _) => self.manifest = Some(text(entry, MAX_MANIFEST).map_err(broken)?),
            (SIGNATURE, Some(_), None) => {
                self.signatures = Some(text(entry, MAX_SIGNATURES).map_err(broken)?)
            }
            (_, None, _) if !self.found.contains_key(name) => {
                let mut hashed = Hashed::of(entry);
                visit(&mut hashed)?;
                io::copy(&mut hashed, &mut io::sink()).map_err(broken)?;
                self.found.insert(name.to_owned(), hashed.member());
            }
            _ => return Err(wrong(path, format!("{name} should not be in it"))),
        }
        Ok(())
    }

    /// Whether all are there, and are what the manifest says, which is signed.
    fn held(self, path: &Path) -> Result<ReadArchive, EvidenceError> {
        let wrong = |reason| wrong(path, reason);
        let Self { found, manifest, signatures } = self;
        let (Some(text), Some(signatures)) = (manifest, signatures) else {
            return Err(match found.is_empty() {
                true => EvidenceError::NoEvidence { path: path.to_owned() },
                false => wrong("it ends before its manifest and the signatures over it".to_owned()),
            });
        };
        let manifest = held_against(&text, &found).map_err(wrong)?;
        let what = format!("the manifest of {}", path.display());
        let signed_by = ssh_signature::signed_by(&what, &text, &signatures)?;
        Ok(ReadArchive { manifest, sha256: Sha256::of(&text), signed_by, text, signatures })
    }
}

fn text(entry: &mut impl Read, most: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = entry.take(most + 1).read_to_string(&mut text)?;
    if read as u64 > most { Err(io::Error::other("its manifest is too large")) } else { Ok(text) }
}

/// The manifest, where what was found is what it says.
fn held_against(text: &str, found: &BTreeMap<String, EvidenceMember>) -> Result<EvidenceManifest, String> {
    let version: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("its manifest cannot be read: {error}"))?;
    match version["format"].as_u64() {
        Some(format) if format > u64::from(FORMAT) => {
            return Err(format!("a newer sisforge wrote it (format {format})"));
        }
        _ => {}
    }
    let manifest: EvidenceManifest =
        serde_json::from_value(version).map_err(|error| format!("its manifest cannot be read: {error}"))?;
    for (name, member) in &manifest.members {
        match found.get(name) {
            None => return Err(format!("{name} is missing")),
            Some(there) if there != member => {
                return Err(format!("{name} is not what was captured: its SHA-256 is {}", there.sha256));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|name| !manifest.members.contains_key(*name)) {
        Some(name) => Err(format!("{name} is not in its manifest")),
        None => Ok(manifest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_while_it_is_read_keeps_nobody_from_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.zst");
        let mut writer = ArchiveWriter::create(&path, 0, 1).unwrap();
        assert_eq!(writer.add("state", 16, b"0123456789".as_slice()).unwrap(), 6);
        assert_eq!(writer.add("log", 3, b"grown since".as_slice()).unwrap(), 0);
        let members = writer.members.clone();
        assert_eq!(members["state"].sha256, Sha256::of(b"0123456789\0\0\0\0\0\0"));
        writer.finish("{}", "").unwrap();
        let mut seen = Vec::new();
        // It has no manifest; what it holds comes before that is seen.
        let read = read(&path, |name, size, _| {
            seen.push((name.to_owned(), size));
            Ok(())
        });
        assert!(read.is_err());
        assert_eq!(seen, [("state".to_owned(), 16), ("log".to_owned(), 3)]);
    }
}
