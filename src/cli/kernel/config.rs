//! `kernel config`: the final configuration with the origin of each line.

use std::process::ExitCode;

use super::super::context::Context;
use super::super::error::CliError;
use super::super::render;

pub fn run(context: &Context) -> Result<ExitCode, CliError> {
    let lines = context.kernel_configuration()?.lines()?;
    if context.settings.json {
        render::json(&lines);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = lines
        .iter()
        .map(|line| vec![format!("CONFIG_{}={}", line.option, line.value), format!("# {}", line.origin)])
        .collect();
    render::text(&render::table(&rows));
    let on = lines.iter().filter(|line| line.value == "y").count();
    context.say(&format!("{on} options are on"));
    Ok(ExitCode::SUCCESS)
}
