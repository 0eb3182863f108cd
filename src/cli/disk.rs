//! `disk`: the data disks that a fleet keeps on its host.

use std::process::ExitCode;

use crate::apply::disk::is_running;
use crate::apply::linux::LinuxHost;
use crate::fleet::{Fleet, GuestName, suggest};
use crate::sys::fs::{self, FileLock};

use super::context::Context;
use super::error::CliError;

mod export;
mod import;
mod ls;
mod rm;

#[derive(clap::Subcommand)]
pub enum Command {
    /// List every data disk: whose it is, its size, and what it takes of the host
    Ls,
    /// Write the disk of a guest that does not run into a file
    Export(export::Args),
    /// Make a file the disk of a guest that does not run
    Import(import::Args),
    /// Remove the disk of a guest that does not run, after asking
    Rm(rm::Args),
}

pub fn run(command: &Command, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let host = context.host(&fleet)?;
    match command {
        Command::Ls => ls::run(&fleet, &host, context),
        Command::Export(args) => export::run(args, &host, context),
        Command::Import(args) => import::run(args, &fleet, &host, context),
        Command::Rm(args) => rm::run(args, &host, context),
    }
}

/// Holds the host, with a guest's disk on it that nobody has: none can be started until the lock is let go.
fn unused(guest: &GuestName, host: &LinuxHost, context: &Context) -> Result<FileLock, CliError> {
    let held = context.hold(&host.layout)?;
    if is_running(host, guest) {
        return Err(CliError::failed(format!("{guest} runs, and its disk is being written to"))
            .hint(format!("`sisforge down {guest}` first")));
    }
    Ok(held)
}

/// The guest of a disk that is there, whether the fleet still has it or not.
fn guest_of_disk(name: &str, host: &LinuxHost) -> Result<GuestName, CliError> {
    let found = name.parse::<GuestName>().ok().filter(|guest| host.layout.disk(guest).exists());
    if let Some(guest) = found {
        return Ok(guest);
    }
    let files = fs::names_in(&host.layout.disks())?;
    let guests = files.iter().filter_map(|file| file.strip_suffix(".ext4"));
    Err(CliError::invalid(format!("there is no data disk of {name:?}")).hint(suggest("disk", name, guests)))
}

/// A guest of the fleet whose disk is kept.
fn guest_with_disk(name: &str, fleet: &Fleet) -> Result<GuestName, CliError> {
    let guest =
        super::context::named(&[name.to_owned()], &fleet.guests.keys().collect::<Vec<_>>())?.remove(0);
    match fleet.guests.get(&guest) {
        Some(spec) if !spec.is_ephemeral() => Ok(guest),
        _ => Err(CliError::invalid(format!("the disk of {guest} goes with its jail: none is kept"))
            .hint("members of pools and disks with the backing tmpfs are ephemeral")),
    }
}
