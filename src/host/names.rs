//! Names inside a jail. They never change, because a snapshot refers to them.

/// The guest's kernel.
pub const KERNEL: &str = "vmlinux";
/// The shared root image.
pub const ROOTFS: &str = "rootfs.ext4";
/// The guest's own data disk. In a subdirectory, so that a tmpfs can hold it.
pub const DISK: &str = "data/disk.ext4";
/// Firecracker's configuration.
pub const CONFIG: &str = "config.json";
/// Sockets of the VMM.
pub const RUN: &str = "run";
/// Firecracker's API socket.
pub const API_SOCKET: &str = "run/api.sock";
/// QEMU's control socket.
pub const QMP_SOCKET: &str = "run/qmp.sock";
/// Where Firecracker logs; the same inode as the guest's `vmm.log`.
pub const VMM_LOG: &str = "vmm.log";
