//! `gc`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::run::gc::{Garbage, StorageKind};

/// What nothing names.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GarbageJson {
    /// Whether it is removed; not with `--dry-run`.
    pub removed: bool,
    /// Bytes that all of it takes on the disk.
    pub size: u64,
    pub leftovers: Vec<LeftoverJson>,
    /// Snapshots that `[snapshots] keep` does not keep any more.
    pub snapshots: Vec<OutdatedJson>,
}

/// A snapshot that is not kept any more.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OutdatedJson {
    pub name: String,
    /// Bytes that it takes on the disk.
    pub size: u64,
    /// Why it goes.
    pub why: String,
}

/// A file or a directory that nothing names.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LeftoverJson {
    /// Where it is: `out`, `store` or `cache`.
    pub place: &'static str,
    pub path: PathBuf,
    /// Bytes that it takes on the disk.
    pub size: u64,
}

impl GarbageJson {
    pub fn new(garbage: &Garbage, removed: bool) -> Self {
        let leftovers: Vec<_> = garbage
            .leftovers
            .iter()
            .map(|leftover| LeftoverJson {
                place: word(leftover.what),
                path: leftover.path.clone(),
                size: leftover.size,
            })
            .collect();
        let snapshots = garbage.outdated.iter().map(|outdated| OutdatedJson {
            name: outdated.name.to_string(),
            size: outdated.size,
            why: outdated.why.to_string(),
        });
        Self { removed, size: garbage.size(), leftovers, snapshots: snapshots.collect() }
    }
}

/// What a place is called.
pub(super) fn word(place: StorageKind) -> &'static str {
    match place {
        StorageKind::Artifact => "out",
        StorageKind::Stored => "store",
        StorageKind::Download => "cache",
    }
}
