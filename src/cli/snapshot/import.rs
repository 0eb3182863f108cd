//! `snapshot import`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::output::ImportedJson;
use crate::cli::render;
use crate::cli::ui::Ui;
use crate::run::transfer;

const HELP: &str = "\
The file says nothing of who wrote it: import what you were given by somebody whom you trust with the guest. It is imported \
completely or not at all, and restored once, however often it is imported.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// A file that `snapshot export` wrote for this host
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// What to call the snapshot; as where it was exported if not given
    #[arg(long)]
    name: Option<String>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let name = args.name.as_deref().map(super::parsed).transpose()?;
    let imported = transfer::import(&ui.workspace(), &args.from, name.as_ref())?;
    ui.say(&format!("snapshot {} of {} is imported", imported.name, imported.manifest.guest));
    if ui.settings.json {
        render::json(&ImportedJson::from(&imported));
    }
    Ok(ExitCode::SUCCESS)
}
