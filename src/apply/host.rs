//! What applying a plan needs of a host. [`super::linux::LinuxHost`] is the real one; tests use another to make
//! faults that a real host does not make on demand.

use crate::host::observed::ObservedHost;
use crate::plan::Step;

use super::error::ApplyError;

/// A host that can be looked at and changed.
pub trait Host: Sync {
    /// Reads what the host has of the fleet, from its processes, interfaces, rules, cgroups and jails.
    fn observe(&self) -> Result<ObservedHost, ApplyError>;

    /// Takes one step. Each can be taken again.
    ///
    /// # Errors
    /// Where it cannot be taken; a part of it may be done.
    fn take(&self, step: &Step) -> Result<(), ApplyError>;

    /// Ends the connections of guests whose TAPs went, before their addresses are given again.
    ///
    /// # Errors
    /// Where the kernel does not end them, or does not say which there are.
    fn end_connections(&self) -> Result<(), ApplyError> {
        Ok(())
    }

    /// Fails where whoever works here is asked to end, and then does no more than not to leave anything half done.
    ///
    /// # Errors
    /// [`ApplyError::Interrupted`].
    fn check_interrupt(&self) -> Result<(), ApplyError> {
        Ok(())
    }
}
