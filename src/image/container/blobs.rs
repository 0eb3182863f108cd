//! The files of an image on disk: of a layout's directory, of an archive, or of verified downloads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::apk::sparse::{Expanded, SparseMap};
use crate::base::Sha256;
use crate::sys::fs::{self as files, FileError};
use crate::sys::oci::{Descriptor, LARGEST_DOCUMENT, parse_digest};
use crate::sys::registry::Pulled;

use super::ContainerProblem;
use super::packed::Compression;
use super::tar::{EntryType, LayerReader, TarSource};

/// Where a layout has its blobs.
const BLOBS: &str = "blobs/sha256/";

/// Where the blobs of a layout are.
#[derive(Debug)]
pub(super) enum Blobs {
    Directory(PathBuf),
    /// A tar, by the names in it.
    Archive {
        path: PathBuf,
        /// Its bytes, unpacked where it is compressed.
        bytes: File,
        files: BTreeMap<String, ArchivePlace>,
    },
    /// Verified downloads by digest.
    Pulled {
        image: PathBuf,
        pulled: Pulled,
    },
}

/// Where a file lies in an archive.
#[derive(Clone, Debug)]
pub(super) struct ArchivePlace {
    offset: u64,
    stored: u64,
    sparse: Option<Arc<SparseMap>>,
}

impl Blobs {
    /// The archive or directory.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive { path, .. } | Self::Pulled { image: path, .. } => path,
        }
    }

    pub(super) fn open_archive(path: &Path) -> Result<Self, ContainerProblem> {
        let bytes = plain(path)?;
        let files =
            list(&bytes).map_err(|source| ContainerProblem::Read { what: "the archive".into(), source })?;
        Ok(Self::Archive { path: path.to_owned(), bytes, files })
    }

    /// Lets a file of an archive be read by its digest, too.
    pub(super) fn also_called(&mut self, name: &str, sha256: &Sha256) {
        if let Self::Archive { files, .. } = self
            && let Some(place) = files.get(&inside(name)).cloned()
        {
            files.insert(format!("{BLOBS}{sha256}"), place);
        }
    }

    pub(super) fn reader(&self, name: &str) -> Result<Box<dyn Read>, ContainerProblem> {
        let missing = || ContainerProblem::Missing(name.to_owned());
        match self {
            Self::Directory(root) => match files::open(&root.join(name)) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => Err(missing()),
                Err(error) => Err(error.into()),
            },
            Self::Archive { path, bytes, files } => {
                let ArchivePlace { offset, stored, sparse } = files.get(&inside(name)).ok_or_else(missing)?;
                let file = bytes.try_clone().map_err(FileError::when("read", path))?;
                let piece = ArchivePart { file, at: *offset, left: *stored };
                Ok(match sparse {
                    Some(map) => Box::new(Expanded::new(map.clone(), piece)),
                    None => Box::new(piece),
                })
            }
            Self::Pulled { pulled, .. } => {
                let digest = name.strip_prefix(BLOBS).and_then(|hex| hex.parse::<Sha256>().ok());
                let blob = digest.and_then(|sha256| pulled.blobs.get(&sha256)).ok_or_else(missing)?;
                Ok(Box::new(files::open(&blob.path)?))
            }
        }
    }

    /// A file of the layout that no digest names.
    pub(super) fn read_file(&self, name: &str) -> Result<Vec<u8>, ContainerProblem> {
        let mut bytes = Vec::new();
        self.reader(name)?
            .take(LARGEST_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|source| ContainerProblem::Read { what: name.to_owned(), source })?;
        Ok(bytes)
    }

    /// A blob's bytes as they come: whoever reads it verifies it.
    pub(super) fn stream(&self, blob: &Descriptor) -> Result<Box<dyn Read>, ContainerProblem> {
        let digest = sha256_of("blob", &blob.digest)?;
        self.reader(&format!("{BLOBS}{digest}"))
    }

    pub(super) fn read_blob(&self, what: &str, blob: &Descriptor) -> Result<Vec<u8>, ContainerProblem> {
        if blob.size > LARGEST_DOCUMENT {
            return Err(ContainerProblem::Unsupported(format!("its {what} is larger than 4 MiB")));
        }
        let mut bytes = Vec::new();
        self.stream(blob)?
            .take(LARGEST_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|source| ContainerProblem::Read { what: what.to_owned(), source })?;
        check_digest(what, &blob.digest, Sha256::of(&bytes))?;
        Ok(bytes)
    }
}

/// The digest in `sha256:<hex>`, the one algorithm that is taken.
pub(super) fn sha256_of(what: &str, digest: &str) -> Result<Sha256, ContainerProblem> {
    parse_digest(digest).ok_or_else(|| {
        ContainerProblem::Unsupported(format!("the digest {digest:?} of its {what} is not a sha256"))
    })
}

pub(super) fn check_digest(what: &str, expected: &str, found: Sha256) -> Result<(), ContainerProblem> {
    let found = format!("sha256:{found}");
    if found == expected {
        return Ok(());
    }
    Err(ContainerProblem::Digest { what: format!("its {what}"), expected: expected.to_owned(), found })
}

/// The bytes of an archive: the file itself, or, of one that is compressed, a file without a name.
fn plain(path: &Path) -> Result<File, ContainerProblem> {
    let read = |source| ContainerProblem::Read { what: "the archive".into(), source };
    let mut file = files::open(path)?;
    let compression = Compression::of(&mut file).map_err(read)?;
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    if compression == Compression::None {
        return Ok(file);
    }
    let mut unpacked = tempfile::tempfile().map_err(read)?;
    io::copy(&mut compression.unpack(Box::new(file)).map_err(read)?, &mut unpacked).map_err(read)?;
    unpacked.seek(SeekFrom::Start(0)).map_err(read)?;
    Ok(unpacked)
}

/// Every file of an archive by its name.
fn list(bytes: &File) -> io::Result<BTreeMap<String, ArchivePlace>> {
    let size = bytes.metadata()?.len();
    let mut reader = LayerReader::new(ArchivePart { file: bytes.try_clone()?, at: 0, left: size });
    let (mut files, mut links) = (BTreeMap::new(), Vec::new());
    while let Some(header) = reader.next()? {
        let name = String::from_utf8_lossy(&header.path).into_owned();
        let target = String::from_utf8_lossy(&header.link).into_owned();
        match header.kind {
            EntryType::File => {
                let (stored, offset) = (reader.stored(), reader.source().at);
                let sparse = header.sparse.map(Arc::new);
                files.insert(inside(&name), ArchivePlace { offset, stored, sparse });
            }
            // `docker save` links a layer that it has written before: `../<other>/layer.tar`.
            EntryType::Symlink => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                links.push((inside(&name), inside(&format!("{directory}/{target}"))));
            }
            EntryType::HardLink => links.push((inside(&name), inside(&target))),
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(place) = files.get(&target).cloned() {
            files.insert(name, place);
        }
    }
    Ok(files)
}

/// A name of an archive without what says nothing: `./a//b/../c` is `a/c`.
fn inside(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A part of a file that others read as well.
struct ArchivePart {
    file: File,
    at: u64,
    left: u64,
}

impl Read for ArchivePart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl TarSource for ArchivePart {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.at += bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_an_archive_are_the_same_however_they_are_written() {
        for name in ["a/c", "./a/c", "/a//c", "a/b/../c", "../a/c"] {
            assert_eq!(inside(name), "a/c", "{name}");
        }
    }
}
