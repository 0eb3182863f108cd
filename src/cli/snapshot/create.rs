//! `snapshot create`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{outcome, output, render};
use crate::run::snapshots;
use crate::sys::report::Report as _;

#[derive(clap::Args)]
pub struct Args {
    /// The guest to take a snapshot of
    guest: String,
    /// What to call the snapshot; the guest and the time if not given
    #[arg(long)]
    name: Option<String>,
    /// Stop the guest: it does not go on beside its snapshot
    #[arg(long, conflicts_with = "resume")]
    stop: bool,
    /// Let the guest go on, which is the default: the snapshot can be restored once the guest is down
    #[arg(long)]
    resume: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let notes = ui.notes();
    let name = args.name.as_deref().map(super::parsed).transpose()?;
    let workspace = ui.workspace_with(&notes);
    let created = snapshots::create(&workspace, &args.guest, name, args.stop)?;
    let mut document = output::CreatedSnapshotJson::new(&created, args.stop);
    let still =
        if args.stop { String::new() } else { format!(", paused for {} ms", document.stood_still_ms) };
    ui.say(&format!(
        "{} is saved as snapshot {}, {}{still}",
        document.guest,
        document.snapshot,
        render::bytes(document.size)
    ));
    for obstacle in &created.obstacles {
        let command = if args.stop { "up" } else { "restart" };
        notes.note(&format!(
            "{} cannot be restored on this host as it is: {obstacle}; `sisforge {command} {}` runs the guest with what is \
             installed now",
            document.snapshot, document.guest
        ));
    }
    for outdated in &created.outdated {
        notes.info(&format!("snapshot {} is removed: {}", outdated.name, outdated.why));
    }
    let stopped = args.stop.then(|| created.end()).transpose();
    if let Ok(Some(outcome)) = &stopped {
        outcome::failures(outcome, &notes);
        ui.say(&outcome::summary(outcome));
    }
    if ui.settings.json {
        drop(workspace);
        document.notes = notes.into_list();
        render::json(&document);
    }
    stopped?.as_ref().map_or(Ok(ExitCode::SUCCESS), outcome::exit_code)
}
