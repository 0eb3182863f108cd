//! `fetch`: everything that a build takes from the network, into the cache.

use std::process::ExitCode;

use super::build::{Inputs, with_builder};
use super::context::Context;
use super::error::CliError;
use super::render;

const HELP: &str = "\
Packages and the kernel source, several at a time. Afterwards `sisforge build --offline` needs no network. What is \
in the cache already, or in the vendor directory, is not downloaded again; what broke off goes on where it did.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Fail where fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let inputs =
        with_builder(context, context.fleet()?, Inputs::of(args.locked), |builder| Ok(builder.fetch()?))?;
    let bytes: u64 = inputs.iter().map(|input| input.size).sum();
    if context.settings.json {
        render::json(&serde_json::json!({ "event": "fetched", "bytes": bytes, "files": inputs }));
    }
    context.say(&format!("{} files, {} are here", inputs.len(), mebibytes(bytes)));
    Ok(ExitCode::SUCCESS)
}

/// A size for people.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
