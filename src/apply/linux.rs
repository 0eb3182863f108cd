//! The real host. What needs more than a call of a tool stands in the files beside this one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build::artifacts::digest_file;
use crate::fleet::{ContainerSpec, FleetName, GuestName, Sha256};
use crate::host::firewall::{self, Ruleset};
use crate::host::layout::Layout;
use crate::host::state::{CPU_PERIOD, CgroupLimits, HostState, Machine, TAP_PREFIX, TapSpec};
use crate::sys::cgroup::{Hierarchy, Limits};
use crate::sys::fs::{self as files, FileError};
use crate::sys::tool::Tool;
use crate::sys::{ip, nft};

use super::record::{self, LoadedRuleset};
use super::{ApplyError, Host, jail, observe, vmm};

/// How much of a host is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    WholeHost,
    /// Files below the store alone: nothing is mounted, and whoever is not root keeps what would be a guest's.
    FilesAlone,
}

/// A Linux host, for one fleet.
#[derive(Clone, Debug)]
pub struct LinuxHost {
    pub layout: Layout,
    pub scope: Scope,
    pub hierarchy: Hierarchy,
    /// Where the files of artifacts are.
    pub artifacts: BTreeMap<Sha256, PathBuf>,
    /// This program, which joins a cgroup and becomes the VMM.
    pub launcher: PathBuf,
    /// How long a guest may take to say that it is ready.
    pub ready_timeout: Duration,
    /// How long a guest may take to shut down before its VMM is killed.
    pub stop_timeout: Duration,
}

/// How long a guest may take to boot and start its services; software emulation on a busy host takes most of it.
pub const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a guest may take to end its containers and write its disk back.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);

const FORWARDING: &str = "net.ipv4.ip_forward";

/// Whether the kernel forwards IPv4.
pub(super) fn forwards() -> Result<bool, ApplyError> {
    Ok(ip::get_sysctl(FORWARDING)?.is_some_and(|value| value.trim() == "1"))
}

/// How nft lists the fleet's table; `None` where there is none.
pub(super) fn listing(fleet: &FleetName) -> Result<Option<Sha256>, ApplyError> {
    Ok(nft::list_table("inet", &firewall::table_name(fleet))?.map(Sha256::of))
}

/// A copy with the same holes that shares its blocks with the original where the file system can.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), ApplyError> {
    Ok(Tool::new("cp").args(["--reflink=auto", "--sparse=auto", "--"]).arg(from).arg(to).run().map(drop)?)
}

impl Scope {
    /// Makes a guest's uid and gid the owner of a file.
    pub(super) fn chown(self, path: &Path, uid: u32) -> Result<(), ApplyError> {
        if self == Self::FilesAlone && !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Ok(std::os::unix::fs::chown(path, Some(uid), Some(uid))
            .map_err(FileError::when("give away", path))?)
    }
}

impl Host for LinuxHost {
    fn observe(&self) -> Result<HostState, ApplyError> {
        observe::observe(&self.layout, &self.hierarchy)
    }

    fn enable_forwarding(&self) -> Result<(), ApplyError> {
        Ok(ip::set_sysctl(FORWARDING, "1")?)
    }

    fn store_file(&self, sha256: &Sha256) -> Result<(), ApplyError> {
        let target = self.layout.file(sha256);
        if target.exists() {
            return Ok(());
        }
        let from = self.artifacts.get(sha256).ok_or(ApplyError::NoArtifact(*sha256))?;
        files::create_private_dir(&self.layout.files())?;
        let new = files::NewFile::create(&target)?;
        copy(from, new.temporary_path())?;
        let (found, _) = digest_file(new.temporary_path())?;
        if found != *sha256 {
            return Err(ApplyError::ArtifactChanged { path: from.clone(), expected: *sha256, found });
        }
        Ok(new.persist(0o444)?)
    }

    fn load_ruleset(&self, ruleset: &Ruleset) -> Result<(), ApplyError> {
        nft::load(&ruleset.text)?;
        if let Some(listing) = listing(self.layout.fleet())? {
            record::write(&self.layout.ruleset(), &LoadedRuleset { digest: ruleset.digest, listing })?;
        }
        Ok(())
    }

    fn remove_ruleset(&self) -> Result<(), ApplyError> {
        nft::delete_table("inet", &firewall::table_name(self.layout.fleet()))?;
        Ok(files::remove(&self.layout.ruleset())?)
    }

    fn create_disk(&self, guest: &GuestName, base: &Sha256, uid: u32) -> Result<(), ApplyError> {
        let target = self.layout.disk(guest);
        // A data disk that is there is never overwritten.
        if !target.exists() {
            files::create_private_dir(&self.layout.disks())?;
            let new = files::NewFile::create(&target)?;
            copy(&self.layout.file(base), new.temporary_path())?;
            self.scope.chown(new.temporary_path(), uid)?;
            new.persist(0o600)?;
        }
        Ok(())
    }

    fn chown_disk(&self, guest: &GuestName, uid: u32) -> Result<(), ApplyError> {
        self.scope.chown(&self.layout.disk(guest), uid)
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
        Ok(self.hierarchy.create(&self.layout.cgroup(guest), &kernel_limits(limits))?)
    }

    fn remove_cgroup(&self, guest: &GuestName) -> Result<(), ApplyError> {
        self.hierarchy.remove(&self.layout.cgroup(guest))?;
        // The fleet's own cgroup goes with its last guest.
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

    fn create_jail(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
        jail::remove(&self.layout, guest)?;
        jail::create(&self.layout, self.scope, guest, machine)
    }

    fn remove_jail(&self, guest: &GuestName) -> Result<(), ApplyError> {
        jail::remove(&self.layout, guest)
    }

    fn start_vmm(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
        vmm::start(self, guest, machine)
    }

    fn await_ready(&self, guest: &GuestName) -> Result<(), ApplyError> {
        vmm::await_ready(self, guest)
    }

    fn start_containers(&self, guest: &GuestName, containers: &[ContainerSpec]) -> Result<(), ApplyError> {
        containers.iter().try_for_each(|container| vmm::start_container(&self.layout, guest, container))
    }

    fn stop_vmm(&self, guest: &GuestName) -> Result<(), ApplyError> {
        vmm::stop(self, guest)
    }
}

fn kernel_limits(limits: &CgroupLimits) -> Limits {
    Limits { memory: limits.memory, pids: limits.pids, cpu_quota: Some((limits.cpu_quota, CPU_PERIOD)) }
}

/// Owner and length of a file; `None` where there is none.
pub(super) fn owner_and_size(path: &Path) -> Option<(u32, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.uid(), meta.len()))
}
