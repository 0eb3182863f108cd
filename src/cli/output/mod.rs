//! What `--json` prints, as types of their own: a contract with whoever reads it, and no picture of what the program has
//! inside. `sisforge schema NAME` prints the JSON Schema of each, in which the comments here are the descriptions.
//!
//! Reports that are made to be printed, of images, kernels and checks of the host, are documents themselves.
//!
//! Keys are added, and neither renamed nor removed. Where a value is not known or there is none, it is `null`.

mod apk;
mod build;
mod disk;
mod error;
mod event;
mod flows;
mod forensics;
mod gc;
mod guest;
mod host;
mod kernel;
mod keys;
mod plan;
mod policy;
mod publish;
mod session;
mod snapshot;
mod transfer;
mod verify;

pub use apk::{ApkEntryJson, ApkFileJson, ApkPackageJson, ChosenJson, PackedJson, SolvedJson, VerifiedJson};
pub use build::{ArtifactJson, CheckedJson, ComparisonJson, InputJson};
pub use disk::{Disk, DiskRemoved, WrittenJson};
pub use error::{FailureJson, ProblemJson};
pub use event::{EventJson, Summary, names};
pub use flows::{DroppedJson, FlowJson, flow_word};
pub use forensics::{EvidenceFilesJson, EvidenceJson};
pub use gc::GarbageJson;
pub use guest::{ContainerJson, Guest, GuestLoadJson, StatusJson};
pub use host::{DoctorJson, LogLineJson};
pub use kernel::{CompactedJson, KernelChangeJson, KernelSettingJson, KernelWhyJson};
pub use keys::KeysJson;
pub use plan::{PlanJson, TreeJson};
pub use policy::{ExplainedJson, PolicyJson, QuarantineJson, RulesJson};
pub use publish::PublishedJson;
pub use session::{HandedOutJson, SessionEndedJson, SessionJson};
pub use snapshot::{FrozenJson, Removed, RestoredJson, Snapshot, SnapshotViewJson};
pub use transfer::{AcceptedJson, ExportedJson, ImportedJson, LedgerLineJson, RecipientJson};
pub use verify::VerificationJson;

use schemars::JsonSchema;

use crate::build::configured::ConfigLine;
use crate::image::difference::Difference;
use crate::image::inspect::Inspection;
use crate::run::events::HostEvent;

/// A document that a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DocumentJson {
    /// Of `ps`
    Ps,
    /// Of `ps --containers`
    PsContainers,
    /// Of `status`
    Status,
    /// Of `top`
    Top,
    /// Of `plan`
    Plan,
    /// Of `policy show`
    PolicyShow,
    /// Of `policy show --nft`
    PolicyNft,
    /// Of `policy explain`
    PolicyExplain,
    /// One line of `policy log`
    PolicyLog,
    /// One line of `policy flows`
    PolicyFlows,
    /// Of `quarantine` and `release`
    Quarantine,
    /// Of `session start` and `session extend`
    Session,
    /// Of `session ls`
    SessionLs,
    /// Of `session end`
    SessionEnd,
    /// Of `publish`
    Publish,
    /// Of `tree`
    Tree,
    /// Of `check`
    Check,
    /// Of `disk ls`
    DiskLs,
    /// Of `disk rm`
    DiskRm,
    /// Of `snapshot create`
    SnapshotCreate,
    /// Of `snapshot ls`
    SnapshotLs,
    /// Of `snapshot restore`
    SnapshotRestore,
    /// Of `snapshot rm`
    SnapshotRm,
    /// Of `snapshot inspect`
    SnapshotInspect,
    /// Of `snapshot export`
    SnapshotExport,
    /// Of `snapshot import`
    SnapshotImport,
    /// Of `snapshot recipient`
    SnapshotRecipient,
    /// Of `snapshot ledger`
    SnapshotLedger,
    /// Of `snapshot ledger --accept`
    SnapshotLedgerAccept,
    /// Of `forensics GUEST` and `forensics verify`
    Forensics,
    /// Of `forensics files`
    ForensicsFiles,
    /// One line of what takes long: `up`, `down`, `watch`, `lock`, `fetch`, `vendor`, `build`, `push`, `pull`, `sign`
    Event,
    /// One line of `events`
    Events,
    /// Of `doctor`
    Doctor,
    /// One line of `logs`
    Logs,
    /// Of `inspect`
    Inspect,
    /// Of `diff`
    Diff,
    /// Of `kernel config`
    KernelConfig,
    /// Of `kernel why`
    KernelWhy,
    /// Of `kernel diff`
    KernelDiff,
    /// Of `kernel compact`
    KernelCompact,
    /// Of `apk ls`
    ApkLs,
    /// Of `apk solve`
    ApkSolve,
    /// Of `apk verify`
    ApkVerify,
    /// One line of `apk pack`, for each package
    ApkPack,
    /// Of `verify`
    Verify,
    /// Of `gc`
    Gc,
    /// Of `keys`
    Keys,
    /// Of `init`, `disk export`, `disk import`, `apk index`, `apk key`: a file that was written
    Wrote,
    /// Of a command that did not do its work
    Error,
}

impl DocumentJson {
    /// Its JSON Schema (draft 2020-12).
    pub fn schema(self) -> serde_json::Value {
        match self {
            Self::Ps => schema::<Vec<Guest>>("sisforge ps --json"),
            Self::PsContainers => schema::<Vec<ContainerJson>>("sisforge ps --containers --json"),
            Self::Status => schema::<StatusJson>("sisforge status --json"),
            Self::Top => schema::<Vec<GuestLoadJson>>("sisforge top --json"),
            Self::Plan => schema::<PlanJson>("sisforge plan --json"),
            Self::PolicyShow => schema::<Vec<PolicyJson>>("sisforge policy show --json"),
            Self::PolicyNft => schema::<RulesJson>("sisforge policy show --nft --json"),
            Self::PolicyExplain => schema::<ExplainedJson>("sisforge policy explain --json"),
            Self::PolicyLog => schema::<DroppedJson>("a line of sisforge policy log --json"),
            Self::PolicyFlows => schema::<FlowJson>("a line of sisforge policy flows --json"),
            Self::Session | Self::SessionLs | Self::SessionEnd => self.of_sessions(),
            Self::Quarantine => schema::<QuarantineJson>("sisforge quarantine --json, and release --json"),
            Self::Publish => schema::<Vec<PublishedJson>>("sisforge publish --json"),
            Self::Tree => schema::<TreeJson>("sisforge tree --json"),
            Self::Check => schema::<CheckedJson>("sisforge check --json"),
            Self::DiskLs => schema::<Vec<Disk>>("sisforge disk ls --json"),
            Self::DiskRm => schema::<DiskRemoved>("sisforge disk rm --json"),
            Self::Forensics | Self::ForensicsFiles => self.of_evidence(),
            Self::Events => schema::<HostEvent>("a line of sisforge events --json"),
            Self::Doctor => schema::<DoctorJson>("sisforge doctor --json"),
            Self::Logs => schema::<LogLineJson>("a line of sisforge logs --json"),
            Self::Inspect => schema::<Inspection>("sisforge inspect --json"),
            Self::Diff => schema::<Difference>("sisforge diff --json"),
            Self::KernelConfig | Self::KernelWhy | Self::KernelDiff | Self::KernelCompact => {
                self.of_kernels()
            }
            Self::ApkLs | Self::ApkSolve | Self::ApkVerify | Self::ApkPack => self.of_apk(),
            Self::Verify => schema::<VerificationJson>("sisforge verify --json"),
            Self::Gc => schema::<GarbageJson>("sisforge gc --json"),
            Self::Keys => schema::<KeysJson>("sisforge keys --json"),
            Self::Event => schema::<EventJson>("a line of sisforge up, down, build and the like --json"),
            Self::Wrote => schema::<WrittenJson>("a file that sisforge wrote"),
            Self::Error => schema::<FailureJson>("sisforge --json, of a command that failed"),
            // All that is left is of `snapshot`.
            _ => self.of_snapshots(),
        }
    }

    fn of_sessions(self) -> serde_json::Value {
        match self {
            Self::Session => {
                schema::<SessionJson>("sisforge session start --json, and session extend --json")
            }
            Self::SessionLs => schema::<Vec<SessionJson>>("sisforge session ls --json"),
            _ => schema::<SessionEndedJson>("sisforge session end --json"),
        }
    }

    fn of_snapshots(self) -> serde_json::Value {
        match self {
            Self::SnapshotCreate => schema::<FrozenJson>("sisforge snapshot create --json"),
            Self::SnapshotLs => schema::<Vec<Snapshot>>("sisforge snapshot ls --json"),
            Self::SnapshotInspect => schema::<SnapshotViewJson>("sisforge snapshot inspect --json"),
            Self::SnapshotRestore => schema::<RestoredJson>("sisforge snapshot restore --json"),
            Self::SnapshotRm => schema::<Removed>("sisforge snapshot rm --json"),
            _ => self.of_transfers(),
        }
    }

    fn of_transfers(self) -> serde_json::Value {
        match self {
            Self::SnapshotExport => schema::<ExportedJson>("sisforge snapshot export --json"),
            Self::SnapshotImport => schema::<ImportedJson>("sisforge snapshot import --json"),
            Self::SnapshotRecipient => schema::<RecipientJson>("sisforge snapshot recipient --json"),
            Self::SnapshotLedger => schema::<Vec<LedgerLineJson>>("sisforge snapshot ledger --json"),
            _ => schema::<AcceptedJson>("sisforge snapshot ledger --accept --json"),
        }
    }

    fn of_evidence(self) -> serde_json::Value {
        match self {
            Self::Forensics => {
                schema::<EvidenceJson>("sisforge forensics --json, and forensics verify --json")
            }
            _ => schema::<EvidenceFilesJson>("sisforge forensics files --json"),
        }
    }

    fn of_kernels(self) -> serde_json::Value {
        match self {
            Self::KernelConfig => schema::<Vec<ConfigLine>>("sisforge kernel config --json"),
            Self::KernelWhy => schema::<KernelWhyJson>("sisforge kernel why --json"),
            Self::KernelDiff => schema::<Vec<KernelChangeJson>>("sisforge kernel diff --json"),
            _ => schema::<CompactedJson>("sisforge kernel compact --json"),
        }
    }

    fn of_apk(self) -> serde_json::Value {
        match self {
            Self::ApkLs => schema::<Vec<ApkFileJson>>("sisforge apk ls --json"),
            Self::ApkSolve => schema::<SolvedJson>("sisforge apk solve --json"),
            Self::ApkVerify => schema::<Vec<VerifiedJson>>("sisforge apk verify --json"),
            _ => schema::<PackedJson>("a line of sisforge apk pack --json"),
        }
    }
}

/// The schema of what is written: a key that is always there is required, be its value `null`.
fn schema<T: JsonSchema>(title: &str) -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    schema.to_value()
}
