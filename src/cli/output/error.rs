//! A command that did not do its work.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

/// Why a command did not do its work. Its exit status tells whose fault that is: 1 what may work another time, 2 what was
/// asked for.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum FailureJson {
    /// Files with problems in them.
    Files { error: String, problems: Vec<ProblemJson> },
    Words {
        error: String,
        /// The nearest first.
        causes: Vec<String>,
        /// What to do.
        hint: Option<String>,
    },
}

/// One thing that is wrong with a file, and where.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProblemJson {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}
