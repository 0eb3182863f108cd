//! `fetch`: everything that a build takes from the network, into the cache.

use std::process::ExitCode;

use crate::base::text::counted;
use crate::run::LockedProject;

use super::error::CliError;
use super::output::{EventJson, InputJson};
use super::render;
use super::settings::inputs;
use super::ui::Ui;

const HELP: &str = "\
Packages and the kernel source, several at a time. Afterwards `sisforge build --offline` needs no network. \
Files in the cache or in the vendor directory are not downloaded again; an interrupted download is resumed.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let inputs = LockedProject::open(&ui.workspace(), inputs(args.locked))?.builder().fetch()?;
    let bytes: u64 = inputs.iter().map(|input| input.size).sum();
    if ui.settings.json {
        render::json(&EventJson::Fetched { bytes, files: inputs.iter().map(InputJson::from).collect() });
    }
    ui.say(&format!("here: {}, {}", counted(inputs.len(), "file"), render::bytes(bytes)));
    Ok(ExitCode::SUCCESS)
}
