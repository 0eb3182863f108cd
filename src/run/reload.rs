//! Reload: the rules of the network become what the fleet wants, and nothing else is done.

use super::up::{Up, UpRequest};
use super::{Deployment, Inputs, RunError, Workspace};

/// Holds the host, and finds out what is to be done. Nothing is built, and `fleet.lock`, which tells guests' addresses, must fit.
pub fn prepare<'a>(workspace: &'a Workspace<'a>) -> Result<Up<'a>, RunError> {
    let mut held = Deployment::hold(workspace, workspace.fleet()?)?;
    let wanted = held.wanted(Inputs::Foreseen { must_fit: true })?;
    let plan = held.reloading(&wanted)?;
    Ok(Up { held, plan, strategy: UpRequest::default().strategy })
}
