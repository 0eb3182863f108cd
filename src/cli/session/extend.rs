//! `session extend`.

use std::process::ExitCode;
use std::time::Duration;

use crate::base::time::parse_duration;
use crate::cli::error::CliError;
use crate::cli::output::SessionJson;
use crate::cli::render;
use crate::cli::ui::Ui;
use crate::run::session;

#[derive(clap::Args)]
pub struct Args {
    /// The guest
    guest: String,
    /// When it ends by itself, from now on, such as 2h; never unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let extended = session::extend(&ui.workspace(), &args.guest, args.ttl)?;
    if ui.settings.json {
        render::json(&SessionJson::from(&extended));
    } else {
        ui.say(&format!("{} is in use {}", extended.guest, super::until(&extended)));
    }
    Ok(ExitCode::SUCCESS)
}
