//! A fleet's lock, brought up to date or held to fit, and what is built by it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::diagnostic::one_line;
use crate::build::artifacts::{Artifacts, OutDir};
use crate::build::remote::FleetRegistry;
use crate::build::{Builder, Built, MissingArtifact, Project, Selection};
use crate::fleet::Fleet;
use crate::lock::changes;
use crate::lock::model::Lock;
use crate::lock::request::Update;
use crate::sys::fetch::Cache;
use crate::sys::fs;

use super::{RunError, Workspace, scripts, signatures};

/// How much of what a use case works from may change on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// `fleet.lock` is brought up to date, what is missing is built.
    Refresh,
    /// `fleet.lock` must fit; what is missing is built.
    Locked,
    /// `fleet.lock` must fit, and everything must be built.
    AsTheyAre,
    /// Nothing is written or built: `fleet.lock` is taken as it would become, or `must_fit`, and what is not built is told.
    Foreseen { must_fit: bool },
}

/// A lock that was brought up to date.
#[derive(Clone, Debug)]
pub struct Updated {
    pub lock: Lock,
    /// What is otherwise than before, one line each; none where the old lock fits.
    pub changes: Vec<String>,
}

/// Brings `fleet.lock` up to date, and chooses anew what `update` says.
pub fn update(workspace: &Workspace<'_>, update: &Update) -> Result<Updated, RunError> {
    update_of(workspace, &workspace.project(workspace.fleet()?)?, update)
}

fn update_of(workspace: &Workspace<'_>, project: &Project, update: &Update) -> Result<Updated, RunError> {
    let (updated, is_new) = resolve(workspace, project, update)?;
    if is_new {
        let text = updated.lock.to_text().map_err(RunError::LockText)?;
        fs::write(&workspace.lock_path(), text.as_bytes(), 0o644)?;
    }
    Ok(updated)
}

/// What the lock would become, and whether that is another than the file's.
fn resolve(
    workspace: &Workspace<'_>,
    project: &Project,
    update: &Update,
) -> Result<(Updated, bool), RunError> {
    let old = Lock::read(&workspace.lock_path())?;
    let cache = workspace.cache()?;
    let (offline, report) = (workspace.settings.offline, workspace.report);
    let lock = project.choose(old.as_ref(), update, &cache, offline, report)?;
    if let Err(error) = project.check_scripts(&lock) {
        // What stands against the lock is told in any case.
        let shown = scripts::shown(workspace, project, old.as_ref(), &lock, &cache).unwrap_or_default();
        shown.iter().for_each(|script| report.note(script));
        return Err(error.into());
    }
    let is_new = old.as_ref() != Some(&lock);
    let changes = if is_new { changes(old.as_ref(), &lock) } else { Vec::new() };
    Ok((Updated { lock, changes }, is_new))
}

/// A fleet with all that it mentions, a lock that fits it, and where its artifacts are.
pub struct LockedProject<'a> {
    workspace: &'a Workspace<'a>,
    pub project: Project,
    pub lock: Lock,
    out: OutDir,
    cache: Cache,
    missing: MissingArtifact,
    pub(super) registry: Option<FleetRegistry>,
    /// Whether what is built is pinned.
    pins: bool,
}

impl<'a> LockedProject<'a> {
    /// Of the workspace's own fleet.
    pub fn open(workspace: &'a Workspace<'a>, inputs: Inputs) -> Result<Self, RunError> {
        Self::of(workspace, workspace.fleet()?, inputs)
    }

    pub(super) fn of(workspace: &'a Workspace<'a>, fleet: Fleet, inputs: Inputs) -> Result<Self, RunError> {
        let project = workspace.project(fleet)?;
        let no_build = workspace.settings.artifacts.no_build;
        let inputs = if no_build && inputs == Inputs::Refresh { Inputs::Locked } else { inputs };
        let lock = match inputs {
            Inputs::Refresh => refreshed(workspace, &project)?,
            Inputs::Foreseen { must_fit: false } => foreseen(workspace, &project)?,
            Inputs::Locked | Inputs::AsTheyAre | Inputs::Foreseen { must_fit: true } => {
                fitting(workspace, &project)?
            }
        };
        let missing = match inputs {
            Inputs::Refresh | Inputs::Locked if no_build => MissingArtifact::Take,
            Inputs::Refresh | Inputs::Locked => MissingArtifact::Build,
            Inputs::AsTheyAre => MissingArtifact::Refuse,
            Inputs::Foreseen { .. } => MissingArtifact::Foresee,
        };
        let out = &workspace.settings.out;
        Ok(Self {
            out: if missing == MissingArtifact::Foresee { OutDir::look(out)? } else { OutDir::open(out)? },
            cache: workspace.cache()?,
            registry: workspace.registry(project.fleet.artifacts.as_ref())?,
            pins: inputs == Inputs::Refresh,
            missing,
            workspace,
            project,
            lock,
        })
    }

    /// What builds it.
    pub fn builder(&self) -> Builder<'_> {
        Builder {
            project: &self.project,
            lock: &self.lock,
            out: &self.out,
            cache: &self.cache,
            jobs: self.workspace.settings.jobs,
            offline: self.workspace.settings.offline,
            missing: self.missing,
            registry: self.registry.as_ref(),
            report: self.workspace.report,
        }
    }

    /// Builds what is selected, and pins it.
    pub fn build(&mut self, what: &Selection) -> Result<Vec<Built>, RunError> {
        let built = self.builder().build(what)?;
        self.pin(&built, *what == Selection::All)?;
        Ok(built)
    }

    /// Builds everything, and pins it. Where signatures are demanded, it is what was signed; whoever only looks at what runs is not
    /// asked for them.
    pub(super) fn artifacts(&mut self) -> Result<Artifacts, RunError> {
        let (artifacts, built) = self.builder().named_artifacts()?;
        self.pin(&built, true)?;
        let is_asked = match self.missing {
            MissingArtifact::Refuse => false,
            MissingArtifact::Foresee => artifacts.unbuilt().is_empty(),
            MissingArtifact::Build | MissingArtifact::BuildAgain | MissingArtifact::Take => true,
        };
        if let Some(signers) = self.workspace.settings.artifacts.signers.as_ref().filter(|_| is_asked) {
            signatures::check(self.workspace, &self.builder(), &built, signers)?;
        }
        Ok(artifacts)
    }

    /// Writes into fleet.lock what was built, where it may change; of all that there is, nothing else stays pinned.
    fn pin(&mut self, built: &[Built], is_all: bool) -> Result<(), RunError> {
        if !self.pins {
            return Ok(());
        }
        let mut artifact = if is_all { BTreeMap::new() } else { self.lock.artifact.clone() };
        for built in built {
            let pin = self.builder().new_pin(built)?;
            artifact.extend(pin.map(|pin| (built.pinned_as(), pin)));
        }
        if artifact == self.lock.artifact {
            return Ok(());
        }
        let path = self.workspace.lock_path();
        // Whoever locked meanwhile knows better.
        if Lock::read(&path)?.is_some_and(|there| there == self.lock) {
            self.lock.artifact = artifact;
            let text = self.lock.to_text().map_err(RunError::LockText)?;
            if let Err(error) = fs::write(&path, text.as_bytes(), 0o644) {
                // Where the checkout is read-only, everything is built as well.
                let error = one_line(&error);
                self.workspace.report.note(&format!("what was built is not pinned: {error}"));
            }
        }
        Ok(())
    }
}

fn refreshed(workspace: &Workspace<'_>, project: &Project) -> Result<Lock, RunError> {
    let Updated { lock, changes } = update_of(workspace, project, &Update::None)?;
    changes.iter().for_each(|line| workspace.report.info(&format!("fleet.lock: {line}")));
    Ok(lock)
}

/// Whether the file has a lock that fits a fleet, and all is built by it.
pub(super) fn is_built(workspace: &Workspace<'_>, fleet: &Fleet) -> Result<bool, RunError> {
    match LockedProject::of(workspace, fleet.clone(), Inputs::Foreseen { must_fit: true }) {
        Ok(locked) => Ok(locked.builder().artifacts()?.unbuilt().is_empty()),
        Err(RunError::NoLock(_) | RunError::StaleLock { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The lock as [`refreshed`] would write it.
fn foreseen(workspace: &Workspace<'_>, project: &Project) -> Result<Lock, RunError> {
    let (Updated { lock, changes }, _) = resolve(workspace, project, &Update::None)?;
    changes.iter().for_each(|line| workspace.report.info(&format!("fleet.lock would change: {line}")));
    Ok(lock)
}

/// The lock of the file; one that does not fit is refused.
fn fitting(workspace: &Workspace<'_>, project: &Project) -> Result<Lock, RunError> {
    let path: PathBuf = workspace.lock_path();
    let Some(lock) = Lock::read(&path)? else { return Err(RunError::NoLock(path)) };
    let reasons = project.stale(&lock);
    if !reasons.is_empty() {
        return Err(RunError::StaleLock { path, fleet: workspace.settings.file.clone(), reasons });
    }
    project.check_scripts(&lock)?;
    Ok(lock)
}
