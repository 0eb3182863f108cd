//! `tree`: the complete jails of a fleet as files, for whoever starts VMMs by other means or wants to look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::apply::linux::Scope;
use crate::apply::tree::{self, Surroundings};
use crate::base::GuestName;
use crate::fleet::{Fleet, HostSpec};
use crate::host::layout::Layout;
use crate::host::observed::ObservedHost;
use crate::host::wanted::WantedHost;
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

fn write(args: &Args, fleet: &Fleet, only: &[GuestName], context: &Context) -> Result<ExitCode, CliError> {
    let store = std::fs::canonicalize(&args.out).map_err(FileError::when("open", &args.out))?;
    let layout = Layout::new(&HostSpec { store, jails: None, ..fleet.host.clone() }, &fleet.name);
    let mut host = context.host_at(layout, fleet.host.logs, Scope::FilesAlone)?;
    fs::create_private_dir(&host.layout.dir())?;
    let key = key(fleet, &host.layout)?;
    let mut wishes = context.wishes(fleet, Inputs::of(args.locked), &mut host, &ObservedHost::default())?;
    wishes.facts.ssh_key = Some(key);
    let desired = wishes.state(fleet)?;
    let around = Surroundings::look(fleet.vmm)?;
    let mut jails = BTreeMap::new();
    for (name, guest) in desired.guests.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        let manifest = tree::emit(&host, name, guest, &around)?;
        let root = host.layout.place().join(&manifest.root);
        let record = |file: &str, text: String| {
            fs::write_unsynced(&host.layout.guest(name).join(file), text.as_bytes(), 0o644)
        };
        record("command", format!("{}\n", tool::typed(&manifest.command)))?;
        record("manifest.json", render::pretty(&manifest))?;
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

/// The key that guests are told: that of the host, where whoever asks may see its public half, so that trees are what `up`
/// makes; else one of the tree's own.
fn key(fleet: &Fleet, layout: &Layout) -> Result<String, CliError> {
    if let Ok(of_host) = ssh::public_key(&Layout::new(&fleet.host, &fleet.name).key()) {
        return Ok(of_host);
    }
    ssh::keygen(&layout.key())?;
    Ok(ssh::public_key(&layout.key())?)
}

fn ruleset(desired: &WantedHost, dir: &Path) -> Result<(), CliError> {
    let text = desired.ruleset.as_ref().map(|ruleset| ruleset.text.as_str()).unwrap_or_default();
    Ok(fs::write(&dir.join("ruleset.nft"), text.as_bytes(), 0o644)?)
}
