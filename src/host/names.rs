//! Names inside a jail. They never change, because a snapshot refers to them.

/// The guest's kernel.
pub const KERNEL: &str = "vmlinux";
/// The shared root image.
pub const ROOTFS: &str = "rootfs.ext4";
/// The guest's own data disk. In a subdirectory, so that a tmpfs can hold it.
pub const DISK: &str = "data/disk.ext4";
/// The directory of what a session brings. It stands apart from that of the data disk, which may be a tmpfs.
pub const SESSION: &str = "session";
/// What has the place of a session's disk until one comes. A session's disk is `session/<name>.ext4`.
pub const SESSION_EMPTY: &str = "session/empty";
/// The container images that guests share.
pub const IMAGES: &str = "images.ext4";
/// Firecracker's configuration.
pub const CONFIG: &str = "config.json";
/// The pipe that Firecracker writes its metrics to.
pub const METRICS: &str = "metrics.json";
/// A custom CPU template.
pub const CPU_TEMPLATE: &str = "cpu-template.json";
/// Compiled seccomp filters.
pub const SECCOMP: &str = "seccomp.bpf";
/// What the guest reads at 169.254.169.254.
pub const METADATA: &str = "metadata.json";
/// Sockets of the VMM.
pub const RUN: &str = "run";
/// Firecracker's API socket.
pub const API_SOCKET: &str = "run/api.sock";
/// Where connections to and from the guest's vsock begin.
pub const VSOCK: &str = "run/vsock.sock";
/// QEMU's control socket.
pub const QMP_SOCKET: &str = "run/qmp.sock";
/// Memory and state of the snapshot that Firecracker loads.
pub const RESTORED_MEMORY: &str = "restored.memory";
pub const RESTORED_STATE: &str = "restored.state";
/// Memory and state of a snapshot that Firecracker writes; they are there for that long alone.
pub const FROZEN_MEMORY: &str = "frozen.memory";
pub const FROZEN_STATE: &str = "frozen.state";
/// The pipe that Firecracker logs to.
pub const VMM_LOG: &str = "vmm.log";
