//! Guests of pools: made to wait, and taken out of waiting before anything else is done to them.

use crate::base::Label;
use crate::host::observed::PoolRole;
use crate::host::state::{Machine, SpareSpec};

use crate::sys::fs as files;
use crate::sys::process::ProcessInfo;

use super::control::{self, PATIENCE, PAUSE_LIMIT};
use super::linux::GuestHandle;
use super::record::pool::{self, PoolRecord};
use super::{ApplyError, record};

impl GuestHandle<'_> {
    /// Has a guest that is ready wait until somebody takes it.
    pub(super) fn make_spare(self, spare: &SpareSpec) -> Result<(), ApplyError> {
        let vmm = self.vmm().ok_or_else(|| ApplyError::Gone(self.name.clone()))?;
        if spare.paused {
            let machine: Option<Machine> = self.machine()?;
            let machine = machine.ok_or_else(|| ApplyError::Gone(self.name.clone()))?;
            control::connect(&self.jail_root(&vmm)?, &machine, &vmm, PATIENCE)?.pause()?;
        }
        // Of an earlier VMM, if it is there: nobody could take the guest beside it.
        files::remove(&self.layout().session(self.name))?;
        Ok(record::write(&self.layout().spare(self.name), &PoolRecord::spare(&vmm, spare))?)
    }

    /// Ends a guest that waits, so that nobody is given it any more.
    ///
    /// # Errors
    /// [`ApplyError::HandedOut`] where somebody took it meanwhile; nothing was done to it then.
    pub(super) fn end_spare(self) -> Result<(), ApplyError> {
        if !pool::withdraw(self.layout(), self.name)? {
            return Err(ApplyError::HandedOut(self.name.clone()));
        }
        // It stands still and hears nothing, and it has nothing to lose.
        self.kill_vmm(None)
    }

    /// What it is there for, while this VMM runs; as well as can be told where its record cannot be read.
    pub fn role(self, vmm: &ProcessInfo) -> Option<PoolRole> {
        let (layout, guest) = (self.layout(), self.name);
        pool::role(layout, guest, vmm).unwrap_or_else(|_| pool::role_unread(layout, guest))
    }

    /// Whether it waits in this pool.
    pub fn waits_in(self, pool: &Label) -> bool {
        pool::waits_in(self.layout(), self.name, pool)
    }

    /// Whether it waits, and is paused meanwhile.
    pub(super) fn stands_still(self) -> bool {
        let role = self.vmm().and_then(|vmm| self.role(&vmm));
        matches!(role, Some(PoolRole::Spare(SpareSpec { paused: true, .. })))
    }

    /// What is recorded of whoever took it.
    pub fn taken(self) -> Result<Option<PoolRecord>, ApplyError> {
        Ok(pool::taken(self.layout(), self.name)?)
    }

    /// Takes it, if it is there to be taken.
    pub fn take(self) -> Result<Option<PoolRecord>, ApplyError> {
        Ok(pool::take(self.layout(), self.name)?)
    }

    /// Says whose it is.
    pub fn keep_session(self, record: &PoolRecord) -> Result<(), ApplyError> {
        Ok(pool::keep(self.layout(), self.name, record)?)
    }

    /// The VMM of a guest that somebody has taken. A later one is not theirs.
    pub fn vmm_taken(self, record: &PoolRecord) -> Result<ProcessInfo, ApplyError> {
        self.vmm().filter(|vmm| record.is_of(vmm)).ok_or_else(|| ApplyError::Gone(self.name.clone()))
    }

    /// Lets a guest run that somebody has taken.
    pub fn resume_taken(self, record: &PoolRecord) -> Result<(), ApplyError> {
        let vmm = self.vmm_taken(record)?;
        let machine: Option<Machine> = self.machine()?;
        let machine = machine.ok_or_else(|| ApplyError::Gone(self.name.clone()))?;
        control::connect(&self.jail_root(&vmm)?, &machine, &vmm, PATIENCE)?.resume(PAUSE_LIMIT)
    }
}
