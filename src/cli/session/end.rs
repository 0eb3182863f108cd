//! `session end`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::output::SessionEndedJson;
use crate::cli::ui::Ui;
use crate::cli::{outcome, render};
use crate::run::session;

#[derive(clap::Args)]
pub struct Args {
    /// The guest
    guest: String,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let notes = ui.notes();
    let workspace = ui.workspace_with(&notes);
    let ending = session::end(&workspace, &args.guest)?;
    let guest = ending.guest.to_string();
    let done = ending.carry_out()?;
    if let Some(done) = &done {
        outcome::failures(done, &notes);
    }
    ui.say(&format!("the session of {guest} is over, and {guest} is gone"));
    if ui.settings.json {
        drop(workspace);
        render::json(&SessionEndedJson { guest, notes: notes.into_list() });
    }
    done.as_ref().map_or(Ok(ExitCode::SUCCESS), outcome::exit_code)
}
