//! `policy`: what guests may reach, in words, and why.

use std::process::ExitCode;

use super::error::CliError;
use super::ui::Ui;
use crate::run::place::FilePlace;

mod explain;
mod show;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Show policies in words, in the order in which their lines win
    Show(show::Args),
    /// Say what becomes of what a guest sends somewhere, and which line of fleet.toml decides
    ///
    /// The exit status is 0 where it passes, 3 where it does not; of an address without a port, 0 where anything passes.
    Explain(explain::Args),
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Show(args) => show::run(args, ui),
        Command::Explain(args) => explain::run(args, ui),
    }
}

/// As compilers write it.
fn place(place: &FilePlace) -> String {
    format!("{}:{}:{}", place.file.display(), place.line, place.column)
}
