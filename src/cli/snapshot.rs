//! `snapshot`: a guest is frozen with all that it does, and brought back once.

use std::process::ExitCode;

use crate::base::SnapshotName;

use super::error::CliError;
use super::ui::Ui;

mod create;
mod export;
mod import;
mod inspect;
mod ledger;
mod ls;
mod recipient;
mod restore;
mod rm;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Freeze a guest that runs: its memory, its VMM's state, its data disk
    Create(create::Args),
    /// List snapshots
    Ls(ls::Args),
    /// Show what a snapshot is, and whether it would be restored now
    Inspect(inspect::Args),
    /// Bring a guest back as it was frozen; a snapshot is restored once
    Restore(restore::Args),
    /// Write a snapshot to a file that one host alone can read and restore
    Export(export::Args),
    /// Bring a snapshot in that another host exported for this one
    Import(import::Args),
    /// Print the public key of this host, for which others export snapshots
    Recipient(recipient::Args),
    /// Show what became of each snapshot, and make that whole where a backup or a copy broke it
    Ledger(ledger::Args),
    /// Remove a snapshot for good, after asking
    Rm(rm::Args),
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Create(args) => create::run(args, ui),
        Command::Ls(args) => ls::run(args, ui),
        Command::Inspect(args) => inspect::run(args, ui),
        Command::Restore(args) => restore::run(args, ui),
        Command::Export(args) => export::run(args, ui),
        Command::Import(args) => import::run(args, ui),
        Command::Recipient(_) => recipient::run(ui),
        Command::Ledger(args) => ledger::run(args, ui),
        Command::Rm(args) => rm::run(args, ui),
    }
}

/// A snapshot's name from the command line.
fn parsed(name: &str) -> Result<SnapshotName, CliError> {
    name.parse().map_err(|error| CliError::invalid(format!("the name of a snapshot {error}, not {name:?}")))
}
