//! `disk rm`: a disk goes for good.

use std::process::ExitCode;

use crate::apply::linux::LinuxHost;
use crate::sys::fs;

use super::super::ask::confirm;
use super::super::context::Context;
use super::super::error::CliError;

#[derive(clap::Args)]
pub struct Args {
    /// A guest, or another name that `disk ls` shows
    #[arg(value_name = "DISK")]
    disk: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, host: &LinuxHost, context: &Context) -> Result<ExitCode, CliError> {
    let (_held, disk) = super::unused_disk(&args.disk, host, context)?;
    if !args.yes {
        confirm(&format!("remove the data disk of {} for good", disk.name))?;
    }
    fs::remove(&disk.path)?;
    context.say(&format!("removed: the data disk of {}", disk.name));
    Ok(ExitCode::SUCCESS)
}
