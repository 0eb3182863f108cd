//! `init`: a commented fleet.toml to start from.

use std::process::ExitCode;

use crate::sys::fs;

use super::error::CliError;
use super::render;
use super::ui::Ui;

use crate::fleet::EXAMPLE as TEMPLATE;

#[derive(clap::Args)]
pub struct Args {
    /// Print it instead of writing it
    #[arg(long)]
    print: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let path = &ui.settings.run.file;
    if args.print {
        render::text(TEMPLATE);
        return Ok(ExitCode::SUCCESS);
    }
    if path.exists() {
        return Err(CliError::invalid(format!("{} already exists", path.display()))
            .hint("choose another with --file, or print the template with `sisforge init --print`"));
    }
    fs::require_dir_of(path)?;
    fs::write(path, TEMPLATE.as_bytes(), 0o644)?;
    ui.wrote(path, "; next: `sisforge keys alpine`, `sisforge check`, `sisforge lock`, `sisforge build`");
    Ok(ExitCode::SUCCESS)
}
