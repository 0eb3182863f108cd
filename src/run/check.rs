//! Check: everything that is wrong with a fleet, without building and without the network.

use crate::build::Project;
use crate::build::containers::absent_images;
use crate::build::needs::NeedDoubt;
use crate::lock::model::Lock;

use super::{RunError, Workspace, facts};

/// A fleet that nothing is wrong with.
#[derive(Debug)]
pub struct Checked {
    pub project: Project,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
    /// Why `fleet.lock` does not fit, one sentence each; none where it fits or there is none.
    pub lock_differs: Vec<String>,
}

/// Looks at everything that a fleet mentions.
pub fn check(workspace: &Workspace<'_>) -> Result<Checked, RunError> {
    let fleet = workspace.fleet()?;
    facts::lists(&fleet)?;
    facts::machine_files(&fleet)?;
    let project = workspace.project(fleet)?;
    project.check_kernel()?;
    let doubts = project.need_doubts();
    let (wrong, doubts): (Vec<_>, Vec<_>) =
        doubts.into_iter().partition(|doubt| matches!(doubt, NeedDoubt::TurnedOff { .. }));
    if !wrong.is_empty() {
        return Err(RunError::TurnedOff(wrong));
    }
    let doubts = doubts.iter().map(|doubt| format!("{doubt}; the build checks what comes out"));
    let notes = doubts.chain(project.series_notes()).chain(images_to_pull(&project)?).collect();
    let lock = Lock::read(&workspace.lock_path())?;
    let lock_differs = lock.as_ref().map_or_else(Vec::new, |lock| project.stale(lock));
    // Of packages that are no longer those of the fleet nothing need be said.
    if let Some(lock) = lock.filter(|_| lock_differs.is_empty()) {
        project.check_scripts(&lock)?;
    }
    Ok(Checked { project, notes, lock_differs })
}

/// Images of containers that guests have to pull, a sentence each. One that no registry has is an error.
fn images_to_pull(project: &Project) -> Result<Vec<String>, RunError> {
    let (to_pull, absent): (Vec<_>, Vec<_>) =
        absent_images(&project.fleet)?.into_iter().partition(|absent| absent.can_be_pulled);
    if !absent.is_empty() {
        return Err(RunError::AbsentImages(absent));
    }
    Ok(to_pull.iter().map(ToString::to_string).collect())
}
