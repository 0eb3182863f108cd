//! `cp`: files and directories into a guest, and out of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::base::ByteSize;
use crate::base::text::counted;
use crate::run::{copy, reach};

use super::error::CliError;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// A file or a directory: PATH here, or GUEST:PATH; a path in a guest that is not absolute begins at its user's home
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// Where it goes; below it, where it is a directory
    to: PathBuf,
    /// How much a guest may send
    #[arg(long, value_name = "SIZE", default_value = "16GiB")]
    max_size: ByteSize,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    match (in_guest(&args.from), in_guest(&args.to)) {
        (Some((guest, remote)), None) => {
            let done =
                copy::from_guest(&reach::ssh(&ui.workspace(), guest)?, remote, &args.to, args.max_size)?;
            for path in &done.left_out {
                ui.report.note(&format!("{path} was left out: it is no file and no directory"));
            }
            ui.say(&format!("{} in {}", render::bytes(done.bytes), counted(done.files, "file")));
        }
        (None, Some((guest, remote))) => {
            copy::to_guest(&args.from, &reach::ssh(&ui.workspace(), guest)?, remote)?;
        }
        (Some(_), Some(_)) => {
            return Err(CliError::invalid("files are copied into a guest or out of it, not between guests")
                .hint("copy them to this host first"));
        }
        (None, None) => {
            return Err(CliError::invalid("neither of them is in a guest")
                .hint("name a guest before a colon, as in `sisforge cp alice:notes.txt .`"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The guest and the path in it, of `GUEST:PATH`. As for scp, a colon behind a slash belongs to a path of this host.
fn in_guest(path: &Path) -> Option<(&str, &str)> {
    path.to_str()?.split_once(':').filter(|(guest, _)| !guest.contains('/'))
}
