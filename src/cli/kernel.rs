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
    /// Remove the padding of a prebuilt vmlinux; kernels that sisforge builds have none
    Compact(compact::Args),
    /// Print the final configuration, with the origin of each line
    ///
    /// Nothing is compiled; the sources are unpacked only where the last kernel was another one. It is complete: without
    /// what stands behind `#`, Kconfig's olddefconfig makes the same of it.
    Config,
    /// Show the options in which two kernels differ
    Diff(diff::Args),
    /// Explain why an option is set, what it depends on, and what selects it
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

/// What is asked of the fleet's kernel, and what Kconfig makes of it.
fn configuration(ui: &Ui) -> Result<Configuration, CliError> {
    Ok(ui.workspace().kernel_configuration()?)
}
