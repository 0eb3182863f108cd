//! `verify`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::run::verify::{ReadState, Verification};

/// What was read.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerificationJson {
    /// Whether every file has the bytes of its digest.
    pub whole: bool,
    /// Whether the store was looked at, which is root's.
    pub looked_at_store: bool,
    /// What is not built yet, in words.
    pub unbuilt: Vec<String>,
    pub files: Vec<VerifiedFileJson>,
}

/// A file whose digest is known.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifiedFileJson {
    /// Where it is: `out`, `store` or `cache`.
    pub place: &'static str,
    pub path: PathBuf,
    pub digest: String,
    /// Whether it has the bytes of its digest.
    pub whole: bool,
    /// The digest that it has instead, if it could be read.
    pub found: Option<String>,
    /// Why it could not be read.
    pub problem: Option<String>,
}

impl VerificationJson {
    pub fn new(verification: &Verification) -> Self {
        let files = verification.files.iter().map(|file| {
            let (found, problem) = match &file.state {
                ReadState::Whole => (None, None),
                ReadState::Changed(found) => (Some(found.to_string()), None),
                ReadState::Unreadable(why) => (None, Some(why.clone())),
            };
            VerifiedFileJson {
                place: super::gc::word(file.place),
                path: file.path.clone(),
                digest: file.digest.to_string(),
                whole: file.state == ReadState::Whole,
                found,
                problem,
            }
        });
        Self {
            whole: verification.damaged().next().is_none(),
            looked_at_store: verification.looked_at_store,
            unbuilt: verification.unbuilt.clone(),
            files: files.collect(),
        }
    }
}
