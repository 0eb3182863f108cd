//! What `--json` prints, as types of their own: a contract with whoever reads it, and no picture of what the program has
//! inside. `sisforge schema NAME` prints the JSON Schema of each, in which the comments here are the descriptions.
//!
//! Keys are added, and neither renamed nor removed. Where a value is not known or there is none, it is `null`.

mod build;
mod disk;
mod error;
mod event;
mod guest;
mod plan;
mod policy;
mod snapshot;

pub use build::{ArtifactJson, CheckedJson, ComparisonJson, InputJson};
pub use disk::{Disk, DiskRemoved, Wrote};
pub use error::{FailureJson, ProblemJson};
pub use event::{EventJson, Summary, names};
pub use guest::{Guest, StatusJson};
pub use plan::{PlanJson, TreeJson};
pub use policy::{ExplainedJson, PolicyJson, QuarantineJson, RulesJson};
pub use snapshot::{FrozenJson, Removed, RestoredJson, Snapshot};

use schemars::JsonSchema;

/// A document that a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DocumentJson {
    /// Of `ps`
    Ps,
    /// Of `status`
    Status,
    /// Of `plan`
    Plan,
    /// Of `policy show`
    PolicyShow,
    /// Of `policy show --nft`
    PolicyNft,
    /// Of `policy explain`
    PolicyExplain,
    /// Of `quarantine` and `release`
    Quarantine,
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
    /// One line of what takes long: `up`, `down`, `watch`, `lock`, `fetch`, `vendor`, `build`
    Event,
    /// Of `init`, `disk export`, `disk import`: a file that was written
    Wrote,
    /// Of a command that did not do its work
    Error,
}

impl DocumentJson {
    /// Its JSON Schema (draft 2020-12).
    pub fn schema(self) -> serde_json::Value {
        match self {
            Self::Ps => schema::<Vec<Guest>>("sisforge ps --json"),
            Self::Status => schema::<StatusJson>("sisforge status --json"),
            Self::Plan => schema::<PlanJson>("sisforge plan --json"),
            Self::PolicyShow => schema::<Vec<PolicyJson>>("sisforge policy show --json"),
            Self::PolicyNft => schema::<RulesJson>("sisforge policy show --nft --json"),
            Self::PolicyExplain => schema::<ExplainedJson>("sisforge policy explain --json"),
            Self::Quarantine => schema::<QuarantineJson>("sisforge quarantine --json, and release --json"),
            Self::Tree => schema::<TreeJson>("sisforge tree --json"),
            Self::Check => schema::<CheckedJson>("sisforge check --json"),
            Self::DiskLs => schema::<Vec<Disk>>("sisforge disk ls --json"),
            Self::DiskRm => schema::<DiskRemoved>("sisforge disk rm --json"),
            Self::SnapshotCreate => schema::<FrozenJson>("sisforge snapshot create --json"),
            Self::SnapshotLs => schema::<Vec<Snapshot>>("sisforge snapshot ls --json"),
            Self::SnapshotRestore => schema::<RestoredJson>("sisforge snapshot restore --json"),
            Self::SnapshotRm => schema::<Removed>("sisforge snapshot rm --json"),
            Self::Event => {
                schema::<EventJson>("a line of sisforge up, down, watch, lock, fetch, vendor, build --json")
            }
            Self::Wrote => schema::<Wrote>("a file that sisforge wrote"),
            Self::Error => schema::<FailureJson>("sisforge --json, of a command that did not do its work"),
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
