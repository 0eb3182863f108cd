//! `metrics`: what Prometheus asks for.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::metrics;

use super::error::CliError;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Write them to a file, all at once, such as one of the node exporter's --collector.textfile.directory
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let text = metrics::text(&ui.workspace())?;
    match &args.to {
        Some(path) => {
            metrics::write(path, &text)?;
            ui.wrote(path, "");
        }
        None => render::text(&text),
    }
    Ok(ExitCode::SUCCESS)
}
