//! A revision that is new is built, and meanwhile a newer one looked for.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::base::{Class, Diagnostic};
use crate::fleet::Fleet;
use crate::run::demand::{Demand, keys_of};
use crate::run::deployment::BuiltFleet;
use crate::run::workspace::Revision;
use crate::run::{RunError, Workspace};
use crate::sys::interrupt;

use super::{Event, Followed, Watch, built};

/// How long a repository is waited for while something is built that is to be applied.
const PATIENCE: Duration = Duration::from_secs(5);

/// A revision that is being built, and what came since.
struct Building<'a> {
    revision: &'a str,
    /// What of it is still wanted.
    demand: &'a Demand<'a>,
    /// The revision that takes its place.
    newer: Option<String>,
}

impl Watch<'_> {
    /// Builds a revision, which may take hours; `None` where another took its place meanwhile. Until then, what the last good one
    /// wants is put right. Where a newer one is good, nothing is given, and what that does not want is not built to its end.
    pub(super) fn build(
        &mut self,
        revision: &str,
        place: &Revision,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<(Fleet, BuiltFleet)>, RunError> {
        let demand = Demand::of_all(self.base.report);
        let workspace = Workspace { report: &demand, settings: self.base.at(place).settings };
        let mut building = Building { revision, demand: &demand, newer: None };
        self.mistaken = None;
        let built = thread::scope(|scope| {
            let (working, over) = mpsc::channel::<()>();
            let workspace = &workspace;
            let work = scope.spawn(move || {
                let _working = working;
                built(workspace)
            });
            let is_over = |watch: &Self| over.recv_timeout(watch.interval) != Err(RecvTimeoutError::Timeout);
            let mut has_waited = false;
            while !is_over(self) {
                has_waited = true;
                self.look_and_tell(Self::repair_meanwhile, tell);
                // Who is asked to end does not wait for it.
                interrupt::end_if_asked();
                self.look_for_newer(&mut building, tell);
            }
            // It may have come in the last moment of a build that took long.
            if has_waited {
                self.look_for_newer(&mut building, tell);
            }
            work.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        if building.newer.is_some() { Ok(None) } else { built.map(Some) }
    }

    /// Looks whether there is another revision than the one that is built, and than the one that is to take its place.
    fn look_for_newer(&mut self, building: &mut Building<'_>, tell: &mut dyn FnMut(Event<'_>)) {
        // The next look tells why there is none to be found, and waits for one that takes long.
        let Some(Ok(found)) = self.source.newest(PATIENCE.min(self.interval)) else { return };
        if found == building.revision {
            building.demand.change(None);
            (building.newer, self.mistaken) = (None, None);
            return;
        }
        if [&self.mistaken, &building.newer].into_iter().flatten().any(|known| *known == found) {
            return;
        }
        match self.source.checkout_of(&found).and_then(|place| keys_of(&self.base.at(&place))) {
            Ok(keys) => {
                building.demand.change(Some(keys));
                tell(Event::Superseded { revision: building.revision, by: &found });
                let before = building.newer.replace(found);
                before.iter().for_each(|before| self.source.discard(before));
            }
            Err(error) if error.class() == Class::Invalid => {
                self.source.discard(&found);
                self.keep_failure(&error, Some(found.clone()));
                tell(Event::Failed(error));
                self.forget_file();
                // There is no commit that says what the file said.
                let is_file = matches!(self.source.followed, Followed::File);
                building.newer = building.newer.take().or_else(|| is_file.then(|| found.clone()));
                self.mistaken = Some(found);
            }
            // It is asked again.
            Err(_) => {}
        }
    }
}
