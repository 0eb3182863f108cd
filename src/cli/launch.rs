//! `launch`: what `up` starts in place of a VMM, so that the VMM is in its cgroup from its first instruction on.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::sys::launch;

use super::error::CliError;

#[derive(clap::Args)]
pub struct Args {
    /// A cgroup.procs file to join
    #[arg(long = "cgroup", value_name = "FILE")]
    cgroups: Vec<PathBuf>,
    /// Bytes that no file may grow beyond
    #[arg(long, value_name = "BYTES")]
    file_size: Option<u64>,
    /// The process that starts this, and without which nothing is to be started
    #[arg(long, value_name = "PID")]
    starter: Option<u32>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    Err(launch::exec_in_cgroup(&args.cgroups, args.file_size, args.starter, &args.argv).into())
}
