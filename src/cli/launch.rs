//! `launch`: what `up` starts in place of a VMM, so that the VMM is in its cgroup and in its fleet's network from its
//! first instruction on.

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
    /// The network namespace to enter
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
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
    let Args { cgroups, netns, file_size, starter, argv } = args;
    Err(launch::exec_in_cgroup(cgroups, netns.as_deref(), *file_size, *starter, argv).into())
}
