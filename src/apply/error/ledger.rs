//! What can be wrong with the ledger of snapshots, and with those that go from one host to another.

use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic, FleetName, GuestName, SnapshotName};
use crate::host::ledger::LedgerFault;
use crate::host::snapshot::Obstacle;
use crate::sys::age::AgeError;
use crate::sys::fs::FileError;

/// A ledger that decides nothing, because it is not whole.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} was changed", path.display())]
    Fault { path: PathBuf, source: LedgerFault },
    #[error(
        "the ledger of the snapshots of {fleet} went back: its last {lacks} of {} lines are missing in {}, as where a backup of the \
         store was restored", .there, path.display()
    )]
    WentBack { fleet: FleetName, path: PathBuf, lacks: usize, there: usize },
    #[error("the ledger of the snapshots of {fleet} in the store and its witness {} differ from line {line} on", path.display())]
    Forked { fleet: FleetName, path: PathBuf, line: u64 },
    #[error(
        "the ledger of the snapshots of {fleet} has no witness {}, as where the store was copied from another host", path.display()
    )]
    NoWitness { fleet: FleetName, path: PathBuf },
}

const MENDS: &str = "`sisforge snapshot ledger --accept` makes the ledger whole again: nothing that was restored can be restored again";
const VOIDS: &str = "`sisforge snapshot ledger --accept` starts a new ledger from what is sound, and voids every snapshot of which nobody knows \
     whether it was restored; their disks stay";

impl Diagnostic for LedgerError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::WentBack { .. } => Class::Failed.hint(MENDS),
            Self::Fault { source: LedgerFault::Newer(_), .. } => {
                Class::Failed.hint("use the sisforge that wrote it, or a later one")
            }
            Self::Fault { .. } | Self::Forked { .. } | Self::NoWitness { .. } => Class::Failed.hint(VOIDS),
        }
    }
}

/// Of which format exported snapshots are that this version writes.
pub const FORMAT: u32 = 1;

/// A file that is no snapshot for this host, or a snapshot that does not go into one.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Age(#[from] AgeError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} already exists", .0.display())]
    FileExists(PathBuf),
    #[error("{} holds no snapshot: {why}", path.display())]
    NoSnapshot { path: PathBuf, why: String },
    #[error("{} holds a snapshot in format {format}, and this sisforge knows up to {FORMAT}", path.display())]
    Newer { path: PathBuf, format: u32 },
    #[error("{} is damaged, was cut or was changed: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{} holds a snapshot of the fleet {fleet}, and this one is {here}", path.display())]
    OtherFleet { path: PathBuf, fleet: FleetName, here: FleetName },
    #[error("the snapshot in {} is here already, as {name}", path.display())]
    Here { path: PathBuf, name: SnapshotName },
    #[error("snapshot {name} is not exported: {obstacle}")]
    Unsound { name: SnapshotName, obstacle: Obstacle },
    #[error("snapshot {name} is not handed to another host while {guest} runs here, of which it was taken")]
    Running { name: SnapshotName, guest: GuestName },
}

impl Diagnostic for TransferError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Age(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::FileExists(_) => Class::Invalid.hint("remove it, or name another file with --out"),
            Self::NoSnapshot { .. } => {
                Class::Invalid.hint("name a file that `sisforge snapshot export` wrote")
            }
            Self::Newer { .. } => Class::Invalid.hint("use the sisforge that wrote it, or a later one"),
            Self::Damaged { .. } => Class::Invalid.hint("copy it again from where it was written"),
            Self::OtherFleet { .. } => Class::Invalid.hint(
                "a snapshot is imported into a fleet of the same name: name its fleet.toml with --file",
            ),
            Self::Here { .. } => Class::Failed.hint("`sisforge snapshot restore` goes on from it"),
            Self::Unsound { .. } => {
                Class::Failed.hint("`sisforge snapshot rm` removes what cannot be restored")
            }
            Self::Running { guest, .. } => Class::Failed.hint(format!("`sisforge down {guest}` first")),
        }
    }
}
