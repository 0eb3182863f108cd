//! `disk`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::apply::disk::DiskBacking;
use crate::run::disk::Listed;

/// A data disk.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Disk {
    /// What `disk export` and `disk rm` call it: the guest, or `GUEST.before-SNAPSHOT` where a restore put another in its place;
    /// `sessions/NAME` where sessions bring it.
    pub name: String,
    /// Whose it is; of a disk that sessions bring, the guest that has it, `null` where none has.
    pub guest: Option<String>,
    /// What `session start --disk` calls it; `null` of a guest's own.
    pub session: Option<String>,
    pub path: PathBuf,
    pub backing: BackingJson,
    /// In bytes, holes included.
    pub size: u64,
    /// Bytes that it takes of its host.
    pub used: u64,
    /// Its owner on the host.
    pub uid: u32,
    /// Of the file system; `null` if it cannot be read.
    pub label: Option<String>,
    /// Whether a VMM runs that has it.
    pub attached: bool,
    /// Whether fleet.toml has no such guest.
    pub orphan: bool,
    /// Whether another was put in its place.
    pub set_aside: bool,
}

/// Where a data disk is kept.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackingJson {
    /// In the store, for good.
    File,
    /// In the jail, with which it goes.
    Jail,
    /// In RAM, within the jail.
    Tmpfs,
}

/// A disk that was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DiskRemoved {
    /// What `disk ls` called it.
    pub disk: String,
}

/// A file that was written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WrittenJson {
    pub wrote: PathBuf,
}

impl From<DiskBacking> for BackingJson {
    fn from(kept: DiskBacking) -> Self {
        match kept {
            DiskBacking::File => Self::File,
            DiskBacking::Jail => Self::Jail,
            DiskBacking::Tmpfs => Self::Tmpfs,
        }
    }
}

impl From<&Listed> for Disk {
    fn from(Listed { disk, orphan }: &Listed) -> Self {
        Self {
            name: disk.name.clone(),
            guest: disk.guest.as_ref().map(ToString::to_string),
            session: disk.session.as_ref().map(ToString::to_string),
            path: disk.path.clone(),
            backing: disk.backing.into(),
            size: disk.size,
            used: disk.used,
            uid: disk.uid,
            label: disk.label.clone(),
            attached: disk.attached,
            orphan: *orphan,
            set_aside: disk.set_aside,
        }
    }
}
