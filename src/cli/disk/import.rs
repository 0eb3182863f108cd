//! `disk import`: a file becomes a guest's disk.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::apply::disk;
use crate::apply::linux::LinuxHost;
use crate::base::{ByteSize, GuestName};
use crate::fleet::Fleet;
use crate::sys::fs::FileError;

use super::super::ask::confirm;
use super::super::context::Context;
use super::super::error::CliError;

const HELP: &str = "\
The file is a raw image of an ext4 file system, such as `disk export` writes; it is copied. One that is smaller than \
fleet.toml says grows when the guest next starts; one that is larger is refused.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    guest: String,
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Replace a disk that is there, after asking
    #[arg(long)]
    replace: bool,
    /// Do not ask
    #[arg(long, requires = "replace")]
    yes: bool,
}

pub fn run(args: &Args, fleet: &Fleet, host: &LinuxHost, context: &Context) -> Result<ExitCode, CliError> {
    let guest = super::guest_with_disk(&args.guest, fleet)?;
    refuse_size(args, fleet, &guest)?;
    let _held = super::unused(&guest, host, context)?;
    if host.layout.disk(&guest).exists() {
        if !args.replace {
            return Err(CliError::failed(format!("{guest} has a data disk already"))
                .hint("`sisforge disk export` saves it; with --replace it is replaced, and lost"));
        }
        if !args.yes {
            confirm(&format!("replace the data disk of {guest} and lose what is on it"))?;
        }
    }
    disk::import(&host.layout, &guest, &args.from)?;
    context.wrote(&host.layout.disk(&guest), &format!(": the disk of {guest}"));
    Ok(ExitCode::SUCCESS)
}

/// No disk is made smaller, so that one which is too large could never be used.
fn refuse_size(args: &Args, fleet: &Fleet, guest: &GuestName) -> Result<(), CliError> {
    let meta = std::fs::metadata(&args.from).map_err(FileError::when("read", &args.from))?;
    if !meta.is_file() {
        return Err(CliError::invalid(format!("{} is no file", args.from.display())));
    }
    let size = ByteSize::from_bytes(meta.len());
    match fleet.guests.get(guest).map(|spec| spec.disk.size) {
        Some(wanted) if size > wanted => {
            let text =
                format!("{} has {size}, and the disk of {guest} is to have {wanted}", args.from.display());
            Err(CliError::invalid(text).hint("give the disk its size in fleet.toml"))
        }
        _ => Ok(()),
    }
}
