//! `snapshot restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::apply::linux::LinuxHost;
use crate::apply::snapshot;
use crate::base::{GuestName, SnapshotName};
use crate::cli::build::Inputs;
use crate::cli::context::{Context, named, observed};
use crate::cli::error::CliError;
use crate::cli::{ask, up};
use crate::fleet::Fleet;
use crate::host::snapshot::{DISK, Manifest, Obstacle, brought_back, differences, misplaced};
use crate::host::state::MachineDisk;
use crate::plan::{Plan, restore};
use crate::sys::digest::digest_like;
use crate::sys::ssh;

#[derive(clap::Args)]
pub struct Args {
    /// The snapshot to go on from
    name: String,
    /// Bring it back as this guest: its user, its jail, its limits, its network policy. Inside, it stays who it was
    #[arg(long = "as", value_name = "GUEST")]
    target: Option<String>,
    /// Do not ask before the snapshot's data disk takes the place of one that has changed since
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let mut host = context.host(&fleet)?;
    let name = super::parsed(&args.name)?;
    let _held = context.hold(&host.layout)?;
    let manifest = snapshot::ready_manifest(&host.layout, &name)?;
    let target = args.target.clone().unwrap_or_else(|| manifest.guest.to_string());
    let guest = named(&[target], &fleet.guests.keys().collect::<Vec<_>>())?.remove(0);
    ssh::keygen(&host.layout.key())?;

    let plan = plan(&fleet, &mut host, &guest, &name, &manifest, context)?;
    let damaged = snapshot::check_files(&host.layout, &name, &manifest)?;
    if !damaged.is_empty() {
        return Err(refused(&name, &guest, &damaged));
    }
    let replaced = replaced(&host, &guest, &name, &manifest)?;
    if let (Some(aside), false) = (&replaced, args.yes) {
        ask::confirm(&format!(
            "keep the data disk of {guest}, which has changed since, as {}, and put that of the snapshot in its place",
            aside.display()
        ))?;
    }
    let code = up::carry_out(&plan, &host, context)?;
    context.say(&format!("{guest} goes on from snapshot {name}, which is consumed"));
    if let Some(aside) = replaced {
        context.say(&format!("the data disk that {guest} had is kept: {}", aside.display()));
    }
    Ok(code)
}

/// What brings the guest back; nothing where anything stands against it.
fn plan(
    fleet: &Fleet,
    host: &mut LinuxHost,
    guest: &GuestName,
    name: &SnapshotName,
    manifest: &Manifest,
    context: &Context,
) -> Result<Plan, CliError> {
    let observed = observed(host)?;
    let mut wishes = context.wishes(fleet, Inputs::of(false), host, &observed)?;
    let here = snapshot::here(manifest.machine.vmm)?;
    let mut obstacles = differences(manifest, &here);
    let fresh = wishes.state(fleet)?;
    if let Some(wanted) = fresh.guests.get(guest) {
        let machine = brought_back(manifest, name, wanted.machine());
        obstacles.extend(misplaced(manifest, &machine, fleet.host.subnet));
        wishes.facts.restored.insert(guest.clone(), machine);
    }
    match restore(&observed, &wishes.state(fleet)?, guest, name, manifest) {
        Ok(plan) if obstacles.is_empty() => Ok(plan),
        outcome => {
            obstacles.extend(outcome.err().into_iter().flatten());
            Err(refused(name, guest, &obstacles))
        }
    }
}

fn refused(name: &SnapshotName, guest: &GuestName, obstacles: &[Obstacle]) -> CliError {
    let runs = obstacles.iter().find_map(|obstacle| match obstacle {
        Obstacle::Running(guest) => Some(guest),
        _ => None,
    });
    let error = CliError::because(format!("snapshot {name} cannot be restored as {guest}"), obstacles);
    match runs {
        Some(running) => error.hint(format!("take it down first: `sisforge down {running}`")),
        None => error,
    }
}

/// Where the guest's data disk will be kept, if the snapshot's takes its place and it is another.
fn replaced(
    host: &LinuxHost,
    guest: &GuestName,
    name: &SnapshotName,
    manifest: &Manifest,
) -> Result<Option<PathBuf>, CliError> {
    let disk = host.layout.disk(guest);
    let Some(record) = manifest.files.get(DISK).filter(|_| manifest.machine.disk == MachineDisk::Kept) else {
        return Ok(None);
    };
    if !disk.exists() || digest_like(&record.digest, &disk)?.0 == record.digest {
        return Ok(None);
    }
    let mut aside = (1..).map(|number| host.layout.disk_before(guest, name, number));
    Ok(aside.find(|path| !path.exists()))
}
