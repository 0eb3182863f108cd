//! What became of a plan.

use crate::apply::Applied;
use crate::base::GuestName;
use crate::plan::Plan;

/// A whole plan, and what was done of all its parts.
#[derive(Debug, Default)]
pub struct Outcome {
    pub plan: Plan,
    pub applied: Applied,
    /// Guests of the plan that were left as they were, since one before them did not get ready; where it was cut short, those
    /// for which not all was done.
    pub left: Vec<GuestName>,
}

/// The guests of a plan whose every step was taken, by what became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done<'a> {
    pub started: Vec<&'a GuestName>,
    /// Stopped, and started as another machine.
    pub restarted: Vec<&'a GuestName>,
    pub stopped: Vec<&'a GuestName>,
    /// Put right while they ran.
    pub changed: Vec<&'a GuestName>,
}

impl Outcome {
    /// What became of its guests.
    pub fn done(&self) -> Done<'_> {
        let Self { plan, applied, .. } = self;
        let mut done = Done::default();
        for guest in &applied.started {
            let starts = plan.start.iter().any(|steps| steps.guest == *guest && steps.starts());
            let was_there = applied.stopped.contains(guest);
            match (starts, was_there) {
                (true, true) => done.restarted.push(guest),
                (true, false) => done.started.push(guest),
                (false, _) => done.changed.push(guest),
            }
        }
        let is_back = |guest: &&GuestName| applied.started.contains(guest);
        done.stopped = applied.stopped.iter().filter(|guest| !is_back(guest)).collect();
        done
    }

    /// Whether every step was taken.
    pub fn is_complete(&self) -> bool {
        self.applied.failures.is_empty() && !self.applied.is_cut_short
    }
}
