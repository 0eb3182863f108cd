//! What a VMM is told of a guest's machine, beyond processors and memory.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A kind of machine. `File` is how a file is named: by its path in a fleet, by its digest on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound(serialize = "File: Serialize", deserialize = "File: Deserialize<'de>"))]
pub struct MachineSpec<File = PathBuf> {
    /// Whether the guest's memory is of huge pages, 2 MiB each.
    pub huge_pages: bool,
    pub cpu_template: Option<CpuTemplate<File>>,
    /// Compiled seccomp filters in place of Firecracker's own.
    pub seccomp: Option<File>,
    /// Firecracker's own default, "info", unless given.
    pub log_level: Option<LogLevel>,
    /// Whether the VMM writes metrics.
    pub metrics: bool,
    pub balloon: Option<Balloon>,
    /// Of the random numbers that the guest takes of its host.
    pub entropy: RateLimiter,
    /// Whether host and guest have sockets between them.
    pub vsock: bool,
    pub metadata: Option<Metadata<File>>,
    /// Of each of the guest's disks.
    pub disk: RateLimiter,
    pub network: NetworkLimits,
}

/// Features of the host's processor that the guest does not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuTemplate<File = PathBuf> {
    Static(StaticTemplate),
    /// Firecracker's JSON (`docs/cpu_templates/cpu-templates.md`).
    Custom(File),
}

/// Templates that Firecracker brings for x86-64, by its names of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StaticTemplate {
    C3,
    T2,
    T2A,
    T2CL,
    T2S,
}

/// How much Firecracker logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Firecracker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "Error",
            Self::Warn => "Warn",
            Self::Info => "Info",
            Self::Debug => "Debug",
            Self::Trace => "Trace",
        }
    }
}

/// Memory that the guest gives back to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balloon {
    /// What the balloon takes of the guest's memory once the guest has booted.
    pub size_mib: u64,
    /// Whether the guest takes it back before it kills a process for want of memory.
    pub deflate_on_oom: bool,
    /// Seconds between two statistics; none for 0.
    pub statistics: u16,
    /// Whether the guest tells of each page that it frees.
    pub reporting: bool,
}

/// What the guest reads at 169.254.169.254.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata<File = PathBuf> {
    /// A JSON object.
    pub file: File,
    /// Whether it is told in plain text as EC2 does, whatever the guest accepts.
    pub imds: bool,
}

/// Limits of one device, or of one direction of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimiter {
    /// In bytes.
    pub bandwidth: Option<Bucket>,
    /// In requests or packets.
    pub operations: Option<Bucket>,
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub per_second: u64,
    /// Let through at once when the guest boots, and never again.
    pub burst: u64,
}

impl Bucket {
    /// A rate without a burst.
    pub fn steady(per_second: u64) -> Self {
        Self { per_second, burst: 0 }
    }
}

/// What the guest's network device does by itself; the fleet's nft rules hold beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkLimits {
    /// From the guest.
    pub up: RateLimiter,
    /// Towards the guest.
    pub down: RateLimiter,
    /// In bytes; the guest's own choice unless given.
    pub mtu: Option<u16>,
}

/// What a file of a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MachineFile {
    CpuTemplate,
    Seccomp,
    Metadata,
}

impl<File> Default for MachineSpec<File> {
    fn default() -> Self {
        Self {
            huge_pages: false,
            cpu_template: None,
            seccomp: None,
            log_level: None,
            metrics: false,
            balloon: None,
            entropy: RateLimiter::default(),
            vsock: false,
            metadata: None,
            disk: RateLimiter::default(),
            network: NetworkLimits::default(),
        }
    }
}

impl<File> MachineSpec<File> {
    /// The same machine, its files named otherwise.
    pub fn renamed<Other, E>(
        &self,
        name: impl Fn(&File) -> Result<Other, E>,
    ) -> Result<MachineSpec<Other>, E> {
        let cpu_template = match &self.cpu_template {
            Some(CpuTemplate::Custom(file)) => Some(CpuTemplate::Custom(name(file)?)),
            Some(CpuTemplate::Static(template)) => Some(CpuTemplate::Static(*template)),
            None => None,
        };
        let metadata =
            |metadata: &Metadata<File>| Ok(Metadata { file: name(&metadata.file)?, imds: metadata.imds });
        Ok(MachineSpec {
            huge_pages: self.huge_pages,
            cpu_template,
            seccomp: self.seccomp.as_ref().map(&name).transpose()?,
            log_level: self.log_level,
            metrics: self.metrics,
            balloon: self.balloon,
            entropy: self.entropy,
            vsock: self.vsock,
            metadata: self.metadata.as_ref().map(metadata).transpose()?,
            disk: self.disk,
            network: self.network,
        })
    }

    /// The files that it names, and what each is for.
    pub fn files(&self) -> impl Iterator<Item = (MachineFile, &File)> {
        let template = match &self.cpu_template {
            Some(CpuTemplate::Custom(file)) => Some((MachineFile::CpuTemplate, file)),
            Some(CpuTemplate::Static(_)) | None => None,
        };
        let seccomp = self.seccomp.as_ref().map(|file| (MachineFile::Seccomp, file));
        let metadata = self.metadata.as_ref().map(|metadata| (MachineFile::Metadata, &metadata.file));
        [template, seccomp, metadata].into_iter().flatten()
    }

    /// The files that it names, to be changed.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut File> {
        let template = match &mut self.cpu_template {
            Some(CpuTemplate::Custom(file)) => Some(file),
            Some(CpuTemplate::Static(_)) | None => None,
        };
        let metadata = self.metadata.as_mut().map(|metadata| &mut metadata.file);
        [template, self.seccomp.as_mut(), metadata].into_iter().flatten()
    }

    /// Kernel options without which the guest has nothing of it.
    pub fn kernel_needs(&self) -> impl Iterator<Item = &'static str> {
        let reporting = self.balloon.is_some_and(|balloon| balloon.reporting);
        let needs = [
            (self.balloon.is_some(), "VIRTIO_BALLOON"),
            (reporting, "PAGE_REPORTING"),
            (self.vsock, "VIRTIO_VSOCKETS"),
        ];
        needs.into_iter().filter(|(needed, _)| *needed).map(|(_, option)| option)
    }
}
