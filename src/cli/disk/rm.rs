//! `disk rm`: a disk goes for good.

use std::process::ExitCode;

use crate::run::disk;

use super::super::ask::confirm;
use super::super::error::CliError;
use super::super::output::DiskRemoved;
use super::super::render;
use super::super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// A guest, or another name that `disk ls` shows
    #[arg(value_name = "DISK")]
    disk: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let unused = disk::unused(&ui.workspace(), &args.disk)?;
    let name = unused.disk.name.clone();
    if !args.yes {
        confirm(&format!("remove the data disk of {name} for good"))?;
    }
    unused.remove()?;
    ui.say(&format!("removed: the data disk of {name}"));
    if ui.settings.json {
        render::json(&DiskRemoved { disk: name });
    }
    Ok(ExitCode::SUCCESS)
}
