//! `snapshot create`, `ls`, `restore`, `rm`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::apply::snapshot::{SnapshotState, StoredSnapshot};
use crate::host::snapshot as host;
use crate::run::snapshot_view::SnapshotView;
use crate::run::snapshots;

use super::event::Summary;
use super::guest::MachineJson;

/// A snapshot that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CreatedSnapshotJson {
    pub snapshot: String,
    pub guest: String,
    /// When, in UTC, such as `2026-11-25T17:53:16Z`.
    pub created: String,
    /// Bytes that its files take on the disk.
    pub size: u64,
    /// Milliseconds for which the guest stood still, where it goes on.
    pub stood_still_ms: u64,
    /// Whether the guest was to be stopped.
    pub stopped: bool,
    /// Why it cannot be restored on this host as that is now, one sentence each.
    pub obstacles: Vec<String>,
    /// Earlier snapshots that `[snapshots] keep` does not keep any more, and that were removed.
    pub removed: Vec<String>,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
}

/// A snapshot that is there.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Snapshot {
    pub name: String,
    pub state: StateJson,
    /// Bytes that its files take on the disk.
    pub size: u64,
    /// Whether a data disk is in it.
    pub has_disk: bool,
    /// What became of it; `null` where it was not restored, or that did not come to its end.
    pub restored: Option<RestoredAs>,
    /// Why it cannot be restored although its files are here, as a copy of one that was restored; else `null`.
    pub spent: Option<String>,
    /// The public key of the host that has it now, where it was exported; else `null`.
    pub exported_to: Option<String>,
    /// `null` where it cannot be read: such a snapshot can be removed, and nothing else.
    pub manifest: Option<ManifestJson>,
}

/// A snapshot that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SnapshotViewJson {
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// By which the ledger knows it, wherever it is copied to; `null` where its manifest cannot be read.
    pub id: Option<String>,
    /// Seconds since it was made, by the clock of the host; `null` where that is not known, or lies in the future.
    pub age: Option<u64>,
    /// What the ledger says of it; `null` where it does not know it.
    pub ledger: Option<String>,
    /// Why a restore would be refused now, one sentence each; none where it would not.
    pub refusals: Vec<String>,
}

impl From<&SnapshotView> for SnapshotViewJson {
    fn from(view: &SnapshotView) -> Self {
        Self {
            snapshot: Snapshot::from(&view.stored),
            id: view.stored.manifest.as_ref().map(|manifest| manifest.id().to_string()),
            age: view.age.map(|age| age.as_secs()),
            ledger: view.counted.as_ref().map(|line| line.event.words()),
            refusals: view.refusals.clone(),
        }
    }
}

/// Whether a snapshot can be restored.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateJson {
    /// It can.
    Ready,
    /// It was: a snapshot is restored once.
    Consumed,
}

/// What a snapshot was restored as.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RestoredAs {
    pub guest: String,
    /// When, in UTC.
    pub at: String,
}

/// What is known of a snapshot.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ManifestJson {
    /// The guest that was frozen.
    pub guest: String,
    /// When, in UTC, such as `2026-11-25T17:53:16Z`.
    pub created: String,
    pub machine: FrozenMachine,
    /// The guest's ssh host key; empty where it runs no sshd.
    pub host_key: String,
    /// Containers that had been started in it.
    pub containers: Vec<Container>,
    pub origin: OriginJson,
    /// Every file of it beside the manifest, by name.
    pub files: BTreeMap<String, File>,
}

/// The machine that was frozen.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FrozenMachine {
    /// User of the VMM on the host.
    pub uid: u32,
    /// The guest's own address, which is in its memory.
    pub ip: Ipv4Addr,
    #[serde(flatten)]
    pub machine: MachineJson,
}

/// A container.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Container {
    pub name: String,
    /// `null` where a `kube` file said what ran.
    pub image: Option<String>,
}

/// Where a guest was frozen.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OriginJson {
    /// Such as `1.16.1`.
    pub vmm_version: String,
    /// Of the VMM's program.
    pub vmm_sha256: String,
    /// Version of the state's own format; empty where the VMM tells none.
    pub state_format: String,
    /// Release of the host's kernel.
    pub kernel: String,
    pub cpu: CpuJson,
}

/// A processor.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CpuJson {
    /// Such as `GenuineIntel`.
    pub vendor: String,
    /// Such as `AMD EPYC 9R14`.
    pub model: String,
    /// Family, model and stepping.
    pub signature: String,
    /// SHA-256 of the sorted names of what it can do.
    pub flags: String,
}

/// A file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct File {
    /// In bytes, holes included.
    pub size: u64,
    pub digest: String,
}

/// A guest that was brought back.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RestoredJson {
    /// The snapshot, which is consumed.
    pub snapshot: String,
    /// The guest that goes on from it.
    pub guest: String,
    /// Where the data disk that the guest had is kept, where the snapshot's took its place.
    pub set_aside: Option<PathBuf>,
    pub summary: Summary,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
}

/// A snapshot that was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Removed {
    pub snapshot: String,
    /// Whether a data disk went with it.
    pub had_disk: bool,
}

impl CreatedSnapshotJson {
    /// Without notes.
    pub fn new(created: &snapshots::CreatedSnapshot<'_>, stopped: bool) -> Self {
        Self {
            snapshot: created.name.to_string(),
            guest: created.manifest.guest.to_string(),
            created: created.manifest.created.clone(),
            size: created.size,
            stood_still_ms: u64::try_from(created.paused_for.as_millis()).unwrap_or(u64::MAX),
            stopped,
            obstacles: created.obstacles.iter().map(ToString::to_string).collect(),
            removed: created.outdated.iter().map(|outdated| outdated.name.to_string()).collect(),
            notes: Vec::new(),
        }
    }
}

impl From<&StoredSnapshot> for Snapshot {
    fn from(found: &StoredSnapshot) -> Self {
        Self {
            name: found.name.to_string(),
            state: match found.place {
                SnapshotState::Ready => StateJson::Ready,
                SnapshotState::Consumed => StateJson::Consumed,
            },
            size: found.size,
            has_disk: found.has_disk,
            restored: found
                .restored
                .as_ref()
                .map(|restored| RestoredAs { guest: restored.guest.to_string(), at: restored.at.clone() }),
            spent: found.spent.clone(),
            exported_to: found.exported.as_ref().map(|exported| exported.recipient.clone()),
            manifest: found.manifest.as_ref().map(ManifestJson::from),
        }
    }
}

impl From<&host::SnapshotManifest> for ManifestJson {
    fn from(manifest: &host::SnapshotManifest) -> Self {
        let containers = manifest
            .containers
            .iter()
            .map(|started| &started.container)
            .map(|one| Container { name: one.name.to_string(), image: one.image().map(str::to_owned) });
        let files = manifest
            .files
            .iter()
            .map(|(name, file)| (name.clone(), File { size: file.size, digest: file.digest.to_string() }));
        let machine = MachineJson::from(&manifest.machine);
        Self {
            guest: manifest.guest.to_string(),
            created: manifest.created.clone(),
            machine: FrozenMachine { uid: manifest.machine.uid, ip: manifest.machine.ip, machine },
            host_key: manifest.host_key.clone().unwrap_or_default(),
            containers: containers.collect(),
            origin: OriginJson::from(&manifest.origin),
            files: files.collect(),
        }
    }
}

impl From<&host::SnapshotOrigin> for OriginJson {
    fn from(origin: &host::SnapshotOrigin) -> Self {
        let cpu = &origin.cpu;
        Self {
            vmm_version: origin.vmm_version.clone(),
            vmm_sha256: origin.vmm_sha256.to_string(),
            state_format: origin.state_format.clone().unwrap_or_default(),
            kernel: origin.kernel.clone(),
            cpu: CpuJson {
                vendor: cpu.vendor.clone(),
                model: cpu.model.clone(),
                signature: cpu.signature.clone(),
                flags: cpu.flags.clone(),
            },
        }
    }
}
