//! The steps of a plan on the real host. What needs more than a call of a tool stands in the files beside this one.

use crate::base::FileDigest;
use crate::base::network::TAP_PREFIX;
use crate::base::{GuestName, SnapshotName};
use crate::fleet::ContainerSpec;
use crate::host::firewall::{self, Ruleset};
use crate::host::layout::KEEPERS;
use crate::host::state::{CPU_PERIOD, CgroupLimits, HostState, Machine, MachineDisk, TapSpec};
use crate::sys::cgroup::{Device, IoLimits, Limits};
use crate::sys::digest::digest_like;
use crate::sys::fs as files;
use crate::sys::{ip, nft};

use super::linux::{LinuxHost, copy};
use super::record::{self, LoadedRuleset};
use super::{ApplyError, Host, disk, jail, keeper, observe, snapshot, vmm};

impl Host for LinuxHost {
    fn observe(&self) -> Result<HostState, ApplyError> {
        observe::observe(&self.layout, &self.hierarchy)
    }

    fn enable_forwarding(&self) -> Result<(), ApplyError> {
        Ok(ip::set_sysctl(observe::FORWARDING, "1")?)
    }

    fn store_file(&self, digest: &FileDigest) -> Result<(), ApplyError> {
        let target = self.layout.file(digest);
        if target.exists() {
            return Ok(());
        }
        let from = self.artifacts.get(digest).ok_or(ApplyError::NoArtifact(*digest))?;
        files::create_private_dir(&self.layout.files())?;
        let mut new = files::NewFile::create(&target)?;
        copy(from, new.file())?;
        let (found, _) = digest_like(digest, new.temporary_path())?;
        if found != *digest {
            return Err(ApplyError::ArtifactChanged { path: from.clone(), expected: *digest, found });
        }
        Ok(new.persist(0o444)?)
    }

    fn load_ruleset(&self, ruleset: &Ruleset) -> Result<(), ApplyError> {
        nft::load(&ruleset.text)?;
        if let Some(listing) = observe::listing(self.layout.fleet())? {
            record::write(&self.layout.ruleset(), &LoadedRuleset { digest: ruleset.digest, listing })?;
        }
        Ok(())
    }

    /// What else is the fleet's and no guest's goes first: whoever is killed here still finds the rules, and goes on.
    fn remove_ruleset(&self) -> Result<(), ApplyError> {
        self.remove_cgroup_parents()?;
        jail::remove_parents(&self.layout);
        nft::delete_table("inet", &firewall::table_name(self.layout.fleet()))?;
        Ok(files::remove(&self.layout.ruleset())?)
    }

    fn create_disk(&self, guest: &GuestName, base: &FileDigest, uid: u32) -> Result<(), ApplyError> {
        disk::create(&self.layout, self.scope, guest, base, uid)
    }

    fn chown_disk(&self, guest: &GuestName, uid: u32) -> Result<(), ApplyError> {
        self.scope.chown(&self.layout.disk(guest), uid)
    }

    fn grow_disk(&self, guest: &GuestName, size: u64) -> Result<(), ApplyError> {
        disk::grow(&self.layout, guest, size)
    }

    fn create_tap(&self, tap: &TapSpec) -> Result<(), ApplyError> {
        Ok(ip::create_tap(tap.name.as_str(), tap.owner, tap.address, TAP_PREFIX, &self.layout.tap_alias())?)
    }

    fn remove_tap(&self, tap: &TapSpec) -> Result<(), ApplyError> {
        // Something else that has the name is not ours to remove.
        let is_ours = |there: &ip::Tap| there.name == tap.name.as_str() && self.layout.owns_tap(&there.alias);
        if ip::taps()?.iter().any(is_ours) { Ok(ip::delete_link(tap.name.as_str())?) } else { Ok(()) }
    }

    fn create_cgroup(&self, guest: &GuestName, limits: &CgroupLimits) -> Result<(), ApplyError> {
        let limited = limits.io != IoLimits::NONE;
        let device = if limited { Some(self.device()?) } else { None };
        Ok(self.hierarchy.create(&self.layout.cgroup(guest), &kernel_limits(limits, device))?)
    }

    fn remove_cgroup(&self, guest: &GuestName) -> Result<(), ApplyError> {
        self.hierarchy.remove(&self.layout.cgroup(guest))?;
        keeper::end(&self.layout, guest)?;
        self.remove_cgroup_parents()
    }

    fn create_jail(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
        if machine.disk == MachineDisk::Kept {
            disk::refuse_shared(&self.layout, guest)?;
        }
        jail::create(&self.layout, self.scope, guest, machine).map(drop)
    }

    fn remove_old_jails(&self, guest: &GuestName) -> Result<(), ApplyError> {
        match observe::vmm_process(&self.layout, &self.hierarchy, guest) {
            Some(vmm) => jail::remove_old(&self.layout, guest, &vmm),
            // One that ended meanwhile leaves its jail to the next start.
            None => Ok(()),
        }
    }

    fn remove_jail(&self, guest: &GuestName) -> Result<(), ApplyError> {
        jail::remove(&self.layout, guest)
    }

    fn start_vmm(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
        vmm::start(self, guest, machine)
    }

    fn adjust_vmm(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
        vmm::adjust(self, guest, machine)
    }

    fn keep_logs(&self, guest: &GuestName) -> Result<(), ApplyError> {
        vmm::keep_logs(self, guest)
    }

    fn await_ready(&self, guest: &GuestName) -> Result<(), ApplyError> {
        vmm::await_ready(self, guest)
    }

    fn start_containers(&self, guest: &GuestName, containers: &[ContainerSpec]) -> Result<(), ApplyError> {
        containers.iter().try_for_each(|container| vmm::start_container(&self.layout, guest, container))
    }

    fn resume_vmm(&self, guest: &GuestName) -> Result<(), ApplyError> {
        snapshot::go_on(self, guest)
    }

    fn consume_snapshot(
        &self,
        guest: &GuestName,
        snapshot: &SnapshotName,
        keeps_disk: bool,
    ) -> Result<(), ApplyError> {
        snapshot::consume(&self.layout, guest, snapshot, keeps_disk)
    }

    fn load_snapshot(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
        snapshot::load(self, guest, machine)
    }

    fn forget_snapshot(&self, snapshot: &SnapshotName) -> Result<(), ApplyError> {
        snapshot::forget(&self.layout, snapshot)
    }

    fn clear_snapshots(&self) -> Result<(), ApplyError> {
        snapshot::clear(&self.layout)
    }

    fn stop_vmm(&self, guest: &GuestName) -> Result<(), ApplyError> {
        vmm::stop(self, guest)
    }
}

impl LinuxHost {
    /// The fleet's own cgroup goes with its last guest, and that of all fleets with the last fleet.
    fn remove_cgroup_parents(&self) -> Result<(), ApplyError> {
        // Of hundreds of guests that go, each would read the names of all others.
        if self.hierarchy.least_children(&self.layout.cgroups()) > 1 {
            return Ok(());
        }
        let keepers = self.layout.keepers_cgroup();
        let alone = self.hierarchy.children(&self.layout.cgroups()).iter().all(|child| child == KEEPERS);
        if alone && self.hierarchy.procs(&keepers).is_empty() {
            // One that comes meanwhile keeps it.
            let _ = self.hierarchy.remove(&keepers);
        }
        for parent in [self.layout.cgroups(), "sisforge".to_owned()] {
            if self.hierarchy.children(&parent).is_empty() {
                let removed = self.hierarchy.remove(&parent);
                // Another fleet or guest may have come meanwhile, and then it stays.
                if self.hierarchy.children(&parent).is_empty() {
                    removed?;
                }
            }
        }
        Ok(())
    }
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
