//! `plan`: what `up` would do.

use std::process::ExitCode;

use crate::plan::Plan;
use crate::run::plan;

use super::error::CliError;
use super::settings::inputs;
use super::ui::Ui;
use super::{output, render};

#[derive(clap::Args)]
pub struct Args {
    /// Exit with 2 where there is something to be done, 0 where there is not
    #[arg(long)]
    detailed_exitcode: bool,
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let notes = ui.notes();
    let preview = plan::preview(&ui.workspace_with(&notes), inputs(args.locked))?;
    if !ui.settings.json {
        show(&preview.plan, ui);
        preview.cost.iter().for_each(|cost| ui.say(&format!("note: {cost}")));
    }
    if let Some(refusal) = preview.refusal {
        return Err(refusal.into());
    }
    if ui.settings.json {
        let notes = notes.into_list().into_iter().chain(preview.cost).collect();
        render::json(&output::PlanJson::new(&preview.plan, notes));
    }
    let changes = args.detailed_exitcode && !preview.plan.is_empty();
    Ok(if changes { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn show(plan: &Plan, ui: &Ui) {
    if plan.is_empty() {
        render::text("nothing to do: the host matches fleet.toml\n");
    } else {
        render::text(&plan.detailed());
    }
    plan.notes.iter().for_each(|note| ui.say(&format!("note: {note}")));
}
