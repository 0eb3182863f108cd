//! `quarantine` and `release`: a guest is cut off from every network, and brought back.

use std::process::ExitCode;

use crate::run::quarantine;

use super::error::CliError;
use super::output::QuarantineJson;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// The guest
    guest: String,
}

pub fn cut_off(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let guest = quarantine::quarantine(&ui.workspace(), &args.guest)?;
    if ui.settings.json {
        render::json(&QuarantineJson { guest: guest.to_string(), quarantined: true });
    } else {
        ui.say(&format!("{guest} is cut off until `sisforge release {guest}`; its host still reaches it"));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn release(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let released = quarantine::release(&ui.workspace(), &args.guest)?;
    let guest = &released.guest;
    if ui.settings.json {
        render::json(&QuarantineJson { guest: guest.to_string(), quarantined: false });
    } else if released.was_cut_off {
        ui.say(&format!("{guest} reaches again what its policy allows"));
    } else {
        ui.say(&format!("{guest} was not quarantined"));
    }
    Ok(ExitCode::SUCCESS)
}
