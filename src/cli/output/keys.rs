//! Public keys that were written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

/// Public keys that were written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeysJson {
    pub keys: Vec<KeyJson>,
}

/// A file with a public key (PEM).
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyJson {
    pub wrote: PathBuf,
    /// Of the file, in hexadecimal.
    pub sha256: String,
}

impl KeysJson {
    pub fn new(keys: &[(PathBuf, &str)]) -> Self {
        let json =
            |(path, digest): &(PathBuf, &str)| KeyJson { wrote: path.clone(), sha256: (*digest).to_owned() };
        Self { keys: keys.iter().map(json).collect() }
    }
}
