//! The validated fleet: what every later stage works from. It is built by [`super::validate`] alone.

mod container;
mod machine;
mod network;

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use toml::Spanned;

use super::registry::{ArtifactPlace, RegistryImage};
use crate::base::problem::{InvalidFile, Problem, line_column};
use crate::base::{
    ByteSize, FleetName, GuestName, GuestPath, InterfaceName, KernelOption, Label, Rates, Sha256,
};

pub use container::*;
pub use machine::*;
pub use network::*;

/// A whole `fleet.toml`, checked: every name that it mentions is declared, every path is resolved
/// against the directory that the file stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Directory of `fleet.toml`; recipes, kernel configs and keys are looked up below it.
    pub root: PathBuf,
    /// What no link of a file that belongs to it leads out of: that directory, or the checkout that it is a part of.
    pub project: PathBuf,
    /// What it was read from, for problems that show only later.
    pub source: SourceText,
    pub name: FleetName,
    pub vmm: VmmKind,
    /// Where artifacts are that others built.
    pub artifacts: Option<ArtifactPlace>,
    pub kernel: KernelSpec,
    /// In the order of the file: apk prefers earlier repositories on a tie.
    pub repositories: Vec<RepositorySpec>,
    pub images: BTreeMap<Label, ImageSpec>,
    pub disks: BTreeMap<Label, DiskSpec>,
    pub networks: BTreeMap<Label, NetworkPolicy>,
    /// Users and the members of pools alike, by name.
    pub guests: BTreeMap<GuestName, GuestSpec>,
    pub snapshots: SnapshotKeep,
    pub host: HostSpec,
}

/// Which snapshots are kept; all, unless something is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotKeep {
    /// So many of each guest, the newest.
    pub count: Option<u32>,
    pub age: Option<Duration>,
    /// Of all together, on the disk.
    pub size: Option<ByteSize>,
}

/// The text of a `fleet.toml`, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    pub path: PathBuf,
    pub text: String,
}

impl SourceText {
    /// The file with problems whose places are in its text.
    pub fn refuse(&self, mut problems: Vec<Problem>) -> InvalidFile {
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        InvalidFile { path: self.path.clone(), text: self.text.clone(), problems }
    }

    /// Line and column of a byte offset, both from 1, the column in characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        line_column(&self.text, offset)
    }
}

/// The program that runs a guest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum VmmKind {
    #[default]
    Firecracker,
    Qemu,
}

impl VmmKind {
    /// Every kind there is.
    pub const ALL: [Self; 2] = [Self::Firecracker, Self::Qemu];

    /// Its name, in `fleet.toml` and in paths.
    pub fn word(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
        }
    }
}

/// Where bytes come from: the network, or a path that is already absolute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `http://` or `https://`, without a trailing slash.
    Url(String),
    Path(PathBuf),
}

/// How the guest kernel is had.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelSpec {
    Build(KernelBuild),
    /// A ready `vmlinux`, pinned by its digest in the lock.
    Ready {
        image: PathBuf,
        /// Where the file names it.
        place: Range<usize>,
        sha256: Option<Sha256>,
    },
}

/// A kernel to configure and build: `allnoconfig` + base + fragments + options, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelBuild {
    /// A tarball (xz or gz) or a source directory.
    pub source: Source,
    /// Other addresses of the same tarball, asked in this order where the source cannot be had there.
    pub mirrors: Vec<String>,
    pub sha256: Option<Sha256>,
    /// Public keys, one of which must have signed the list of digests beside the source.
    pub keyring: Option<PathBuf>,
    /// `kernel-configs/<base>.config`
    pub base: Label,
    /// `kernel-configs/fragments/<name>.config`
    pub fragments: Vec<Label>,
    pub options: BTreeMap<KernelOption, OptionValue>,
    pub patches: Vec<PathBuf>,
}

/// Value of a kernel option. There is no module: the guest has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    Yes,
    No,
    Number(i64),
    Text(String),
}

/// An apk repository and the keys that may sign its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositorySpec {
    /// Without the architecture: `<location>/<arch>/APKINDEX.tar.gz`.
    pub location: Source,
    /// Other addresses of the same repository, asked in this order where the location fails. A lock does not name them.
    pub mirrors: Vec<String>,
    /// `@tag` of apk's pinning, without the `@`.
    pub tag: Option<String>,
    /// Directories of trusted `*.rsa.pub` files.
    pub keys: Vec<PathBuf>,
}

/// A root image to build.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSpec {
    /// Where `fleet.toml` declares it.
    pub place: Range<usize>,
    pub recipes: Vec<Label>,
    /// Entries of apk's world beyond those of the recipes, such as `podman~5`.
    pub packages: Vec<String>,
    /// `None` is `"auto"`: content plus a stated margin.
    pub size: Option<ByteSize>,
    pub files: BTreeMap<GuestPath, FileSpec>,
    /// Parameters of the recipes, by name.
    pub parameters: BTreeMap<String, GivenParameter>,
    /// Scripts that no recipe covers, and that the image does without.
    pub accepted: Vec<AcceptedScript>,
}

impl ImageSpec {
    /// Whether it does without a script with this digest.
    pub fn accepts(&self, script: &ScriptName, sha256: &Sha256) -> bool {
        let mut of_name = self.accepted.iter().filter(|accepted| accepted.name.get_ref() == script);
        of_name.any(|accepted| accepted.sha256.iter().any(|one| one.get_ref() == sha256))
    }
}

/// A value that `fleet.toml` gives a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenParameter {
    /// Where its name stands.
    pub place: Range<usize>,
    pub value: Spanned<ParameterValue>,
}

/// A script that an image does without: which one, and what its body hashes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedScript {
    pub name: Spanned<ScriptName>,
    /// At least one.
    pub sha256: Vec<Spanned<Sha256>>,
}

/// A script of a package, written `busybox.post-install`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScriptName {
    pub package: String,
    pub moment: ScriptMoment,
}

impl std::fmt::Display for ScriptName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.package, self.moment)
    }
}

/// When apk runs a script of a package that it installs for the first time. Those for upgrades and removals never would be
/// run for an image, which is always made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptMoment {
    PreInstall,
    PostInstall,
    Trigger,
}

impl ScriptMoment {
    /// All of them, in the order in which apk would run them.
    pub const ALL: [Self; 3] = [Self::PreInstall, Self::PostInstall, Self::Trigger];

    /// apk's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreInstall => "pre-install",
            Self::PostInstall => "post-install",
            Self::Trigger => "trigger",
        }
    }
}

impl std::fmt::Display for ScriptMoment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Value of a recipe's parameter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum ParameterValue {
    Boolean(bool),
    Integer(i64),
    Text(String),
    List(Vec<String>),
}

/// A file given in `fleet.toml` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpec {
    pub content: FileContent,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub owner: String,
    pub group: String,
}

/// What a file of `fleet.toml` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileContent {
    Inline(String),
    /// A file beside `fleet.toml`.
    File(PathBuf),
}

/// A kind of data disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    pub size: ByteSize,
    pub backing: Backing,
    /// Container images that are there when the guest first boots.
    pub images: Vec<ContainerImage>,
    /// Of the file system; `None`: one that follows from what the disk is made of.
    pub label: Option<String>,
    /// Who owns the top directory; `None`: the recipes' user with subordinate ids.
    pub owner: Option<String>,
}

/// Where a data disk lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backing {
    /// In the store; kept across down and up.
    File,
    /// In RAM; gone after down.
    Tmpfs,
}

/// Where a container image comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerImage {
    /// `oci-archive:PATH[:REFERENCE]`: an OCI layout in a tar.
    OciArchive {
        path: PathBuf,
        /// Which image, by its annotation `org.opencontainers.image.ref.name`; needed where there are several.
        reference: Option<String>,
    },
    /// `oci:PATH[:REFERENCE]`: an OCI layout in a directory.
    OciLayout {
        path: PathBuf,
        /// As above.
        reference: Option<String>,
    },
    /// `docker-archive:PATH`: what `docker save` writes.
    DockerArchive(PathBuf),
    /// `docker://HOST/NAME:TAG@sha256:DIGEST`, of a registry.
    Registry(RegistryImage),
}

/// One guest with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestSpec {
    pub image: Label,
    pub network: Label,
    /// Which declared disk this is a copy of; `None` where it is written out in the guest itself.
    pub disk_name: Option<Label>,
    pub disk: DiskSpec,
    /// Which declared machine this is; `None` where it is written out in the guest itself, or the default.
    pub machine_name: Option<Label>,
    pub machine: MachineSpec,
    /// 1 to 32.
    pub vcpus: u8,
    pub memory: ByteSize,
    /// Share of the CPU against the guests beside it: 1 to 10000, 100 where nobody is preferred.
    pub cpu_weight: u16,
    pub io: IoSpec,
    /// Started, detached, once the guest is ready.
    pub containers: Vec<ContainerSpec>,
    /// Where `fleet.toml` has what each of them runs.
    pub container_places: Vec<Range<usize>>,
    /// A member of a pool is ephemeral: its disk goes with it.
    pub pool: Option<PoolMember>,
    /// Of a member of a pool whose guests are handed out.
    pub warm: Option<WarmPool>,
    pub on_exit: OnExit,
}

/// Which guest of which pool it is. Its name is made of both, and is never taken apart again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolMember {
    pub pool: Label,
    /// From 0.
    pub number: u32,
}

/// A pool whose guests are handed out: so many stand ready beyond those in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmPool {
    pub spare: u32,
    /// In use and spare together.
    pub max: u32,
    /// Whether spares are paused.
    pub paused: bool,
    /// After which a session ends by itself.
    pub ttl: Option<Duration>,
    /// The size of the kept disks that sessions bring; guests have no place for one where this is `None`.
    pub disk: Option<ByteSize>,
    /// The container with which a session ends.
    pub ends_with: Option<Label>,
}

/// What `watch` does with a guest whose VMM ended by itself. `up` starts it in any case, and so does `watch` after the host
/// started anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// Starts it again: at once, and later each time that it ends soon.
    #[default]
    Restart,
    Leave,
}

impl GuestSpec {
    /// Whether the disk goes with the jail.
    pub fn is_ephemeral(&self) -> bool {
        self.pool.is_some() || self.disk.backing == Backing::Tmpfs
    }
}

/// What a guest may read from and write to the host's disk in a second; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoSpec {
    /// In bytes.
    pub read: Option<u64>,
    /// In bytes.
    pub write: Option<u64>,
    pub read_operations: Option<u32>,
    pub write_operations: Option<u32>,
}

/// What the fleet uses of its host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    /// `None` is `"auto"`: the interface of the default route.
    pub uplink: Option<InterfaceName>,
    /// What it carries at the most, as far as that is known.
    pub uplink_rates: Rates,
    /// One /30 per guest.
    pub subnet: Ipv4Net,
    /// One uid (and the same gid) per guest.
    pub uids: RangeInclusive<u32>,
    /// State and logs, and all that stands beside jails.
    pub store: PathBuf,
    /// Jails, images, disks and snapshots, on one file system; `None` is the store.
    pub jails: Option<PathBuf>,
    /// Of each log of each guest. What is changed here holds from the guest's next start on.
    pub logs: LogLimits,
}

/// How much is kept of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// At which another file is begun.
    pub size: ByteSize,
    /// Files that are kept beside the one that is written.
    pub keep: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { size: ByteSize::from_mib(4), keep: 3 }
    }
}

/// What `[host]` is unless it says otherwise, as the product's documentation shows it.
impl Default for HostSpec {
    fn default() -> Self {
        Self {
            uplink: None,
            uplink_rates: Rates::default(),
            subnet: Ipv4Net::new_assert([10, 107, 0, 0].into(), 16),
            uids: 200_000..=265_535,
            store: PathBuf::from("/var/lib/sisforge"),
            jails: None,
            logs: LogLimits::default(),
        }
    }
}

impl HostSpec {
    /// How many guests the subnet has addresses for: a /30 each.
    pub fn address_capacity(&self) -> u64 {
        match 30u8.checked_sub(self.subnet.prefix_len()) {
            Some(bits) => 1 << bits,
            None => 0,
        }
    }

    /// How many guests there are user ids for.
    pub fn uid_capacity(&self) -> u64 {
        u64::from(self.uids.end().saturating_sub(*self.uids.start())) + 1
    }
}
