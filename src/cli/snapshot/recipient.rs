//! `snapshot recipient`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::output::RecipientJson;
use crate::cli::render;
use crate::cli::ui::Ui;
use crate::run::transfer;

const HELP: &str = "\
Other hosts export snapshots to it. Its private half is /var/lib/sisforge-host/key, made when it is first asked for, and for root \
alone: whoever has it reads what was exported for this host.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {}

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    let recipient = transfer::recipient()?.to_string();
    if ui.settings.json {
        render::json(&RecipientJson { recipient });
    } else {
        render::text(&format!("{recipient}\n"));
    }
    Ok(ExitCode::SUCCESS)
}
