//! What is remembered of kernels and no artifact depends on: removing it costs time only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::text::json;
use crate::sys::fs::{self as files, FileError};

use super::configured::Configured;
use super::key::BuildKey;

/// A directory of notes.
#[derive(Clone, Debug)]
pub struct KernelNotes(pub PathBuf);

/// How the last build went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBuild {
    /// What make named on its way.
    pub targets: u64,
    pub seconds: u64,
    pub jobs: usize,
}

#[derive(Serialize, Deserialize)]
struct Keyed<T> {
    key: String,
    kept: T,
}

impl KernelNotes {
    /// Where the log of a build that failed is kept.
    pub fn failed_log(&self) -> PathBuf {
        self.0.join("kernel-build.log")
    }

    /// How the last build went, if there was one.
    pub fn last_build(&self) -> Option<LastBuild> {
        serde_json::from_slice(&std::fs::read(self.last_build_file()).ok()?).ok()
    }

    /// Remembers a build.
    pub fn keep_last_build(&self, build: LastBuild) -> Result<(), FileError> {
        self.keep(&self.last_build_file(), &build)
    }

    /// What was configured for a kernel, if it was the last one.
    pub fn configured(&self, key: &BuildKey) -> Option<Configured> {
        let bytes = std::fs::read(self.configured_file()).ok()?;
        let kept: Keyed<Configured> = serde_json::from_slice(&bytes).ok()?;
        (kept.key == key.to_string()).then_some(kept.kept)
    }

    /// Remembers a configuration.
    pub fn keep_configured(&self, key: &BuildKey, configured: &Configured) -> Result<(), FileError> {
        self.keep(&self.configured_file(), &Keyed { key: key.to_string(), kept: configured })
    }

    fn keep(&self, path: &std::path::Path, value: &impl Serialize) -> Result<(), FileError> {
        files::write(path, json(value).as_bytes(), 0o644)
    }

    fn last_build_file(&self) -> PathBuf {
        self.0.join("kernel-last-build.json")
    }

    fn configured_file(&self) -> PathBuf {
        self.0.join("kernel-configured.json")
    }
}

#[cfg(test)]
mod tests {
    use super::super::kconfig::Symbols;
    use super::super::key::KeyBuilder;
    use super::*;

    #[test]
    fn notes_are_of_the_kernel_that_they_were_made_of_and_a_broken_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let notes = KernelNotes(dir.path().into());
        let configured =
            Configured { text: "CONFIG_A=y\n".into(), symbols: Symbols::of("config A\n\tbool\n") };
        let key = |name| KeyBuilder::new(name).finish();
        notes.keep_configured(&key("a"), &configured).unwrap();
        assert_eq!(notes.configured(&key("a")), Some(configured));
        assert_eq!(notes.configured(&key("b")), None);
        std::fs::write(dir.path().join("kernel-configured.json"), "{").unwrap();
        assert_eq!(notes.configured(&key("a")), None);
        let last = LastBuild { targets: 3, seconds: 4, jobs: 2 };
        notes.keep_last_build(last).unwrap();
        assert_eq!(notes.last_build(), Some(last));
    }
}
