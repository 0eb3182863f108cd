//! The words that what a host has ([`super::observed`]) and what it should have ([`super::wanted`]) are told in.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::text::none_is_empty;
use crate::base::{FileDigest, InterfaceName, Label, MacAddress, Rates, SnapshotName};
use crate::fleet::{MachineSpec, VmmKind};
use crate::sys::cgroup::{EVEN_WEIGHT, IoLimits};

/// What a file of the store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredKind {
    Kernel,
    Image,
    Disk,
    /// What a machine names: a CPU template, seccomp filters, metadata.
    Machine,
    Containers,
}

impl StoredKind {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Image => "image",
            Self::Disk => "disk",
            Self::Machine => "machine file",
            Self::Containers => "container images",
        }
    }
}

/// A TAP between host and guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapSpec {
    pub name: InterfaceName,
    /// The only user who may attach to it.
    pub owner: u32,
    /// The host's address on it, in a /30 whose other address is the guest's.
    pub address: Ipv4Addr,
    /// How fast packets come from the guest and go to it.
    pub rates: Rates,
}

/// How a guest waits until it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareSpec {
    pub pool: Label,
    /// Whether its VMM is paused meanwhile.
    pub paused: bool,
    /// After which its session ends by itself.
    pub ttl: Option<Duration>,
    /// The container with which its session ends.
    pub ends_with: Option<Label>,
}

impl fmt::Display for SpareSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, paused, .. } = self;
        write!(f, "spare of {pool}{}", if *paused { ", paused" } else { "" })
    }
}

/// That somebody has a member of a pool. The default is one of which nothing is known: no record of it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub pool: Option<Label>,
    /// Whom it was handed out for, as they were called.
    pub label: Option<String>,
    /// RFC 3339, in UTC; `None` where whoever takes it has not said yet.
    #[serde(default, with = "none_is_empty")]
    pub started: Option<String>,
    /// When it ends by itself (RFC 3339, UTC).
    pub expires: Option<String>,
    /// The kept disk that it brought.
    #[serde(default)]
    pub disk: Option<Label>,
    /// The container with which it ends.
    #[serde(default)]
    pub ends_with: Option<Label>,
}

/// What a guest's cgroup is to allow its VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLimits {
    /// In bytes: the guest's memory and what the VMM needs beside it.
    pub memory: u64,
    /// Threads and processes.
    pub pids: u64,
    /// Of [`CPU_PERIOD`], in microseconds.
    pub cpu_quota: u64,
    /// Against the guests beside it: 1 to 10000, 100 where nobody is preferred.
    pub cpu_weight: u64,
    /// On the block device that holds the jails.
    pub io: IoLimits,
}

impl fmt::Display for CgroupLimits {
    /// Weight and limits of block devices where they are not what they are for everybody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB, {} pids, {} us of cpu", self.memory >> 20, self.pids, self.cpu_quota)?;
        if self.cpu_weight != EVEN_WEIGHT {
            write!(f, ", cpu weight {}", self.cpu_weight)?;
        }
        let io = [
            ("bytes/s read", self.io.read_bytes),
            ("bytes/s written", self.io.write_bytes),
            ("reads/s", self.io.read_operations),
            ("writes/s", self.io.write_operations),
        ];
        let mut set = io.iter().filter_map(|(unit, limit)| Some((unit, (*limit)?)));
        set.try_for_each(|(unit, limit)| write!(f, ", {limit} {unit}"))
    }
}

/// Microseconds over which [`CgroupLimits::cpu_quota`] counts.
pub const CPU_PERIOD: u64 = 100_000;

/// All that decides how a guest's VMM is started: two machines that are equal run the same guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub vmm: VmmKind,
    /// User and group of the VMM.
    pub uid: u32,
    pub tap: InterfaceName,
    pub mac: MacAddress,
    /// The guest's own address, which the command line tells it.
    pub ip: Ipv4Addr,
    pub vcpus: u8,
    pub memory_mib: u64,
    pub kernel: FileDigest,
    pub image: FileDigest,
    pub disk: MachineDisk,
    /// Container images that it shares with other guests, on a read-only drive of their own.
    #[serde(default)]
    pub images: Option<FileDigest>,
    /// What the kernel is told; the VMM's own part (`root=`, `reboot=`) included.
    pub command_line: String,
    /// What the VMM is told beside it, its files by their digests.
    #[serde(default)]
    pub spec: MachineSpec<FileDigest>,
    /// Whether QEMU runs it by the host's KVM, and emulates no processor. Of Firecracker, which does nothing else, it is not told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kvm: bool,
    /// Bytes of the disk that a session may bring; `None` where the machine has no place for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_disk: Option<u64>,
    /// The snapshot that it goes on from; none for a machine that boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<SnapshotName>,
}

/// Where a machine's data disk comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum MachineDisk {
    /// The guest's own file in the store, kept when the guest goes. What it was once copied from no longer matters.
    Kept,
    /// A copy of a stored disk that lives and dies with the jail.
    Ephemeral {
        base: FileDigest,
        /// In bytes.
        size: u64,
        /// Whether the copy lives in a tmpfs.
        in_memory: bool,
    },
}

impl Machine {
    /// What the guest's kernel calls the place of a session's disk, where there is one: the last of its drives.
    pub fn session_disk_device(&self) -> Option<&'static str> {
        self.session_disk.map(|_| if self.images.is_some() { "vdd" } else { "vdc" })
    }

    /// The files of the store that it is made of.
    pub fn digests(&self) -> Vec<FileDigest> {
        self.clone().digests_mut().map(|digest| *digest).collect()
    }

    /// The same, to be changed.
    pub fn digests_mut(&mut self) -> impl Iterator<Item = &mut FileDigest> {
        let disk = match &mut self.disk {
            MachineDisk::Kept => None,
            MachineDisk::Ephemeral { base, .. } => Some(base),
        };
        let files = [&mut self.kernel, &mut self.image].into_iter().chain(disk).chain(&mut self.images);
        files.chain(self.spec.files_mut())
    }
}

#[cfg(test)]
impl Machine {
    /// A machine of alice's, for tests.
    pub fn example(vmm: VmmKind) -> Self {
        use crate::base::Sha256;
        Self {
            vmm,
            uid: 200_001,
            tap: "sis-alice".parse().unwrap(),
            mac: "02:53:0a:6b:00:02".parse().unwrap(),
            ip: [10, 107, 0, 2].into(),
            vcpus: 1,
            memory_mib: 512,
            kernel: Sha256::of("kernel").into(),
            image: Sha256::of("image").into(),
            disk: MachineDisk::Kept,
            images: None,
            command_line: "console=ttyS0".into(),
            spec: MachineSpec::default(),
            kvm: false,
            session_disk: None,
            restored_from: None,
        }
    }
}
