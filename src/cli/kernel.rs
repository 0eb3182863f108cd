//! `kernel`: the final configuration and where each line of it comes from; why an option is as it is; what differs; a smaller vmlinux.

use std::process::ExitCode;

use crate::build::Configuration;
use crate::build::artifacts::OutDir;
use crate::lock::model::Lock;
use crate::sys::report::{Report, Silent};

use super::context::Context;
use super::error::CliError;

mod compact;
mod config;
mod diff;
mod why;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Leave out of a ready vmlinux what merely fills it; kernels that are built are so already
    Compact(compact::Args),
    /// Print the final configuration, with the origin of each line
    ///
    /// Nothing is compiled; the sources are unpacked only where the last kernel was another one. It is complete: without
    /// what stands behind `#`, Kconfig's olddefconfig makes the same of it.
    Config,
    /// Show the options in which two kernels differ
    Diff(diff::Args),
    /// Say who asked for an option and for what reason, what it needs, and what turns it on
    Why(why::Args),
}

pub fn run(command: &Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Compact(args) => compact::run(args, context),
        Command::Config => config::run(context),
        Command::Diff(args) => diff::run(args, context),
        Command::Why(args) => why::run(args, context),
    }
}

impl Context {
    /// What is wished of the fleet's kernel, and what Kconfig makes of it.
    fn kernel_configuration(&self) -> Result<Configuration, CliError> {
        let project = self.project(self.fleet()?)?;
        let lock = Lock::read(&self.lock_path())?;
        let out = OutDir::open(&self.settings.out)?;
        let (cache, offline) = (self.cache()?, self.settings.offline);
        // The answer is the one JSON document.
        let report: &dyn Report = if self.settings.json { &Silent } else { &*self.report };
        Ok(Configuration::of(&project, lock.as_ref(), &out, &cache, offline, report)?)
    }
}
