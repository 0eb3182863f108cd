//! The steps of a plan on the real host. What needs more than a few lines stands in the files beside this one.

use std::fs;
use std::net::Ipv4Addr;

use crate::base::network::{TAP_PREFIX, guest_side};
use crate::base::{FileDigest, GuestName, InterfaceName};
use crate::host::layout::KEEPERS;
use crate::host::observed::ObservedHost;
use crate::host::state::{CPU_PERIOD, CgroupLimits, Machine, MachineDisk, TapSpec};
use crate::plan::Step;
use crate::sys::cgroup::{Device, IoLimits, Limits};
use crate::sys::digest::digest_like;
use crate::sys::fs::{self as files, FileError};
use crate::sys::netns::{self, Presence};
use crate::sys::{conntrack, ip, tap as taps};

use super::linux::{LinuxHost, copy};
use super::record;
use super::{ApplyError, Host, control, disk, jail, keeper, network, observe, snapshot, store, vmm};

impl Host for LinuxHost {
    fn observe(&self) -> Result<ObservedHost, ApplyError> {
        observe::observe(&self.layout, &self.hierarchy)
    }

    fn take(&self, step: &Step) -> Result<(), ApplyError> {
        let layout = &self.layout;
        match step {
            Step::CreateNamespace => Ok(network::create_namespace(layout)?),
            Step::ConnectNamespace { network: spec, .. } => Ok(network::connect(layout, spec)?),
            Step::LoadHostRules(ruleset) => Ok(network::load_host_rules(layout, ruleset)?),
            Step::RemoveNetwork => remove_network(self),
            Step::RemoveEarlierNetwork => Ok(network::remove_earlier(layout)?),
            Step::StoreFile { digest, .. } => store_file(self, digest),
            Step::LoadRuleset(ruleset) => Ok(network::load_ruleset(layout, ruleset)?),
            Step::CreateDisk { guest, base, uid } => disk::create(layout, self.scope, guest, base, *uid),
            Step::RelinkDisk { guest } => jail::relink_disk(layout, guest),
            Step::ChownDisk { guest, uid } => disk::give(layout, self.scope, guest, *uid),
            Step::GrowDisk { guest, size, .. } => disk::grow(layout, guest, *size),
            Step::CreateTap { tap, .. } => create_tap(self, tap),
            Step::RemoveTap { tap, .. } => remove_tap(self, tap),
            Step::CreateCgroup { guest, limits } => create_cgroup(self, guest, limits),
            Step::RemoveCgroup { guest } => remove_cgroup(self, guest),
            Step::JoinCgroup { guest } => vmm::take_into_cgroup(self, guest),
            Step::ContinueVmm { guest } => vmm::go_on(self, guest),
            Step::CreateJail { guest, machine } => create_jail(self, guest, machine),
            Step::RemoveJail { guest } => jail::remove(layout, guest),
            Step::RemoveOldJails { guest } => remove_old_jails(self, guest),
            Step::StartVmm { guest, machine } => vmm::start(self, guest, machine),
            Step::AdjustVmm { guest, machine } => vmm::adjust(self, guest, machine),
            Step::KeepLogs { guest } => vmm::keep_logs(self, guest),
            Step::AwaitReady { guest } => vmm::await_ready(self, guest),
            Step::StartContainers { guest, containers } => {
                containers.iter().try_for_each(|container| vmm::start_container(layout, guest, container))
            }
            Step::ResumeVmm { guest } => snapshot::go_on(self, guest, control::PAUSE_LIMIT),
            Step::ConsumeSnapshot { guest, snapshot, keeps_disk } => {
                snapshot::consume(layout, guest, snapshot, *keeps_disk)
            }
            Step::LoadSnapshot { guest, machine } => snapshot::load(self, guest, machine),
            Step::ForgetSnapshot { snapshot } => snapshot::forget(layout, snapshot),
            Step::ClearSnapshots => snapshot::clear(layout),
            Step::StopVmm { guest } => vmm::stop(self, guest),
        }
    }
}

/// Copies an artifact into the store, unless it is there; one that was changed is replaced.
///
/// # Errors
/// Where it cannot be copied, or the artifact is not what it should be.
pub(super) fn store_file(host: &LinuxHost, digest: &FileDigest) -> Result<(), ApplyError> {
    let target = host.layout.file(digest);
    if let Ok(meta) = fs::symlink_metadata(&target)
        && meta.is_file()
        && store::holds(digest, &target)?
    {
        return Ok(store::close(&target).map_err(FileError::when("set the mode of", &target))?);
    }
    let from = host.artifacts.get(digest).ok_or(ApplyError::NoArtifact(*digest))?;
    files::create_private_dir(&host.layout.files())?;
    let mut new = files::NewFile::create(&target)?;
    copy(from, new.file())?;
    let (found, _) = digest_like(digest, new.temporary_path())?;
    if found != *digest {
        return Err(ApplyError::ArtifactChanged { path: from.clone(), expected: *digest, found });
    }
    store::seal(new.file()).map_err(FileError::when("write", &target))?;
    Ok(new.persist(store::MODE)?)
}

/// What else is the fleet's and no guest's goes first: whoever is killed here still finds the network, and goes on.
fn remove_network(host: &LinuxHost) -> Result<(), ApplyError> {
    // Those of a store that was removed are not found by their locks. No guest is left whose logs they keep.
    if is_left_to_keepers(host) {
        host.hierarchy.kill(&host.layout.keepers_cgroup())?;
    }
    remove_cgroup_parents(host)?;
    jail::remove_parents(&host.layout);
    Ok(network::remove(&host.layout)?)
}

fn create_tap(host: &LinuxHost, tap: &TapSpec) -> Result<(), ApplyError> {
    let (name, alias) = (tap.name.as_str(), host.layout.tap_alias());
    let create = || {
        ip::create_tap(name, tap.owner, tap.address, TAP_PREFIX, &alias)?;
        taps::harden(name)?;
        Ok::<(), ip::IpError>(taps::shape(name, tap.rate)?)
    };
    Ok(netns::within(&host.layout.netns(), create)??)
}

/// In the fleet's namespace, and in the host's own network, where an earlier sisforge had it.
fn remove_tap(host: &LinuxHost, name: &InterfaceName) -> Result<(), ApplyError> {
    // Something else that has the name is not ours to remove.
    let is_ours = |there: &ip::Tap| there.name == name.as_str() && host.layout.owns_tap(&there.alias);
    let remove = || -> Result<Option<Ipv4Addr>, ip::IpError> {
        let Some(tap) = ip::taps()?.into_iter().find(is_ours) else { return Ok(None) };
        ip::delete_link(name.as_str())?;
        Ok(tap.address.map(|(address, _)| guest_side(address)))
    };
    // Its guest's address is another's soon, who must not be sent what this one asked for: neither here nor there.
    let end = |guest: Option<Ipv4Addr>| guest.map_or(Ok(0), conntrack::end_of);
    let netns = host.layout.netns();
    if netns::presence(&netns)? == Presence::There {
        let guest = netns::within(&netns, remove)??;
        netns::within(&netns, || end(guest))??;
        end(guest)?;
    }
    end(remove()?)?;
    Ok(())
}

fn create_cgroup(host: &LinuxHost, guest: &GuestName, limits: &CgroupLimits) -> Result<(), ApplyError> {
    let limited = limits.io != IoLimits::NONE;
    let device = if limited { Some(host.device()?) } else { None };
    Ok(host.hierarchy.create(&host.layout.cgroup(guest), &kernel_limits(limits, device))?)
}

fn remove_cgroup(host: &LinuxHost, guest: &GuestName) -> Result<(), ApplyError> {
    host.hierarchy.remove(&host.layout.cgroup(guest))?;
    keeper::end(&host.layout, guest)?;
    remove_cgroup_parents(host)
}

fn create_jail(host: &LinuxHost, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
    if machine.disk == MachineDisk::Kept {
        disk::refuse_shared(&host.layout, guest)?;
        record::know_size(&host.layout, guest)?;
    }
    jail::create(&host.layout, host.scope, guest, machine).map(drop)
}

fn remove_old_jails(host: &LinuxHost, guest: &GuestName) -> Result<(), ApplyError> {
    match observe::vmm_process(&host.layout, &host.hierarchy, guest) {
        Some(vmm) => jail::remove_old(&host.layout, guest, &vmm),
        // One that ended meanwhile leaves its jail to the next start.
        None => Ok(()),
    }
}

/// Whether the fleet's cgroup holds none of a guest.
fn is_left_to_keepers(host: &LinuxHost) -> bool {
    host.hierarchy.children(&host.layout.cgroups()).iter().all(|child| child == KEEPERS)
}

/// The fleet's own cgroup goes with its last guest, and that of all fleets with the last fleet.
fn remove_cgroup_parents(host: &LinuxHost) -> Result<(), ApplyError> {
    // Of hundreds of guests that go, each would read the names of all others.
    if host.hierarchy.least_children(&host.layout.cgroups()) > 1 {
        return Ok(());
    }
    let keepers = host.layout.keepers_cgroup();
    if is_left_to_keepers(host) && host.hierarchy.procs(&keepers).is_empty() {
        // One that comes meanwhile keeps it.
        let _ = host.hierarchy.remove(&keepers);
    }
    for parent in [host.layout.cgroups(), "sisforge".to_owned()] {
        if host.hierarchy.children(&parent).is_empty() {
            let removed = host.hierarchy.remove(&parent);
            // Another fleet or guest may have come meanwhile, and then it stays.
            if host.hierarchy.children(&parent).is_empty() {
                removed?;
            }
        }
    }
    Ok(())
}

fn kernel_limits(limits: &CgroupLimits, device: Option<Device>) -> Limits {
    Limits {
        memory: limits.memory,
        pids: limits.pids,
        cpu_quota: Some((limits.cpu_quota, CPU_PERIOD)),
        cpu_weight: limits.cpu_weight,
        io: device.map(|device| (device, limits.io)).into_iter().collect(),
    }
}
