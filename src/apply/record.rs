//! The few things about a host that cannot be observed, kept in small files of the store. Each is a contract: it carries the
//! version of its layout, and one of an earlier version is converted when it is read.
//!
//! A field that may be missing (`#[serde(default)]`) needs no new version. One that must be there, or that means something
//! else than before, does: [`Record::VERSION`] goes up by one, and [`Record::convert`] makes the new layout of the old.

pub mod pool;
pub mod quarantine;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::network::host_side;
use crate::base::text::none_is_empty;
use crate::base::{Class, Diagnosis, Diagnostic, FleetName, GuestName, InterfaceName, Sha256, SnapshotName};
use crate::host::container::StartedContainer;
use crate::host::layout::Layout;
use crate::host::policy::Policies;
use crate::host::publish::PublishedPort;
use crate::host::snapshot::{HandedOver, Restored, SnapshotManifest};
use crate::host::state::Machine;
use crate::sys::fs::{self as files, FileError, boot_id};
use crate::sys::netns::own_identity;
use crate::sys::nft::SetDigests;
use crate::sys::process::{ProcessId, ProcessInfo};

/// What is kept in a file of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// Version of the layout that is written. Records of before there were versions count as of version 0.
    const VERSION: u32 = 1;

    /// Makes a record of this version of one of an earlier version.
    fn convert(_version: u32, record: Map<String, Value>) -> Result<Map<String, Value>, String> {
        Ok(record)
    }
}

/// `vmm.json`: the process that was started as a guest's VMM. Whatever else lives in the guest's cgroup once that has ended is not it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartedVmm(pub ProcessId);

impl Record for StartedVmm {}

/// `ready.json`: what a guest said of itself, and what was started in it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The VMM's process, so that a later one is not taken for it.
    #[serde(flatten)]
    pub vmm: ProcessId,
    /// `ssh-ed25519 AAAA...`; `None` where the guest runs no sshd.
    #[serde(with = "none_is_empty")]
    pub host_key: Option<String>,
    #[serde(default)]
    pub containers: Vec<StartedContainer>,
}

impl Ready {
    /// Whether it tells of this VMM, and not of an earlier one of the guest.
    pub fn is_of(&self, vmm: &ProcessInfo) -> bool {
        self.vmm == vmm.id
    }
}

/// `place.json`: where the jails are, so that another place in fleet.toml does not lose sight of disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailsRootRecord {
    pub jails: PathBuf,
}

/// `ruleset.json`: the kernel has rules in its own words, so what it holds is compared with what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedRuleset {
    /// Of the text that was loaded.
    pub digest: Sha256,
    /// Of what the kernel held right after.
    pub listing: Sha256,
    /// What it lets guests do; records of earlier versions do not say it.
    #[serde(default)]
    pub policies: Option<Policies>,
    /// The ways in to guests that it has, for who looks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedPort>,
    /// Whether `listing` tells sets apart, so that one need not be read for the sake of another.
    #[serde(default)]
    pub by_set: bool,
}

/// `ruleset-held.json`: what the kernel held of rules after they were loaded, for as long as nobody changed anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRules {
    pub boot: Option<String>,
    /// Inode of the network namespace.
    pub namespace: u64,
    /// How often tables of that were changed.
    pub generation: u32,
    pub listing: Sha256,
    pub elements: KernelElements,
}

impl KernelRules {
    /// Whether nobody changed anything since, where this thread's network is at that generation.
    pub fn is_now(&self, generation: u32) -> bool {
        self.generation == generation && self.boot == boot_id() && Some(self.namespace) == own_identity()
    }
}

/// Digests of what sets hold, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelElements {
    pub inet: SetDigests,
    pub arp: SetDigests,
}

/// `/run/sisforge/forwarding.json`: interfaces of the host that fleets had switched on for forwarding. It goes with the
/// host's boot, as what it tells of does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// By the inode of a network namespace: interfaces of several may be called alike.
    #[serde(default)]
    pub networks: BTreeMap<u64, ForwardedInterfaces>,
    /// What an earlier sisforge noted, of whatever network.
    #[serde(default, skip_serializing)]
    interfaces: ForwardedInterfaces,
}

pub type ForwardedInterfaces = BTreeMap<InterfaceName, ForwardedInterface>;

impl Forwarding {
    /// The interfaces of a network. What an earlier sisforge noted goes to whoever asks first.
    pub fn of(&mut self, netns: u64) -> &mut ForwardedInterfaces {
        let interfaces = self.networks.entry(netns).or_default();
        interfaces.append(&mut self.interfaces);
        interfaces
    }
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedInterface {
    /// Whether it forwarded before any fleet came.
    pub before: bool,
    /// Those that need it to.
    pub fleets: BTreeSet<FleetName>,
}

/// `freezing.json`: a VMM is paused, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freezing {
    pub snapshot: SnapshotName,
    /// Whether the guest must not go on beside its snapshot.
    pub stop: bool,
}

impl Record for Ready {}
impl Record for JailsRootRecord {}
impl Record for LoadedRuleset {}
impl Record for KernelRules {}
impl Record for Forwarding {}
impl Record for Freezing {}
impl Record for HandedOver {}
impl Record for Restored {}
impl Record for Machine {
    const VERSION: u32 = 2;

    /// Version 0 told the guest's address on the command line alone. Up to version 1 guests were told their policy's name servers,
    /// and not their gateway: it is all the same whom they ask, since port 53 leads to those servers.
    fn convert(version: u32, mut record: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let line = record.get("command_line").and_then(Value::as_str).unwrap_or_default();
        let ip = address_on(line).ok_or("its kernel command line has no address")?;
        let word = |word: &str| match word.starts_with("sisforge.dns=") {
            true => format!("sisforge.dns={}", host_side(ip)),
            false => word.to_owned(),
        };
        let line: Vec<_> = line.split(' ').map(word).collect();
        record.insert("command_line".to_owned(), line.join(" ").into());
        if version == 0 {
            record.insert("ip".to_owned(), ip.to_string().into());
        }
        Ok(record)
    }
}

impl Record for SnapshotManifest {
    const VERSION: u32 = 1;

    /// Version 0 had a number of its own, `format`, which was always 1, and a machine of version 0.
    fn convert(version: u32, mut record: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let format = record.remove("format").unwrap_or_default();
        if format != 1 {
            return Err(format!("its format is {format}, but this sisforge knows format 1 only"));
        }
        let Some(Value::Object(machine)) = record.remove("machine") else {
            return Err("it has no machine".to_owned());
        };
        record.insert("machine".to_owned(), Machine::convert(version, machine)?.into());
        Ok(record)
    }
}

/// The guest's own address, as the kernel's parameter `ip=` tells it.
fn address_on(command_line: &str) -> Option<Ipv4Addr> {
    let ip = command_line.split(' ').find_map(|word| word.strip_prefix("ip="))?;
    ip.split(':').next()?.parse().ok()
}

/// The guests that have records or logs in the store, whether anything else of them is there or not.
pub fn guests(layout: &Layout) -> Result<BTreeSet<GuestName>, FileError> {
    Ok(files::names_in(&layout.guests())?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// A record that is there, and does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read the record {}", path.display())]
    Broken { path: PathBuf, source: serde_json::Error },
    #[error("cannot read the record {}: {why}", path.display())]
    OthersInHostNetwork { path: PathBuf, why: String },
    #[error(
        "cannot read the record {}: a newer sisforge wrote it (version {version}; this sisforge knows up to \
         version {known})", path.display()
    )]
    Newer { path: PathBuf, version: u32, known: u32 },
}

impl Diagnostic for Unreadable {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Newer { .. } => Class::Failed.hint("use the sisforge that wrote it, or a later one"),
            Self::Broken { .. } | Self::OthersInHostNetwork { .. } => Class::Failed.no_hint(),
        }
    }
}

/// A record that was not written.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot write the record {}", path.display())]
    Text { path: PathBuf, source: serde_json::Error },
}

impl Diagnostic for Unwritten {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Text { .. } => Class::Failed.no_hint(),
        }
    }
}

/// What every record begins with.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    version: u32,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

/// Reads a record; `None` where there is none.
///
/// # Errors
/// Where it is there and cannot be read, or a newer program wrote it.
pub fn read<T: Record>(path: &Path) -> Result<Option<T>, Unreadable> {
    let bytes = match read_at_once(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::when("read", path)(error).into()),
    };
    parse(path, &bytes).map(Some)
}

/// Reads a file, and waits for nobody who might write to a pipe in its place.
fn read_at_once(path: &Path) -> io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    files::read_small(rustix::fs::open(path, flags, Mode::empty())?.into(), files::PAGE)
}

/// Reads a record from its bytes; `path` says in messages what they are.
pub(super) fn parse<T: Record>(path: &Path, bytes: &[u8]) -> Result<T, Unreadable> {
    let broken = |source| Unreadable::Broken { path: path.to_owned(), source };
    let Head { version } = serde_json::from_slice(bytes).map_err(broken)?;
    match version {
        known if known == T::VERSION => serde_json::from_slice(bytes).map_err(broken),
        newer if newer > T::VERSION => {
            Err(Unreadable::Newer { path: path.to_owned(), version: newer, known: T::VERSION })
        }
        older => {
            let record = serde_json::from_slice(bytes).map_err(broken)?;
            let record = T::convert(older, record)
                .map_err(|why| Unreadable::OthersInHostNetwork { path: path.to_owned(), why })?;
            serde_json::from_value(Value::Object(record)).map_err(broken)
        }
    }
}

/// Writes a record that must be there after a loss of power.
pub fn write_synced<T: Record>(path: &Path, record: &T) -> Result<(), Unwritten> {
    Ok(files::write(path, &text(path, record)?, 0o600)?)
}

/// Writes a record, atomically. It is not synced: what it tells of ends with the machine's power.
pub fn write<T: Record>(path: &Path, record: &T) -> Result<(), Unwritten> {
    Ok(files::write_unsynced(path, &text(path, record)?, 0o600)?)
}

/// A record as it is written.
pub(super) fn text<T: Record>(path: &Path, record: &T) -> Result<Vec<u8>, Unwritten> {
    serde_json::to_vec_pretty(&Versioned { version: T::VERSION, record })
        .map_err(|source| Unwritten::Text { path: path.to_owned(), source })
}
