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
    /// Remove their data disks and logs too, after asking; disks that sessions brought, and snapshots, are kept
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
    if !args.purge {
        return outcome::show(&down.carry_out()?, ui);
    }
    let (outcome, kept) = down.purge()?;
    let code = outcome::show(&outcome, ui)?;
    if !lost.is_empty() {
        ui.say(&format!("data disks and logs removed: {}", listed.join(", ")));
    }
    let snapshots: Vec<_> = kept.snapshots.iter().map(ToString::to_string).collect();
    for (what, names, command) in
        [("disks", &kept.disks, "disk rm"), ("snapshots", &snapshots, "snapshot rm")]
    {
        if !names.is_empty() {
            ui.say(&format!(
                "{what} that are kept: {}; `sisforge {command} NAME` removes one",
                names.join(", ")
            ));
        }
    }
    if ui.settings.json && !(lost.is_empty() && kept.disks.is_empty() && snapshots.is_empty()) {
        render::json(&EventJson::Purged {
            guests: listed,
            kept_disks: kept.disks,
            kept_snapshots: snapshots,
        });
    }
    Ok(code)
}
