//! Down: guests go, and everything of them but their data disks.

use std::time::Duration;

use crate::apply::Host;
use crate::apply::linux::STOP_TIMEOUT;
use crate::apply::observe;
use crate::base::GuestName;
use crate::plan::Plan;

use super::deployment::Held;
use super::guests::named;
use super::{Deployment, Outcome, RunError, Workspace, host};

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
    held: Held<'a>,
    pub plan: Plan,
    /// The guests that go, those of which only disks and logs are left among them.
    pub guests: Vec<GuestName>,
}

/// Holds the host and finds out what is to be done; `None` where it never had anything of the fleet.
pub fn prepare<'a>(
    workspace: &'a Workspace<'a>,
    request: &DownRequest,
) -> Result<Option<Down<'a>>, RunError> {
    let fleet = workspace.fleet()?;
    let host = host::open(&fleet)?;
    // A store that was removed ends no guest: cgroups and TAPs tell of those that run.
    if !host.layout.dir().exists() && observe::is_bare(&host.observe()?) {
        return Ok(None);
    }
    let mut held = Deployment::hold(workspace, fleet)?;
    held.host.stop_timeout = request.stop_timeout;
    let names = named(&request.guests, held.observed.guests.keys().chain(held.fleet.guests.keys()))?;
    let plan = held.removal(&names);
    let guests = if names.is_empty() { there(&held)? } else { names };
    Ok(Some(Down { held, plan, guests }))
}

/// Every guest that the host has something of, be it its logs alone.
fn there(deployment: &Deployment<'_>) -> Result<Vec<GuestName>, RunError> {
    let mut guests = observe::recorded(&deployment.host.layout)?;
    guests.extend(deployment.observed.guests.keys().cloned());
    Ok(guests.into_iter().collect())
}

impl Down<'_> {
    /// Takes the guests down.
    pub fn carry_out(self) -> Result<Outcome, RunError> {
        self.held.carry_out(self.plan)
    }

    /// Takes the guests down, and then removes their data disks, logs and records for good; these stay where a guest did not
    /// go. Whoever calls this has asked.
    pub fn purge(self) -> Result<Outcome, RunError> {
        let outcome = self.held.carry_out(self.plan)?;
        if outcome.is_complete() {
            let host = &self.held.host;
            self.guests.iter().try_for_each(|guest| host.guest(guest).purge())?;
        }
        Ok(outcome)
    }
}
