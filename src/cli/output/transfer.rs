//! `snapshot export`, `import`, `recipient`, `ledger`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::apply::snapshot::{Accepted, Imported};
use crate::base::SnapshotName;
use crate::host::ledger::LedgerLine;
use crate::run::transfer::ExportedSnapshot;
use crate::sys::age::AgeRecipient;

/// A snapshot that was exported.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportedJson {
    pub snapshot: String,
    /// The guest that was frozen.
    pub guest: String,
    pub wrote: PathBuf,
    /// Bytes of that file.
    pub size: u64,
    /// The public key of the host that alone can read it, `age1...`.
    pub recipient: String,
    /// Whether it can no longer be restored on this host.
    pub handed_over: bool,
}

/// A snapshot that was imported.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImportedJson {
    pub snapshot: String,
    /// The guest that was frozen.
    pub guest: String,
    /// When, in UTC, such as `2026-11-25T17:53:16Z`.
    pub created: String,
}

/// The public half of a host's key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RecipientJson {
    /// `age1...`
    pub recipient: String,
}

/// A line of the ledger of snapshots.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LedgerLineJson {
    /// From 1 on.
    pub number: u64,
    /// When, in UTC, by the clock of the host.
    pub at: String,
    /// Such as `restored as alice`.
    pub what: String,
    /// What the snapshot was called.
    pub snapshot: Option<String>,
    /// By which the ledger knows it, wherever it is copied to.
    pub id: Option<String>,
}

/// What was done to a ledger that was not whole.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AcceptedJson {
    /// Whether it was whole already.
    pub was_whole: bool,
    /// How many lines were taken from its witness.
    pub completed: usize,
    /// What the snapshots were called that can no longer be restored, where that is known.
    pub voided: Vec<String>,
    /// Where what was not sound is kept.
    pub kept: Vec<PathBuf>,
}

impl ExportedJson {
    pub fn new(name: &SnapshotName, recipient: &AgeRecipient, exported: &ExportedSnapshot) -> Self {
        Self {
            snapshot: name.to_string(),
            guest: exported.manifest.guest.to_string(),
            wrote: exported.path.clone(),
            size: exported.size,
            recipient: recipient.to_string(),
            handed_over: exported.is_handed_over,
        }
    }
}

impl From<&Imported> for ImportedJson {
    fn from(imported: &Imported) -> Self {
        Self {
            snapshot: imported.name.to_string(),
            guest: imported.manifest.guest.to_string(),
            created: imported.manifest.created.clone(),
        }
    }
}

impl From<&LedgerLine> for LedgerLineJson {
    fn from(line: &LedgerLine) -> Self {
        Self {
            number: line.number,
            at: line.at.clone(),
            what: line.event.words(),
            snapshot: line.event.snapshot().map(ToString::to_string),
            id: line.event.id().map(|id| id.to_string()),
        }
    }
}

impl From<&Accepted> for AcceptedJson {
    fn from(accepted: &Accepted) -> Self {
        let none = Self { was_whole: false, completed: 0, voided: Vec::new(), kept: Vec::new() };
        match accepted {
            Accepted::Whole => Self { was_whole: true, ..none },
            Accepted::Completed(completed) => Self { completed: *completed, ..none },
            Accepted::BegunAnew { voided, kept } => {
                let voided = voided.iter().flatten().map(ToString::to_string).collect();
                Self { voided, kept: kept.clone(), ..none }
            }
        }
    }
}
