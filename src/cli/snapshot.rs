//! `snapshot`: a guest is frozen with all that it does, and brought back once.

use std::process::ExitCode;

use crate::base::SnapshotName;

use super::context::Context;
use super::error::CliError;

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

pub fn run(command: &Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Create(args) => create::run(args, context),
        Command::Ls(args) => ls::run(args, context),
        Command::Restore(args) => restore::run(args, context),
        Command::Rm(args) => rm::run(args, context),
    }
}

/// A snapshot's name from the command line.
fn parsed(name: &str) -> Result<SnapshotName, CliError> {
    name.parse().map_err(|error| CliError::invalid(format!("the name of a snapshot {error}, not {name:?}")))
}
