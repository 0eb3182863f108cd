//! `up`: the host becomes what fleet.toml wants.

use std::process::ExitCode;
use std::time::Duration;

use crate::run::up;

use super::error::CliError;
use super::outcome;
use super::settings::inputs;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests
    guests: Vec<String>,
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
    /// Seconds that a guest may take to be ready
    #[arg(long, value_name = "SECONDS", default_value_t = crate::apply::linux::READY_TIMEOUT.as_secs())]
    timeout: u64,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace();
    let up = up::prepare(
        &workspace,
        &up::UpRequest {
            guests: args.guests.clone(),
            inputs: inputs(args.locked),
            ready_timeout: Duration::from_secs(args.timeout),
        },
    )?;
    outcome::announce(&up.plan, ui);
    outcome::show(&up.carry_out()?, ui)
}
