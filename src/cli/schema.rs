//! `schema`: the JSON Schema of fleet.toml.

use std::process::ExitCode;

use super::error::CliError;
use super::render;

pub fn run() -> Result<ExitCode, CliError> {
    let schema = serde_json::to_string_pretty(&crate::fleet::schema())
        .map_err(|error| CliError::failed(format!("cannot write the schema: {error}")))?;
    render::text(&format!("{schema}\n"));
    Ok(ExitCode::SUCCESS)
}
