//! `status`: every guest, and what has drifted from fleet.toml.

use std::process::ExitCode;

use crate::run::status::{self, Status};

use super::error::CliError;
use super::ui::Ui;
use super::{output, ps, render};

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    let notes = ui.notes();
    let status = status::status(&ui.workspace_with(&notes))?;
    if ui.settings.json {
        render::json(&output::StatusJson::new(&status, notes.into_list()));
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(error) = &status.drift {
        ui.note(&format!("drift is not known: {error}"));
    }
    render::text(&table(&status));
    if !status.containers.is_empty() {
        render::text("\n");
        ps::containers(ui, &status.containers);
    }
    for step in status.host_steps() {
        render::text(&format!("host: would {step}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(status: &Status) -> String {
    let head = ps::HEAD.into_iter().chain(["DRIFT"]).map(str::to_owned).collect();
    let unknown = if status.drift.is_ok() { "-" } else { "?" };
    let row = |guest| {
        let mut row = ps::row(guest);
        let from = guest.machine.as_ref().and_then(|machine| machine.restored_from.as_ref());
        let still = || from.map_or_else(|| unknown.into(), |snapshot| format!("from snapshot {snapshot}"));
        row.push(status.drift_of(&guest.name).unwrap_or_else(still));
        row
    };
    let rows: Vec<_> = std::iter::once(head).chain(status.guests.iter().map(row)).collect();
    render::table(&rows)
}
