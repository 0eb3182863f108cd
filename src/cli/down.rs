//! `down`: guests go, and everything of them but their data disks.

use std::process::ExitCode;
use std::time::Duration;

use crate::run::down;

use super::ask::confirm;
use super::error::CliError;
use super::output::{self, EventJson};
use super::ui::Ui;
use super::{outcome, render};

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests
    guests: Vec<String>,
    /// Remove their data disks and logs too, after asking
    #[arg(long)]
    purge: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "purge")]
    yes: bool,
    /// Seconds that a guest has to shut down before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = crate::apply::linux::STOP_TIMEOUT.as_secs())]
    timeout: u64,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let (guests, stop_timeout) = (args.guests.clone(), Duration::from_secs(args.timeout));
    let workspace = ui.workspace();
    let Some(down) = down::prepare(&workspace, &down::DownRequest { guests, stop_timeout })? else {
        return outcome::nothing_to_do(ui);
    };
    let lost = if args.purge { down.guests.clone() } else { Vec::new() };
    let listed = output::names(&lost);
    if !args.yes && !lost.is_empty() {
        confirm(&format!("remove the data disks and logs of {} for good", listed.join(", ")))?;
    }
    outcome::announce(&down.plan, ui);
    let outcome = if args.purge { down.purge() } else { down.carry_out() }?;
    let code = outcome::show(&outcome, ui)?;
    if !lost.is_empty() {
        ui.say(&format!("data disks and logs removed: {}", listed.join(", ")));
        if ui.settings.json {
            render::json(&EventJson::Purged { guests: listed });
        }
    }
    Ok(code)
}
