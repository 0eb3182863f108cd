use super::context::Context;
use super::error::CliError;
use crate::fleet::Fleet;
use crate::host::desired::Artifacts;
use crate::lock::model::Lock;
use std::process::ExitCode;
#[derive(clap::Args)]
pub struct Args {}
pub fn run(_: &Args, _: &Context) -> Result<ExitCode, CliError> {
    Err(CliError::failed("x"))
}
pub fn locked_artifacts(_: &Context, _: &Fleet, _: bool) -> Result<(Lock, Artifacts), CliError> {
    Err(CliError::failed("x"))
}
