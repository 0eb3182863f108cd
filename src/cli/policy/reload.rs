//! `policy reload`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::outcome;
use crate::cli::ui::Ui;
use crate::run::reload;

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace();
    let reload = reload::prepare(&workspace)?;
    outcome::announce(&reload.plan, ui);
    outcome::show(&reload.carry_out()?, ui)
}
