//! `disk rm`: a disk goes for good.

use std::process::ExitCode;

use crate::apply::linux::LinuxHost;
use crate::sys::fs;

use super::super::ask::confirm;
use super::super::context::Context;
use super::super::error::CliError;

#[derive(clap::Args)]
pub struct Args {
    guest: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, host: &LinuxHost, context: &Context) -> Result<ExitCode, CliError> {
    let guest = super::guest_of_disk(&args.guest, host)?;
    let _held = super::unused(&guest, host, context)?;
    if !args.yes {
        confirm(&format!("remove the data disk of {guest} for good"))?;
    }
    fs::remove(&host.layout.disk(&guest))?;
    context.say(&format!("removed: the data disk of {guest}"));
    Ok(ExitCode::SUCCESS)
}
