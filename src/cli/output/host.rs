//! `doctor` and `logs`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::host::doctor::{Check, is_ready};

/// Whether this host is ready for the fleet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DoctorJson {
    /// Whether no check failed.
    pub ready: bool,
    pub checks: Vec<Check>,
}

/// A line of a log.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LogLineJson {
    pub guest: String,
    /// When it was written (RFC 3339, UTC); `null` if that is not known.
    pub time: Option<String>,
    /// `serial`, `vmm`, `metrics` or `container`.
    pub log: &'static str,
    /// Without its line end; what is not UTF-8 is replaced by U+FFFD.
    pub line: String,
}

impl From<Vec<Check>> for DoctorJson {
    fn from(checks: Vec<Check>) -> Self {
        Self { ready: is_ready(&checks), checks }
    }
}
