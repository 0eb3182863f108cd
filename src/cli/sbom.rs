//! `sbom`: the bill of materials of an image.

use std::process::ExitCode;

use crate::image::sbom::Format;
use crate::run::sbom;

use super::error::CliError;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// An image file, or the name of an image in out/, or its build key
    image: String,
    /// How it is written
    #[arg(long, value_enum, default_value_t = FormatName::Spdx)]
    format: FormatName,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FormatName {
    /// SPDX 2.3 in JSON
    Spdx,
    /// CycloneDX 1.6 in JSON
    Cyclonedx,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let format = match args.format {
        FormatName::Spdx => Format::Spdx,
        FormatName::Cyclonedx => Format::CycloneDx,
    };
    let epoch = ui.settings.source_date_epoch.as_deref();
    let document = sbom::of_image(&ui.workspace(), &args.image, format, epoch)?;
    if ui.settings.json {
        render::json(&document);
    } else {
        render::text(&format!("{document:#}\n"));
    }
    Ok(ExitCode::SUCCESS)
}
