//! `events`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::run::events::{FleetEvent, HostEvent};

/// Something that happened.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HostEventJson {
    /// When (RFC 3339, UTC).
    pub time: String,
    pub fleet: String,
    #[serde(flatten)]
    pub what: FleetEventJson,
}

/// What happened.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FleetEventJson {
    /// A guest was started and is ready.
    Started { guest: String, why: String },
    /// A guest was put right while it ran.
    Repaired { guest: String, why: String },
    /// A guest was stopped, and what it had of the host is gone.
    Stopped { guest: String, why: String },
    /// A step failed; of the host itself where no guest is named.
    Failed { guest: Option<String>, step: String, error: String },
    /// A guest was left as it was, since another did not get ready before it.
    LeftOut { guest: String },
    /// Not all was done for a guest, since the command was asked to end.
    CutShort { guest: String },
    /// `watch` starts a guest that does not stay up later.
    Waiting { guest: String, starts: u32, seconds: u64 },
    /// `watch` leaves a guest that ended, as fleet.toml says.
    LeftEnded { guest: String },
    /// A guest was cut off from every network.
    Quarantined { guest: String },
    /// A guest was brought back from quarantine.
    Released { guest: String },
    /// Evidence of a guest was taken; the digest is that of the archive's manifest.
    EvidenceTaken { guest: String, sha256: String },
    /// A snapshot was removed that fleet.toml does not keep any more.
    SnapshotOutdated { snapshot: String, why: String },
    /// A guest of a pool was handed out.
    SessionStarted { guest: String, label: Option<String>, expires: Option<String> },
    /// A session was ended: its guest is removed.
    SessionEnded {
        guest: String,
        /// `null` where somebody ended it.
        why: Option<String>,
    },
    /// `watch` has applied a revision: a commit, or the digest of a file and its lock.
    Applied { revision: String },
    /// A look of `watch` came to nothing; told once for each reason.
    LookFailed {
        /// With file, line and column of each mistake.
        error: String,
        /// What was to be applied, where that is what is wrong.
        revision: Option<String>,
        /// Who made that commit.
        author: Option<String>,
    },
}

impl From<HostEvent> for HostEventJson {
    fn from(HostEvent { time, fleet, what }: HostEvent) -> Self {
        Self { time, fleet, what: what.into() }
    }
}

impl From<FleetEvent> for FleetEventJson {
    fn from(event: FleetEvent) -> Self {
        match event {
            FleetEvent::Started { guest, why } => Self::Started { guest, why },
            FleetEvent::Repaired { guest, why } => Self::Repaired { guest, why },
            FleetEvent::Stopped { guest, why } => Self::Stopped { guest, why },
            FleetEvent::Failed { guest, step, error } => Self::Failed { guest, step, error },
            FleetEvent::LeftOut { guest } => Self::LeftOut { guest },
            FleetEvent::CutShort { guest } => Self::CutShort { guest },
            FleetEvent::Waiting { guest, starts, seconds } => Self::Waiting { guest, starts, seconds },
            FleetEvent::LeftEnded { guest } => Self::LeftEnded { guest },
            FleetEvent::Quarantined { guest } => Self::Quarantined { guest },
            FleetEvent::Released { guest } => Self::Released { guest },
            FleetEvent::EvidenceTaken { guest, sha256 } => Self::EvidenceTaken { guest, sha256 },
            FleetEvent::SnapshotOutdated { snapshot, why } => Self::SnapshotOutdated { snapshot, why },
            FleetEvent::SessionStarted { guest, label, expires } => {
                Self::SessionStarted { guest, label, expires }
            }
            FleetEvent::SessionEnded { guest, why } => Self::SessionEnded { guest, why },
            FleetEvent::Applied { revision } => Self::Applied { revision },
            FleetEvent::LookFailed { error, revision, author } => {
                Self::LookFailed { error, revision, author }
            }
        }
    }
}
