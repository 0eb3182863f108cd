//! `ssh`: a shell in a guest, as its user.

use std::io::IsTerminal;
use std::process::ExitCode;

use super::error::CliError;
use super::exec;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// The guest to log in to
    guest: String,
    /// Give the command a terminal, where this one is a terminal
    #[arg(short = 't', long, requires = "command")]
    tty: bool,
    /// A command instead of the login shell; no terminal is given to it. As with ssh, its words are joined by blanks and read by
    /// the guest's shell: `exec` keeps them as they are
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let tty = (args.command.is_empty() || args.tty) && std::io::stdin().is_terminal();
    exec::in_guest(&args.guest, &args.command.join(" "), tty, ui)
}
