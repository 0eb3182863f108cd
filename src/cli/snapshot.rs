//! `snapshot`: a guest is frozen with all that it does, and brought back once.

use std::process::ExitCode;

use crate::base::SnapshotName;

use super::error::CliError;
use super::ui::Ui;

mod create;
mod ls;
mod restore;
mod rm;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Freeze a guest that runs: its memory, its VMM's state, its data disk
    Create(create::Args),
    /// List snapshots
    Ls(ls::Args),
    /// Bring a guest back as it was frozen; a snapshot is restored once
    Restore(restore::Args),
    /// Remove a snapshot for good, after asking
    Rm(rm::Args),
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Create(args) => create::run(args, ui),
        Command::Ls(args) => ls::run(args, ui),
        Command::Restore(args) => restore::run(args, ui),
        Command::Rm(args) => rm::run(args, ui),
    }
}

/// A snapshot's name from the command line.
fn parsed(name: &str) -> Result<SnapshotName, CliError> {
    name.parse().map_err(|error| CliError::invalid(format!("the name of a snapshot {error}, not {name:?}")))
}
