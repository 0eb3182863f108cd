//! `snapshot rm`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::output::Removed;
use crate::cli::ui::Ui;
use crate::cli::{ask, render};
use crate::run::snapshots;

#[derive(clap::Args)]
pub struct Args {
    /// The snapshot to remove
    name: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let name = super::parsed(&args.name)?;
    let notes = ui.notes();
    let workspace = ui.workspace_with(&notes);
    let removal = snapshots::removal(&workspace, &name)?;
    let had_disk = removal.snapshot.has_disk;
    if !args.yes {
        let disk = if had_disk { " and the data disk in it" } else { "" };
        ask::confirm(&format!("remove snapshot {name}{disk} for good"))?;
    }
    removal.carry_out()?;
    ui.say(&format!("snapshot {name} is removed"));
    if ui.settings.json {
        render::json(&Removed { snapshot: name.to_string(), had_disk });
    }
    Ok(ExitCode::SUCCESS)
}
