//! Restart: guests are stopped and started anew, whether anything of them changed or not.

use super::deployment::BuiltFleet;
use super::guests::named;
use super::up::{Up, UpRequest};
use super::{Deployment, RunError, Workspace};

/// Builds what is missing, holds the host, and finds out what is to be done. A guest that was brought back from a snapshot boots.
pub fn prepare<'a>(workspace: &'a Workspace<'a>, request: &UpRequest) -> Result<Up<'a>, RunError> {
    let fleet = workspace.fleet()?;
    let names = named(&request.guests, fleet.guests.keys())?;
    let built = BuiltFleet::before_hold(workspace, &fleet, request.inputs)?;
    let mut held = Deployment::hold(workspace, fleet)?;
    held.host.ready_timeout = request.ready_timeout;
    held.make_key()?;
    let mut basis = held.basis_of(built)?;
    basis.facts.restored.retain(|guest, _| !names.contains(guest));
    let plan = held.restarting(&basis.state(&held.fleet)?, &names)?;
    Ok(Up { held, plan, strategy: request.strategy })
}
