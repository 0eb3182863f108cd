//! What applying a plan needs of a host. [`super::linux::LinuxHost`] is the real one; tests use another to make
//! faults that a real host does not make on demand.

use crate::base::FileDigest;
use crate::base::{GuestName, SnapshotName};
use crate::fleet::ContainerSpec;
use crate::host::firewall::Ruleset;
use crate::host::state::{CgroupLimits, HostState, Machine, TapSpec};
use crate::plan::Step;

use super::error::ApplyError;

/// One operation for each kind of [`Step`], and a look at what is there. Every operation can be repeated.
pub trait Host: Sync {
    /// Reads what the host has of the fleet, from its processes, interfaces, rules, cgroups and jails.
    ///
    /// # Errors
    /// Where a tool or a file cannot be read.
    fn observe(&self) -> Result<HostState, ApplyError>;

    fn enable_forwarding(&self) -> Result<(), ApplyError>;
    fn store_file(&self, digest: &FileDigest) -> Result<(), ApplyError>;
    fn load_ruleset(&self, ruleset: &Ruleset) -> Result<(), ApplyError>;
    fn remove_ruleset(&self) -> Result<(), ApplyError>;
    fn create_disk(&self, guest: &GuestName, base: &FileDigest, uid: u32) -> Result<(), ApplyError>;
    fn chown_disk(&self, guest: &GuestName, uid: u32) -> Result<(), ApplyError>;
    fn grow_disk(&self, guest: &GuestName, size: u64) -> Result<(), ApplyError>;
    fn create_tap(&self, tap: &TapSpec) -> Result<(), ApplyError>;
    fn remove_tap(&self, tap: &TapSpec) -> Result<(), ApplyError>;
    fn create_cgroup(&self, guest: &GuestName, limits: &CgroupLimits) -> Result<(), ApplyError>;
    fn remove_cgroup(&self, guest: &GuestName) -> Result<(), ApplyError>;
    fn create_jail(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError>;
    fn remove_jail(&self, guest: &GuestName) -> Result<(), ApplyError>;
    fn remove_old_jails(&self, guest: &GuestName) -> Result<(), ApplyError>;
    fn start_vmm(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError>;
    fn adjust_vmm(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError>;
    fn keep_logs(&self, guest: &GuestName) -> Result<(), ApplyError>;
    fn await_ready(&self, guest: &GuestName) -> Result<(), ApplyError>;
    fn start_containers(&self, guest: &GuestName, containers: &[ContainerSpec]) -> Result<(), ApplyError>;
    fn resume_vmm(&self, guest: &GuestName) -> Result<(), ApplyError>;
    fn consume_snapshot(
        &self,
        guest: &GuestName,
        snapshot: &SnapshotName,
        keeps_disk: bool,
    ) -> Result<(), ApplyError>;
    fn load_snapshot(&self, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError>;
    fn forget_snapshot(&self, snapshot: &SnapshotName) -> Result<(), ApplyError>;
    fn clear_snapshots(&self) -> Result<(), ApplyError>;
    fn stop_vmm(&self, guest: &GuestName) -> Result<(), ApplyError>;
}

/// Takes one step.
///
/// # Errors
/// Those of the host.
pub fn take(step: &Step, host: &dyn Host) -> Result<(), ApplyError> {
    match step {
        Step::EnableForwarding => host.enable_forwarding(),
        Step::StoreFile { digest, .. } => host.store_file(digest),
        Step::LoadRuleset(ruleset) => host.load_ruleset(ruleset),
        Step::RemoveRuleset => host.remove_ruleset(),
        Step::CreateDisk { guest, base, uid } => host.create_disk(guest, base, *uid),
        Step::ChownDisk { guest, uid } => host.chown_disk(guest, *uid),
        Step::GrowDisk { guest, size, .. } => host.grow_disk(guest, *size),
        Step::CreateTap(tap) => host.create_tap(tap),
        Step::RemoveTap { tap, .. } => host.remove_tap(tap),
        Step::CreateCgroup { guest, limits } => host.create_cgroup(guest, limits),
        Step::RemoveCgroup { guest } => host.remove_cgroup(guest),
        Step::CreateJail { guest, machine } => host.create_jail(guest, machine),
        Step::RemoveJail { guest } => host.remove_jail(guest),
        Step::RemoveOldJails { guest } => host.remove_old_jails(guest),
        Step::StartVmm { guest, machine } => host.start_vmm(guest, machine),
        Step::AdjustVmm { guest, machine } => host.adjust_vmm(guest, machine),
        Step::KeepLogs { guest } => host.keep_logs(guest),
        Step::AwaitReady { guest } => host.await_ready(guest),
        Step::StartContainers { guest, containers } => host.start_containers(guest, containers),
        Step::ResumeVmm { guest } => host.resume_vmm(guest),
        Step::ConsumeSnapshot { guest, snapshot, keeps_disk } => {
            host.consume_snapshot(guest, snapshot, *keeps_disk)
        }
        Step::LoadSnapshot { guest, machine } => host.load_snapshot(guest, machine),
        Step::ForgetSnapshot { snapshot } => host.forget_snapshot(snapshot),
        Step::ClearSnapshots => host.clear_snapshots(),
        Step::StopVmm { guest } => host.stop_vmm(guest),
    }
}
