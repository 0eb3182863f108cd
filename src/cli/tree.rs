//! `tree`: the complete jails of a fleet as files, for whoever starts VMMs by other means or wants to look.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::tree;

use super::error::CliError;
use super::settings::inputs;
use super::ui::Ui;
use super::{output, render};

#[derive(clap::Args)]
pub struct Args {
    /// Only this guest
    guest: Option<String>,
    /// Where the trees go: a store of their own, which must not be there yet
    #[arg(long, value_name = "DIR", default_value = "tree")]
    out: PathBuf,
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let notes = ui.notes();
    let workspace = ui.workspace_with(&notes);
    let jails = tree::write(&workspace, args.guest.as_deref(), &args.out, inputs(args.locked))?;
    if ui.settings.json {
        render::json(&output::TreeJson::new(&jails, notes.into_list()));
    } else {
        jails.values().for_each(|root| render::text(&format!("{}\n", root.display())));
    }
    Ok(ExitCode::SUCCESS)
}
