//! What is kept of one guest.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::host::logs::LogKind;

/// The directory of a guest: its records, its logs, and what its VMM writes to and reads from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDir(pub(super) PathBuf);

impl Deref for GuestDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for GuestDir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl GuestDir {
    /// One of the guest's logs; older parts stand beside it.
    pub fn log(&self, kind: LogKind) -> PathBuf {
        self.0.join(format!("{}.log", kind.word()))
    }

    /// What was kept of its packets that were dropped, and of its connections; older parts stand beside it.
    pub fn flows(&self) -> PathBuf {
        self.0.join("flows.log")
    }

    /// The pipe that becomes the log where no VMM makes one in its jail.
    pub fn pipe(&self, kind: LogKind) -> PathBuf {
        self.0.join(format!("{}.pipe", kind.word()))
    }

    /// Held by the process that keeps the guest's logs, for as long as it lives.
    pub fn keeper(&self) -> PathBuf {
        self.0.join("keeper.lock")
    }

    /// A FIFO whose bytes the guest reads on its serial port.
    pub fn console_input(&self) -> PathBuf {
        self.0.join("console.in")
    }

    /// The machine that was started.
    pub fn machine(&self) -> PathBuf {
        self.0.join("machine.json")
    }

    /// Which process was started as the guest's VMM.
    pub fn started(&self) -> PathBuf {
        self.0.join("vmm.json")
    }

    /// That the guest is ready, and its ssh host key.
    pub fn ready(&self) -> PathBuf {
        self.0.join("ready.json")
    }

    /// How large a disk the host gave the guest.
    pub fn disk_record(&self) -> PathBuf {
        self.0.join("disk.json")
    }

    /// That the guest's VMM is paused for a snapshot.
    pub fn freezing(&self) -> PathBuf {
        self.0.join("freezing.json")
    }

    /// That the guest was started to be handed out.
    pub fn raised(&self) -> PathBuf {
        self.0.join("raised.json")
    }

    /// That the guest waits to be handed out.
    pub fn spare(&self) -> PathBuf {
        self.0.join("spare.json")
    }

    /// That somebody has the guest.
    pub fn session(&self) -> PathBuf {
        self.0.join("session.json")
    }

    /// The records that tell of one VMM and of no later one.
    pub fn records_of_vmm(&self) -> [PathBuf; 6] {
        [self.ready(), self.started(), self.freezing(), self.raised(), self.spare(), self.session()]
    }
}
