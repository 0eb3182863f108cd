//! A fleet's host as it was found. Of `fleet.toml` it needs the fleet's name and store alone, so that what acts on what is there works
//! whatever else is wrong in the file: in an emergency nobody should have to mend it first.

use std::collections::BTreeSet;

use crate::apply::linux::LinuxHost;
use crate::apply::{Host, record};
use crate::base::GuestName;
use crate::fleet::LoadError;
use crate::host::layout::Layout;
use crate::host::observed::ObservedHost;
use crate::host::wanted::WantedHost;
use crate::plan::{Plan, diff};
use crate::sys::fs::FileLock;
use crate::sys::report::Report;

use super::deployment::scope;
use super::held::{FoundOnHost, Held};
use super::{RunError, Workspace, host};

/// A fleet's host, opened, and the guests that are declared.
pub(super) struct OpenedHost {
    pub host: LinuxHost,
    /// The guests that `fleet.toml` declares; where it cannot be read, those that the store has something of.
    pub declared: BTreeSet<GuestName>,
}

impl OpenedHost {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the whole file, where its name and its store cannot be read either.
    pub fn open(workspace: &Workspace<'_>) -> Result<Self, RunError> {
        match workspace.fleet() {
            Ok(fleet) => {
                let host = host::open(&fleet.head())?;
                Ok(Self { host, declared: fleet.guests.into_keys().collect() })
            }
            Err(LoadError::Invalid(problems)) => {
                let head = workspace.head().map_err(|_| LoadError::Invalid(problems))?;
                let host = host::open(&head)?;
                let declared = record::guests(&host.layout)?.into_iter().collect();
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

/// A way to hold a host.
type TakeLock = fn(&Layout, &dyn Report) -> Result<FileLock, RunError>;

impl FoundOnHost for FleetHost<'_> {
    fn workspace_and_host(&self) -> (&Workspace<'_>, &LinuxHost) {
        (self.workspace, &self.host)
    }
}

impl<'a> FleetHost<'a> {
    /// Looks at a fleet's host, and may not change it.
    pub fn look(workspace: &'a Workspace<'a>) -> Result<Self, RunError> {
        let OpenedHost { host, declared } = OpenedHost::open(workspace)?;
        let observed = host.observe()?;
        Ok(Self { workspace, host, observed, declared })
    }

    /// Holds a fleet's host, waiting for another process that does, and looks at it.
    pub fn hold(workspace: &'a Workspace<'a>) -> Result<Held<Self>, RunError> {
        Self::hold_by(workspace, host::hold)
    }

    /// The same for whoever takes guests away, which no store that cannot be written to keeps anybody from.
    pub fn hold_to_remove(workspace: &'a Workspace<'a>) -> Result<Held<Self>, RunError> {
        Self::hold_by(workspace, host::hold_to_remove)
    }

    fn hold_by(workspace: &'a Workspace<'a>, take: TakeLock) -> Result<Held<Self>, RunError> {
        let OpenedHost { host, declared } = OpenedHost::open(workspace)?;
        let lock = take(&host.layout, workspace.report)?;
        let observed = host.observe()?;
        Ok(Held::new(Self { workspace, host, observed, declared }, lock))
    }

    /// What takes these guests away, or everything of the fleet where none is named; their data disks stay.
    pub fn removal(&self, names: &[GuestName]) -> Plan {
        diff(&self.observed, &WantedHost::default(), scope(names))
    }

    /// Every guest that the host has something of, be it its logs alone.
    pub fn there(&self) -> Result<Vec<GuestName>, RunError> {
        let mut guests = record::guests(&self.host.layout)?;
        guests.extend(self.observed.guests.keys().cloned());
        Ok(guests.into_iter().collect())
    }
}
