//! The real host: where it is, and how much of it is changed. Its steps are in `steps.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::FileDigest;
use crate::base::GuestName;
use crate::fleet::LogLimits;
use crate::host::layout::Layout;
use crate::sys::block;
use crate::sys::cgroup::{Device, Hierarchy};
use crate::sys::fs::FileError;
use crate::sys::launch::Started;
use crate::sys::sparse;

use super::ApplyError;

/// How much of a host is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    WholeHost,
    /// Files below the store alone: nothing is mounted, and whoever is not root keeps what would be a guest's.
    FilesAlone,
}

/// A Linux host, for one fleet.
#[derive(Clone, Debug)]
pub struct LinuxHost {
    pub layout: Layout,
    pub scope: Scope,
    pub hierarchy: Hierarchy,
    /// Where the files of artifacts are.
    pub artifacts: BTreeMap<FileDigest, PathBuf>,
    /// This program, which joins a cgroup and becomes the VMM.
    pub launcher: PathBuf,
    /// How much is kept of each log.
    pub logs: LogLimits,
    /// VMMs that this process started, so that it can say how they ended.
    pub launched: Arc<Mutex<BTreeMap<GuestName, Started>>>,
    /// How long a guest may take to say that it is ready.
    pub ready_timeout: Duration,
    /// How long a guest may take to shut down before its VMM is killed.
    pub stop_timeout: Duration,
}

/// How long a guest may take to boot and start its services; software emulation on a busy host takes most of it.
pub const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a guest may take to end its containers and write its disk back.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);

impl LinuxHost {
    /// The block device whose use cgroups limit: that which holds the jails, and with them all that a VMM writes.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn device(&self) -> Result<Device, ApplyError> {
        // What is not made yet will stand on the same device as the directory that it is made in.
        let jails = self.layout.jails();
        let there = jails.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        block::device_of(there)?.ok_or_else(|| ApplyError::NoDevice(there.to_owned()))
    }
}

/// A copy with the same holes that shares its blocks with the original where the file system can; `to` is empty.
pub(super) fn copy(from: &Path, to: &File) -> Result<(), ApplyError> {
    let copied = File::open(from).and_then(|file| sparse::copy(&file, to));
    Ok(copied.map_err(FileError::when("copy", from))?)
}

impl Scope {
    /// Makes a guest's uid and gid the owner of a file.
    pub(super) fn chown(self, path: &Path, uid: u32) -> Result<(), ApplyError> {
        if self == Self::FilesAlone && !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Ok(std::os::unix::fs::chown(path, Some(uid), Some(uid))
            .map_err(FileError::when("give away", path))?)
    }
}
