//! `check`: everything that is wrong, without building and without the network.

use std::process::ExitCode;

use crate::base::Diagnostic;
use crate::build::needs::NeedDoubt;
use crate::lock::model::Lock;

use super::context::{Context, lists};
use super::error::CliError;
use super::machines::machine_files;
use super::render;

pub fn run(context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    lists(&fleet)?;
    machine_files(&fleet)?;
    let project = context.project(fleet)?;
    project.check_kernel()?;
    let doubts = project.need_doubts();
    let wrong: Vec<_> = doubts.iter().filter(|doubt| matches!(doubt, NeedDoubt::TurnedOff { .. })).collect();
    if let [first, ..] = wrong.as_slice() {
        let told: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        return Err(CliError::invalid(told.join("\n")).hint(first.hint().unwrap_or_default()));
    }
    let doubts = doubts.iter().map(|doubt| format!("{doubt}; the build checks what comes out"));
    let notes: Vec<_> = doubts.chain(project.series_notes()).collect();
    let lock = Lock::read(&context.lock_path())?;
    let stale = lock.as_ref().map_or_else(Vec::new, |lock| project.stale(lock));
    // Of packages that are no longer those of the fleet nothing need be said.
    if let Some(lock) = lock.filter(|_| stale.is_empty()) {
        project.check_scripts(&lock)?;
    }
    let fleet = &project.fleet;
    if context.settings.json {
        render::json(&serde_json::json!({
            "ok": true, "guests": fleet.guests.len(), "notes": notes, "lock_differs": stale,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    notes.iter().for_each(|note| context.say(&format!("note: {note}")));
    stale.iter().for_each(|reason| context.say(&format!("note: fleet.lock: {reason}")));
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    context.say(&format!(
        "{} is valid: {}, {}, {}",
        context.settings.file.display(),
        count(fleet.guests.len(), "guest"),
        count(fleet.images.len(), "image"),
        count(fleet.networks.len(), "network policy").replace("policys", "policies"),
    ));
    Ok(ExitCode::SUCCESS)
}
