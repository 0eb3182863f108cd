//! `exec`: a command in a guest, as its user, with this terminal and its exit status.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::sys::ssh::{self, Io};

use super::context::{Context, declared_or_there};
use super::error::CliError;

#[derive(clap::Args)]
pub struct Args {
    /// The guest to run it in
    guest: String,
    /// Give the command no terminal, even where this one is a terminal
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let tty = !args.no_tty && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    in_guest(&args.guest, &args.command, tty, context)
}

/// Runs a command, or the login shell where there is none, in a guest; its exit status is this program's.
pub fn in_guest(guest: &str, command: &[String], tty: bool, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let host = context.host(&fleet)?;
    let guest = declared_or_there(guest, &fleet, &host)?;
    let target = context.reachable(&host, &guest)?;
    let finished = ssh::run(&target, command, Io::Inherit { tty })?;
    Ok(ExitCode::from(u8::try_from(finished.code).unwrap_or(1)))
}
