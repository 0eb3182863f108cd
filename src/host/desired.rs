//! What a fleet wants of its host.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::build::artifacts::Artifact;
pub use crate::build::artifacts::Artifacts;
use crate::build::digest::FileDigest;
use crate::fleet::{Backing, Fleet, GuestName, GuestSpec, InterfaceName};
use crate::lock::model::{Lock, LockedGuest};

use super::firewall::{self, Endpoint, FirewallInput};
use super::limits::limits;
use super::state::{DiskState, GuestState, HostState, Machine, MachineDisk, StoredKind, TapSpec};
use super::vmm::{self, BootInfo, COMMAND_LINE_MAX};

impl Artifacts {
    /// Every artifact once, by digest: where its file is and what it is for.
    pub fn by_digest(&self) -> BTreeMap<FileDigest, (&Artifact, StoredKind)> {
        let kernel = std::iter::once((&self.kernel, StoredKind::Kernel));
        let images = self.images.values().map(|artifact| (artifact, StoredKind::Image));
        let disks = self.disks.values().map(|artifact| (artifact, StoredKind::Disk));
        kernel
            .chain(images)
            .chain(disks)
            .map(|(artifact, kind)| (artifact.digest, (artifact, kind)))
            .collect()
    }
}

/// What only the host can say.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The interface that faces the network.
    pub uplink: InterfaceName,
    /// Base64 part of the host's public ssh key; none before the first `up`.
    pub ssh_key: Option<String>,
    /// Addresses on the block and allow lists that policies name.
    pub lists: BTreeMap<PathBuf, Vec<IpNet>>,
}

/// A fleet, its lock and its artifacts that do not belong together, or a guest that no VMM could start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesiredError {
    #[error("guest {0} has no numbers in the lock")]
    NotLocked(GuestName),
    #[error("no artifact was built for guest {0}")]
    NotBuilt(GuestName),
    #[error(
        "the kernel command line of guest {guest} has {length} bytes, {COMMAND_LINE_MAX} fit: give it fewer name servers"
    )]
    CommandLineTooLong { guest: GuestName, length: usize },
}

/// The state that `fleet` wants of its host.
///
/// # Errors
/// Where lock or artifacts lack a guest, or a guest cannot be started as declared.
pub fn desired(
    fleet: &Fleet,
    lock: &Lock,
    artifacts: &Artifacts,
    facts: &HostFacts,
) -> Result<HostState, DesiredError> {
    let mut guests = BTreeMap::new();
    let mut endpoints = Vec::new();
    for (name, spec) in &fleet.guests {
        let numbers = lock.guest.get(name).ok_or_else(|| DesiredError::NotLocked(name.clone()))?;
        guests.insert(name.clone(), guest(fleet, name, spec, numbers, artifacts, facts)?);
        endpoints.push(Endpoint {
            name: name.clone(),
            tap: numbers.tap.clone(),
            mac: numbers.mac.clone(),
            ip: numbers.ip,
            policy: spec.network.clone(),
        });
    }
    let ruleset = firewall::render(&FirewallInput {
        fleet: &fleet.name,
        uplink: &facts.uplink,
        subnet: fleet.host.subnet,
        endpoints,
        policies: &fleet.networks,
        lists: &facts.lists,
    });
    let stored = artifacts.by_digest().into_iter().map(|(digest, (_, kind))| (digest, kind)).collect();
    Ok(HostState { forwarding: true, ruleset: Some(ruleset), stored, guests })
}

/// The host's address in a guest's /30, one below the guest's.
fn host_side(numbers: &LockedGuest) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(numbers.ip).saturating_sub(1))
}

fn guest(
    fleet: &Fleet,
    name: &GuestName,
    spec: &GuestSpec,
    numbers: &LockedGuest,
    artifacts: &Artifacts,
    facts: &HostFacts,
) -> Result<GuestState, DesiredError> {
    let missing = || DesiredError::NotBuilt(name.clone());
    let image = artifacts.images.get(&spec.image).ok_or_else(missing)?;
    let disk = artifacts.disks.get(name).ok_or_else(missing)?;
    let dns = fleet.networks.get(&spec.network).map_or(&[][..], |policy| &policy.dns);
    let boot = BootInfo {
        guest: name,
        ip: numbers.ip,
        host: host_side(numbers),
        dns,
        ssh_key: facts.ssh_key.as_deref(),
    };
    let command_line = vmm::command_line(fleet.vmm, &boot);
    if command_line.len() > COMMAND_LINE_MAX {
        return Err(DesiredError::CommandLineTooLong { guest: name.clone(), length: command_line.len() });
    }
    let ephemeral = spec.pool.is_some() || spec.disk.backing == Backing::Tmpfs;
    let machine_disk = if ephemeral {
        let in_memory = spec.disk.backing == Backing::Tmpfs;
        MachineDisk::Ephemeral { base: disk.digest, size: disk.size, in_memory }
    } else {
        MachineDisk::Kept
    };
    let machine = Machine {
        vmm: fleet.vmm,
        uid: numbers.uid,
        tap: numbers.tap.clone(),
        mac: numbers.mac.clone(),
        vcpus: spec.vcpus,
        memory_mib: spec.memory.mib(),
        kernel: artifacts.kernel.digest,
        image: image.digest,
        disk: machine_disk,
        command_line,
    };
    Ok(GuestState {
        disk: (!ephemeral).then_some(DiskState {
            uid: numbers.uid,
            size: disk.size,
            base: Some(disk.digest),
        }),
        tap: Some(TapSpec { name: numbers.tap.clone(), owner: numbers.uid, address: host_side(numbers) }),
        cgroup: Some(limits(&machine)),
        jail: true,
        old_jails: false,
        occupied: true,
        machine: Some(machine),
        ready: true,
        containers: spec.containers.clone(),
    })
}
