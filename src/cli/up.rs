//! `up`: the host becomes what fleet.toml wants.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::run::up;

use super::error::CliError;
use super::outcome;
use super::settings::inputs;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests; or a file that `plan --out` wrote, with a dot or a slash in its name: that plan, or nothing
    #[arg(value_name = "GUEST|FILE")]
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
    let (saved, guests) = match &args.guests[..] {
        [file] if is_file(file) => (Some(PathBuf::from(file)), Vec::new()),
        guests => (None, guests.to_vec()),
    };
    let up = up::prepare(
        &workspace,
        &up::UpRequest {
            guests,
            saved,
            inputs: inputs(args.locked),
            ready_timeout: Duration::from_secs(args.timeout),
        },
    )?;
    outcome::announce(&up.plan, ui);
    outcome::show(&up.carry_out()?, ui)
}

/// Whether an argument names a file: no guest has a dot or a slash in its name.
pub fn is_file(argument: &str) -> bool {
    argument.contains(['.', '/'])
}
