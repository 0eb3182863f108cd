//! `disk`: the data disks that a fleet keeps on its host.

use std::process::ExitCode;

use crate::apply::disk::{self, DiskFile, Kept, is_running};
use crate::apply::linux::LinuxHost;
use crate::base::GuestName;
use crate::fleet::{Fleet, suggest};
use crate::sys::fs::FileLock;

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

/// Holds the host, with a guest on it that does not run: none can be started until the lock is let go.
fn unused(guest: &GuestName, host: &LinuxHost, context: &Context) -> Result<FileLock, CliError> {
    let held = context.hold(&host.layout)?;
    if is_running(host, guest) { Err(in_use(guest)) } else { Ok(held) }
}

fn in_use(guest: &GuestName) -> CliError {
    CliError::failed(format!("{guest} runs, and its disk is being written to"))
        .hint(format!("`sisforge down {guest}` first"))
}

/// Holds the host, with a kept disk of this name on it that nobody has, whether the fleet still has its guest or not.
fn unused_disk(name: &str, host: &LinuxHost, context: &Context) -> Result<(FileLock, DiskFile), CliError> {
    find(name, host)?;
    let held = context.hold(&host.layout)?;
    let disk = find(name, host)?;
    if disk.attached { Err(in_use(&disk.guest)) } else { Ok((held, disk)) }
}

fn find(name: &str, host: &LinuxHost) -> Result<DiskFile, CliError> {
    let mut kept = disk::all(host)?;
    kept.retain(|disk| disk.backing == Kept::File);
    match kept.iter().position(|disk| disk.name == name) {
        Some(index) => Ok(kept.swap_remove(index)),
        None => {
            let names = kept.iter().map(|disk| disk.name.as_str());
            Err(CliError::invalid(format!("there is no data disk of {name:?}"))
                .hint(suggest("disks", name, names)))
        }
    }
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
