//! `lock`: choices become `fleet.lock`.

use std::process::ExitCode;

use crate::base::text::counted;
use crate::lock::request::Update;
use crate::run::lock::{self, Updated};
use crate::run::scripts;

use super::ask::confirm;
use super::error::CliError;
use super::output::EventJson;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Choose new versions: of these packages and their dependencies, or of everything
    #[arg(long, value_name = "PACKAGE", num_args = 0..)]
    update: Option<Vec<String>>,
    /// Show the package scripts that no recipe covers, and accept them in fleet.toml
    #[arg(long)]
    accept_scripts: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "accept_scripts")]
    yes: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let update = match &args.update {
        None => Update::None,
        Some(names) if names.is_empty() => Update::All,
        Some(names) => Update::Packages(names.iter().cloned().collect()),
    };
    let workspace = ui.workspace();
    if args.accept_scripts
        && let Some(acceptance) = scripts::prepare(&workspace, &update)?
    {
        acceptance.scripts.iter().for_each(|script| ui.report.info(script));
        let path = acceptance.path().display();
        if !args.yes {
            confirm(&format!(
                "let the images do without {}, in {path}",
                counted(acceptance.scripts.len(), "script")
            ))?;
        }
        acceptance.carry_out()?;
        ui.report.note(&format!("{path} accepts {}", counted(acceptance.scripts.len(), "script")));
    }
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
