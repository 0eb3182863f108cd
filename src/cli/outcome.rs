//! What became of a plan, in words and as JSON.

use std::process::ExitCode;

use crate::apply::StepFailure;
use crate::base::diagnostic::one_line;
use crate::base::{Diagnostic, GuestName};
use crate::plan::Plan;
use crate::run::{Done, Outcome};
use crate::sys::report::{Report, Severity};

use super::error::CliError;
use super::output::{EventJson, Summary};
use super::render;
use super::ui::Ui;

/// Shows each step before any is taken, where more is to be said.
pub fn announce(plan: &Plan, ui: &Ui) {
    if ui.settings.verbose && !plan.is_empty() {
        ui.say(plan.detailed().trim_end());
    }
}

/// Says what became of a plan; steps that failed are a failure.
pub fn show(outcome: &Outcome, ui: &Ui) -> Result<ExitCode, CliError> {
    failures(outcome, &*ui.report);
    if ui.settings.json {
        render::json(&EventJson::Summary { summary: Summary::from(outcome) });
    } else {
        ui.say(&summary(outcome));
    }
    exit_code(outcome)
}

/// Says that there was nothing to do.
pub fn nothing_to_do(ui: &Ui) -> Result<ExitCode, CliError> {
    show(&Outcome::default(), ui)
}

/// Tells of each step that failed.
pub fn failures(outcome: &Outcome, report: &dyn Report) {
    for failure in &outcome.applied.failures {
        let help = failure.error.hint().map(|help| format!("\n  help: {help}")).unwrap_or_default();
        let (whose, error) = (failure.whose(), one_line(&failure.error));
        report.say(Severity::Error, &format!("{whose}: {}: {error}{help}", failure.step));
    }
}

/// Of a command whose failures were told.
pub fn exit_code(outcome: &Outcome) -> Result<ExitCode, CliError> {
    if outcome.is_complete() { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
}

/// What became of a plan, in a line.
pub fn summary(outcome: &Outcome) -> String {
    let Outcome { plan, applied, left } = outcome;
    if plan.is_empty() {
        return "nothing to do: the host is already in the wanted state".to_owned();
    }
    let Done { started, restarted, stopped, changed } = outcome.done();
    let counts =
        [(started, "started"), (restarted, "restarted"), (stopped, "stopped"), (changed, "changed in place")];
    let counts = counts.iter().filter(|(guests, _)| !guests.is_empty());
    let mut all: Vec<_> = counts.map(|(guests, what)| format!("{} {what}", guests.len())).collect();
    let mut failed: Vec<_> = applied.failures.iter().map(StepFailure::whose).collect();
    failed.dedup();
    if !failed.is_empty() {
        all.push(format!("failed: {}", failed.join(", ")));
    }
    let left: Vec<_> = left.iter().map(GuestName::as_str).collect();
    if all.is_empty() && !applied.is_cut_short {
        all.push("only the host itself was changed".to_owned());
    }
    let left = match (applied.is_cut_short, &left[..]) {
        (false, []) => None,
        (false, left) => Some(format!("left as they were: {}", left.join(", "))),
        (true, []) => Some("interrupted before all of the host was changed".to_owned()),
        (true, left) => Some(format!("interrupted, left undone: {}", left.join(", "))),
    };
    [(!all.is_empty()).then(|| all.join(", ")), left].into_iter().flatten().collect::<Vec<_>>().join("; ")
}
