//! `sbom`: the bill of materials of an image.

use std::process::ExitCode;

use crate::image::sbom::{Format, Sources, document};
use crate::lock::model::Lock;
use crate::sys::digest::sha256_of_file;

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
    let image = ui.workspace().open_image(&args.image)?;
    if image.system.packages.is_empty() {
        let path = image.volume.path().display();
        return Err(CliError::invalid(format!("{path} has no package database, /lib/apk/db/installed"))
            .hint(
                "a bill of materials needs an image that was made of packages, such as those in out/image/",
            ));
    }
    let lock = Lock::read(&ui.workspace().lock_path())?;
    let created = ui.settings.source_date_epoch.as_deref().map(epoch).transpose()?;
    let sources = Sources { sha256: sha256_of_file(image.volume.path())?.0, lock: lock.as_ref(), created };
    let format = match args.format {
        FormatName::Spdx => Format::Spdx,
        FormatName::Cyclonedx => Format::CycloneDx,
    };
    let document = document(&image, &sources, format);
    if ui.settings.json {
        render::json(&document);
    } else {
        render::text(&format!("{document:#}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Seconds that a bill can be dated at: up to the year 9999, as RFC 3339 has it.
fn epoch(text: &str) -> Result<u64, CliError> {
    const LAST: u64 = 253_402_300_799;
    text.parse().ok().filter(|seconds| *seconds <= LAST).ok_or_else(|| {
        CliError::invalid(format!("SOURCE_DATE_EPOCH is {text:?}, and must be whole seconds since 1970"))
            .hint("unset it to date the bill at the build of the newest package")
    })
}
