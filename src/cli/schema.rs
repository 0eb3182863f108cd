//! `schema`: the JSON Schemas of fleet.toml and recipe.toml.

use std::process::ExitCode;

use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    /// Of which file
    #[arg(value_enum, value_name = "FILE", default_value_t = File::Fleet)]
    of: File,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum File {
    /// fleet.toml
    Fleet,
    /// recipes/NAME/recipe.toml
    Recipe,
}

pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let schema = match args.of {
        File::Fleet => crate::fleet::schema(),
        File::Recipe => crate::image::recipe::schema(),
    };
    let schema = serde_json::to_string_pretty(&schema)
        .map_err(|error| CliError::failed(format!("cannot write the schema: {error}")))?;
    render::text(&format!("{schema}\n"));
    Ok(ExitCode::SUCCESS)
}
