//! Guests of pools: made to wait, and taken out of waiting before anything else is done to them.

use crate::apply::VmmError;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::base::Label;
use crate::base::time::parse_rfc3339;
use crate::host::observed::PoolRole;
use crate::host::pool::CLAIM_LIMIT;
use crate::host::state::{Machine, Session, SpareSpec};
use crate::sys::fs::{self as files, FileError};
use crate::sys::process::ProcessInfo;

use super::ApplyError;
use super::control::{self, PATIENCE, PAUSE_LIMIT, VmmControl};
use super::linux::GuestHandle;
use super::record::pool::PoolRecord;
use super::record::{self, Unreadable};
use super::session_disk::HeldSessionDisk;

/// A time that cannot be read is none that comes.
fn is_past(time: &str) -> bool {
    parse_rfc3339(time).is_ok_and(|time| time <= SystemTime::now())
}

impl GuestHandle<'_> {
    /// Records that a guest boots to be handed out. One whose VMM has ended already fails by that.
    pub(super) fn raise_spare(self, spare: &SpareSpec) -> Result<(), ApplyError> {
        let Some(vmm) = self.vmm() else { return Ok(()) };
        Ok(record::write(&self.dir().raised(), &PoolRecord::spare(&vmm, spare))?)
    }

    /// Has a guest that is ready wait until somebody takes it.
    pub(super) fn make_spare(self, spare: &SpareSpec) -> Result<(), ApplyError> {
        let vmm = self.vmm().ok_or_else(|| VmmError::Gone(self.name.clone()))?;
        if spare.paused {
            self.control(&vmm)?.pause()?;
        }
        // Of an earlier VMM, if it is there: nobody could take the guest beside it.
        files::remove(&self.dir().session())?;
        // So that one whose next records are lost is never made a spare again.
        files::remove(&self.dir().raised())?;
        Ok(record::write(&self.dir().spare(), &PoolRecord::spare(&vmm, spare))?)
    }

    /// Ends a guest that waits, so that nobody is given it any more.
    ///
    /// # Errors
    /// [`VmmError::HandedOut`] where somebody took it meanwhile; nothing was done to it then.
    pub(super) fn end_spare(self) -> Result<(), ApplyError> {
        if !self.withdraw()? {
            return Err(VmmError::HandedOut(self.name.clone()).into());
        }
        // It stands still and hears nothing, and it has nothing to lose.
        self.kill_vmm(None)
    }

    /// Makes a guest that waits one that cannot be taken. `false` where somebody took it.
    fn withdraw(self) -> Result<bool, ApplyError> {
        let spare = self.dir().spare();
        match fs::remove_file(&spare) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(!self.dir().session().exists()),
            Err(error) => Err(FileError::when("remove", &spare)(error).into()),
        }
    }

    /// What it is there for, while this VMM runs; as well as can be told where its record cannot be read.
    pub fn role(self, vmm: &ProcessInfo) -> Option<PoolRole> {
        self.recorded_role(vmm).unwrap_or_else(|_| Some(self.role_unread()))
    }

    /// What a guest of a pool is there for, as its records say.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub(super) fn recorded_role(self, vmm: &ProcessInfo) -> Result<Option<PoolRole>, Unreadable> {
        let is_of_vmm = |record: &PoolRecord| record.is_of(vmm);
        if let Some(taken) = record::read(&self.dir().session())?.filter(is_of_vmm) {
            return Ok(Some(match taken.session.filter(|_| !taken.is_over) {
                Some(session) if session.expires.as_deref().is_some_and(is_past) => PoolRole::Used,
                Some(session) => PoolRole::InUse(session),
                None if !taken.is_over && self.is_being_taken() => {
                    PoolRole::InUse(Session { pool: taken.pool, ..Session::default() })
                }
                None => PoolRole::Used,
            }));
        }
        if let Some(spare) = record::read(&self.dir().spare())?.filter(is_of_vmm) {
            return Ok(spare.spec().map(PoolRole::Spare));
        }
        Ok(record::read(&self.dir().raised())?.filter(is_of_vmm).map(|_| PoolRole::Raised))
    }

    /// What it is taken for where no record of it can be read: somebody may have it, and keeps it; one that only waited is replaced.
    pub(super) fn role_unread(self) -> PoolRole {
        let is_taken = self.dir().session().exists();
        if is_taken { PoolRole::InUse(Session::default()) } else { PoolRole::Used }
    }

    /// Whether it was renamed a moment ago, by somebody who may be about to say more.
    fn is_being_taken(self) -> bool {
        let renamed = fs::metadata(self.dir().session()).map(|meta| meta.ctime());
        let renamed = Duration::from_secs(renamed.unwrap_or_default().max(0).unsigned_abs());
        (SystemTime::UNIX_EPOCH + renamed).elapsed().is_ok_and(|since| since < CLAIM_LIMIT)
    }

    /// Whether it waits in this pool. Its name does not tell: that of another pool may go on where this one's ends.
    pub fn waits_in(self, pool: &Label) -> bool {
        // Nobody is given one whose record cannot be read, and `up` replaces it.
        let spare: Option<PoolRecord> = record::read(&self.dir().spare()).ok().flatten();
        spare.is_some_and(|spare| spare.pool.as_ref() == Some(pool))
    }

    /// Whether it waits, and is paused meanwhile.
    pub(super) fn is_paused_spare(self) -> bool {
        let role = self.vmm().and_then(|vmm| self.role(&vmm));
        matches!(role, Some(PoolRole::Spare(SpareSpec { paused: true, .. })))
    }

    /// What is recorded of whoever took it.
    pub fn taken(self) -> Result<Option<PoolRecord>, ApplyError> {
        Ok(record::read(&self.dir().session())?)
    }

    /// Takes it, if it is there to be taken: whoever comes second does not get it.
    pub fn take(self) -> Result<Option<PoolRecord>, ApplyError> {
        let (spare, session) = (self.dir().spare(), self.dir().session());
        match renameat_with(CWD, &spare, CWD, &session, RenameFlags::NOREPLACE) {
            Ok(()) => self.taken(),
            // Taken, or withdrawn; or taken by somebody who was killed, and not yet cleared away.
            Err(Errno::NOENT | Errno::EXIST) => Ok(None),
            Err(error) => Err(FileError::when("take", &spare)(error.into()).into()),
        }
    }

    /// Says whose it is, or that it is nobody's any more.
    pub fn keep_session(self, record: &PoolRecord) -> Result<(), ApplyError> {
        Ok(record::write(&self.dir().session(), record)?)
    }

    /// The VMM of a guest that somebody has taken. A later one is not theirs.
    pub fn vmm_taken(self, record: &PoolRecord) -> Result<ProcessInfo, ApplyError> {
        self.vmm().filter(|vmm| record.is_of(vmm)).ok_or_else(|| VmmError::Gone(self.name.clone()).into())
    }

    /// Gives a guest that somebody has taken the disk of its session, where it has one, and lets it run.
    ///
    /// # Errors
    /// Where its VMM does not take the disk: the guest is ended then, and the disk free again.
    pub fn begin_session(
        self,
        record: &PoolRecord,
        disk: Option<&HeldSessionDisk>,
    ) -> Result<(), ApplyError> {
        let vmm = self.vmm_taken(record)?;
        if let Some(disk) = disk {
            self.attach_session_disk(&vmm, disk)?;
        }
        if record.paused {
            self.control(&vmm)?.resume(PAUSE_LIMIT)?;
        }
        if disk.is_some() { self.announce_session_disk() } else { Ok(()) }
    }

    /// The VMM, connected to.
    fn control(self, vmm: &ProcessInfo) -> Result<Box<dyn VmmControl>, ApplyError> {
        let machine: Option<Machine> = self.machine()?;
        let machine = machine.ok_or_else(|| VmmError::Gone(self.name.clone()))?;
        control::connect(&self.jail_root(vmm)?, &machine, vmm, PATIENCE)
    }
}
