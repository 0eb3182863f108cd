//! Apply: steps are carried out; nothing is decided here.

mod batcher;
mod connections;
pub mod containers;
mod control;
pub mod disk;
mod ended;
pub mod error;
mod exit_cause;
pub mod facts;
pub mod host;
pub mod jail;
mod jail_id;
pub mod keeper;
pub mod linux;
mod look;
pub mod network;
pub mod observe;
pub mod pool;
pub mod preflight;
pub mod prove;
pub mod record;
pub mod resolver;
pub mod rules;
mod semaphore;
pub mod session_disk;
pub mod snapshot;
pub mod status;
mod steps;
pub mod store;
pub mod tree;
pub mod usage;
pub mod vmm;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::GuestName;
use crate::plan::{GuestSteps, Plan, SnapshotStep, Step};
use crate::sys::interrupt;
use crate::sys::report::{Report, Unit};

pub use error::{ApplyError, VmmError};
pub use host::Host;

/// What was done of a plan, or of a part of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// Guests whose every step was taken.
    pub stopped: Vec<GuestName>,
    pub started: Vec<GuestName>,
    pub failures: Vec<StepFailure>,
    /// Whether it was asked to end before all was done. No guest is then half done.
    pub is_cut_short: bool,
}

impl Applied {
    /// Takes what was done of the next part of the same plan.
    pub fn add(&mut self, next: Self) {
        let Self { stopped, started, failures, is_cut_short } = next;
        self.stopped.extend(stopped);
        self.started.extend(started);
        self.failures.extend(failures);
        self.is_cut_short |= is_cut_short;
    }
}

/// A step that failed; those behind it in the same list were not taken.
#[derive(Debug)]
pub struct StepFailure {
    /// `None`: the host itself.
    pub guest: Option<GuestName>,
    pub step: String,
    pub error: ApplyError,
}

impl StepFailure {
    fn of(guest: &GuestSteps, step: &Step, error: ApplyError) -> Self {
        Self { guest: Some(guest.guest.clone()), step: step.to_string(), error }
    }

    /// The guest's name, or `host`.
    pub fn whose(&self) -> &str {
        self.guest.as_ref().map_or("host", GuestName::as_str)
    }
}

/// How many guests are waited for at a time while they shut down, for up to the stop timeout where one is deaf. Each takes a few
/// descriptors, of which a process may have 1024. Who may work meanwhile, the host decides.
const STOPS_AT_ONCE: usize = 256;

/// What happens to a guest, which decides how its failures are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestAction {
    /// Takes every step, whatever fails: a TAP is removed even where its VMM does not end.
    Stop,
    /// Takes no step that would build on a failed one.
    Start,
}

/// Who is told that a guest came through all of its steps, from any thread.
pub type OnDone<'a> = &'a (dyn Fn(GuestAction, &GuestSteps) + Sync);

/// Carries out a plan. A guest that fails does not stop the others; a host step that fails ends everything that
/// would build on it. Rules are not removed while a guest that they hold may be left. Where the host cannot be prepared, no
/// guest is stopped that could then not be started again; those that merely go are stopped all the same.
///
/// Where this is asked to end, guests that stop are stopped, those that start are taken back unless they are ready or go on
/// from a snapshot, and no other is begun. `tell` is told of each guest as soon as all of its steps were taken.
pub fn apply(plan: &Plan, host: &dyn Host, at_once: usize, report: &dyn Report, tell: OnDone<'_>) -> Applied {
    let mut applied = in_order(plan, host, at_once, report, tell);
    let (cut_short, failures): (Vec<_>, _) =
        applied.failures.into_iter().partition(|failure| interrupt::is_cause_of(&failure.error));
    applied.failures = failures;
    Applied { is_cut_short: !cut_short.is_empty(), ..applied }
}

/// Carries out a plan; that it was asked to end is among what failed.
fn in_order(plan: &Plan, host: &dyn Host, at_once: usize, report: &dyn Report, tell: OnDone<'_>) -> Applied {
    let mut applied = Applied::default();
    let early = plan.rules_come_first();
    if early && !host_steps(StopPoint::BeforeFirst, &plan.rules, host, report, &mut applied.failures) {
        return applied;
    }
    let prepared = host_steps(StopPoint::BetweenSteps, &plan.prepare, host, report, &mut applied.failures);
    let goes = |guest: &GuestSteps| prepared || !plan.comes_back(&guest.guest);
    let stop: Vec<_> = plan.stop.iter().filter(|guest| goes(guest)).cloned().collect();
    applied.stopped =
        all_guests(GuestAction::Stop, &stop, host, STOPS_AT_ONCE, (report, tell), &mut applied.failures);
    if let Err(error) = host.end_connections() {
        let step = "end the connections of guests that are gone".to_owned();
        applied.failures.push(StepFailure { guest: None, step, error });
        return applied;
    }
    let all_stopped = applied.stopped.len() == plan.stop.len();
    let is_due = |step: &Step| !early && (all_stopped || !step.removes_rules());
    let rules: Vec<_> = plan.rules.iter().filter(|step| is_due(step)).cloned().collect();
    if !prepared || !host_steps(StopPoint::BeforeFirst, &rules, host, report, &mut applied.failures) {
        return applied;
    }
    let not_stopped = |guest: &GuestSteps| {
        applied.failures.iter().any(|failure| failure.guest.as_ref() == Some(&guest.guest))
    };
    let start: Vec<_> = plan.start.iter().filter(|guest| !not_stopped(guest)).cloned().collect();
    applied.started =
        all_guests(GuestAction::Start, &start, host, at_once, (report, tell), &mut applied.failures);
    applied
}

/// Where steps of the host may end that are asked to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StopPoint {
    BetweenSteps,
    /// Only before all of them.
    BeforeFirst,
}

fn host_steps(
    stop_point: StopPoint,
    steps: &[Step],
    host: &dyn Host,
    report: &dyn Report,
    failures: &mut Vec<StepFailure>,
) -> bool {
    for (index, step) in steps.iter().enumerate() {
        let may_end = index == 0 || stop_point == StopPoint::BetweenSteps;
        let asked = if may_end { host.check_interrupt() } else { Ok(()) };
        let task = report.begin("host", None, Unit::Steps);
        let take = || {
            task.detail(&step.to_string());
            host.take(step)
        };
        match asked.and_then(|()| take()) {
            Ok(()) => task.finish(&step.to_string()),
            Err(error) => {
                failures.push(StepFailure { guest: None, step: step.to_string(), error });
                return false;
            }
        }
    }
    true
}

/// Takes the steps of several guests, `at_once` guests at a time; gives those that came through, sorted.
fn all_guests(
    action: GuestAction,
    all: &[GuestSteps],
    host: &dyn Host,
    at_once: usize,
    (report, tell): (&dyn Report, OnDone<'_>),
    failures: &mut Vec<StepFailure>,
) -> Vec<GuestName> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, all.len().max(1)) {
            scope.spawn(|| {
                while let Some(guest) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = one_guest(action, guest, host, report);
                    if outcome.is_empty() {
                        tell(action, guest);
                    }
                    failed.lock().unwrap_or_else(PoisonError::into_inner).extend(outcome);
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_by(|a, b| a.guest.cmp(&b.guest));
    let came_through = |guest: &&GuestSteps| !failed.iter().any(|f| f.guest.as_ref() == Some(&guest.guest));
    let done = all.iter().filter(came_through).map(|guest| guest.guest.clone()).collect();
    failures.extend(failed);
    done
}

fn one_guest(
    action: GuestAction,
    guest: &GuestSteps,
    host: &dyn Host,
    report: &dyn Report,
) -> Vec<StepFailure> {
    let verb = match action {
        GuestAction::Stop => "stop",
        GuestAction::Start if guest.starts() => "start",
        GuestAction::Start => "change",
    };
    if let (Some(step), Err(error)) = (guest.all().next(), host.check_interrupt()) {
        return vec![StepFailure::of(guest, step, error)];
    }
    let total = guest.all().count() as u64;
    let task = report.begin(&format!("{verb} {}", guest.guest), Some(total), Unit::Steps);
    let take = |step: &Step| {
        task.detail(&step.to_string());
        let taken = host.take(step);
        task.advance(1);
        taken.map_err(|error| StepFailure::of(guest, step, error))
    };
    let failures: Vec<StepFailure> = match action {
        GuestAction::Stop => stop(guest, &take),
        GuestAction::Start => start(guest, host, &take),
    };
    if failures.is_empty() {
        let waited = guest.all().any(|step| matches!(step, Step::AwaitReady { .. }));
        match action {
            GuestAction::Stop => task.finish("stopped"),
            GuestAction::Start if waited => task.finish("ready"),
            GuestAction::Start => task.finish(&guest.why.to_string()),
        }
    }
    failures
}

/// Takes every step of a guest that stops; what failed. None where somebody was given it meanwhile, which the first step tells.
fn stop(guest: &GuestSteps, take: &dyn Fn(&Step) -> Result<(), StepFailure>) -> Vec<StepFailure> {
    let mut failures = Vec::new();
    for step in &guest.steps {
        failures.extend(take(step).err());
        if failures
            .last()
            .is_some_and(|failure| matches!(failure.error, ApplyError::Vmm(VmmError::HandedOut(_))))
        {
            break;
        }
    }
    failures
}

/// Takes the steps of a guest that starts or is put right; what failed, and what then could not be undone.
fn start(
    guest: &GuestSteps,
    host: &dyn Host,
    take: &dyn Fn(&Step) -> Result<(), StepFailure>,
) -> Vec<StepFailure> {
    // One that goes on from a snapshot cannot do so again, and one that runs already is put right in a moment.
    let mut may_turn_back = guest.starts();
    let take_unless_asked = |step: &Step| {
        let asked = if may_turn_back { host.check_interrupt() } else { Ok(()) };
        may_turn_back &= !matches!(step, Step::Snapshot(SnapshotStep::ConsumeSnapshot { .. }));
        asked.map_err(|error| StepFailure::of(guest, step, error)).and_then(|()| take(step))
    };
    match guest.steps.iter().try_for_each(take_unless_asked) {
        Ok(()) => guest.then.iter().try_for_each(take).err().into_iter().collect(),
        Err(failure) if !guest.starts() && interrupt::is_cause_of(&failure.error) => vec![failure],
        Err(failure) => {
            let not_undone = guest.undo.iter().filter_map(|step| take(step).err());
            std::iter::once(failure).chain(not_undone).collect()
        }
    }
}
