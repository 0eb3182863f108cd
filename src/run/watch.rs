//! Watch: follow a Git branch or a file, apply each change, repair drift.

mod building;
mod fetching;
mod following;
mod source;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::apply::ApplyError;
use crate::base::diagnostic::one_line;
use crate::base::problem::InvalidFile;
use crate::base::{Class, Diagnostic, GuestName};
use crate::fleet::{self, Fleet, OnExit};
use crate::host::observed::ObservedGuest;
use crate::plan::{GuestScope, Plan};
use crate::sys::interrupt::{self, Interrupted};
use crate::sys::systemd;

use super::backoff::{Postponed, RestartBackoff};
use super::deployment::BuiltFleet;
use super::down::{self, Down, DownRequest};
use super::events::{self, FleetEvent};
use super::session_containers::end_with_containers;
use super::workspace::Revision;
use super::{Deployment, Inputs, Outcome, RunError, Workspace, host, retention};

pub use following::Following;
pub use source::Followed;
use source::RevisionSource;

/// What happens while something is followed.
#[derive(Debug)]
pub enum Event<'a> {
    /// A revision that was not looked at before is being applied: a commit, or the digest of a file and its lock.
    Applying(&'a str),
    /// While a revision was built there came a newer one, which is applied in its place.
    Superseded { revision: &'a str, by: &'a str },
    /// What is about to be done: for a new revision, or to put right what was applied before.
    Planned { plan: &'a Plan, is_repair: bool },
    /// What became of a plan.
    CarriedOut(&'a Outcome),
    /// Every step of a new revision was taken.
    Applied(&'a str),
    /// A look came to nothing; there will be another. What only another revision can mend is not tried again.
    Failed(RunError),
    /// A guest is not started now.
    Postponed(&'a Postponed),
    /// Some step of a plan failed, and will be tried again at the next look.
    Incomplete,
    /// A look is over.
    Looked,
}

/// What is being followed, and how far.
pub struct Watch<'a> {
    base: &'a Workspace<'a>,
    source: RevisionSource<'a>,
    /// The last fleet without a mistake: what the host is brought to, again and again. It is that from when the host was first
    /// brought to it, whether all of it came or not: to go back for a guest that fails would disturb all others.
    good: Option<Revision>,
    /// What that is called, while something of it is missing yet.
    unfinished: Option<String>,
    /// The revision that was looked at last, where that was good and is wholly applied.
    looked_at: Option<String>,
    /// The revision that was looked at last, where that was bad: it is reported once.
    refused: Option<String>,
    /// One that came while another was built, and is bad: it is not looked at again.
    mistaken: Option<String>,
    /// The revision that this look is about.
    at: Option<String>,
    /// The revision that was last brought to the host, whether all of it came or not.
    tried: Option<String>,
    /// What the last good one wants, which its file may say no more.
    last: Option<(Fleet, BuiltFleet)>,
    restarts: RestartBackoff,
    /// What the last look failed of, which is told once.
    failure: Option<String>,
    repairs: u64,
    /// Whether the host is as the last good revision wants it, whatever else a look came to.
    is_in_sync: bool,
    /// The revision that was applied last, and when.
    applied: Option<(String, SystemTime)>,
    /// Time between two looks.
    interval: Duration,
    seen: Arc<Mutex<Following>>,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookOutcome {
    /// The host is as it should be.
    Complete,
    /// Some step failed.
    Incomplete,
    /// What is missing waits for its time or for a revision without mistakes, or nothing is known yet that should be there.
    Waiting,
}

impl LookOutcome {
    /// What a look came to whose revision is known to be bad: to keep the one before as it should be is not what was asked for.
    fn at_a_mistake(self) -> Self {
        match self {
            Self::Complete | Self::Waiting => Self::Waiting,
            Self::Incomplete => Self::Incomplete,
        }
    }
}

impl<'a> Watch<'a> {
    /// Follows from the next look on.
    ///
    /// # Errors
    /// Where no look could come to anything, however often it were tried again.
    pub fn new(base: &'a Workspace<'a>, followed: Followed) -> Result<Self, RunError> {
        host::require_root()?;
        let source = RevisionSource::new(base, followed)?;
        let good = source.remembered();
        Ok(Self {
            base,
            source,
            good,
            unfinished: None,
            looked_at: None,
            refused: None,
            mistaken: None,
            at: None,
            tried: None,
            last: None,
            restarts: RestartBackoff::default(),
            failure: None,
            repairs: 0,
            is_in_sync: false,
            applied: None,
            interval: INTERVAL,
            seen: Arc::default(),
        })
    }

    /// Looks again and again, until this process is asked to end while a look changes something; at any other time that ends it
    /// at once.
    pub fn follow(&mut self, interval: Duration, tell: &mut dyn FnMut(Event<'_>)) -> Interrupted {
        self.interval = interval;
        loop {
            self.look_and_tell(Self::look, tell);
            if let Some(interrupted) = interrupt::asked() {
                return interrupted;
            }
            thread::sleep(interval);
        }
    }

    /// Looks, and tells what it came to. What is looked at meanwhile says nothing of the revision that a look around it is about.
    fn look_and_tell(&mut self, look: Look<'a>, tell: &mut dyn FnMut(Event<'_>)) {
        let begun = Instant::now();
        self.is_in_sync = false;
        let around = self.at.take();
        let looked = look(self, tell);
        self.see(&looked, begun.elapsed());
        match looked {
            Ok(LookOutcome::Complete | LookOutcome::Waiting) => {}
            Ok(LookOutcome::Incomplete) => tell(Event::Incomplete),
            Err(error) => {
                let at = self.at.take();
                self.keep_failure(&error, at);
                tell(Event::Failed(error));
            }
        }
        self.at = around;
        tell(Event::Looked);
    }

    /// What is known of what is followed, as it goes on.
    pub fn seen(&self) -> Arc<Mutex<Following>> {
        Arc::clone(&self.seen)
    }

    fn see(&self, looked: &Result<LookOutcome, RunError>, took: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.good.clone_from(&self.good);
        seen.last = self.last.as_ref().map(|(fleet, _)| fleet.clone());
        let metrics = &mut seen.metrics;
        metrics.is_in_sync = self.is_in_sync;
        (metrics.looked, metrics.seconds) = (Some(SystemTime::now()), took.as_secs_f64());
        metrics.looks += 1;
        metrics.failed_looks += u64::from(!matches!(looked, Ok(LookOutcome::Complete)));
        metrics.repairs = self.repairs;
        metrics.applied.clone_from(&self.applied);
    }

    /// Puts a failure among the events, once for each reason: with each mistake at its place, and who made the commit that has them.
    fn keep_failure(&mut self, error: &RunError, revision: Option<String>) {
        let mistakes: Vec<_> = error.problems().iter().flat_map(InvalidFile::lines).collect();
        let words = if mistakes.is_empty() { one_line(error) } else { mistakes.join("; ") };
        let words = self.source.without_place(&words, revision.as_deref());
        if self.failure.as_ref() != Some(&words) {
            self.failure = Some(words.clone());
            let author = revision.as_deref().and_then(|commit| self.source.author(commit));
            let file = self.good.as_ref().map_or(&self.base.settings.file, |good| &good.file);
            keep_event(file, FleetEvent::LookFailed { error: words, revision, author });
        }
    }

    /// Takes down what was applied last, where systemd takes this host down; guests would be killed otherwise. `None` where there
    /// is nothing to take down.
    pub fn down_at_shutdown(&self) -> Result<Option<Outcome>, RunError> {
        if !systemd::is_stopping().map_err(ApplyError::from)? {
            return Ok(None);
        }
        let workspace = match (&self.good, &self.source.followed) {
            (Some(good), _) => self.base.at(good),
            (None, Followed::File) => self.base.clone(),
            (None, Followed::Branch { .. }) => return Ok(None),
        };
        let request = DownRequest { stop_timeout: SHUTDOWN_PATIENCE, ..DownRequest::default() };
        let down = down::prepare(&workspace, &request)?;
        down.map(Down::carry_out).transpose()
    }

    /// One look: a new revision is applied, else drift is repaired.
    pub fn look(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<LookOutcome, RunError> {
        // One look may become another, about another revision.
        self.at = None;
        let revision = match self.newest(tell) {
            Ok(found) => found,
            Err(error) => {
                self.repair(tell)?;
                return Err(error);
            }
        };
        if self.looked_at.as_ref() == Some(&revision) {
            return self.repair(tell);
        }
        if [&self.refused, &self.mistaken].into_iter().flatten().any(|known| *known == revision) {
            return Ok(self.repair(tell)?.at_a_mistake());
        }
        self.at = Some(revision.clone());
        let is_new = self.tried.as_ref() != Some(&revision);
        if is_new {
            self.restarts.reset();
            tell(Event::Applying(&revision));
        }
        let brought = self.bring_new(&revision, is_new, tell);
        // What came to nothing is as new as before.
        self.tried = matches!(brought, Ok(Some(_))).then(|| revision.clone());
        match brought {
            Ok(None) => self.look(tell),
            Ok(Some(outcome)) => self.keep_brought(revision, outcome, tell),
            Err(_) if self.source.is_recloning() => self.look(tell),
            Err(error) if error.class() == Class::Invalid => {
                self.source.discard(&revision);
                (self.looked_at, self.refused) = (None, Some(revision));
                self.forget_file();
                Err(error)
            }
            // It is tried again at the next look; what runs stays right meanwhile.
            Err(error) => {
                self.repair_meanwhile(tell)?;
                Err(error)
            }
        }
    }

    /// The newest revision. However long a repository takes to tell, what the last good one wants is put right meanwhile.
    fn newest(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<String, RunError> {
        loop {
            if let Some(found) = self.source.newest(self.interval) {
                return found;
            }
            self.look_and_tell(Self::repair_meanwhile, tell);
            // Who is asked to end does not wait for it.
            interrupt::end_if_asked();
        }
    }

    /// What the host was brought to is what it is held to from now on, also by a `watch` that begins anew. It counts as applied
    /// once nothing of it is missing, and is looked at again until then.
    fn keep_brought(
        &mut self,
        revision: String,
        outcome: LookOutcome,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<LookOutcome, RunError> {
        // The one before is as new as any other, should it come again.
        (self.looked_at, self.refused) = (None, None);
        self.unfinished = Some(revision.clone());
        self.source.remember(&revision)?;
        self.source.clear_for(&revision)?;
        if outcome == LookOutcome::Complete {
            self.failure = None;
            self.finish(tell);
            self.looked_at = Some(revision);
        }
        Ok(outcome)
    }

    /// Tells that nothing is missing any more of the last good revision.
    fn finish(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        let (Some(revision), Some(good)) = (self.unfinished.take(), &self.good) else { return };
        keep_event(&good.file, FleetEvent::Applied { revision: revision.clone() });
        tell(Event::Applied(&revision));
        if self.applied.as_ref().is_none_or(|(applied, _)| *applied != revision) {
            self.applied = Some((revision, SystemTime::now()));
        }
    }

    /// What a file said before a mistake is gone; what a commit said is not.
    fn forget_file(&mut self) {
        self.good = self.good.take().filter(|_| matches!(self.source.followed, Followed::Branch { .. }));
    }

    /// Brings the host to a revision that is not the last good one; `None` where another took its place meanwhile.
    fn bring_new(
        &mut self,
        revision: &str,
        is_new: bool,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<LookOutcome>, RunError> {
        self.source.clear_for(revision)?;
        let place = self.source.checkout_of(revision)?;
        let workspace = self.base.at(&place);
        let Some(built) = self.build(revision, &place, tell)? else { return Ok(None) };
        let brought = bring(&workspace, built.clone(), is_new, &mut self.restarts, tell)?;
        self.is_in_sync = brought == LookOutcome::Complete;
        (self.good, self.last) = (Some(place), Some(built));
        Ok(Some(brought))
    }

    /// Puts right what is not as the last good revision wants it: that one holds for as long as there is no other, be it that
    /// nobody can be asked for one.
    fn repair(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<LookOutcome, RunError> {
        let Some(good) = &self.good else { return Ok(LookOutcome::Waiting) };
        self.source.repair_checkout(good)?;
        self.last = Some(built(&self.base.at(good))?);
        self.repair_by_last(tell)
    }

    /// The same while another revision is built.
    fn repair_meanwhile(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<LookOutcome, RunError> {
        // A commit says what it said, also to a `watch` that began after it.
        match (&self.last, &self.source.followed) {
            (None, Followed::Branch { .. }) => self.repair(tell),
            _ => self.repair_by_last(tell),
        }
    }

    fn repair_by_last(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<LookOutcome, RunError> {
        let (Some(good), Some(last)) = (&self.good, &self.last) else { return Ok(LookOutcome::Waiting) };
        let mut has_repaired = false;
        let mut note = |event: Event<'_>| {
            has_repaired |= matches!(event, Event::CarriedOut(_));
            tell(event);
        };
        let workspace = self.base.at(good);
        let look = bring(&workspace, last.clone(), false, &mut self.restarts, &mut note);
        self.repairs += u64::from(has_repaired);
        self.is_in_sync = matches!(look, Ok(LookOutcome::Complete));
        if self.is_in_sync {
            self.finish(tell);
        }
        look
    }
}

/// How long guests may take to shut down with their host: as long as systemd waits for a service.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(90);

/// Among those of the fleet that a file names, where it names one.
fn keep_event(file: &Path, what: FleetEvent) {
    if let Ok(head) = fleet::head(file) {
        events::record(&head.layout(), [what]);
    }
}

/// A look at what is followed, or at the host alone.
type Look<'a> = fn(&mut Watch<'a>, &mut dyn FnMut(Event<'_>)) -> Result<LookOutcome, RunError>;

/// Time between two looks, where nobody said one.
const INTERVAL: Duration = Duration::from_secs(30);

/// A fleet with all that is built of it. What was committed is what is applied: a lock that does not fit is a mistake in the commit.
fn built(workspace: &Workspace<'_>) -> Result<(Fleet, BuiltFleet), RunError> {
    let fleet = workspace.fleet()?;
    let built = BuiltFleet::before_hold(workspace, &fleet, Inputs::Locked)?;
    Ok((fleet, built))
}

/// Brings the host to what a fleet wants, and tells of it where it is new or something was to be done. What is not new is
/// brought again as often as [`RestartBackoff`] lets it.
fn bring(
    workspace: &Workspace<'_>,
    (fleet, built): (Fleet, BuiltFleet),
    is_new: bool,
    restarts: &mut RestartBackoff,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<LookOutcome, RunError> {
    end_with_containers(&fleet)?;
    let mut held = Deployment::hold(workspace, fleet)?;
    held.make_key()?;
    let wanted = held.basis_of(built)?.wanted(&held.fleet)?;
    let mut plan = held.plan(&wanted, GuestScope::All)?;
    let stays = |guest: &GuestName| {
        let is_left = held.fleet.guests.get(guest).is_some_and(|spec| spec.on_exit == OnExit::Leave);
        is_left && held.observed.guests.get(guest).is_some_and(ObservedGuest::has_ended)
    };
    let (postponed, is_settled) = restarts.postpone(&mut plan, stays, Instant::now());
    events::record(&held.host.layout, postponed.iter().map(FleetEvent::from));
    postponed.iter().for_each(|one| tell(Event::Postponed(one)));
    match retention::keep_to(&held.host.layout, &held.fleet.snapshots) {
        Ok(gone) => gone.iter().for_each(|one| {
            workspace.report.info(&format!("snapshot {} is removed: {}", one.name, one.why));
        }),
        // Guests are looked after all the same.
        Err(error) => workspace.report.note(&format!("snapshots are kept: {}", one_line(&error))),
    }
    let done = if is_settled { LookOutcome::Complete } else { LookOutcome::Waiting };
    if !is_new && plan.is_empty() {
        return Ok(done);
    }
    tell(Event::Planned { plan: &plan, is_repair: !is_new });
    let outcome = held.carry_out(plan)?;
    if !is_new {
        restarts.count(&outcome.plan, Instant::now());
    }
    tell(Event::CarriedOut(&outcome));
    Ok(if outcome.is_complete() { done } else { LookOutcome::Incomplete })
}
