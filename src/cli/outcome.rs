//! What became of a plan, in words and as JSON.

use std::process::ExitCode;

use crate::base::diagnostic::one_line;
use crate::base::{Diagnostic, GuestName};
use crate::plan::Plan;
use crate::run::Outcome;
use crate::sys::report::Report;

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
        let who = failure.guest.as_ref().map_or("host", GuestName::as_str);
        report.note(&format!("error: {who}: {}: {}", failure.step, one_line(&failure.error)));
        if let Some(help) = failure.error.hint() {
            report.note(&format!("  help: {help}"));
        }
    }
}

/// Of a command whose failures were told.
pub fn exit_code(outcome: &Outcome) -> Result<ExitCode, CliError> {
    if outcome.is_complete() { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
}

/// What became of a plan, in a line.
pub fn summary(Outcome { plan, applied }: &Outcome) -> String {
    if plan.is_empty() {
        return "nothing to do: the host is already in the wanted state".to_owned();
    }
    let name = |guest: &Option<GuestName>| guest.as_ref().map_or("host", GuestName::as_str).to_owned();
    let mut failed: Vec<_> = applied.failures.iter().map(|failure| name(&failure.guest)).collect();
    failed.dedup();
    let failed = if failed.is_empty() { String::new() } else { format!(", failed: {}", failed.join(", ")) };
    format!("{} started, {} stopped{failed}", applied.started.len(), applied.stopped.len())
}
