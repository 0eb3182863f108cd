//! `keys`: public keys of distributions, for `keys` of a repository.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::apk::AlpineKey;
use crate::run::keys;

use super::error::CliError;
use super::output::KeysJson;
use super::render;
use super::ui::Ui;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Write the public keys that Alpine signs its repositories with
    ///
    /// Compare their digests with those of a machine you trust: `sha256sum /etc/apk/keys/*` on Alpine. Commit them.
    Alpine(AlpineArgs),
}

#[derive(clap::Args)]
pub struct AlpineArgs {
    /// Directory to write them into [default: keys/alpine, beside the fleet file]
    dir: Option<PathBuf>,
    /// Architecture whose repositories they sign
    #[arg(long, default_value = "x86_64", value_parser = AlpineKey::ARCHITECTURES)]
    arch: String,
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Alpine(args) => alpine(args, ui),
    }
}

fn alpine(args: &AlpineArgs, ui: &Ui) -> Result<ExitCode, CliError> {
    let beside = ui.settings.run.file.parent().map(PathBuf::from).unwrap_or_default();
    let dir = args.dir.clone().unwrap_or_else(|| beside.join("keys/alpine"));
    let keys = keys::write_alpine(&dir, &args.arch)?;
    for (path, sha256) in &keys {
        ui.say(&format!("wrote {}  sha256 {sha256}", path.display()));
    }
    if ui.settings.json {
        render::json(&KeysJson::new(&keys));
    }
    Ok(ExitCode::SUCCESS)
}
