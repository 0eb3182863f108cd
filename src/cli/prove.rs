//! `prove`: what `policy explain --prove` starts in a network of its own; the request comes on stdin.

use std::process::ExitCode;

use crate::run::proof::{self, ProofRequest};

use super::error::CliError;
use super::render;

pub fn run() -> Result<ExitCode, CliError> {
    let request: ProofRequest = serde_json::from_reader(std::io::stdin())
        .map_err(|error| CliError::invalid(format!("this is no request: {error}")))?;
    render::json(&proof::answer(&request)?);
    Ok(ExitCode::SUCCESS)
}
