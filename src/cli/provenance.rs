//! `provenance`: what was built of what, as an in-toto statement.

use std::process::ExitCode;

use crate::run::exchange;

use super::error::CliError;
use super::render;
use super::ui::Ui;

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    render::text(&exchange::provenance(&ui.workspace())?);
    Ok(ExitCode::SUCCESS)
}
