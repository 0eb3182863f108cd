//! `gc`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::run::gc::{Garbage, KeptIn};

/// What nothing names.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GarbageJson {
    /// Whether it is removed; not with `--dry-run`.
    pub removed: bool,
    /// Bytes that all of it takes on the disk.
    pub size: u64,
    pub leftovers: Vec<LeftoverJson>,
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
        Self { removed, size: leftovers.iter().map(|leftover| leftover.size).sum(), leftovers }
    }
}

/// What a place is called.
pub(super) fn word(place: KeptIn) -> &'static str {
    match place {
        KeptIn::Artifact => "out",
        KeptIn::Stored => "store",
        KeptIn::Download => "cache",
    }
}
