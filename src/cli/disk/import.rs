//! `disk import`: a file becomes a guest's disk, or one that sessions bring.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::disk;

use super::super::ask::confirm;
use super::super::error::CliError;
use super::super::ui::Ui;

const HELP: &str = "\
The file is a raw image of an ext4 file system, such as `disk export` writes; it is copied. One that is smaller than \
fleet.toml says grows when the guest next starts; one that is larger is refused.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// A guest, or `sessions/NAME`: what `session start --disk NAME` brings
    #[arg(value_name = "DISK")]
    disk: String,
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Replace an existing disk, after asking
    #[arg(long)]
    replace: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "replace")]
    yes: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let import = disk::import(&ui.workspace(), &args.disk, &args.from)?;
    let (name, path) = (import.name.clone(), import.path.clone());
    if args.replace {
        if import.replaces() && !args.yes {
            confirm(&format!("replace the data disk of {name} and lose what is on it"))?;
        }
        import.replace()?;
    } else {
        import.create()?;
    }
    ui.wrote(&path, &format!(": the disk of {name}"));
    Ok(ExitCode::SUCCESS)
}
