//! What was built, pushed to a registry as one OCI artifact ([`super::remote`]). Its bytes follow from what is pushed alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::{Value, json};

use crate::base::Sha256;
use crate::fleet::ArtifactPlace;
use crate::image::inspect::InspectedImage;
use crate::image::sbom::{self, Format, Sources};
use crate::lock::repository::DOWNLOADS;
use crate::sys::digest::sha256_of_file;
use crate::sys::fs::{self as files, FileError};
use crate::sys::http::Client;
use crate::sys::registry::{Action, RemoteRepository};
use crate::sys::report::{Task, Unit};

use super::artifacts::{Artifact, ArtifactKind};
use super::builder::{Builder, Built};
use super::chunks::{Chunk, chunks};
use super::error::BuildError;
use super::provenance;
use super::remote::{
    ARTIFACT_TYPE, CHUNK_TYPE, CONFIG_TYPE, FleetDocument, RemoteChunk, RemoteError, RemoteFile, SIGNATURES,
    TITLE, VERSION, open, tag_of,
};
use super::threads::thread_pool;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Level of compression, of 22: 9 takes 1.8 times as long, and makes the demo's image 3 % smaller.
const LEVEL: i32 = 6;

/// What was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Of the manifest.
    pub manifest: Sha256,
    /// How many blobs there are.
    pub blobs: usize,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Of these, blobs that the registry did not have, and their bytes.
    pub sent: usize,
    pub sent_bytes: u64,
}

/// A file that is pushed as it is.
struct Titled {
    title: String,
    media_type: &'static str,
    bytes: Vec<u8>,
}

/// Blobs that were sent or found.
#[derive(Default)]
struct Tally {
    sent: AtomicUsize,
    sent_bytes: AtomicU64,
}

impl Tally {
    fn push(&self, repository: &RemoteRepository, bytes: &[u8]) -> Result<Sha256, RemoteError> {
        let sha256 = Sha256::of(bytes);
        if repository.push_blob(&sha256, bytes)? {
            self.sent.fetch_add(1, Ordering::Relaxed);
            self.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(sha256)
    }
}

impl Builder<'_> {
    /// Pushes all that was built, with the text of fleet.lock and signatures over its digests. Everything must be pinned.
    pub fn push(
        &self,
        built: &[Built],
        lock_text: &str,
        signatures: Option<String>,
        place: &ArtifactPlace,
        client: &Client,
    ) -> Result<Pushed, BuildError> {
        self.check_pinned(built)?;
        let repository = open(place, client, Action::Push).map_err(RemoteError::from)?;
        let tally = Tally::default();
        let total = built.iter().map(|built| files::allocated_within(&built.artifact.path)).sum();
        let task = self.report.begin("push", Some(total), Unit::Bytes);
        let mut files = Vec::new();
        for built in built {
            files.push(push_file(built, &repository, &tally, task.as_ref())?);
        }
        let mut layers = Vec::new();
        for Titled { title, media_type, bytes } in self.titled(built, lock_text, signatures)? {
            let sha256 = tally.push(&repository, &bytes)?;
            let annotations = json!({ TITLE: title });
            layers.push(descriptor(media_type, &sha256, bytes.len() as u64, Some(annotations)));
        }
        let pieces: BTreeMap<Sha256, u64> =
            files.iter().flat_map(|file| &file.chunks).map(|chunk| (chunk.blob, chunk.blob_size)).collect();
        layers.extend(pieces.iter().map(|(blob, size)| descriptor(CHUNK_TYPE, blob, *size, None)));
        let config = self.config(files)?;
        let manifest = manifest(&tally.push(&repository, &config)?, config.len() as u64, &layers);
        // By the lock first: whoever finds the other tag finds all of it.
        for tag in [tag_of(self.lock).as_str(), place.tag()] {
            repository.push_manifest(tag, MANIFEST_TYPE, &manifest).map_err(RemoteError::from)?;
        }
        let sizes = layers.iter().filter_map(|layer| layer["size"].as_u64());
        let bytes = config.len() as u64 + sizes.sum::<u64>();
        let (sent, sent_bytes) = (tally.sent.into_inner(), tally.sent_bytes.into_inner());
        task.finish(&format!("{sent} of {} blobs sent", layers.len() + 1));
        Ok(Pushed { manifest: Sha256::of(&manifest), blobs: layers.len() + 1, bytes, sent, sent_bytes })
    }

    fn config(&self, files: Vec<RemoteFile>) -> Result<Vec<u8>, FileError> {
        let fleet = self.project.fleet.name.clone();
        serde_json::to_vec(&FleetDocument { version: VERSION, fleet, files })
            .map_err(|error| FileError::when("describe", "the artifact")(error.into()))
    }

    /// What is pushed beside the files, in order.
    fn titled(
        &self,
        built: &[Built],
        lock_text: &str,
        signatures: Option<String>,
    ) -> Result<Vec<Titled>, BuildError> {
        let titled =
            |title: &str, media_type, bytes: Vec<u8>| Titled { title: title.to_owned(), media_type, bytes };
        let mut all = vec![
            titled("fleet.lock", "application/toml", lock_text.into()),
            titled("fleet.digests", "application/vnd.sisforge.digests.v1+json", self.lock.digests().into()),
        ];
        all.extend(
            signatures.map(|text| titled(SIGNATURES, "application/vnd.sisforge.signatures.v1", text.into())),
        );
        let statement = provenance::statement(self.project, self.lock, built)?;
        all.push(titled("provenance.json", "application/vnd.in-toto+json", statement.into()));
        for Built { name, artifact } in built {
            match artifact.kind {
                ArtifactKind::Kernel if artifact.path.with_file_name("config").exists() => {
                    let bytes = files::read(&artifact.path.with_file_name("config"))?;
                    all.push(titled(&format!("kernel-{name}.config"), "text/plain", bytes));
                }
                ArtifactKind::Image => {
                    let bill = self.bill(artifact)?;
                    all.extend(bill.map(|bill| {
                        titled(&format!("sbom-{name}.spdx.json"), "application/spdx+json", bill)
                    }));
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// The bill of materials of an image; none of one that is not made of packages.
    fn bill(&self, image: &Artifact) -> Result<Option<Vec<u8>>, BuildError> {
        let inspected = InspectedImage::read(&image.path)?;
        if inspected.system.packages.is_empty() {
            return Ok(None);
        }
        let sha256 = sha256_of_file(&image.path)?.0;
        let sources = Sources { sha256, lock: Some(self.lock), created: None };
        Ok(Some(format!("{:#}\n", sbom::document(&inspected, &sources, Format::Spdx)).into()))
    }

    /// Refuses what fleet.lock does not pin, as it is built of today's inputs.
    pub fn check_pinned(&self, built: &[Built]) -> Result<(), BuildError> {
        let is_pinned =
            |built: &&Built| self.lock.pin(&built.pinned_as(), &built.artifact.key.to_string()).is_some();
        let missing: Vec<String> =
            built.iter().filter(|built| !is_pinned(built)).map(Built::pinned_as).collect();
        if missing.is_empty() { Ok(()) } else { Err(BuildError::Unpinned(missing)) }
    }
}

fn manifest(config: &Sha256, size: u64, layers: &[Value]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": descriptor(CONFIG_TYPE, config, size, None),
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

fn descriptor(media_type: &str, sha256: &Sha256, size: u64, annotations: Option<Value>) -> Value {
    let mut descriptor =
        json!({ "mediaType": media_type, "digest": format!("sha256:{sha256}"), "size": size });
    if let Some(annotations) = annotations {
        descriptor["annotations"] = annotations;
    }
    descriptor
}

/// Sends the pieces of a file that the registry does not have.
fn push_file(
    built: &Built,
    repository: &RemoteRepository,
    tally: &Tally,
    task: &dyn Task,
) -> Result<RemoteFile, BuildError> {
    let Artifact { path, digest, size, .. } = &built.artifact;
    let name = built.pinned_as();
    let named = || FileError::when("read", path);
    let file = File::open(path).map_err(named())?;
    let push = |chunk: &Chunk| {
        let bytes = chunk.read(&file).map_err(named())?;
        let packed = zstd::bulk::compress(&bytes, LEVEL).map_err(FileError::when("compress", path))?;
        let blob = tally.push(repository, &packed)?;
        task.advance(bytes.len() as u64);
        let (offset, length, blob_size) = (chunk.offset, bytes.len() as u64, packed.len() as u64);
        Ok::<_, RemoteError>(RemoteChunk { offset, length, content: Sha256::of(&bytes), blob, blob_size })
    };
    let pieces = chunks(path)?;
    let chunks =
        thread_pool(DOWNLOADS)?.install(|| pieces.par_iter().map(push).collect::<Result<Vec<_>, _>>())?;
    Ok(RemoteFile { name, digest: *digest, size: *size, chunks })
}
