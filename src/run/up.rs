//! Up: the host becomes what the fleet wants.

use std::time::Duration;

use crate::apply::linux::READY_TIMEOUT;
use crate::plan::Plan;

use super::deployment::{Held, scope};
use super::guests::named;
use super::{Deployment, Inputs, Outcome, RunError, Workspace};

/// What to bring up.
#[derive(Clone, Debug)]
pub struct UpRequest {
    /// These guests alone; all where none is named.
    pub guests: Vec<String>,
    pub inputs: Inputs,
    /// How long a guest may take to say that it is ready.
    pub ready_timeout: Duration,
}

impl Default for UpRequest {
    fn default() -> Self {
        Self { guests: Vec::new(), inputs: Inputs::Refresh, ready_timeout: READY_TIMEOUT }
    }
}

/// A host that is held, and what would be done to it.
pub struct Up<'a> {
    held: Held<'a>,
    pub plan: Plan,
}

/// Holds the host, builds what is missing, and finds out what is to be done.
pub fn prepare<'a>(workspace: &'a Workspace<'a>, request: &UpRequest) -> Result<Up<'a>, RunError> {
    let fleet = workspace.fleet()?;
    let names = named(&request.guests, fleet.guests.keys())?;
    let mut held = Deployment::hold(workspace, fleet)?;
    held.host.ready_timeout = request.ready_timeout;
    held.make_key()?;
    let wanted = held.wanted(request.inputs)?;
    let plan = held.plan(&wanted, scope(&names))?;
    Ok(Up { held, plan })
}

impl Up<'_> {
    /// Does it.
    pub fn carry_out(self) -> Result<Outcome, RunError> {
        self.held.carry_out(self.plan)
    }
}
