use super::context::Context;
use super::error::CliError;
use std::process::ExitCode;
#[derive(clap::Args)]
pub struct Args {}
pub fn run(_: &Args, _: &Context) -> Result<ExitCode, CliError> {
    Err(CliError::failed("x"))
}
