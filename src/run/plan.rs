//! Plan: what `up` would do.

use crate::apply::{ApplyError, preflight};
use crate::plan::{GuestScope, Plan};

use super::{Deployment, Inputs, RunError, Workspace};

/// What would be done to a host.
#[derive(Debug)]
pub struct Preview {
    pub plan: Plan,
    /// What it copies to the jails' file system, in words, where it copies anything.
    pub cost: Option<String>,
    /// Why none of it would be done.
    pub refusal: Option<ApplyError>,
}

/// Builds what is missing, and finds out what `up` would do.
pub fn preview(workspace: &Workspace<'_>, inputs: Inputs) -> Result<Preview, RunError> {
    let mut deployment = Deployment::look(workspace, workspace.fleet()?)?;
    let wanted = deployment.wanted(inputs)?;
    let plan = deployment.plan(&wanted, GuestScope::All)?;
    let host = &deployment.host;
    let (cost, refusal) = (preflight::cost(&plan, host), preflight::look(&plan, host).err());
    Ok(Preview { plan, cost, refusal })
}
