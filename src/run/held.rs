//! What was found of a host that this process alone may change.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc;
use std::time::SystemTime;

use crate::apply::linux::LinuxHost;
use crate::apply::{Applied, apply, preflight};
use crate::base::GuestName;
use crate::plan::{GuestSteps, Plan, Strategy};
use crate::sys::fs::FileLock;
use crate::sys::interrupt;

use super::events::{self, FleetEvent};
use super::{Outcome, RunError, Workspace};

/// What was found of a host that nobody else may change until this is dropped.
pub struct Held<T> {
    found: T,
    lock: FileLock,
}

/// What a [`Held`] needs of what was found: who asked, and on which host.
pub trait FoundOnHost {
    fn workspace_and_host(&self) -> (&Workspace<'_>, &LinuxHost);
}

impl<T> Held<T> {
    /// Of what was found since the lock was taken.
    pub(super) fn new(found: T, lock: FileLock) -> Self {
        Self { found, lock }
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.found
    }
}

impl<T> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.found
    }
}

impl<T: FoundOnHost> Held<T> {
    /// Carries out a plan, after a look at whether it can be. A guest that fails does not stop the others.
    ///
    /// # Errors
    /// Where a need of the plan is not met; nothing was changed then.
    pub(super) fn carry_out(&self, plan: Plan) -> Result<Outcome, RunError> {
        self.roll_out(plan, Strategy::Recreate)
    }

    /// Carries out a plan by a strategy, as [`Self::carry_out`] does by the plainest.
    pub(super) fn roll_out(&self, plan: Plan, strategy: Strategy) -> Result<Outcome, RunError> {
        let (workspace, host) = self.found.workspace_and_host();
        carry_out(workspace, host, &self.lock, plan, strategy)
    }
}

/// Carries out a plan on a host that is held by this lock.
fn carry_out(
    workspace: &Workspace<'_>,
    host: &LinuxHost,
    _held: &FileLock,
    plan: Plan,
    strategy: Strategy,
) -> Result<Outcome, RunError> {
    preflight::check(&plan, host)?;
    let _deferral = interrupt::defer();
    plan.notes.iter().for_each(|note| workspace.report.note(note));
    let (said, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || events::record_as_told(&host.layout, &heard));
        let tell = |event| {
            // Who listens does so until this is gone.
            let _ = said.send((SystemTime::now(), event));
        };
        let outcome = apply_parts(workspace, host, plan, strategy, &tell);
        drop(said);
        Ok(outcome)
    })
}

/// Carries out each part of a plan where all of the one before was, and tells of what happens.
fn apply_parts(
    workspace: &Workspace<'_>,
    host: &LinuxHost,
    plan: Plan,
    strategy: Strategy,
    told: &(dyn Fn(FleetEvent) + Sync),
) -> Outcome {
    let (mut applied, mut left) = (Applied::default(), Vec::new());
    for part in plan.clone().in_parts(strategy) {
        if applied.failures.is_empty() && !applied.is_cut_short {
            let tell = |action, steps: &GuestSteps| told(events::of_guest(action, steps));
            let done = apply(&part, host, workspace.guests_at_once(), workspace.report, &tell);
            done.failures.iter().map(events::of_failure).for_each(told);
            left.extend(part.left_by(&done.stopped, &done.started).filter(|_| done.is_cut_short));
            applied.add(done);
        } else {
            left.extend(part.start.into_iter().map(|steps| steps.guest));
        }
    }
    let left_out = |guest: &GuestName| match applied.is_cut_short {
        true => FleetEvent::CutShort { guest: guest.to_string() },
        false => FleetEvent::LeftOut { guest: guest.to_string() },
    };
    left.iter().map(left_out).for_each(told);
    Outcome { plan, applied, left }
}
