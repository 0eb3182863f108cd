//! Events: what happened to a fleet on its host, each a line of JSON in its store and an entry of systemd's journal.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::apply::{GuestAction, StepFailure};
use crate::base::GuestName;
use crate::base::diagnostic::one_line;
use crate::base::text::printable;
use crate::base::time::rfc3339_millis;
use crate::host::layout::Layout;
use crate::host::state::Session;
use crate::plan::GuestSteps;
use crate::sys::fs::{self, FileError, FileLock};
use crate::sys::journal::{self, Priority};
use crate::sys::log::{LogBounds, Writer};

use super::backoff::Postponed;
use super::log_lines::{self, LogReader};
use super::{RunError, Workspace};

/// How much is kept: 4 MiB, and as much again of what was before.
const KEPT: LogBounds = LogBounds { size: 4 << 20, keep: 1 };

/// Something that happened, as a line of the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEvent {
    /// When (RFC 3339, UTC).
    pub time: String,
    pub fleet: String,
    #[serde(flatten)]
    pub what: FleetEvent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FleetEvent {
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
        /// `None` where somebody ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// `watch` has applied a revision: a commit, or the digest of a file and its lock.
    Applied { revision: String },
    /// A look of `watch` came to nothing; told once for each reason.
    LookFailed {
        /// With file, line and column of each mistake.
        error: String,
        /// What was to be applied, where that is what is wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
        /// Who made that commit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<String>,
    },
}

impl FleetEvent {
    /// That somebody has a guest.
    pub fn of_session(guest: &GuestName, session: &Session) -> Self {
        let Session { label, expires, .. } = session.clone();
        Self::SessionStarted { guest: guest.to_string(), label, expires }
    }

    /// The guest that it is about.
    pub fn guest(&self) -> Option<&str> {
        match self {
            Self::Started { guest, .. }
            | Self::Repaired { guest, .. }
            | Self::Stopped { guest, .. }
            | Self::LeftOut { guest }
            | Self::CutShort { guest }
            | Self::Waiting { guest, .. }
            | Self::LeftEnded { guest }
            | Self::Quarantined { guest }
            | Self::EvidenceTaken { guest, .. }
            | Self::SessionStarted { guest, .. }
            | Self::SessionEnded { guest, .. }
            | Self::Released { guest } => Some(guest),
            Self::Failed { guest, .. } => guest.as_deref(),
            Self::SnapshotOutdated { .. } | Self::Applied { .. } | Self::LookFailed { .. } => None,
        }
    }

    /// In words.
    pub fn sentence(&self) -> String {
        match self {
            Self::Started { guest, why } => format!("{guest} started: {why}"),
            Self::Repaired { guest, why } => format!("{guest} repaired: {why}"),
            Self::Stopped { guest, why } => format!("{guest} stopped: {why}"),
            Self::Failed { guest, step, error } => {
                format!("{}: {step}: {error}", guest.as_deref().unwrap_or("host"))
            }
            Self::LeftOut { guest } => format!("{guest} left as it was: the rollout stopped before it"),
            Self::CutShort { guest } => {
                format!("{guest} left: the command was interrupted before all was done")
            }
            Self::Waiting { guest, starts, seconds } => {
                let times = if *starts == 1 { "once".to_owned() } else { format!("{starts} times in a row") };
                format!("{guest} was started {times} and does not stay up: next start in {seconds} s")
            }
            Self::LeftEnded { guest } => {
                format!("{guest} ended and is left so (on-exit = \"leave\"): `sisforge up {guest}` starts it")
            }
            Self::Quarantined { guest } => format!("{guest} cut off from every network"),
            Self::Released { guest } => format!("{guest} released from quarantine"),
            Self::EvidenceTaken { guest, sha256 } => {
                format!("evidence of {guest} was taken: SHA-256 of its manifest {sha256}")
            }
            Self::SessionStarted { guest, label, expires } => {
                let label = label.as_ref().map(|label| format!(" for {}", printable(label)));
                let until = expires.as_ref().map(|time| format!(", until {time}"));
                format!("{guest} handed out{}{}", label.unwrap_or_default(), until.unwrap_or_default())
            }
            Self::SnapshotOutdated { snapshot, why } => format!("snapshot {snapshot} removed: {why}"),
            Self::SessionEnded { guest, why: None } => format!("the session of {guest} was ended"),
            Self::SessionEnded { guest, why: Some(why) } => {
                format!("the session of {guest} was ended: {}", printable(why))
            }
            Self::Applied { revision } => format!("applied {revision}"),
            Self::LookFailed { error, revision, author } => {
                format!("watch: {}{error}", of_revision(revision.as_deref(), author.as_deref()))
            }
        }
    }

    fn priority(&self) -> Priority {
        let is_error = matches!(self, Self::Failed { .. } | Self::LookFailed { .. } | Self::Waiting { .. });
        if is_error { Priority::Error } else { Priority::Notice }
    }
}

/// What a sentence about a revision begins with.
fn of_revision(revision: Option<&str>, author: Option<&str>) -> String {
    let by = author.map(|author| format!(" by {}", printable(author))).unwrap_or_default();
    let short = |revision: &str| revision.get(..12).unwrap_or(revision).to_owned();
    revision.map(|revision| format!("{}{by}: ", short(revision))).unwrap_or_default()
}

impl From<&Postponed> for FleetEvent {
    fn from(postponed: &Postponed) -> Self {
        match postponed {
            Postponed::BackOff { guest, starts, wait } => {
                let (guest, seconds) = (guest.to_string(), wait.as_secs().max(1));
                Self::Waiting { guest, starts: *starts, seconds }
            }
            Postponed::LeftEnded { guest } => Self::LeftEnded { guest: guest.to_string() },
        }
    }
}

/// That a guest came through all of its steps.
pub(super) fn of_guest(action: GuestAction, steps: &GuestSteps) -> FleetEvent {
    let (guest, why) = (steps.guest.to_string(), steps.why.to_string());
    match action {
        GuestAction::Stop => FleetEvent::Stopped { guest, why },
        GuestAction::Start if steps.starts() => FleetEvent::Started { guest, why },
        GuestAction::Start => FleetEvent::Repaired { guest, why },
    }
}

/// That a step failed.
pub(super) fn of_failure(failure: &StepFailure) -> FleetEvent {
    FleetEvent::Failed {
        guest: failure.guest.as_ref().map(ToString::to_string),
        step: failure.step.clone(),
        error: one_line(&failure.error),
    }
}

/// Tells of what happened. Nothing that was done is undone where it cannot be told: a store that is full is said there once it is
/// not.
pub(super) fn record(layout: &Layout, all: impl IntoIterator<Item = FleetEvent>) {
    let now = SystemTime::now();
    record_of(layout, all.into_iter().map(|what| (now, what)));
}

/// How long is waited for what happens next: of hundreds of guests that go, each would open the log for itself.
const GATHERED: Duration = Duration::from_millis(50);

/// Tells of what happens, with when it did, until nobody is left who could.
pub(super) fn record_as_told(layout: &Layout, told: &Receiver<(SystemTime, FleetEvent)>) {
    while let Ok(first) = told.recv() {
        let end = Instant::now() + GATHERED;
        let mut all = vec![first];
        // Nobody waits for the end of that time where nothing can happen any more.
        while let Ok(next) = told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            all.push(next);
        }
        record_of(layout, all.into_iter());
    }
}

fn record_of(layout: &Layout, all: impl Iterator<Item = (SystemTime, FleetEvent)>) {
    let fleet = layout.fleet().to_string();
    let event = |(time, what)| HostEvent { time: rfc3339_millis(time), fleet: fleet.clone(), what };
    let all: Vec<_> = all.map(event).collect();
    if !all.is_empty() {
        let _ = append(layout, &all);
        all.iter().for_each(to_journal);
    }
}

fn append(layout: &Layout, all: &[HostEvent]) -> Result<(), FileError> {
    fs::create_private_dir(&layout.dir())?;
    // Two that write at once would begin two files.
    let _lock = FileLock::wait(&layout.events_lock())?;
    let path = layout.events();
    let mut writer = Writer::open(&path, KEPT).map_err(FileError::when("open", &path))?;
    for event in all {
        writer.append(log_lines::line(event).as_bytes(), SystemTime::now());
    }
    Ok(())
}

fn to_journal(HostEvent { fleet, what, .. }: &HostEvent) {
    let fields = [("SISFORGE_FLEET", fleet.as_str()), ("SISFORGE_GUEST", what.guest().unwrap_or_default())];
    let fields: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    // Hosts without systemd have no journal.
    let _ = journal::send(Path::new(journal::SOCKET), what.priority(), &what.sentence(), &fields);
}

/// The events of the fleet that `fleet.toml` names, from the first that is kept.
pub fn log(workspace: &Workspace<'_>) -> Result<LogReader<HostEvent>, RunError> {
    super::host::require_root()?;
    Ok(log_of(&workspace.head()?.layout()))
}

/// The events of the fleet with this layout, from the first that is kept.
pub fn log_of(layout: &Layout) -> LogReader<HostEvent> {
    LogReader::new(layout.events())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_that_are_read_as_they_were_written() {
        let what = FleetEvent::Failed { guest: None, step: "store image".into(), error: "no room".into() };
        let event = HostEvent { time: "2026-11-28T17:00:00.000Z".into(), fleet: "sis".into(), what };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"time":"2026-11-28T17:00:00.000Z","fleet":"sis","event":"failed","guest":null,"step":"store image","error":"no room"}"#
        );
        assert_eq!(serde_json::from_str::<HostEvent>(&line).unwrap(), event);
        assert_eq!(event.what.sentence(), "host: store image: no room");
    }
}
