//! A fleet's host as it was found. Of `fleet.toml` it needs the fleet's name and store alone, so that what acts on what is there works
//! whatever else is wrong in the file: in an emergency nobody should have to mend it first.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use crate::apply::linux::LinuxHost;
use crate::apply::{Host, observe};
use crate::base::GuestName;
use crate::fleet::{self, LoadError};
use crate::host::observed::ObservedHost;
use crate::host::wanted::WantedHost;
use crate::plan::{Plan, Strategy, diff};
use crate::sys::fs::FileLock;

use super::deployment::{carry_out, scope};
use super::{Outcome, RunError, Workspace, host};

/// A fleet by its name and its places.
pub(super) struct Located {
    pub host: LinuxHost,
    /// The guests that `fleet.toml` declares; where it cannot be read, those that the store has something of.
    pub declared: BTreeSet<GuestName>,
}

impl Located {
    /// Finds it.
    ///
    /// # Errors
    /// Those of the whole file, where its name and its store cannot be read either.
    pub fn find(workspace: &Workspace<'_>) -> Result<Self, RunError> {
        match workspace.fleet() {
            Ok(fleet) => {
                let host = host::open(&fleet.host, &fleet.name)?;
                Ok(Self { host, declared: fleet.guests.into_keys().collect() })
            }
            Err(LoadError::Invalid(problems)) => {
                let head = fleet::head(&workspace.settings.file).map_err(|_| LoadError::Invalid(problems))?;
                let host = host::open(&head.host, &head.name)?;
                let declared = observe::recorded(&host.layout)?.into_iter().collect();
                Ok(Self { host, declared })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A fleet's host, and what that has of it.
pub(super) struct FleetHost<'a> {
    pub workspace: &'a Workspace<'a>,
    pub host: LinuxHost,
    pub observed: ObservedHost,
    /// The guests that `fleet.toml` declares; where it cannot be read, those that the store has something of.
    pub declared: BTreeSet<GuestName>,
}

/// A host that this process alone may change, until this is dropped.
pub(super) struct HeldHost<'a> {
    found: FleetHost<'a>,
    lock: FileLock,
}

impl<'a> Deref for HeldHost<'a> {
    type Target = FleetHost<'a>;

    fn deref(&self) -> &Self::Target {
        &self.found
    }
}

impl DerefMut for HeldHost<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.found
    }
}

impl<'a> FleetHost<'a> {
    /// Looks at a fleet's host, and may not change it.
    pub fn look(workspace: &'a Workspace<'a>) -> Result<Self, RunError> {
        let Located { host, declared } = Located::find(workspace)?;
        let observed = host.observe()?;
        Ok(Self { workspace, host, observed, declared })
    }

    /// Holds a fleet's host, waiting for another process that does, and looks at it.
    pub fn hold(workspace: &'a Workspace<'a>) -> Result<HeldHost<'a>, RunError> {
        let Located { host, declared } = Located::find(workspace)?;
        let lock = host::hold(&host.layout, workspace.report)?;
        let observed = host.observe()?;
        Ok(HeldHost { found: Self { workspace, host, observed, declared }, lock })
    }

    /// What takes these guests away, or everything of the fleet where none is named; their data disks stay.
    pub fn removal(&self, names: &[GuestName]) -> Plan {
        diff(&self.observed, &WantedHost::default(), scope(names))
    }

    /// Every guest that the host has something of, be it its logs alone.
    pub fn there(&self) -> Result<Vec<GuestName>, RunError> {
        let mut guests = observe::recorded(&self.host.layout)?;
        guests.extend(self.observed.guests.keys().cloned());
        Ok(guests.into_iter().collect())
    }
}

impl HeldHost<'_> {
    /// Carries out a plan, after a look at whether it can be.
    pub fn carry_out(&self, plan: Plan) -> Result<Outcome, RunError> {
        carry_out(self.workspace, &self.host, &self.lock, plan, Strategy::Recreate)
    }
}
