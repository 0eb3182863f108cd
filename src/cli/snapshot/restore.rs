//! `snapshot restore`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::output::{RestoredJson, Summary};
use crate::cli::ui::Ui;
use crate::cli::{ask, outcome, render};
use crate::run::restore;

#[derive(clap::Args)]
pub struct Args {
    /// The snapshot to go on from
    name: String,
    /// Bring it back as this guest: its user, its jail, its limits, its network policy. Inside, it stays who it was
    #[arg(long = "as", value_name = "GUEST")]
    target: Option<String>,
    /// Do not ask for confirmation before the snapshot's data disk takes the place of one that has changed since
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let name = super::parsed(&args.name)?;
    let notes = ui.notes();
    let workspace = ui.workspace_with(&notes);
    let restore = restore::prepare(&workspace, &name, args.target.as_deref())?;
    let (guest, set_aside) = (restore.guest.clone(), restore.set_aside.clone());
    if let (Some(aside), false) = (&set_aside, args.yes) {
        ask::confirm(&format!(
            "keep the data disk of {guest}, which has changed since, as {}, and put that of the snapshot in \
             its place",
            aside.display()
        ))?;
    }
    outcome::announce(&restore.plan, ui);
    let outcome = restore.carry_out()?;
    outcome::failures(&outcome, &notes);
    ui.say(&outcome::summary(&outcome));
    if outcome.is_complete() {
        ui.say(&format!("{guest} is restored from snapshot {name}, which is consumed"));
        let kept = set_aside
            .iter()
            .map(|path| format!("the earlier data disk of {guest} is kept: {}", path.display()));
        kept.for_each(|text| ui.say(&text));
    }
    if ui.settings.json {
        drop(workspace);
        let (snapshot, guest, summary) = (name.to_string(), guest.to_string(), Summary::from(&outcome));
        render::json(&RestoredJson { snapshot, guest, set_aside, summary, notes: notes.into_list() });
    }
    outcome::exit_code(&outcome)
}
