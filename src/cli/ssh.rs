//! `ssh`: a shell in a guest, as its user.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::sys::ssh::{self, Io};

use super::context::{Context, declared_or_there};
use super::error::CliError;

#[derive(clap::Args)]
pub struct Args {
    /// The guest to log in to
    guest: String,
    /// Give the command a terminal, where this one is a terminal
    #[arg(short = 't', long, requires = "command")]
    tty: bool,
    /// A command instead of the login shell, and its arguments; no terminal is given to it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let host = context.host(&fleet)?;
    let guest = declared_or_there(&args.guest, &fleet, &host)?;
    let target = context.reachable(&host, &guest)?;
    let tty = (args.command.is_empty() || args.tty) && std::io::stdin().is_terminal();
    let finished = ssh::run(&target, &args.command, Io::Inherit { tty })?;
    Ok(ExitCode::from(u8::try_from(finished.code).unwrap_or(1)))
}
