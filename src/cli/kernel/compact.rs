//! `kernel compact`: a ready vmlinux without what merely fills it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::build::compact::compact;
use crate::sys::fs as files;

use super::super::error::CliError;
use super::super::output::CompactedJson;
use super::super::render;
use super::super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// A vmlinux, stripped or not
    vmlinux: PathBuf,
    /// The file to write, which [kernel] image may then name
    #[arg(long)]
    to: PathBuf,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let old = files::read(&args.vmlinux)?;
    let new =
        compact(&old).map_err(|reason| CliError::invalid(format!("{}: {reason}", args.vmlinux.display())))?;
    files::require_dir_of(&args.to)?;
    files::write(&args.to, &new, 0o644)?;
    if ui.settings.json {
        render::json(&CompactedJson { from: old.len(), to: new.len() });
    }
    let mb = |bytes: &[u8]| bytes.len() as f64 / 1e6;
    ui.say(&format!("{}: {:.1} MB, of {:.1} MB", args.to.display(), mb(&new), mb(&old)));
    Ok(ExitCode::SUCCESS)
}
