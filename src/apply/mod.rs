//! Apply: steps are carried out; nothing is decided here.

mod control;
pub mod disk;
pub mod ended;
pub mod error;
pub mod facts;
pub mod host;
pub mod jail;
pub mod keeper;
pub mod linux;
mod look;
pub mod network;
pub mod observe;
pub mod preflight;
pub mod prove;
pub mod record;
pub mod resolver;
mod rules;
mod semaphore;
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
use crate::plan::{GuestSteps, Plan, Step};
use crate::sys::report::{Report, Unit};

pub use error::ApplyError;
pub use host::Host;

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// Guests whose every step was taken.
    pub stopped: Vec<GuestName>,
    pub started: Vec<GuestName>,
    pub failures: Vec<Failure>,
}

/// A step that failed; those behind it in the same list were not taken.
#[derive(Debug)]
pub struct Failure {
    /// `None`: the host itself.
    pub guest: Option<GuestName>,
    pub step: String,
    pub error: ApplyError,
}

impl Failure {
    /// The guest's name, or `host`.
    pub fn whose(&self) -> &str {
        self.guest.as_ref().map_or("host", GuestName::as_str)
    }
}

/// How many guests are waited for at a time while they shut down, for up to the stop timeout where one is deaf. Each takes a few
/// descriptors, of which a process may have 1024. Who may work meanwhile, the host decides.
const STOPS_AT_ONCE: usize = 256;

/// What happens to a guest, which decides how its failures are met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Takes every step, whatever fails: a TAP is removed even where its VMM does not end.
    Stop,
    /// Takes no step that would build on a failed one.
    Start,
}

/// Carries out a plan. A guest that fails does not stop the others; a host step that fails ends everything that
/// would build on it. Rules are not removed while a guest that they hold may be left. Where the host cannot be prepared, no
/// guest is stopped that could then not be started again; those that merely go are stopped all the same.
pub fn apply(plan: &Plan, host: &dyn Host, at_once: usize, report: &dyn Report) -> Applied {
    let mut applied = Applied::default();
    let early = plan.rules_come_first();
    if early && !host_steps(&plan.rules, host, report, &mut applied.failures) {
        return applied;
    }
    let prepared = host_steps(&plan.prepare, host, report, &mut applied.failures);
    let goes = |guest: &GuestSteps| prepared || !plan.comes_back(&guest.guest);
    let stop: Vec<_> = plan.stop.iter().filter(|guest| goes(guest)).cloned().collect();
    applied.stopped = guests(Doing::Stop, &stop, host, STOPS_AT_ONCE, report, &mut applied.failures);
    let all_stopped = applied.stopped.len() == plan.stop.len();
    let is_due = |step: &Step| !early && (all_stopped || !step.removes_rules());
    let rules: Vec<_> = plan.rules.iter().filter(|step| is_due(step)).cloned().collect();
    if !prepared || !host_steps(&rules, host, report, &mut applied.failures) {
        return applied;
    }
    let not_stopped = |guest: &GuestSteps| {
        applied.failures.iter().any(|failure| failure.guest.as_ref() == Some(&guest.guest))
    };
    let start: Vec<_> = plan.start.iter().filter(|guest| !not_stopped(guest)).cloned().collect();
    applied.started = guests(Doing::Start, &start, host, at_once, report, &mut applied.failures);
    applied
}

fn host_steps(steps: &[Step], host: &dyn Host, report: &dyn Report, failures: &mut Vec<Failure>) -> bool {
    for step in steps {
        let task = report.begin("host", None, Unit::Steps);
        task.detail(&step.to_string());
        match host.take(step) {
            Ok(()) => task.finish(&step.to_string()),
            Err(error) => {
                failures.push(Failure { guest: None, step: step.to_string(), error });
                return false;
            }
        }
    }
    true
}

/// Takes the steps of several guests, `at_once` guests at a time; gives those that came through, sorted.
fn guests(
    doing: Doing,
    all: &[GuestSteps],
    host: &dyn Host,
    at_once: usize,
    report: &dyn Report,
    failures: &mut Vec<Failure>,
) -> Vec<GuestName> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, all.len().max(1)) {
            scope.spawn(|| {
                while let Some(guest) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = one_guest(doing, guest, host, report);
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

fn one_guest(doing: Doing, guest: &GuestSteps, host: &dyn Host, report: &dyn Report) -> Vec<Failure> {
    let verb = match doing {
        Doing::Stop => "stop",
        Doing::Start if guest.starts() => "start",
        Doing::Start => "change",
    };
    let total = guest.all().count() as u64;
    let task = report.begin(&format!("{verb} {}", guest.guest), Some(total), Unit::Steps);
    let take = |step: &Step| {
        task.detail(&step.to_string());
        let taken = host.take(step);
        task.advance(1);
        let failure = |error| Failure { guest: Some(guest.guest.clone()), step: step.to_string(), error };
        taken.map_err(failure)
    };
    let failures: Vec<Failure> = match doing {
        Doing::Stop => guest.steps.iter().filter_map(|step| take(step).err()).collect(),
        Doing::Start => match guest.steps.iter().try_for_each(take) {
            Ok(()) => guest.then.iter().try_for_each(take).err().into_iter().collect(),
            Err(failure) => {
                let not_undone = guest.undo.iter().filter_map(|step| take(step).err());
                std::iter::once(failure).chain(not_undone).collect()
            }
        },
    };
    if failures.is_empty() {
        let waited = guest.all().any(|step| matches!(step, Step::AwaitReady { .. }));
        match doing {
            Doing::Stop => task.finish("stopped"),
            Doing::Start if waited => task.finish("ready"),
            Doing::Start => task.finish(&guest.why.to_string()),
        }
    }
    failures
}
