//! Restart: guests are stopped and started anew, whether anything of them changed or not; never one that somebody has.

use super::guests::named;
use super::session::refuse_in_use;
use super::up::{Up, UpRequest};
use super::{Deployment, RunError, Workspace, host};

/// Builds what is missing, holds the host, and finds out what is to be done. A guest that was brought back from a snapshot boots.
pub fn prepare<'a>(workspace: &'a Workspace<'a>, request: &UpRequest) -> Result<Up<'a>, RunError> {
    let fleet = workspace.fleet()?;
    let names = named(&request.guests, fleet.guests.keys())?;
    refuse_in_use(&host::open(&fleet.head())?, &names)?;
    let (mut held, built) = Deployment::hold_built(workspace, fleet, request.inputs)?;
    let names = named(&request.guests, held.fleet.guests.keys())?;
    refuse_in_use(&held.host, &names)?;
    held.host.ready_timeout = request.ready_timeout;
    held.make_key()?;
    let mut basis = held.basis_of(built)?;
    basis.facts.restored.retain(|guest, _| !names.contains(guest));
    let plan = held.restarting(&basis.wanted(&held.fleet)?, &names)?;
    Ok(Up { held, plan, strategy: request.strategy })
}
