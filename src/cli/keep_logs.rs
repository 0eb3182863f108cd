//! `keep-logs`: what `up` starts beside a VMM, so that its logs have bounds. There is one for each guest, so it is to be
//! small: the description of all other commands would take more memory than everything that it does.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::sys::log::LogBounds;
use crate::sys::{launch, log};

use crate::base::diagnostic::one_line;

use super::render;

/// Its name as the first argument of the program.
pub const NAME: &str = "keep-logs";

/// Copy what a VMM writes into logs of bounded size
#[derive(clap::Parser)]
#[command(name = NAME)]
struct Args {
    /// Held while the logs are kept; they stand beside it
    #[arg(long, value_name = "FILE")]
    lock: PathBuf,
    /// A file of a cgroup to write 0 to, to join it
    #[arg(long = "cgroup", value_name = "FILE")]
    cgroups: Vec<PathBuf>,
    /// Bytes in one file
    #[arg(long, value_name = "BYTES")]
    size: u64,
    /// Older files
    #[arg(long, value_name = "N")]
    keep: u32,
    /// Mark the beginning of a start
    #[arg(long)]
    begin: bool,
    /// Names of logs, each with its pipe; the first one's end is the end
    #[arg(required = true, value_names = ["LOG", "PIPE"], num_args = 2..)]
    streams: Vec<PathBuf>,
}

/// Keeps logs, as the words of the command line say, from [`NAME`] on.
pub fn main(words: &[OsString]) -> ExitCode {
    match run(&Args::parse_from(words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `up` reads it, and says it in its own words.
            render::tell(&one_line(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let limits = LogBounds { size: args.size, keep: args.keep };
    let streams: Vec<(&Path, &Path)> =
        args.streams.chunks_exact(2).map(|pair| (pair[0].as_path(), pair[1].as_path())).collect();
    launch::join_cgroups(&args.cgroups)?;
    log::keep(&log::Work { lock: &args.lock, streams: &streams, limits, begin: args.begin })?;
    Ok(())
}
