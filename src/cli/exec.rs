//! `exec`: a command in a guest, as its user, with this terminal and its exit status.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::run::reach;
use crate::sys::ssh::{self, Io};

use super::error::CliError;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// The guest to run it in
    guest: String,
    /// Do not allocate a terminal for the command
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let tty = !args.no_tty && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    in_guest(&args.guest, &ssh::command_line(&args.command), tty, ui)
}

/// Runs a line of shell, or the login shell where it is empty, in a guest; its exit status is this program's.
pub fn in_guest(guest: &str, line: &str, tty: bool, ui: &Ui) -> Result<ExitCode, CliError> {
    let target = reach::ssh(&ui.workspace(), guest)?;
    let finished = ssh::run_line(&target, line, Io::Inherit { tty })?;
    Ok(ExitCode::from(u8::try_from(finished.code).unwrap_or(1)))
}
