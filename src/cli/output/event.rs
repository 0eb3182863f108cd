//! What takes long tells of itself line by line.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::base::GuestName;
use crate::build::{Pushed, Vendored};
use crate::fleet::ArtifactPlace;
use crate::run::exchange::SignedDigests;
use crate::run::{Done, Outcome};
use crate::sys::report::Severity;

use super::{ArtifactJson, ComparisonJson, InputJson};

/// Something that happened; the last line of a command that did its work tells what came of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum EventJson {
    /// A task began.
    Begin { task: String },
    /// A task of minutes is so far.
    Progress { task: String, percent: u64 },
    /// A task ended well.
    End {
        task: String,
        /// In a few words.
        result: String,
        seconds: f64,
    },
    /// Something worth a line.
    Note { severity: SeverityJson, text: String },
    /// What became of a plan: `up`, `down`, `watch`.
    Summary { summary: Summary },
    /// Data disks, logs and records that were removed for good: `down --purge`.
    Purged {
        guests: Vec<String>,
        /// Disks that are kept all the same, as `disk rm` names them: sessions brought them, or a restore set them aside.
        kept_disks: Vec<String>,
        /// Snapshots that are kept all the same.
        kept_snapshots: Vec<String>,
    },
    /// What became of fleet.lock: `lock`.
    Locked {
        /// What is otherwise than before, one line each; none where it fitted already.
        changes: Vec<String>,
        /// How many packages it pins.
        packages: usize,
    },
    /// What is in the cache: `fetch`.
    Fetched {
        /// Of all files.
        bytes: u64,
        files: Vec<InputJson>,
    },
    /// What is in a directory now: `vendor`.
    Vendored { dir: PathBuf, vendored: VendoredFiles },
    /// What is in `out/`: `build`.
    Built { artifacts: Vec<ArtifactJson> },
    /// What a registry has now: `push`.
    Pushed {
        /// The address.
        place: String,
        /// Digest of the manifest.
        digest: String,
        blobs: usize,
        /// Of all blobs.
        bytes: u64,
        /// Blobs that it did not have.
        sent: usize,
        sent_bytes: u64,
    },
    /// What is in `out/`: `pull`.
    Pulled { artifacts: Vec<ArtifactJson> },
    /// What was signed: `sign`.
    Signed {
        /// The manifest of digests.
        path: PathBuf,
        sha256: String,
        artifacts: usize,
        /// How many signatures are beside it.
        signatures: usize,
    },
    /// What was built twice: `build --check`.
    Compared { artifacts: Vec<ComparisonJson> },
}

/// How much a line weighs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SeverityJson {
    /// What was done, or is under way.
    Info,
    /// What is to be borne in mind.
    Note,
    /// What may be wrong.
    Warning,
    /// What failed; other work went on.
    Error,
}

impl From<Severity> for SeverityJson {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Info,
            Severity::Note => Self::Note,
            Severity::Warning => Self::Warning,
            Severity::Error => Self::Error,
        }
    }
}

/// What became of a plan.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary {
    /// Guests that went.
    pub stopped: Vec<String>,
    /// Guests that did not run before.
    pub started: Vec<String>,
    /// Guests that were stopped and came back as another machine.
    pub restarted: Vec<String>,
    /// Guests of which something was put right while they ran.
    pub changed: Vec<String>,
    /// Guests of which a step failed, once for each step.
    pub failed: Vec<String>,
    /// Guests that a rolling `up` left as they were, since one before them did not get ready; where the command was interrupted,
    /// those for which not all was done.
    pub left: Vec<String>,
    /// Whether the command was asked to end before all was done; no guest is half done then.
    pub interrupted: bool,
}

/// What a vendor directory holds.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VendoredFiles {
    pub files: usize,
    /// Of all files.
    pub bytes: u64,
    /// Files of an earlier run that nothing needed any longer.
    pub removed: usize,
}

impl EventJson {
    pub fn pushed(place: &ArtifactPlace, pushed: &Pushed) -> Self {
        let Pushed { manifest, blobs, bytes, sent, sent_bytes } = *pushed;
        let (place, digest) = (place.to_string(), format!("sha256:{manifest}"));
        Self::Pushed { place, digest, blobs, bytes, sent, sent_bytes }
    }

    pub fn signed(signed: &SignedDigests) -> Self {
        let SignedDigests { path, sha256, artifacts, signatures } = signed.clone();
        Self::Signed { path, sha256: sha256.to_string(), artifacts, signatures }
    }
}

impl From<&Outcome> for Summary {
    fn from(outcome: &Outcome) -> Self {
        let Done { started, restarted, stopped, changed } = outcome.done();
        Self {
            stopped: names(stopped),
            started: names(started),
            restarted: names(restarted),
            changed: names(changed),
            failed: outcome
                .applied
                .failures
                .iter()
                .filter_map(|failure| failure.guest.as_ref().map(GuestName::to_string))
                .collect(),
            left: names(&outcome.left),
            interrupted: outcome.applied.is_cut_short,
        }
    }
}

/// Guests by their names.
pub fn names<'a>(guests: impl IntoIterator<Item = &'a GuestName>) -> Vec<String> {
    guests.into_iter().map(GuestName::to_string).collect()
}

impl From<Vendored> for VendoredFiles {
    fn from(Vendored { files, bytes, removed }: Vendored) -> Self {
        Self { files, bytes, removed }
    }
}
