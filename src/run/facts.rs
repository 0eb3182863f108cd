//! What only this machine can say: the interface that faces the network, the files that a fleet names, the VMM that is installed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::base::{FileDigest, InterfaceName, Sha256};
use crate::fleet::{Fleet, NetworkPolicy};
use crate::host::desired::HostFacts;
use crate::host::layout::Layout;
use crate::host::observed::ObservedHost;
use crate::host::{address_list, machine_file, versions, vmm};
use crate::sys::firecracker::{self, Version};
use crate::sys::report::Report;
use crate::sys::{fs, ip, ssh};

use super::RunError;

/// Everything that decides what a fleet wants, beside its lock and its artifacts.
pub(super) fn facts(
    fleet: &Fleet,
    layout: &Layout,
    observed: &ObservedHost,
    report: &dyn Report,
) -> Result<HostFacts, RunError> {
    Ok(HostFacts {
        uplink: uplink(fleet)?,
        ssh_key: layout.key().exists().then(|| ssh::public_key(&layout.key())).transpose()?,
        lists: lists(fleet)?,
        files: machine_files(fleet)?,
        firecracker: firecracker(fleet, report)?,
        restored: HostFacts::restored(observed),
    })
}

/// The interface that faces the network: the declared one, or that of the default route.
fn uplink(fleet: &Fleet) -> Result<InterfaceName, RunError> {
    match &fleet.host.uplink {
        Some(name) if ip::link_exists(name.as_str())? => Ok(name.clone()),
        Some(name) => Err(RunError::NoUplink(name.clone())),
        None => ip::default_uplink()?.and_then(|name| name.parse().ok()).ok_or(RunError::NoDefaultRoute),
    }
}

/// Every list of addresses that a policy names, read.
pub(super) fn lists(fleet: &Fleet) -> Result<BTreeMap<PathBuf, Vec<IpNet>>, RunError> {
    lists_of(fleet.networks.values())
}

/// The same of some policies alone.
pub(super) fn lists_of<'a>(
    policies: impl IntoIterator<Item = &'a NetworkPolicy>,
) -> Result<BTreeMap<PathBuf, Vec<IpNet>>, RunError> {
    let rules = policies.into_iter().flat_map(|policy| policy.allow.iter().chain(&policy.deny));
    let read = |path: &PathBuf| {
        let nets = address_list::parse(&fs::read_text(path)?);
        let nets = nets.map_err(|source| RunError::AddressList { path: path.clone(), source })?;
        Ok((path.clone(), nets))
    };
    rules.filter_map(|rule| rule.list.as_ref()).map(read).collect()
}

/// Digests of all files that machines of the fleet name, each of which is what it is for.
pub(super) fn machine_files(fleet: &Fleet) -> Result<BTreeMap<PathBuf, FileDigest>, RunError> {
    let mut digests = BTreeMap::new();
    let mut wrong = Vec::new();
    for (file, path) in fleet.guests.values().flat_map(|guest| guest.machine.files()) {
        if digests.contains_key(path) {
            continue;
        }
        let content = fs::read(path)?;
        wrong
            .extend(machine_file::check(file, &content).err().map(|why| format!("{} {why}", path.display())));
        digests.insert(path.clone(), Sha256::of(&content).into());
    }
    if wrong.is_empty() { Ok(digests) } else { Err(RunError::MachineFiles(wrong)) }
}

/// The version of Firecracker that the fleet runs on; `None` where it runs on another VMM, or none is installed.
fn firecracker(fleet: &Fleet, report: &dyn Report) -> Result<Option<Version>, RunError> {
    if vmm::of(fleet.vmm).jailed_program().is_none() {
        return Ok(None);
    }
    let Some((firecracker, jailer)) = firecracker::installed()? else { return Ok(None) };
    versions::check(firecracker, jailer)?;
    if let Some(note) = versions::note(firecracker) {
        report.note(&format!("note: {note}"));
    }
    Ok(Some(firecracker))
}
