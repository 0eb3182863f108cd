//! Down: guests go, and everything of them but their data disks.

use std::time::Duration;

use crate::apply::Host;
use crate::apply::linux::STOP_TIMEOUT;
use crate::apply::observe;
use crate::base::GuestName;
use crate::plan::Plan;
use crate::sys::interrupt;

use super::fleet_host::{FleetHost, HeldHost, Located};
use super::guests::named;
use super::{Outcome, RunError, Workspace};

/// What to take down.
#[derive(Clone, Debug)]
pub struct DownRequest {
    /// These guests alone; all where none is named.
    pub guests: Vec<String>,
    /// How long a guest may take to shut down before it is killed.
    pub stop_timeout: Duration,
}

impl Default for DownRequest {
    fn default() -> Self {
        Self { guests: Vec::new(), stop_timeout: STOP_TIMEOUT }
    }
}

/// A host that is held, and what would be taken from it.
pub struct Down<'a> {
    held: HeldHost<'a>,
    pub plan: Plan,
    /// The guests that go, those of which only disks and logs are left among them.
    pub guests: Vec<GuestName>,
}

/// Holds the host and finds out what is to be done; `None` where it never had anything of the fleet.
pub fn prepare<'a>(
    workspace: &'a Workspace<'a>,
    request: &DownRequest,
) -> Result<Option<Down<'a>>, RunError> {
    let host = Located::find(workspace)?.host;
    // A store that was removed ends no guest: cgroups and TAPs tell of those that run.
    if !host.layout.dir().exists() && observe::is_bare(&host.observe()?) {
        return Ok(None);
    }
    let mut held = FleetHost::hold(workspace)?;
    held.host.stop_timeout = request.stop_timeout;
    let names = named(&request.guests, held.observed.guests.keys().chain(&held.declared))?;
    let plan = held.removal(&names);
    let guests = if names.is_empty() { held.there()? } else { names };
    Ok(Some(Down { held, plan, guests }))
}

impl Down<'_> {
    /// Takes the guests down.
    pub fn carry_out(self) -> Result<Outcome, RunError> {
        self.held.carry_out(self.plan)
    }

    /// Takes the guests down, and then removes their data disks, logs and records for good; these stay where a guest did not
    /// go. Whoever calls this has asked.
    pub fn purge(self) -> Result<Outcome, RunError> {
        let _hold = interrupt::hold();
        let outcome = self.held.carry_out(self.plan)?;
        if outcome.is_complete() {
            let host = &self.held.host;
            self.guests.iter().try_for_each(|guest| host.guest(guest).purge())?;
        }
        Ok(outcome)
    }
}
