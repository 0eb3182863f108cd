//! `tree`: the complete jails of a fleet as files, for whoever starts VMMs by other means or wants to look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::apply::linux::{LinuxHost, Scope};
use crate::apply::{Host, jail};
use crate::build::digest::FileDigest;
use crate::fleet::{Fleet, HostSpec, VmmKind};
use crate::host::layout::Layout;
use crate::host::state::{HostState, Machine, MachineDisk};
use crate::host::{firecracker, qemu};
use crate::sys::fs::{self, FileError};
use crate::sys::{ssh, tool};

use super::build::Inputs;
use super::context::{Context, named};
use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    /// Only this guest
    guest: Option<String>,
    /// Where the trees go: a store of their own, which must not be there yet
    #[arg(long, value_name = "DIR", default_value = "tree")]
    out: PathBuf,
    /// Fail where fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let names: Vec<String> = args.guest.iter().cloned().collect();
    let only = named(&names, &fleet.guests.keys().collect::<Vec<_>>())?;
    if args.out.exists() {
        return Err(CliError::invalid(format!("{} is there already", args.out.display()))
            .hint("remove it, or name another directory with --out"));
    }
    fs::create_private_dir(&args.out)?;
    let written = write(args, &fleet, &only, context);
    if written.is_err() {
        fs::remove(&args.out)?;
    }
    written
}

fn write(
    args: &Args,
    fleet: &Fleet,
    only: &[crate::fleet::GuestName],
    context: &Context,
) -> Result<ExitCode, CliError> {
    let store = std::fs::canonicalize(&args.out).map_err(FileError::when("open", &args.out))?;
    let layout = Layout::new(&HostSpec { store, ..fleet.host.clone() }, &fleet.name);
    let mut host = context.host_at(layout, fleet.host.logs, Scope::FilesAlone)?;
    fs::create_private_dir(&host.layout.dir())?;
    ssh::keygen(&host.layout.key())?;
    let desired = context.desired(fleet, Inputs::of(args.locked), &mut host, &HostState::default())?;
    let mut jails = BTreeMap::new();
    for (name, guest) in &desired.guests {
        let Some(machine) = guest.machine.as_ref().filter(|_| only.is_empty() || only.contains(name)) else {
            continue;
        };
        for digest in stored(machine).chain(guest.disk.and_then(|disk| disk.base)) {
            host.store_file(&digest)?;
        }
        if let Some((base, disk)) = guest.disk.and_then(|disk| Some((disk.base?, disk))) {
            host.create_disk(name, &base, disk.uid)?;
        }
        let place = jail::create(&host.layout, host.scope, name, machine)?;
        let command = command_of(name, place.attempt, machine, &host);
        fs::write(&host.layout.guest(name).join("command"), command.as_bytes(), 0o644)?;
        let root = place.root(&host.layout, name);
        if !context.settings.json {
            render::text(&format!("{}\n", root.display()));
        }
        jails.insert(name.to_string(), root);
    }
    ruleset(&desired, &host.layout.dir())?;
    if context.settings.json {
        render::json(&serde_json::json!({ "jails": jails }));
    }
    Ok(ExitCode::SUCCESS)
}

fn stored(machine: &Machine) -> impl Iterator<Item = FileDigest> {
    let base = match machine.disk {
        MachineDisk::Kept => None,
        MachineDisk::Ephemeral { base, .. } => Some(base),
    };
    [machine.kernel, machine.image].into_iter().chain(base).chain(machine.images)
}

/// What starts the VMM, as one would type it in the jail's root.
fn command_of(name: &crate::fleet::GuestName, attempt: u32, machine: &Machine, host: &LinuxHost) -> String {
    let call = match machine.vmm {
        VmmKind::Qemu => qemu::command(name, machine),
        VmmKind::Firecracker => {
            let executable = tool::find("firecracker").unwrap_or_else(|| "/usr/local/bin/firecracker".into());
            firecracker::jailer(name, attempt, machine, &host.layout, &executable)
        }
    };
    format!("{}\n", call.command_line())
}

fn ruleset(desired: &HostState, dir: &Path) -> Result<(), CliError> {
    let text = desired.ruleset.as_ref().map(|ruleset| ruleset.text.as_str()).unwrap_or_default();
    Ok(fs::write(&dir.join("ruleset.nft"), text.as_bytes(), 0o644)?)
}
