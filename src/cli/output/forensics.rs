//! `forensics`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::host::evidence::EvidenceManifest;
use crate::image::difference::Difference;
use crate::run::forensics::{ReadArchive, TakenEvidence};

/// An archive that was written, or read to its end.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EvidenceJson {
    pub file: PathBuf,
    pub fleet: String,
    pub guest: String,
    /// When the guest was captured (RFC 3339, UTC).
    pub captured: String,
    /// Name of the host.
    pub host: String,
    /// Milliseconds for which the guest stood still; `null` where it could not be frozen.
    pub stood_still_ms: Option<u64>,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// Keys that signed it, whosever they are; empty of one that was just written.
    pub signed_by: Vec<String>,
    /// Who signed it by the file of allowed signers; `null` where none was asked.
    pub signer: Option<String>,
    pub members: Vec<MemberJson>,
    /// What could not be had.
    pub missing: Vec<MissingJson>,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
}

/// A file of an archive.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MemberJson {
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub sha256: String,
}

/// Something that an archive should have.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MissingJson {
    pub what: String,
    pub why: String,
}

/// What a guest changed on its data disk.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EvidenceFilesJson {
    /// From the disk that it was made from to what it was when it was captured.
    #[serde(flatten)]
    pub difference: Difference,
    /// What of the disk cannot be read, one sentence each.
    pub unreadable: Vec<String>,
}

impl EvidenceJson {
    /// Of one that was just written.
    pub fn taken(taken: &TakenEvidence, notes: Vec<String>) -> Self {
        Self { notes, ..Self::of(&taken.path, &taken.manifest, taken.sha256.to_string()) }
    }

    /// Of one that was read.
    pub fn verified(path: &Path, archive: &ReadArchive, signer: Option<String>) -> Self {
        let of = Self::of(path, &archive.manifest, archive.sha256.to_string());
        Self { signed_by: archive.signed_by.clone(), signer, ..of }
    }

    fn of(path: &Path, manifest: &EvidenceManifest, manifest_sha256: String) -> Self {
        let members = manifest.members.iter().map(|(name, member)| MemberJson {
            name: name.clone(),
            size: member.size,
            sha256: member.sha256.to_string(),
        });
        let missing = manifest
            .missing
            .iter()
            .map(|missing| MissingJson { what: missing.what.clone(), why: missing.why.clone() });
        Self {
            file: path.to_owned(),
            fleet: manifest.fleet.to_string(),
            guest: manifest.guest.to_string(),
            captured: manifest.captured.clone(),
            host: manifest.host.clone(),
            stood_still_ms: manifest.stood_still_ms,
            manifest_sha256,
            signed_by: Vec::new(),
            signer: None,
            members: members.collect(),
            missing: missing.collect(),
            notes: Vec::new(),
        }
    }
}
