//! `check`: everything that is wrong, without building and without the network.

use std::process::ExitCode;

use crate::run::check;

use super::error::CliError;
use super::ui::Ui;
use super::{output, render};

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    let checked = check::check(&ui.workspace())?;
    if ui.settings.json {
        render::json(&output::CheckedJson::from(&checked));
        return Ok(ExitCode::SUCCESS);
    }
    checked.notes.iter().for_each(|note| ui.note(note));
    checked.lock_differs.iter().for_each(|reason| ui.note(&format!("fleet.lock: {reason}")));
    let fleet = &checked.project.fleet;
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    ui.say(&format!(
        "{} is valid: {}, {}, {}",
        ui.settings.run.file.display(),
        count(fleet.guests.len(), "guest"),
        count(fleet.images.len(), "image"),
        count(fleet.networks.len(), "network policy").replace("policys", "policies"),
    ));
    Ok(ExitCode::SUCCESS)
}
