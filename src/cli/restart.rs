//! `restart`: guests are stopped and started again.

use std::process::ExitCode;

use crate::run::restart;

use super::error::CliError;
use super::outcome;
use super::ui::Ui;
use super::up::UpArgs;

const HELP: &str = "\
A guest of a pool that somebody has is refused: `sisforge session end` ends its session. A spare, and a guest whose session is over, are \
replaced.";

#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The guests
    #[arg(required = true)]
    guests: Vec<String>,
    #[command(flatten)]
    up: UpArgs,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = args.up.workspace(ui);
    let restart = restart::prepare(&workspace, &args.up.request(&args.guests)?)?;
    outcome::announce(&restart.plan, ui);
    outcome::show(&restart.carry_out()?, ui)
}
