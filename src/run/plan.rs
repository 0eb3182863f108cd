//! Plan: what `up` would do.

use std::path::{Path, PathBuf};

use crate::apply::{ApplyError, preflight};
use crate::host::observed::PoolRole;
use crate::plan::Plan;

use super::deployment::scope;
use super::guests::named;
use super::saved_plan::{SavedPlan, SavedPlanError};
use super::session_containers::ending_with_containers;
use super::{Deployment, Inputs, RunError, Workspace};

/// What to look ahead to.
#[derive(Clone, Debug, Default)]
pub struct PlanRequest {
    /// These guests alone; all where none is named.
    pub guests: Vec<String>,
    /// Whether fleet.lock must fit.
    pub locked: bool,
    /// Where the plan is kept, for `up` to carry out just that.
    pub out: Option<PathBuf>,
}

/// What would be done to a host.
#[derive(Debug)]
pub struct Preview {
    pub plan: Plan,
    /// What would be built first, in words.
    pub unbuilt: Vec<String>,
    /// What it copies to the jails' file system, in words, where it copies anything.
    pub cost: Option<String>,
    /// Why none of it would be done.
    pub refusal: Option<ApplyError>,
}

/// Finds out what `up` would do. Nothing is built and fleet.lock stays as it is.
pub fn preview(workspace: &Workspace<'_>, request: &PlanRequest) -> Result<Preview, RunError> {
    let fleet = workspace.fleet()?;
    let names = named(&request.guests, fleet.guests.keys())?;
    let ending = ending_with_containers(&fleet)?;
    let mut deployment = Deployment::look(workspace, fleet)?;
    // As `up` will find them.
    for guest in &ending {
        let vmm = deployment.observed.guests.get_mut(guest).and_then(|guest| guest.vmm.as_mut());
        if let Some(vmm) = vmm
            && matches!(vmm.role, Some(PoolRole::InUse(_)))
        {
            vmm.role = Some(PoolRole::Used);
        }
    }
    let basis = deployment.basis(Inputs::Foreseen { must_fit: request.locked })?;
    let wanted = basis.wanted(&deployment.fleet)?;
    let (plan, unbuilt) = (deployment.plan(&wanted, scope(&names))?, basis.unbuilt());
    let host = &deployment.host;
    let (cost, refusal) = (preflight::cost(&plan, host), preflight::look(&plan, host).err());
    if let (Some(out), None) = (&request.out, &refusal) {
        keep(&plan, &unbuilt, SavedPlan::new(&plan, &deployment.fleet.name, &names), out)?;
    }
    Ok(Preview { plan, unbuilt, cost, refusal })
}

/// Keeps a plan that says every digest.
fn keep(plan: &Plan, unbuilt: &[String], saved: SavedPlan, out: &Path) -> Result<(), SavedPlanError> {
    if !unbuilt.is_empty() && !plan.is_empty() {
        return Err(SavedPlanError::Unbuilt(unbuilt.to_vec()));
    }
    saved.write(out)
}
