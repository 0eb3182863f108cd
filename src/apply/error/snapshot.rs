//! What can go wrong with a snapshot.

use std::path::PathBuf;

use crate::apply::ApplyError;
use crate::apply::record::Unreadable;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{GuestName, SnapshotName};
use crate::host::ledger::LedgerLine;
use crate::host::snapshot::{HandedOver, Restored};

use super::ledger::{LedgerError, TransferError};

/// A snapshot that was not made, or does not come back.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{0} is not running, so there is nothing to snapshot")]
    NotRunning(GuestName),
    #[error("{0} is not ready yet")]
    NotReady(GuestName),
    #[error("{0} is paused by an unfinished snapshot")]
    Paused(GuestName),
    #[error("{0} uses huge pages, and Firecracker cannot restore huge pages from a snapshot file")]
    HugePages(GuestName),
    #[error("there is a snapshot {0} already")]
    Exists(SnapshotName),
    #[error("snapshot {name} is gone: it {}", how(.restored.as_ref(), .exported.as_ref()))]
    Consumed { name: SnapshotName, restored: Option<Restored>, exported: Option<HandedOver> },
    #[error("snapshot {name} is gone: it was {} at {}{}", .line.event.words(), .line.at, called(.name, .line))]
    Spent { name: SnapshotName, line: LedgerLine },
    #[error("snapshot {0} was not made on this host, and was not imported: its ledger does not know it")]
    Unknown(SnapshotName),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("there is no snapshot {0}")]
    NotFound(SnapshotName),
    #[error(transparent)]
    Manifest(Unreadable),
    #[error("cannot read {}: it is missing", .0.display())]
    NoManifest(PathBuf),
    #[error("no snapshot of {guest} was taken, and it {}", if *.goes_on { "goes on" } else { "stays paused: the next `up` resumes it" })]
    NotMade { guest: GuestName, goes_on: bool, source: Box<ApplyError> },
    #[error("the VMM of {0} reported that it wrote memory and state, but it did not")]
    NothingWritten(GuestName),
    #[error("the VMM of {0} exited before it could load a snapshot; the snapshot was not consumed")]
    NoVmm(GuestName),
    #[error("snapshot {snapshot} is used up: {guest} could not be restored from it. {}", left(.disk.as_ref()))]
    LostOnRestore { snapshot: SnapshotName, guest: GuestName, disk: Option<PathBuf>, source: Box<ApplyError> },
    #[error("{0} was consumed by another restore")]
    Gone(SnapshotName),
    #[error(
        "{guest} stands paused beside {name}, for which it was saved, and would go on once that is consumed"
    )]
    StillPaused { name: SnapshotName, guest: GuestName },
    #[error("the guest is not running")]
    DoesNotRun,
    #[error("the guest does not answer on its network")]
    DoesNotAnswer,
}

const REMOVES: &str = "`sisforge snapshot rm` removes what cannot be restored";

impl Diagnostic for SnapshotError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NotRunning(_) => {
                Class::Failed.hint("`sisforge up` starts it; its data disk is in the store in any case")
            }
            Self::NotReady(_) | Self::Paused(_) => Class::Failed.hint("`sisforge up` repairs this"),
            Self::HugePages(_) => Class::Failed.hint(
                "leave `huge-pages` out of the machine of a guest that you want to \
                  snapshot",
            ),
            Self::Exists(_) => {
                Class::Invalid.hint("name another with --name, or remove that one with `sisforge snapshot rm`")
            }
            // A name that is not there is a wrong use, as that of a guest is.
            Self::NotFound(_) => Class::Invalid.hint("`sisforge snapshot ls` lists those that there are"),
            Self::Spent { .. } => Class::Failed.hint(
                "a snapshot is restored once, whatever a backup or a copy of it brings back; its disk is in its directory",
            ),
            Self::Unknown(_) => Class::Failed.hint(
                "`sisforge snapshot export` on the host that made it, and `sisforge snapshot import` here, bring it over",
            ),
            Self::Ledger(error) => error.diagnosis(),
            Self::Transfer(error) => error.diagnosis(),
            Self::Consumed { .. } | Self::Gone(_) => {
                Class::Failed.hint("`sisforge snapshot ls` lists those that can be restored")
            }
            Self::StillPaused { guest, .. } => Class::Failed.hint(format!("end it first: `sisforge down {guest}`")),
            Self::Manifest(error) => error.diagnosis().or_hint(REMOVES),
            Self::NoManifest(_) => Class::Failed.hint(REMOVES),
            Self::NotMade { source, .. } => source.diagnosis(),
            Self::NoVmm(guest) | Self::NothingWritten(guest) => {
                Class::Failed.hint(format!("`sisforge logs {guest} --vmm` shows what its VMM said"))
            }
            Self::LostOnRestore { .. } => Class::Failed.hint("`sisforge up` boots the guest from scratch"),
            Self::DoesNotRun | Self::DoesNotAnswer => Class::Failed.no_hint(),
        }
    }
}

fn how(restored: Option<&Restored>, exported: Option<&HandedOver>) -> String {
    match (restored, exported) {
        (Some(Restored { guest, at }), _) => {
            format!("was restored as {guest} at {at}, and a snapshot is restored once")
        }
        (None, Some(HandedOver { recipient, at })) => {
            format!("was exported at {at}, and the host of {recipient} alone can restore it")
        }
        (None, None) => "was consumed by a restore that did not finish".to_owned(),
    }
}

/// What it was called then, where that is another name.
fn called(name: &SnapshotName, line: &LedgerLine) -> String {
    match line.event.snapshot() {
        Some(then) if then != name => format!(", when it was called {then}"),
        _ => String::new(),
    }
}

fn left(disk: Option<&PathBuf>) -> String {
    match disk {
        Some(path) => format!("Its data disk is not lost: {}", path.display()),
        None => "It had no disk that is kept".to_owned(),
    }
}

impl From<LedgerError> for ApplyError {
    fn from(error: LedgerError) -> Self {
        SnapshotError::from(error).into()
    }
}

impl From<TransferError> for ApplyError {
    fn from(error: TransferError) -> Self {
        SnapshotError::from(error).into()
    }
}
