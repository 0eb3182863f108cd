//! `up`: the host becomes what fleet.toml wants.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::up;

use super::error::CliError;
use super::outcome;
use super::rollout::RolloutArgs;
use super::settings::inputs;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests; or a file that `plan --out` wrote, with a dot or a slash in its name: that plan, or nothing
    #[arg(value_name = "GUEST|FILE")]
    guests: Vec<String>,
    #[command(flatten)]
    up: UpArgs,
}

/// What `up` and `restart` are told alike.
#[derive(clap::Args)]
pub struct UpArgs {
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
    #[command(flatten)]
    rollout: RolloutArgs,
}

impl UpArgs {
    /// With the guests that were named.
    pub fn request(&self, guests: &[String]) -> up::UpRequest {
        up::UpRequest {
            guests: guests.to_vec(),
            saved: None,
            inputs: inputs(self.locked),
            ready_timeout: self.rollout.ready_timeout(),
            strategy: self.rollout.strategy(),
        }
    }
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace();
    let (saved, guests) = match &args.guests[..] {
        [file] if is_file(file) => (Some(PathBuf::from(file)), &[][..]),
        guests => (None, guests),
    };
    let up = up::prepare(&workspace, &up::UpRequest { saved, ..args.up.request(guests) })?;
    outcome::announce(&up.plan, ui);
    outcome::show(&up.carry_out()?, ui)
}

/// Whether an argument names a file: no guest has a dot or a slash in its name.
pub fn is_file(argument: &str) -> bool {
    argument.contains(['.', '/'])
}
