//! `snapshot export`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::output::ExportedJson;
use crate::cli::render;
use crate::cli::ui::Ui;
use crate::run::transfer;
use crate::sys::age::AgeRecipient;

const HELP: &str = "\
The file is encrypted by age for the key of one host, which `sisforge snapshot recipient` prints there: that host alone can read it, \
and its ledger alone counts that it is restored once. A snapshot that goes to another host is no longer this one's; its data disk stays \
here until `snapshot rm`. One that is exported to this host's own recipient is a backup: it stays, and is still restored once.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The snapshot to export
    name: String,
    /// The host that is to restore it, age1...
    #[arg(long, value_name = "RECIPIENT")]
    to: String,
    /// The file to write, which must not exist yet [default: NAME.snapshot.age]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let name = super::parsed(&args.name)?;
    let recipient: AgeRecipient =
        args.to.parse().map_err(|error| CliError::invalid(format!("the recipient {error}")))?;
    let exported = transfer::export(&ui.workspace(), &name, &recipient, args.out.as_deref())?;
    let (path, size) = (exported.path.display(), render::bytes(exported.size));
    ui.say(&format!("wrote {path}, {size}: snapshot {name}, for {recipient} alone"));
    if exported.is_handed_over {
        ui.say(&format!("snapshot {name} can no longer be restored here"));
    }
    if ui.settings.json {
        render::json(&ExportedJson::new(&name, &recipient, &exported));
    }
    Ok(ExitCode::SUCCESS)
}
