//! The few things about a host that cannot be observed, kept in small files of the store.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::Sha256;
use crate::fleet::ContainerSpec;
use crate::sys::fs::{self as files};

use super::ApplyError;

/// `ready.json`: what a guest said of itself, and what was started in it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The VMM's process, so that a later one is not taken for it.
    pub pid: u32,
    /// In clock ticks since the host's boot.
    pub start_time: u64,
    /// `ssh-ed25519 AAAA...`; empty where the guest runs no sshd.
    pub host_key: String,
    #[serde(default)]
    pub containers: Vec<ContainerSpec>,
}

/// `place.json`: where the jails are, so that another place in fleet.toml does not lose sight of disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRecord {
    pub jails: PathBuf,
}

/// `ruleset.json`: nft lists rules in its own words, so what it says is compared with what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedRuleset {
    /// Of the text that was loaded.
    pub digest: Sha256,
    /// Of the listing right after.
    pub listing: Sha256,
}

/// Reads a record; `None` where there is none. One that does not parse is like none: a guest whose machine is not
/// known is started anew, which mends it.
///
/// # Errors
/// Where it cannot be read.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ApplyError> {
    Ok(files::read_text_if_present(path)?.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Writes a record, atomically. It is not synced: what it tells of ends with the machine's power.
///
/// # Errors
/// Where it cannot be written.
pub fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), ApplyError> {
    let text = serde_json::to_vec_pretty(record)
        .map_err(|source| ApplyError::Record { path: path.to_owned(), source })?;
    Ok(files::write_unsynced(path, &text, 0o600)?)
}
