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
mod host_event;
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
pub use host_event::HostEventJson;
pub use kernel::{CompactedJson, KernelChangeJson, KernelSettingJson, KernelWhyJson};
pub use keys::KeysJson;
pub use plan::{PlanJson, TreeJson};
pub use policy::{ExplainedJson, PolicyJson, QuarantineJson, RulesJson};
pub use publish::PublishedJson;
pub use session::{HandedOutJson, SessionEndedJson, SessionJson};
pub use snapshot::{CreatedSnapshotJson, Removed, RestoredJson, Snapshot, SnapshotViewJson};
pub use transfer::{AcceptedJson, ExportedJson, ImportedJson, LedgerLineJson, RecipientJson};
pub use verify::VerificationJson;

use schemars::JsonSchema;

use crate::build::configured::ConfigLine;
use crate::image::difference::Difference;
use crate::image::inspect::Inspection;

/// Declares what commands print: for `--help`, its name, its type, and the title of its schema.
macro_rules! documents {
    ($(#[doc = $help:literal] $name:ident: $type:ty => $title:literal,)*) => {
        /// A document that a command prints.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
        pub enum DocumentJson {
            $(#[doc = $help] $name,)*
        }

        impl DocumentJson {
            /// Its JSON Schema (draft 2020-12).
            pub fn schema(self) -> serde_json::Value {
                match self {
                    $(Self::$name => schema::<$type>($title),)*
                }
            }
        }
    };
}

documents! {
    /// Of `ps`
    Ps: Vec<Guest> => "sisforge ps --json",
    /// Of `ps --containers`
    PsContainers: Vec<ContainerJson> => "sisforge ps --containers --json",
    /// Of `status`
    Status: StatusJson => "sisforge status --json",
    /// Of `top`
    Top: Vec<GuestLoadJson> => "sisforge top --json",
    /// Of `plan`
    Plan: PlanJson => "sisforge plan --json",
    /// Of `policy show`
    PolicyShow: Vec<PolicyJson> => "sisforge policy show --json",
    /// Of `policy show --nft`
    PolicyNft: RulesJson => "sisforge policy show --nft --json",
    /// Of `policy explain`
    PolicyExplain: ExplainedJson => "sisforge policy explain --json",
    /// One line of `policy log`
    PolicyLog: DroppedJson => "a line of sisforge policy log --json",
    /// One line of `policy flows`
    PolicyFlows: FlowJson => "a line of sisforge policy flows --json",
    /// Of `quarantine` and `release`
    Quarantine: QuarantineJson => "sisforge quarantine --json, and release --json",
    /// Of `session start` and `session extend`
    Session: SessionJson => "sisforge session start --json, and session extend --json",
    /// Of `session ls`
    SessionLs: Vec<SessionJson> => "sisforge session ls --json",
    /// Of `session end`
    SessionEnd: SessionEndedJson => "sisforge session end --json",
    /// Of `publish`
    Publish: Vec<PublishedJson> => "sisforge publish --json",
    /// Of `tree`
    Tree: TreeJson => "sisforge tree --json",
    /// Of `check`
    Check: CheckedJson => "sisforge check --json",
    /// Of `disk ls`
    DiskLs: Vec<Disk> => "sisforge disk ls --json",
    /// Of `disk rm`
    DiskRm: DiskRemoved => "sisforge disk rm --json",
    /// Of `snapshot create`
    SnapshotCreate: CreatedSnapshotJson => "sisforge snapshot create --json",
    /// Of `snapshot ls`
    SnapshotLs: Vec<Snapshot> => "sisforge snapshot ls --json",
    /// Of `snapshot restore`
    SnapshotRestore: RestoredJson => "sisforge snapshot restore --json",
    /// Of `snapshot rm`
    SnapshotRm: Removed => "sisforge snapshot rm --json",
    /// Of `snapshot inspect`
    SnapshotInspect: SnapshotViewJson => "sisforge snapshot inspect --json",
    /// Of `snapshot export`
    SnapshotExport: ExportedJson => "sisforge snapshot export --json",
    /// Of `snapshot import`
    SnapshotImport: ImportedJson => "sisforge snapshot import --json",
    /// Of `snapshot recipient`
    SnapshotRecipient: RecipientJson => "sisforge snapshot recipient --json",
    /// Of `snapshot ledger`
    SnapshotLedger: Vec<LedgerLineJson> => "sisforge snapshot ledger --json",
    /// Of `snapshot ledger --accept`
    SnapshotLedgerAccept: AcceptedJson => "sisforge snapshot ledger --accept --json",
    /// Of `forensics GUEST` and `forensics verify`
    Forensics: EvidenceJson => "sisforge forensics --json, and forensics verify --json",
    /// Of `forensics files`
    ForensicsFiles: EvidenceFilesJson => "sisforge forensics files --json",
    /// One line of what takes long: `up`, `down`, `watch`, `lock`, `fetch`, `vendor`, `build`, `push`, `pull`, `sign`
    Event: EventJson => "a line of sisforge up, down, build and the like --json",
    /// One line of `events`
    Events: HostEventJson => "a line of sisforge events --json",
    /// Of `doctor`
    Doctor: DoctorJson => "sisforge doctor --json",
    /// One line of `logs`
    Logs: LogLineJson => "a line of sisforge logs --json",
    /// Of `inspect`
    Inspect: Inspection => "sisforge inspect --json",
    /// Of `diff`
    Diff: Difference => "sisforge diff --json",
    /// Of `kernel config`
    KernelConfig: Vec<ConfigLine> => "sisforge kernel config --json",
    /// Of `kernel why`
    KernelWhy: KernelWhyJson => "sisforge kernel why --json",
    /// Of `kernel diff`
    KernelDiff: Vec<KernelChangeJson> => "sisforge kernel diff --json",
    /// Of `kernel compact`
    KernelCompact: CompactedJson => "sisforge kernel compact --json",
    /// Of `apk ls`
    ApkLs: Vec<ApkFileJson> => "sisforge apk ls --json",
    /// Of `apk solve`
    ApkSolve: SolvedJson => "sisforge apk solve --json",
    /// Of `apk verify`
    ApkVerify: Vec<VerifiedJson> => "sisforge apk verify --json",
    /// One line of `apk pack`, for each package
    ApkPack: PackedJson => "a line of sisforge apk pack --json",
    /// Of `verify`
    Verify: VerificationJson => "sisforge verify --json",
    /// Of `gc`
    Gc: GarbageJson => "sisforge gc --json",
    /// Of `keys`
    Keys: KeysJson => "sisforge keys --json",
    /// Of `init`, `disk export`, `disk import`, `apk index`, `apk key`: a file that was written
    Wrote: WrittenJson => "a file that sisforge wrote",
    /// Of a command that did not do its work
    Error: FailureJson => "sisforge --json, of a command that failed",
}

/// The schema of what is written: a key that is always there is required, be its value `null`.
fn schema<T: JsonSchema>(title: &str) -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    schema.to_value()
}
