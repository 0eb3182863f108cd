//! What a guest's cgroup allows its VMM, from what the machine is.

use crate::fleet::GuestSpec;
use crate::sys::cgroup::IoLimits;

use super::state::{CPU_PERIOD, CgroupLimits, Machine, MachineDisk};
use super::vmm;

/// Threads of a VMM: one for each virtual CPU and a few of its own.
const PIDS_BESIDE_VCPUS: u64 = 32;

/// What the VMM of a machine may take of its host, and how it stands against others. A swapped-out guest would be on a disk
/// in the clear, so that no swap is part of it.
pub fn limits(machine: &Machine, spec: &GuestSpec) -> CgroupLimits {
    let ram_disk = match machine.disk {
        MachineDisk::Ephemeral { size, in_memory: true, .. } => size,
        MachineDisk::Ephemeral { .. } | MachineDisk::Kept => 0,
    };
    CgroupLimits {
        memory: (machine.memory_mib << 20) + vmm::of(machine.vmm).memory_overhead(machine.kvm) + ram_disk,
        pids: u64::from(machine.vcpus) + PIDS_BESIDE_VCPUS,
        cpu_quota: u64::from(machine.vcpus) * CPU_PERIOD,
        cpu_weight: spec.cpu_weight.into(),
        io: IoLimits {
            read_bytes: spec.io.read,
            write_bytes: spec.io.write,
            read_operations: spec.io.read_operations.map(u64::from),
            write_operations: spec.io.write_operations.map(u64::from),
        },
    }
}
