//! `kernel`: the final configuration and where each line of it comes from; why an option is as it is; what differs; a smaller vmlinux.

use std::process::ExitCode;

use crate::build::Configuration;

use super::error::CliError;
use super::ui::Ui;

mod compact;
mod config;
mod diff;
mod why;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Leave out of a ready vmlinux what merely fills it; kernels that are built are so already
    Compact(compact::Args),
    /// Print the final configuration, with the origin of each line
    ///
    /// Nothing is compiled; the sources are unpacked only where the last kernel was another one. It is complete: without
    /// what stands behind `#`, Kconfig's olddefconfig makes the same of it.
    Config,
    /// Show the options in which two kernels differ
    Diff(diff::Args),
    /// Say who asked for an option and for what reason, what it needs, and what turns it on
    Why(why::Args),
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Compact(args) => compact::run(args, ui),
        Command::Config => config::run(ui),
        Command::Diff(args) => diff::run(args, ui),
        Command::Why(args) => why::run(args, ui),
    }
}

/// What is wished of the fleet's kernel, and what Kconfig makes of it.
fn configuration(ui: &Ui) -> Result<Configuration, CliError> {
    // The answer is the one JSON document.
    let notes = ui.notes();
    Ok(ui.workspace_with(&notes).kernel_configuration()?)
}
