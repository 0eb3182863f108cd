//! `disk export`: a guest's disk as a file.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::disk;

use super::super::error::CliError;
use super::super::ui::Ui;

const HELP: &str = "\
The file is the ext4 file system itself, with the holes of the disk: it can be mounted, inspected with \
`sisforge inspect`, and imported again. It is written completely or not at all.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// A guest, or another name that `disk ls` shows
    #[arg(value_name = "DISK")]
    disk: String,
    /// The file to write, which must not exist yet
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let unused = disk::unused(&ui.workspace(), &args.disk)?;
    unused.export(&args.to)?;
    ui.wrote(&args.to, &format!(": the disk of {}", unused.disk.name));
    Ok(ExitCode::SUCCESS)
}
