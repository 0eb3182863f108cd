//! Up: the host becomes what the fleet wants.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apply::linux::READY_TIMEOUT;
use crate::base::GuestName;
use crate::fleet::Fleet;
use crate::plan::{Plan, Strategy};
use crate::sys::fs::FileLock;
use crate::sys::report::Silent;

use super::deployment::{Basis, scope};
use super::guests::named;
use super::held::Held;
use super::lock;
use super::plan::{PlanRequest, preview};
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
    pub(super) held: Held<Deployment<'a>>,
    pub plan: Plan,
    pub(super) strategy: Strategy,
}

/// Holds the host, and finds out what is to be done; of no plan that was kept, builds what is missing before.
pub fn prepare<'a>(workspace: &'a Workspace<'a>, request: &UpRequest) -> Result<Up<'a>, RunError> {
    let fleet = workspace.fleet()?;
    let (held, basis, names) = match &request.saved {
        Some(path) => of_saved(workspace, fleet, path, request)?,
        None => {
            named(&request.guests, fleet.guests.keys())?;
            refuse_before_build(workspace, &fleet, request)?;
            let (mut held, built) = Deployment::hold_built(workspace, fleet, request.inputs)?;
            let names = named(&request.guests, held.fleet.guests.keys())?;
            held.make_key()?;
            let basis = held.basis_of(built)?;
            (held, basis, names)
        }
    };
    let plan = held.plan(&basis.wanted(&held.fleet)?, scope(&names))?;
    let mut up = Up { held, plan, strategy: request.strategy };
    up.held.host.ready_timeout = request.ready_timeout;
    Ok(up)
}

/// What stands against it by what is known already is told before anything is built or `fleet.lock` is written: nothing was changed
/// then. Of a host that somebody changes just now nothing is known.
fn refuse_before_build(
    workspace: &Workspace<'_>,
    fleet: &Fleet,
    request: &UpRequest,
) -> Result<(), RunError> {
    let layout = fleet.head().layout();
    let silent = Workspace { report: &Silent, settings: workspace.settings.clone() };
    if FileLock::is_held(&layout.lock()) || lock::is_built(&silent, fleet)? {
        return Ok(());
    }
    let locked = request.inputs == Inputs::Locked || workspace.settings.artifacts.no_build;
    let plan = PlanRequest { guests: request.guests.clone(), locked, ..PlanRequest::default() };
    preview(&silent, &plan)?.refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// A host for which a plan that was kept still holds. Everything of such a plan is built, and it says what is done.
fn of_saved<'a>(
    workspace: &'a Workspace<'a>,
    fleet: Fleet,
    path: &Path,
    request: &UpRequest,
) -> Result<(Held<Deployment<'a>>, Basis, Vec<GuestName>), RunError> {
    let saved = SavedPlan::read(path, &fleet.name)?;
    end_with_containers(&fleet)?;
    let mut held = Deployment::hold(workspace, fleet)?;
    // As it was when the plan was made: without a key, which is made next.
    let wanted = held.wanted(Inputs::AsTheyAre)?;
    saved.check(&held.plan(&wanted, scope(&saved.guests))?, path)?;
    held.make_key()?;
    let basis = held.basis(request.inputs)?;
    Ok((held, basis, saved.guests))
}

impl Up<'_> {
    /// Does it.
    pub fn carry_out(self) -> Result<Outcome, RunError> {
        self.held.roll_out(self.plan, self.strategy)
    }
}
