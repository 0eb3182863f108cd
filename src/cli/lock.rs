//! `lock`: choices become `fleet.lock`.

use std::process::ExitCode;

use crate::lock::resolve::Update;
use crate::run::lock::{self, Updated};

use super::error::CliError;
use super::output::EventJson;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Choose new versions: of these packages and their dependencies, or of everything
    #[arg(long, value_name = "PACKAGE", num_args = 0..)]
    update: Option<Vec<String>>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let update = match &args.update {
        None => Update::None,
        Some(names) if names.is_empty() => Update::All,
        Some(names) => Update::Packages(names.iter().cloned().collect()),
    };
    let workspace = ui.workspace();
    let Updated { lock, changes } = lock::update(&workspace, &update)?;
    let path = workspace.lock_path();
    if ui.settings.json {
        render::json(&EventJson::Locked { changes, packages: lock.package.len() });
    } else if changes.is_empty() {
        ui.say(&format!("{} fits already", path.display()));
    } else if !ui.settings.quiet {
        changes.iter().for_each(|line| render::text(&format!("{line}\n")));
        ui.say(&format!("wrote {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}
