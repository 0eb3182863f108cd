//! `snapshot rm`.

use std::process::ExitCode;

use crate::apply::snapshot;
use crate::cli::ask;
use crate::cli::context::Context;
use crate::cli::error::CliError;

#[derive(clap::Args)]
pub struct Args {
    /// The snapshot to remove
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let host = context.host(&fleet)?;
    let name = super::parsed(&args.name)?;
    let _held = context.hold(&host.layout)?;
    let found = snapshot::find(&host.layout, &name)?;
    if !args.yes {
        let disk = if found.has_disk { " and the data disk in it" } else { "" };
        ask::confirm(&format!("remove snapshot {name}{disk} for good"))?;
    }
    snapshot::remove(&host.layout, &name)?;
    context.say(&format!("snapshot {name} is removed"));
    Ok(ExitCode::SUCCESS)
}
