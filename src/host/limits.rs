//! What a guest's cgroup allows its VMM, from what the machine is.

use crate::fleet::GuestSpec;
use crate::fleet::VmmKind::{Firecracker, Qemu};
use crate::sys::cgroup::IoLimits;

use super::state::{CPU_PERIOD, CgroupLimits, Machine, MachineDisk};

/// Memory that a VMM takes beside its guest's (Firecracker's own overhead is under 5 MiB, QEMU's with its
/// translation cache is far more; page tables and socket buffers count too).
const FIRECRACKER_OVERHEAD: u64 = 64 << 20;
const QEMU_OVERHEAD: u64 = 512 << 20;
/// Threads of a VMM: one for each virtual CPU and a few of its own.
const PIDS_BESIDE_VCPUS: u64 = 32;

/// What the VMM of a machine may take of its host, and how it stands against others. A swapped-out guest would be on a disk
/// in the clear, so that no swap is part of it.
pub fn limits(machine: &Machine, spec: &GuestSpec) -> CgroupLimits {
    let ram_disk = match machine.disk {
        MachineDisk::Ephemeral { size, in_memory: true, .. } => size,
        MachineDisk::Ephemeral { .. } | MachineDisk::Kept => 0,
    };
    let overhead = match machine.vmm {
        Firecracker => FIRECRACKER_OVERHEAD,
        Qemu => QEMU_OVERHEAD,
    };
    CgroupLimits {
        memory: (machine.memory_mib << 20) + overhead + ram_disk,
        pids: u64::from(machine.vcpus) + PIDS_BESIDE_VCPUS,
        cpu_quota: u64::from(machine.vcpus) * CPU_PERIOD,
        cpu_weight: spec.cpu_weight.into(),
        io: IoLimits {
            read_bytes: spec.io.read.unwrap_or(u64::MAX),
            write_bytes: spec.io.write.unwrap_or(u64::MAX),
            read_operations: spec.io.read_operations.map_or(u64::MAX, u64::from),
            write_operations: spec.io.write_operations.map_or(u64::MAX, u64::from),
        },
    }
}

/// What a VMM may do with files; nothing that it writes to grows beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// At a time.
    pub open: u64,
    /// Of a file that it writes, in bytes.
    pub size: u64,
}

/// The jailer's own default.
const OPEN_FILES: u64 = 2048;
/// Room beside the largest file, for what a VMM writes with a snapshot.
const FILE_MARGIN: u64 = 64 << 20;

/// The limits of a machine whose data disk has so many bytes. A snapshot writes the guest's memory to one file.
pub fn file_limits(machine: &Machine, disk: u64) -> FileLimits {
    let memory = machine.memory_mib << 20;
    // QEMU names each page that it writes.
    FileLimits { open: OPEN_FILES, size: disk.max(memory + memory / 64) + FILE_MARGIN }
}
