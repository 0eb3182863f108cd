//! `kernel config`: the final configuration with the origin of each line.

use std::process::ExitCode;

use super::super::error::CliError;
use super::super::render;
use super::super::ui::Ui;

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    let lines = super::configuration(ui)?.lines()?;
    if ui.settings.json {
        render::json(&lines);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = lines
        .iter()
        .map(|line| vec![format!("CONFIG_{}={}", line.option, line.value), format!("# {}", line.origin)])
        .collect();
    render::text(&render::table(&rows));
    let on = lines.iter().filter(|line| line.value == "y").count();
    ui.say(&format!("{on} options are on"));
    Ok(ExitCode::SUCCESS)
}
