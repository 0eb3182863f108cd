//! `plan`: what `up` would do.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::plan::Plan;
use crate::run::plan;

use super::error::CliError;
use super::ui::Ui;
use super::{output, render};

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests
    guests: Vec<String>,
    /// Exit as terraform does: 0 where there is nothing to do, 2 where there is, 1 on any error
    #[arg(long)]
    detailed_exitcode: bool,
    /// Fail if fleet.lock does not fit fleet.toml, instead of telling what would change in it
    #[arg(long)]
    locked: bool,
    /// Keep the plan in a file, for `sisforge up FILE` to carry out just that
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    preview(args, ui).map_err(|error| if args.detailed_exitcode { error.as_failure() } else { error })
}

fn preview(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let notes = ui.notes();
    let request =
        plan::PlanRequest { guests: args.guests.clone(), locked: args.locked, out: args.out.clone() };
    let preview = plan::preview(&ui.workspace_with(&notes), &request)?;
    let unbuilt = (!preview.unbuilt.is_empty())
        .then(|| format!("not built yet: {}; `up` builds that first", preview.unbuilt.join(", ")));
    let more: Vec<_> = unbuilt.into_iter().chain(preview.cost).collect();
    if !ui.settings.json {
        show(&preview.plan, ui);
        more.iter().for_each(|note| ui.note(note));
    }
    if let Some(refusal) = preview.refusal {
        return Err(refusal.into());
    }
    if ui.settings.json {
        let notes = notes.into_list().into_iter().chain(more).collect();
        render::json(&output::PlanJson::new(&preview.plan, notes));
    } else if let Some(out) = args.out.as_ref().filter(|_| !preview.plan.is_empty()) {
        ui.say(&format!("kept in {0}: `sisforge up {0}` does just that", as_argument(out)));
    }
    let changes = args.detailed_exitcode && !preview.plan.is_empty();
    Ok(if changes { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// A file as `up` takes it for one, and not for a guest.
fn as_argument(file: &std::path::Path) -> String {
    let name = file.display().to_string();
    if super::up::is_file(&name) { name } else { format!("./{name}") }
}

fn show(plan: &Plan, ui: &Ui) {
    if plan.is_empty() {
        render::text("nothing to do: the host matches fleet.toml\n");
    } else {
        render::text(&format!("{}{}\n", plan.detailed(), plan.counts()));
    }
    plan.notes.iter().for_each(|note| ui.note(note));
}
