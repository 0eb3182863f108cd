//! `up`: the host becomes what fleet.toml wants.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::{ArtifactSettings, Workspace, up};

use super::error::CliError;
use super::outcome;
use super::rollout::RolloutArgs;
use super::settings::inputs;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests; or a file that `plan --out` wrote, with a dot or a slash in its name: that plan, or nothing
    #[arg(value_name = "GUEST|FILE")]
    guests: Vec<String>,
    #[command(flatten)]
    up: UpArgs,
}

/// What `up` and `restart` are told alike.
#[derive(clap::Args)]
pub struct UpArgs {
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
    /// Build nothing: take what is missing from the registry of [fleet] artifacts, or fail; fleet.lock must fit
    #[arg(long)]
    no_build: bool,
    /// A file of SSH keys (ssh-keygen(1), ALLOWED SIGNERS): start nothing whose digests none of them signed (`sisforge sign`)
    /// [default: /etc/sisforge/signers, where it is there]
    #[arg(long, value_name = "ALLOWED_SIGNERS")]
    verify: Option<PathBuf>,
    #[command(flatten)]
    rollout: RolloutArgs,
}

impl UpArgs {
    /// What the library works on, with artifacts that are had as was told.
    pub fn workspace<'a>(&self, ui: &'a Ui) -> Workspace<'a> {
        let (no_build, signers) = (self.no_build, self.verify.clone());
        ui.workspace_for(ArtifactSettings { place: None, no_build, signers })
    }

    /// With the guests that were named.
    pub fn request(&self, guests: &[String]) -> Result<up::UpRequest, CliError> {
        Ok(up::UpRequest {
            guests: guests.to_vec(),
            saved: None,
            inputs: inputs(self.locked),
            ready_timeout: self.rollout.ready_timeout(),
            strategy: self.rollout.strategy()?,
        })
    }
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = args.up.workspace(ui);
    let (saved, guests) = match &args.guests[..] {
        [file] if is_file(file) => (Some(PathBuf::from(file)), &[][..]),
        guests => (None, guests),
    };
    let up = up::prepare(&workspace, &up::UpRequest { saved, ..args.up.request(guests)? })?;
    outcome::announce(&up.plan, ui);
    outcome::show(&up.carry_out()?, ui)
}

/// Whether an argument names a file: no guest has a dot or a slash in its name.
pub fn is_file(argument: &str) -> bool {
    argument.contains(['.', '/'])
}
