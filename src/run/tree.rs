//! Tree: the complete jails of a fleet as files, for whoever starts VMMs by other means or wants to look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::apply::linux::{LinuxHost, Scope};
use crate::apply::tree::{self, JailerInstallation};
use crate::base::GuestName;
use crate::fleet::{Fleet, HostSpec};
use crate::host::layout::Layout;
use crate::host::manifest::JailManifest;
use crate::host::observed::ObservedHost;
use crate::sys::fs::{self, FileError};
use crate::sys::{ssh, tool};

use super::deployment::{Basis, BuiltFleet};
use super::guests::named;
use super::{Inputs, RunError, Workspace, host};

/// Writes jails into a new directory, all or that of one guest; gives the root of each. Where one cannot be made, nothing
/// is left.
pub fn write(
    workspace: &Workspace<'_>,
    guest: Option<&str>,
    to: &Path,
    inputs: Inputs,
) -> Result<BTreeMap<GuestName, PathBuf>, RunError> {
    let fleet = workspace.fleet()?;
    let names: Vec<String> = guest.map(str::to_owned).into_iter().collect();
    let only = named(&names, fleet.guests.keys())?;
    if to.exists() {
        return Err(RunError::TreeExists(to.to_owned()));
    }
    fs::create_private_dir(to)?;
    let written = write_all(workspace, &fleet, &only, to, inputs);
    if written.is_err() {
        fs::remove(to)?;
    }
    written
}

fn write_all(
    workspace: &Workspace<'_>,
    fleet: &Fleet,
    only: &[GuestName],
    to: &Path,
    inputs: Inputs,
) -> Result<BTreeMap<GuestName, PathBuf>, RunError> {
    let store = std::fs::canonicalize(to).map_err(FileError::when("open", to))?;
    let layout = Layout::new(&HostSpec { store, jails: None, ..fleet.host.clone() }, &fleet.name);
    let mut host = host::at(layout, fleet.host.logs, Scope::FilesAlone)?;
    fs::create_private_dir(&host.layout.dir())?;
    let key = key(fleet, &host.layout)?;
    let built = BuiltFleet::find(workspace, fleet, inputs)?;
    let mut basis = Basis::find(workspace, fleet, built, &mut host, &ObservedHost::default())?;
    basis.facts.ssh_key = Some(key);
    let wanted = basis.wanted(fleet)?;
    let around = JailerInstallation::look(fleet.vmm)?;
    let mut jails = BTreeMap::new();
    for (name, guest) in wanted.guests.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        let manifest = tree::emit(&host, name, guest, &around)?;
        describe(&host, name, &manifest)?;
        jails.insert(name.clone(), host.layout.jails_root().join(&manifest.root));
    }
    let ruleset = wanted.ruleset.as_ref().map(|ruleset| ruleset.text.as_str()).unwrap_or_default();
    fs::write(&host.layout.dir().join("ruleset.nft"), ruleset.as_bytes(), 0o644)?;
    let rules =
        wanted.network.as_ref().map(|network| network.rules.ruleset.text.as_str()).unwrap_or_default();
    fs::write(&host.layout.dir().join("host-rules.nft"), rules.as_bytes(), 0o644)?;
    Ok(jails)
}

/// Writes down what a jail's files cannot tell: the command that starts its VMM, owners, devices, limits.
fn describe(host: &LinuxHost, guest: &GuestName, manifest: &JailManifest) -> Result<(), RunError> {
    let record = |file: &str, text: String| {
        fs::write_unsynced(&host.layout.guest(guest).join(file), text.as_bytes(), 0o644)
    };
    record("command", format!("{}\n", tool::typed(&manifest.command)))?;
    let text = serde_json::to_string_pretty(manifest).map_err(RunError::Manifest)?;
    Ok(record("manifest.json", text + "\n")?)
}

/// The key that guests are told: that of the host, where whoever asks may see its public half, so that trees are what `up`
/// makes; else one of the tree's own.
fn key(fleet: &Fleet, layout: &Layout) -> Result<String, RunError> {
    if let Ok(of_host) = ssh::public_key(&fleet.head().layout().key()) {
        return Ok(of_host);
    }
    ssh::keygen(&layout.key(), &layout.new_key())?;
    Ok(ssh::public_key(&layout.key())?)
}
