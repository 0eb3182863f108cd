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
    /// List every data disk: its guest, its size, and the space it uses on the host
    Ls,
    /// Write the disk of a stopped guest to a file
    Export(export::Args),
    /// Copy a file to the disk of a stopped guest
    Import(import::Args),
    /// Remove the disk of a stopped guest, after asking
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
