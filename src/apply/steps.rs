//! The steps of a plan on the real host. What needs more than a few lines stands in the files beside this one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::base::network::{TAP_PREFIX, guest_side};
use crate::base::{FileDigest, InterfaceName};
use crate::host::layout::KEEPERS;
use crate::host::names::DISK;
use crate::host::observed::ObservedHost;
use crate::host::state::{CPU_PERIOD, CgroupLimits, Machine, MachineDisk, TapSpec};
use crate::plan::{ContainerStep, DiskStep, NetworkStep, PoolStep, SnapshotStep, Step};
use crate::sys::cgroup::{Device, IoLimits, Limits};
use crate::sys::digest::digest_like;
use crate::sys::fs::{self as files, FileError};
use crate::sys::netns::{self, Presence};
use crate::sys::{ip, tap as taps};

use super::linux::{GuestHandle, LinuxHost, copy};
use super::look::LeavingTap;
use super::network::FleetNetworkError;
use super::resolver::ResolverHost;
use super::{ApplyError, Host, connections, control, jail, network, observe, snapshot, store};

/// How often is looked whether those have left a cgroup that have ended, and how many times.
const LEAVE_POLL: Duration = Duration::from_millis(5);
const LEAVE_POLLS: usize = 50;

impl Host for LinuxHost {
    fn observe(&self) -> Result<ObservedHost, ApplyError> {
        observe::observe(self)
    }

    fn end_connections(&self) -> Result<(), ApplyError> {
        connections::end_noted(&self.layout)
    }

    fn take(&self, step: &Step) -> Result<(), ApplyError> {
        match step {
            Step::Network(step) => take_for_network(self, step),
            Step::Disk(step) => take_for_disk(self, step),
            Step::Snapshot(step) => take_for_snapshot(self, step),
            Step::Containers(step) => take_for_containers(self, step),
            Step::Pool(step) => take_for_pool(self, step),
            Step::StoreFile { digest, .. } => store_file(self, digest),
            Step::CreateTap { tap, .. } => create_tap(self, tap),
            Step::RemoveTap { tap, .. } => remove_tap(self, tap),
            Step::CreateCgroup { guest, limits } => self.guest(guest).create_cgroup(limits),
            Step::RemoveCgroup { guest } => self.guest(guest).remove_cgroup(),
            Step::JoinCgroup { guest } => self.guest(guest).take_into_cgroup(),
            Step::CreateJail { guest, machine } => self.guest(guest).prepare_jail(machine),
            Step::RemoveJail { guest } => self.guest(guest).remove_jails(),
            Step::RemoveOldJails { guest } => self.guest(guest).remove_idle_jails(),
            Step::StartVmm { guest, machine } => self.guest(guest).start_vmm(machine),
            Step::AdjustVmm { guest, machine } => self.guest(guest).adjust_vmm(machine),
            Step::KeepLogs { guest } => self.guest(guest).keep_logs(),
            Step::AwaitReady { guest } => self.guest(guest).await_ready(),
            Step::ContinueVmm { guest } => self.guest(guest).continue_vmm_if_there(),
            Step::ResumeVmm { guest } => self.guest(guest).unpause(control::PAUSE_LIMIT),
            Step::StopVmm { guest } => self.guest(guest).stop_vmm(),
        }
    }

    fn check_interrupt(&self) -> Result<(), ApplyError> {
        self.check_signals()
    }
}

fn take_for_network(host: &LinuxHost, step: &NetworkStep) -> Result<(), ApplyError> {
    let layout = &host.layout;
    let resolvers = ResolverHost { layout, hierarchy: &host.hierarchy, launcher: &host.launcher };
    let taken: Result<(), FleetNetworkError> = match step {
        NetworkStep::CreateNamespace => network::create_namespace(layout),
        NetworkStep::ConnectNamespace { network: spec, .. } => network::connect(layout, spec),
        NetworkStep::LoadHostRules(ruleset) => network::load_host_rules(layout, ruleset),
        NetworkStep::LoadRuleset(ruleset) => network::load_ruleset(layout, ruleset),
        NetworkStep::RemoveNetwork => return remove_network(host),
        NetworkStep::RemoveEarlierNetwork => network::remove_earlier(layout),
        NetworkStep::StartResolver(wanted) => resolvers.start(wanted).map_err(Into::into),
        NetworkStep::StopResolver { seat } => resolvers.retire(*seat).map_err(Into::into),
    };
    Ok(taken?)
}

fn take_for_disk(host: &LinuxHost, step: &DiskStep) -> Result<(), ApplyError> {
    match step {
        DiskStep::CreateDisk { guest, base, uid } => host.guest(guest).create_disk(base, *uid),
        DiskStep::RelinkDisk { guest } => host.guest(guest).relink_disk(),
        DiskStep::ChownDisk { guest, uid } => host.guest(guest).give_disk(*uid),
        DiskStep::GrowDisk { guest, size, .. } => host.guest(guest).grow_disk(*size),
    }
}

fn take_for_snapshot(host: &LinuxHost, step: &SnapshotStep) -> Result<(), ApplyError> {
    match step {
        SnapshotStep::ConsumeSnapshot { guest, snapshot, keeps_disk } => {
            host.guest(guest).consume_snapshot(snapshot, *keeps_disk)
        }
        SnapshotStep::LoadSnapshot { guest, machine } => host.guest(guest).load_frozen(machine),
        SnapshotStep::ForgetSnapshot { snapshot } => snapshot::remove_restored(&host.layout, snapshot),
        SnapshotStep::ClearSnapshots => snapshot::clear(&host.layout),
    }
}

fn take_for_containers(host: &LinuxHost, step: &ContainerStep) -> Result<(), ApplyError> {
    match step {
        ContainerStep::RemoveContainers { guest, containers } => {
            host.guest(guest).remove_containers(containers)
        }
        ContainerStep::StartContainers { guest, containers } => {
            containers.iter().try_for_each(|container| host.guest(guest).start_container(container))
        }
        ContainerStep::AwaitHealthy { guest, containers } => {
            containers.iter().try_for_each(|container| host.guest(guest).await_healthy(container))
        }
    }
}

fn take_for_pool(host: &LinuxHost, step: &PoolStep) -> Result<(), ApplyError> {
    match step {
        PoolStep::RaiseSpare { guest, spare } => host.guest(guest).raise_spare(spare),
        PoolStep::MakeSpare { guest, spare } => host.guest(guest).make_spare(spare),
        PoolStep::EndSpare { guest } => host.guest(guest).end_spare(),
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
    new.persist(store::MODE)?;
    store::seal_by_kernel(&target);
    Ok(())
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
    host.cache.forget_tap(name);
    let create = || {
        let is_new = ip::create_tap(name, tap.owner, tap.address, TAP_PREFIX, &alias)?;
        taps::harden(name)?;
        match is_new {
            true => taps::shape_new(name, tap.rates, &alias),
            false => taps::shape(name, tap.rates, &alias),
        }
    };
    Ok(netns::within(&host.layout.netns(), create)??)
}

/// In the fleet's namespace, and in the host's own network, where an earlier sisforge had it.
fn remove_tap(host: &LinuxHost, name: &InterfaceName) -> Result<(), ApplyError> {
    if let Some(seen) = host.cache.leaving_tap(name.as_str()) {
        host.cache.forget_tap(name.as_str());
        if host.tap_removals.run(seen, |all| remove_taps(host, &all).is_ok()) {
            return Ok(());
        }
    }
    // What was not seen, or does not go together with others, tells for itself.
    let _permit = host.stops.acquire();
    let netns = host.layout.netns();
    if netns::presence(&netns)? == Presence::There {
        let inside = || {
            // While its TAP still tells of it.
            taps::unshape(name.as_str())?;
            delete_tap(host, name)
        };
        netns::within(&netns, inside)??;
    }
    delete_tap(host, name)
}

/// Removes several from the fleet's namespace.
fn remove_taps(host: &LinuxHost, all: &[LeavingTap]) -> Result<(), ApplyError> {
    let guests: Vec<_> = all.iter().filter_map(|tap| tap.address).map(guest_side).collect();
    connections::note(&host.layout, &guests)?;
    let indices: Vec<u32> = all.iter().flat_map(|tap| &tap.indices).copied().collect();
    Ok(netns::within(&host.layout.netns(), || ip::delete_together(&indices))??)
}

/// Removes it from this thread's network, where it is there. Its guest's address is another's soon, who must not be sent what this one
/// asked for: neither here nor there.
fn delete_tap(host: &LinuxHost, name: &InterfaceName) -> Result<(), ApplyError> {
    let Some(index) = ip::index(name.as_str())? else { return Ok(()) };
    // Something else that has the name is not ours to remove.
    let tap = ip::tap(name.as_str())?.filter(|tap| host.layout.owns_tap(tap.alias.as_deref()));
    let Some(tap) = tap else { return Ok(()) };
    if let Some((address, _)) = tap.address {
        connections::note(&host.layout, &[guest_side(address)])?;
    }
    Ok(ip::delete_index(name.as_str(), index)?)
}

impl GuestHandle<'_> {
    fn create_cgroup(self, limits: &CgroupLimits) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        let limited = limits.io != IoLimits::NONE;
        let device = if limited { Some(host.device()?) } else { None };
        Ok(host.hierarchy.create(&host.layout.cgroup(guest), &kernel_limits(limits, device))?)
    }

    fn remove_cgroup(self) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        host.hierarchy.remove(&host.layout.cgroup(guest))?;
        self.end_keeper()?;
        remove_cgroup_parents(host)
    }

    fn prepare_jail(self, machine: &Machine) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        if machine.disk == MachineDisk::Kept {
            self.refuse_shared_disk(machine)?;
            self.know_size()?;
        }
        let id = self.create_jail(machine)?;
        if machine.disk == MachineDisk::Kept {
            let disk = id.root(&host.layout, guest).join(DISK);
            let disk = fs::metadata(&disk).map_err(FileError::when("look at", &disk))?;
            self.remember_inode(disk.ino())?;
        }
        Ok(())
    }

    fn remove_idle_jails(self) -> Result<(), ApplyError> {
        match self.vmm() {
            Some(vmm) => self.remove_old_jails(&vmm),
            // One that ended meanwhile leaves its jail to the next start.
            None => Ok(()),
        }
    }
}

/// Whether the fleet's cgroup holds none of a guest.
fn is_left_to_keepers(host: &LinuxHost) -> bool {
    host.hierarchy.children(&host.layout.cgroups()).iter().all(|child| child == KEEPERS)
}

/// Whether no keeper is left, or none after a moment: one that has ended may still be in its cgroup.
fn are_gone(host: &LinuxHost, keepers: &str) -> bool {
    let is_empty = || host.hierarchy.procs(keepers).is_empty();
    let is_empty_later = |_| {
        std::thread::sleep(LEAVE_POLL);
        is_empty()
    };
    is_empty() || (0..LEAVE_POLLS).any(is_empty_later)
}

/// The fleet's own cgroup goes with its last guest, and that of all fleets with the last fleet.
fn remove_cgroup_parents(host: &LinuxHost) -> Result<(), ApplyError> {
    // Of hundreds of guests that go, each would read the names of all others.
    if host.hierarchy.has_several(&host.layout.cgroups()) {
        return Ok(());
    }
    let keepers = host.layout.keepers_cgroup();
    if is_left_to_keepers(host) && are_gone(host, &keepers) {
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
        memory: Some(limits.memory),
        pids: Some(limits.pids),
        cpu_quota: Some((limits.cpu_quota, CPU_PERIOD)),
        cpu_weight: limits.cpu_weight,
        io: device.map(|device| (device, limits.io)).into_iter().collect(),
    }
}
