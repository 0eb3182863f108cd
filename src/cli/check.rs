use super::context::Context;
use super::error::CliError;
use std::process::ExitCode;
pub fn run(_: &Context) -> Result<ExitCode, CliError> {
    Err(CliError::failed("x"))
}
