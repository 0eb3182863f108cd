//! The real host: where it is, and how much of it is changed. Its steps are in `steps.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::{FileDigest, GuestName, Sha256};
use crate::fleet::LogLimits;
use crate::host::layout::{GuestDir, Layout};
use crate::host::state::Machine;
use crate::sys::block;
use crate::sys::cgroup::{Device, Hierarchy};
use crate::sys::fs::{FileError, existing_ancestor};
use crate::sys::interrupt;
use crate::sys::launch::Started;
use crate::sys::sparse;

use super::ApplyError;
use super::batcher::Batcher;
use super::look::{HostCache, LeavingTap};
use super::network;
use super::record::{self, Unreadable};
use super::semaphore::Semaphore;

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
    /// Where the files are that containers name, by the digests that they are compared by.
    pub container_files: BTreeMap<Sha256, PathBuf>,
    /// This program, which joins a cgroup and becomes the VMM.
    pub launcher: PathBuf,
    /// What one look found; clones share it.
    pub cache: Arc<HostCache>,
    /// Who takes guests apart at a time; clones share it. The kernel needs seconds to end hundreds of VMMs at once.
    pub stops: Arc<Semaphore>,
    /// TAPs that are removed; clones share it.
    pub tap_removals: Arc<Batcher<LeavingTap>>,
    /// Whether signals are heeded ([`crate::sys::interrupt`]); not while something must be brought to its end.
    pub heeds_signals: bool,
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

/// How many guests are taken apart at a time, of those whose VMMs have ended or are to be ended.
const STOPS: usize = 8;

/// A guest of a host, by its name, whether the host has anything of it or not. What can be asked of it and done to it stands as
/// methods in the files beside this one, each with what it is about: its jails, its VMM, its disk.
#[derive(Clone, Copy, Debug)]
pub struct GuestHandle<'a> {
    pub host: &'a LinuxHost,
    pub name: &'a GuestName,
}

impl<'a> GuestHandle<'a> {
    /// Where the fleet's files are.
    pub fn layout(self) -> &'a Layout {
        &self.host.layout
    }

    /// Where its records and logs are.
    pub fn dir(self) -> GuestDir {
        self.layout().guest(self.name)
    }

    /// The machine that was started last; `None` where none was.
    pub fn machine(self) -> Result<Option<Machine>, Unreadable> {
        record::read(&self.dir().machine())
    }

    /// The machine that was started last, as the last look at the host saw it, for steps that take apart what was seen then.
    pub(super) fn seen_machine(self) -> Result<Option<Arc<Machine>>, Unreadable> {
        match self.host.cache.machine(self.name) {
            Some(seen) => Ok(Some(seen)),
            None => Ok(self.machine()?.map(Arc::new)),
        }
    }
}

impl LinuxHost {
    /// Fails where this process is asked to end, and heeds it.
    ///
    /// # Errors
    /// [`ApplyError::Interrupted`].
    pub(super) fn check_signals(&self) -> Result<(), ApplyError> {
        match interrupt::asked().filter(|_| self.heeds_signals) {
            Some(interrupted) => Err(interrupted.into()),
            None => Ok(()),
        }
    }

    /// A host that is changed as far as `scope` goes; `launcher` is this program.
    pub fn new(layout: Layout, scope: Scope, hierarchy: Hierarchy, launcher: PathBuf) -> Self {
        Self {
            layout,
            scope,
            hierarchy,
            artifacts: BTreeMap::new(),
            container_files: BTreeMap::new(),
            launcher,
            cache: Arc::default(),
            stops: Arc::new(Semaphore::new(STOPS)),
            tap_removals: Arc::default(),
            heeds_signals: true,
            logs: LogLimits::default(),
            launched: Arc::default(),
            ready_timeout: READY_TIMEOUT,
            stop_timeout: STOP_TIMEOUT,
        }
    }

    /// The guest of this name.
    pub fn guest<'a>(&'a self, name: &'a GuestName) -> GuestHandle<'a> {
        GuestHandle { host: self, name }
    }

    /// Keeps what the last look read of the fleet's rules, so that the next one need not; whoever calls this holds the host. What
    /// cannot be kept is read again.
    pub fn keep_read_rules(&self) {
        if let Some(read) = self.cache.read_rules() {
            let _ = network::keep_rules(&self.layout, &read);
        }
    }

    /// The block device whose use cgroups limit: that which holds the jails, and with them all that a VMM writes.
    pub(super) fn device(&self) -> Result<Device, ApplyError> {
        // What is not made yet will stand on the same device as the directory that it is made in.
        let jails = self.layout.jails();
        let there = existing_ancestor(&jails).unwrap_or(Path::new("/"));
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
