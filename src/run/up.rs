//! Up: the host becomes what the fleet wants.

use std::path::PathBuf;
use std::time::Duration;

use crate::apply::linux::READY_TIMEOUT;
use crate::plan::{Plan, Strategy};

use super::deployment::{BuiltFleet, Held, scope};
use super::guests::named;
use super::saved_plan::SavedPlan;
use super::session_containers::end_with_containers;
use super::{Deployment, Inputs, Outcome, RunError, Workspace};

/// What to bring up.
#[derive(Clone, Debug)]
pub struct UpRequest {
    /// These guests alone; all where none is named.
    pub guests: Vec<String>,
    /// The plan that is carried out, or nothing; it says for which guests it is.
    pub saved: Option<PathBuf>,
    pub inputs: Inputs,
    /// How long a guest may take to say that it is ready.
    pub ready_timeout: Duration,
    pub strategy: Strategy,
}

impl Default for UpRequest {
    fn default() -> Self {
        Self {
            guests: Vec::new(),
            saved: None,
            inputs: Inputs::Refresh,
            ready_timeout: READY_TIMEOUT,
            strategy: Strategy::Recreate,
        }
    }
}

/// A host that is held, and what would be done to it.
pub struct Up<'a> {
    pub(super) held: Held<'a>,
    pub plan: Plan,
    pub(super) strategy: Strategy,
}

/// Builds what is missing, holds the host, and finds out what is to be done.
pub fn prepare<'a>(workspace: &'a Workspace<'a>, request: &UpRequest) -> Result<Up<'a>, RunError> {
    let fleet = workspace.fleet()?;
    let saved =
        request.saved.as_ref().map(|path| Ok::<_, RunError>((SavedPlan::read(path, &fleet.name)?, path)));
    let saved = saved.transpose()?;
    let names = match &saved {
        Some((saved, _)) => saved.guests.clone(),
        None => named(&request.guests, fleet.guests.keys())?,
    };
    // Of a plan that was kept, everything is built.
    let built = match &saved {
        None => Some(BuiltFleet::before_hold(workspace, &fleet, request.inputs)?),
        Some(_) => None,
    };
    // A plan that was kept says what is done.
    if saved.is_none() {
        end_with_containers(&fleet)?;
    }
    let mut held = Deployment::hold(workspace, fleet)?;
    // Whoever held the host while this one built may have carried out a newer fleet, which stands.
    if built.is_some() && workspace.fleet()? != held.fleet {
        workspace.report.note("note: fleet.toml was changed meanwhile, so that all begins again");
        drop(held);
        return prepare(workspace, request);
    }
    held.host.ready_timeout = request.ready_timeout;
    if let Some((saved, path)) = saved {
        // As it was when the plan was made: without a key, which is made next.
        let wanted = held.wanted(Inputs::AsTheyAre)?;
        saved.check(&held.plan(&wanted, scope(&names))?, path)?;
    }
    held.make_key()?;
    let basis = match built {
        Some(built) => held.basis_of(built)?,
        None => held.basis(request.inputs)?,
    };
    let plan = held.plan(&basis.state(&held.fleet)?, scope(&names))?;
    Ok(Up { held, plan, strategy: request.strategy })
}

impl Up<'_> {
    /// Does it.
    pub fn carry_out(self) -> Result<Outcome, RunError> {
        self.held.roll_out(self.plan, self.strategy)
    }
}
