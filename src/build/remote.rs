//! Artifacts of a fleet in a registry, and how they are taken from there. Nothing that a registry says is trusted: what counts is the
//! digest that `fleet.lock` pins.
//!
//! ```text
//! manifest    OCI 1.1, artifactType application/vnd.sisforge.fleet.v1; tags: the one that was asked for, and digests-<SHA-256> of
//!             the manifest of digests, so that whoever has a lock finds what was pushed by it
//!   config    FleetDocument: of which pieces each file is made
//!   layers    fleet.lock, fleet.digests and its signatures, kernels' configurations, bills of materials and provenance, each with its
//!             title; then the pieces of all files, each once, in zstd frames of their own
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{FileDigest, FleetName, Sha256};
use crate::fleet::ArtifactPlace;
use crate::lock::model::{Lock, LockedArtifact};
use crate::lock::repository::DOWNLOADS;
use crate::sys::digest::digest_like;
use crate::sys::fs::{self as files, FileError};
use crate::sys::http::Client;
use crate::sys::oci::{Descriptor, Document, parse_digest};
use crate::sys::registry::{Action, ImageRepository, RegistryError, RemoteRepository};
use crate::sys::report::{Report, Unit};

use super::artifacts::{ArtifactKind, BuiltFile};
use super::chunks::{self, chunks};
use super::threads::thread_pool;

/// What kind of an artifact this is (`artifactType`).
pub(super) const ARTIFACT_TYPE: &str = "application/vnd.sisforge.fleet.v1";
/// Media type of [`FleetDocument`].
pub(super) const CONFIG_TYPE: &str = "application/vnd.sisforge.fleet.config.v1+json";
/// Media type of a piece of a file.
pub(super) const CHUNK_TYPE: &str = "application/vnd.sisforge.chunk.v1+zstd";
/// The annotation by which a layer is a file of a name.
pub(super) const TITLE: &str = "org.opencontainers.image.title";
/// Name of the signatures over the manifest of digests.
pub const SIGNATURES: &str = "fleet.digests.sig";
/// Format of the document.
pub(super) const VERSION: u32 = 1;

/// Bytes of the largest document that is read: of some 100,000 pieces.
const LARGEST_CONFIG: u64 = 32 << 20;

/// Why an artifact was not pushed or taken.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{place} has no {name} with the digest {digest} that fleet.lock pins")]
    Absent { place: String, name: String, digest: FileDigest },
    #[error("{place}: {name} is not what fleet.lock pins: {problem}")]
    Other { place: String, name: String, problem: String },
    #[error("{place} does not hold a fleet of sisforge: {problem}")]
    Malformed { place: String, problem: String },
    #[error("cannot take {name} from {place}: this run is offline")]
    Offline { place: String, name: String },
    #[error("cannot start threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl Diagnostic for RemoteError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Registry(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Absent { .. } => Class::Failed.hint(
                "the machine that built it pushes it: `sisforge push`; or build it here, without --no-build",
            ),
            Self::Other { .. } => Class::Failed
                .hint("what is there was damaged or tampered with: push it again, or build it here"),
            Self::Malformed { .. } => Class::Failed.hint("name the address that `sisforge push` was given"),
            Self::Offline { .. } => Class::Failed.hint("run without --offline"),
            Self::Threads(_) => Class::Failed.no_hint(),
        }
    }
}

/// The config of the artifact: what it holds, and of which pieces.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FleetDocument {
    pub version: u32,
    pub fleet: FleetName,
    pub files: Vec<RemoteFile>,
}

/// A file of an artifact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RemoteFile {
    /// `KIND/NAME`, as fleet.lock has it.
    pub name: String,
    pub digest: FileDigest,
    /// In bytes, holes included.
    pub size: u64,
    /// In order; what is between them is zeros.
    pub chunks: Vec<RemoteChunk>,
}

/// A piece of a file: where it is, and what holds it. Written as a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, Sha256, Sha256, u64)", into = "(u64, u64, Sha256, Sha256, u64)")]
pub(super) struct RemoteChunk {
    pub offset: u64,
    pub length: u64,
    /// Of its bytes.
    pub content: Sha256,
    /// Of the blob, and the blob's size.
    pub blob: Sha256,
    pub blob_size: u64,
}

impl From<(u64, u64, Sha256, Sha256, u64)> for RemoteChunk {
    fn from((offset, length, content, blob, blob_size): (u64, u64, Sha256, Sha256, u64)) -> Self {
        Self { offset, length, content, blob, blob_size }
    }
}

impl From<RemoteChunk> for (u64, u64, Sha256, Sha256, u64) {
    fn from(chunk: RemoteChunk) -> Self {
        (chunk.offset, chunk.length, chunk.content, chunk.blob, chunk.blob_size)
    }
}

/// What stands under a tag.
#[derive(Debug)]
struct TaggedFleet {
    document: FleetDocument,
    layers: Vec<Descriptor>,
}

/// What is known of a registry by now.
#[derive(Debug, Default)]
struct SeenTags {
    repository: Option<Arc<RemoteRepository>>,
    tagged: BTreeMap<String, Option<Arc<TaggedFleet>>>,
}

/// The artifacts of a fleet in a registry, which is asked at the first need.
#[derive(Debug)]
pub struct FleetRegistry {
    place: ArtifactPlace,
    client: Client,
    offline: bool,
    known: Mutex<SeenTags>,
}

/// The tag of what was pushed by a lock.
pub(super) fn tag_of(lock: &Lock) -> String {
    format!("digests-{}", lock.digests_sha256())
}

/// The way into a repository.
pub(super) fn open(
    place: &ArtifactPlace,
    client: &Client,
    action: Action,
) -> Result<RemoteRepository, RegistryError> {
    let repository = ImageRepository { host: place.host.clone(), name: place.name.clone() };
    RemoteRepository::open(repository, place.to_string(), client, action)
}

/// A file that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct PinnedFile<'a> {
    pub kind: ArtifactKind,
    /// As fleet.lock has it.
    pub name: &'a str,
    pub pin: &'a LockedArtifact,
    /// Another version of it on this machine.
    pub earlier: Option<&'a Path>,
}

impl FleetRegistry {
    /// At an address.
    pub fn new(place: ArtifactPlace, client: Client, offline: bool) -> Self {
        Self { place, client, offline, known: Mutex::default() }
    }

    /// The address.
    pub fn place(&self) -> &ArtifactPlace {
        &self.place
    }

    fn repository(&self) -> Result<Arc<RemoteRepository>, RemoteError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = &known.repository {
            return Ok(Arc::clone(repository));
        }
        let opened = Arc::new(open(&self.place, &self.client, Action::Pull)?);
        known.repository = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn malformed(&self, problem: impl ToString) -> RemoteError {
        RemoteError::Malformed { place: self.place.to_string(), problem: problem.to_string() }
    }

    fn tagged(&self, tag: &str) -> Result<Option<Arc<TaggedFleet>>, RemoteError> {
        let repository = self.repository()?;
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).tagged.get(tag) {
            return Ok(known.clone());
        }
        let read =
            repository.manifest(tag)?.map(|bytes| self.read(&repository, &bytes)).transpose()?.map(Arc::new);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tagged.insert(tag.to_owned(), read.clone());
        Ok(read)
    }

    fn read(&self, repository: &RemoteRepository, manifest: &[u8]) -> Result<TaggedFleet, RemoteError> {
        let Document::Manifest(manifest) =
            Document::parse(manifest).map_err(|error| self.malformed(error))?
        else {
            return Err(self.malformed("it is an index"));
        };
        let config = manifest.config;
        if config.media_type != CONFIG_TYPE {
            return Err(self.malformed(format!("its config is of the type {:?}", config.media_type)));
        }
        let digest = parse_digest(&config.digest).filter(|_| config.size <= LARGEST_CONFIG);
        let digest = digest.ok_or_else(|| self.malformed("its config has no usable digest or size"))?;
        let bytes = repository.blob(&digest, config.size)?;
        let document: FleetDocument =
            serde_json::from_slice(&bytes).map_err(|error| self.malformed(error))?;
        if document.version != VERSION {
            return Err(self.malformed(format!("its version is {}", document.version)));
        }
        Ok(TaggedFleet { document, layers: manifest.layers })
    }

    /// Signatures over the manifest of a lock's digests, as they were pushed.
    pub fn signatures(&self, lock: &Lock) -> Result<Option<String>, RemoteError> {
        let Some(tagged) = self.tagged(&tag_of(lock))? else { return Ok(None) };
        let is_theirs =
            |layer: &&Descriptor| layer.annotations.get(TITLE).is_some_and(|title| title == SIGNATURES);
        let Some(layer) = tagged.layers.iter().find(is_theirs) else { return Ok(None) };
        let digest = parse_digest(&layer.digest).filter(|_| layer.size <= LARGEST_CONFIG);
        let digest = digest.ok_or_else(|| self.malformed("its signatures have no usable digest or size"))?;
        let bytes = self.repository()?.blob(&digest, layer.size)?;
        String::from_utf8(bytes).map(Some).map_err(|error| self.malformed(error))
    }

    /// What was pushed with a file, under the lock's own tag or the one of the address.
    fn find(
        &self,
        lock: &Lock,
        wanted: &PinnedFile<'_>,
    ) -> Result<(Arc<TaggedFleet>, RemoteFile), RemoteError> {
        for tag in [tag_of(lock).as_str(), self.place.tag()] {
            let Some(tagged) = self.tagged(tag)? else { continue };
            let found = tagged.document.files.iter().find(|file| file.digest == wanted.pin.digest);
            if let Some(file) = found.cloned() {
                return Ok((tagged, file));
            }
        }
        let (place, name) = (self.place.to_string(), wanted.name.to_owned());
        Err(RemoteError::Absent { place, name, digest: wanted.pin.digest })
    }

    /// Writes a file that fleet.lock pins, and what stands beside it, into an empty directory. What an earlier version of it on this
    /// machine has of it is not downloaded.
    pub(super) fn take(
        &self,
        lock: &Lock,
        wanted: &PinnedFile<'_>,
        dir: &Path,
        report: &dyn Report,
    ) -> Result<BuiltFile, RemoteError> {
        let PinnedFile { kind, name, pin, .. } = *wanted;
        if self.offline {
            return Err(RemoteError::Offline { place: self.place.to_string(), name: name.to_owned() });
        }
        let (tagged, file) = self.find(lock, wanted)?;
        let other = |problem: String| RemoteError::Other {
            place: self.place.to_string(),
            name: name.to_owned(),
            problem,
        };
        if file.size != pin.size {
            return Err(other(format!("it has {} bytes instead of {}", file.size, pin.size)));
        }
        check_layout(&file).map_err(other)?;
        let path = dir.join(kind.file_name());
        self.write(&file, wanted, &path, report)?;
        let (digest, size) = digest_like(&pin.digest, &path)?;
        if (digest, size) != (pin.digest, pin.size) {
            return Err(other(format!("its digest is {digest} instead of {}", pin.digest)));
        }
        if let Some(config) = pin.config {
            let is_it = |layer: &&Descriptor| {
                parse_digest(&layer.digest) == Some(config) && layer.size <= LARGEST_CONFIG
            };
            let layer = tagged.layers.iter().find(is_it);
            let layer = layer.ok_or_else(|| other("the kernel's configuration is not there".to_owned()))?;
            let bytes = self.repository()?.blob(&config, layer.size)?;
            files::write_unsynced(&dir.join("config"), &bytes, 0o644)?;
        }
        Ok(BuiltFile { digest, size })
    }

    fn write(
        &self,
        file: &RemoteFile,
        wanted: &PinnedFile<'_>,
        path: &Path,
        report: &dyn Report,
    ) -> Result<(), RemoteError> {
        let named = || FileError::when("write", path);
        let target = File::create_new(path).map_err(named())?;
        target.set_len(file.size).map_err(named())?;
        let earlier = wanted.earlier.map(EarlierFile::of).transpose()?;
        let repository = self.repository()?;
        let total = file.chunks.iter().map(|chunk| chunk.length).sum();
        let task = report.begin(&format!("pull {}", wanted.name), Some(total), Unit::Bytes);
        let write = |chunk: &RemoteChunk| {
            let known = earlier.as_ref().and_then(|earlier| earlier.read(&chunk.content));
            let bytes = match known {
                Some(bytes) => bytes,
                None => self.download(&repository, chunk, wanted.name)?,
            };
            task.advance(chunk.length);
            target.write_all_at(&bytes, chunk.offset).map_err(named()).map_err(RemoteError::from)
        };
        thread_pool(DOWNLOADS)?.install(|| file.chunks.par_iter().try_for_each(write))?;
        task.finish("pulled");
        Ok(())
    }

    fn download(
        &self,
        repository: &RemoteRepository,
        chunk: &RemoteChunk,
        name: &str,
    ) -> Result<Vec<u8>, RemoteError> {
        let packed = repository.blob(&chunk.blob, chunk.blob_size)?;
        let bytes = zstd::bulk::decompress(&packed, chunk.length as usize).ok();
        bytes
            .filter(|bytes| bytes.len() as u64 == chunk.length && Sha256::of(bytes) == chunk.content)
            .ok_or_else(|| {
                let problem = format!("the blob sha256:{} holds something else", chunk.blob);
                RemoteError::Other { place: self.place.to_string(), name: name.to_owned(), problem }
            })
    }
}

/// Whether the pieces of a file are in order, within it, and none is longer than pieces are.
fn check_layout(file: &RemoteFile) -> Result<(), String> {
    let longest = chunks::longest(file.size);
    let mut end = 0;
    for chunk in &file.chunks {
        let reaches = chunk.offset.checked_add(chunk.length).filter(|reaches| *reaches <= file.size);
        let is_bounded = chunk.length <= longest && chunk.blob_size <= 2 * longest;
        match reaches.filter(|_| chunk.offset >= end && is_bounded) {
            Some(reaches) => end = reaches,
            None => return Err(format!("its piece at byte {} is out of place", chunk.offset)),
        }
    }
    Ok(())
}

/// A file on this machine, of which pieces are taken.
struct EarlierFile {
    file: File,
    chunks: HashMap<Sha256, chunks::Chunk>,
}

impl EarlierFile {
    fn of(path: &Path) -> Result<Self, FileError> {
        let named = || FileError::when("read", path);
        let file = File::open(path).map_err(named())?;
        let content = |chunk: chunks::Chunk| Ok((Sha256::of(chunk.read(&file).map_err(named())?), chunk));
        let chunks = chunks(path)?.into_par_iter().map(content).collect::<Result<_, FileError>>()?;
        Ok(Self { chunks, file })
    }

    fn read(&self, content: &Sha256) -> Option<Vec<u8>> {
        let bytes = self.chunks.get(content)?.read(&self.file).ok()?;
        // It may have been written to since.
        Some(bytes).filter(|bytes| Sha256::of(bytes) == *content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_overlap_or_lead_out_are_refused() {
        let chunk = |offset, length| RemoteChunk {
            offset,
            length,
            content: Sha256::of("c"),
            blob: Sha256::of("b"),
            blob_size: 1,
        };
        let check = |chunks: &[RemoteChunk]| {
            let (name, digest) = ("image/i".to_owned(), Sha256::of("d").into());
            check_layout(&RemoteFile { name, digest, size: 1 << 20, chunks: chunks.to_vec() })
        };
        assert_eq!(check(&[chunk(0, 4096), chunk(8192, 4096)]), Ok(()));
        for wrong in [
            vec![chunk(0, 4096), chunk(4095, 1)],
            vec![chunk((1 << 20) - 1, 2)],
            vec![chunk(u64::MAX, 2)],
            vec![chunk(0, (1 << 20) + 1)],
            vec![RemoteChunk { blob_size: 1 << 40, ..chunk(0, 1) }],
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }
}
