//! `disk export`: a guest's disk as a file.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::apply::disk;
use crate::apply::linux::LinuxHost;

use super::super::context::Context;
use super::super::error::CliError;

const HELP: &str = "\
The file is the ext4 file system itself, with the holes of the disk: it can be mounted, looked into with `sisforge \
inspect`, and imported again. It is there whole or not at all.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// A guest, or another name that `disk ls` shows
    #[arg(value_name = "DISK")]
    disk: String,
    /// Where to; it must not be there yet
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

pub fn run(args: &Args, host: &LinuxHost, context: &Context) -> Result<ExitCode, CliError> {
    let (_held, disk) = super::unused_disk(&args.disk, host, context)?;
    if args.to.symlink_metadata().is_ok() {
        return Err(CliError::invalid(format!("{} is there already", args.to.display()))
            .hint("remove it, or name another file"));
    }
    disk::export(&disk, &args.to)?;
    context.wrote(&args.to, &format!(": the disk of {}", disk.name));
    Ok(ExitCode::SUCCESS)
}
