//! `disk`: the data disks that a fleet keeps on its host.

use std::process::ExitCode;

use super::error::CliError;
use super::ui::Ui;

mod export;
mod import;
mod ls;
mod rm;

#[derive(clap::Subcommand)]
pub enum Command {
    /// List every data disk: whose it is, its size, and what it takes of the host
    Ls,
    /// Write the disk of a guest that does not run into a file
    Export(export::Args),
    /// Make a file the disk of a guest that does not run
    Import(import::Args),
    /// Remove the disk of a guest that does not run, after asking
    Rm(rm::Args),
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Ls => ls::run(ui),
        Command::Export(args) => export::run(args, ui),
        Command::Import(args) => import::run(args, ui),
        Command::Rm(args) => rm::run(args, ui),
    }
}
