//! `export`: what keeps the fleet on many hosts, for the engine that runs on them.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::export::NSENTER_IMAGE;

use super::error::CliError;
use super::render;
use super::systemd::{self, FleetArgs};
use super::ui::Ui;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Print a system job of Nomad: one `watch` on each client
    Nomad(Args),
    /// Print a DaemonSet of Kubernetes: one `watch` on each node
    Kubernetes(KubernetesArgs),
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    fleet: FleetArgs,
    /// Where sisforge is installed on the hosts
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/sisforge")]
    program: PathBuf,
}

#[derive(clap::Args)]
pub struct KubernetesArgs {
    #[command(flatten)]
    common: Args,
    /// Image of the pods, of which nsenter alone is used
    #[arg(long, value_name = "IMAGE", default_value = NSENTER_IMAGE)]
    image: String,
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    let text = match command {
        Command::Nomad(args) => unit(args, ui)?.nomad(),
        Command::Kubernetes(args) => unit(&args.common, ui)?.kubernetes(&args.image),
    };
    render::text(&text);
    Ok(ExitCode::SUCCESS)
}

/// The call on hosts that this one need not be.
fn unit(args: &Args, ui: &Ui) -> Result<crate::run::systemd::FleetUnit, CliError> {
    const CACHE: &str = "/var/cache/sisforge";
    if !args.program.is_absolute() {
        return Err(CliError::invalid(format!("--program {} is not absolute", args.program.display())));
    }
    let out = args.fleet.follows_branch().then(|| PathBuf::from(CACHE).join("out"));
    let unit = systemd::fleet_unit(&args.fleet, out, ui)?;
    Ok(crate::run::systemd::FleetUnit { program: args.program.clone(), cache: CACHE.into(), ..unit })
}
