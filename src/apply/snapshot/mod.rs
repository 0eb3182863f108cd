//! Snapshots: made, listed, checked, consumed once, removed.

mod create;
mod evidence;
mod ledger;
mod origin;
mod restore;
mod seal;
mod shelf;
mod transfer;

pub use super::error::{LedgerError, SnapshotError, TransferError};
pub use create::{MadeSnapshot, SnapshotRequest, create};
pub use evidence::{Captured, CapturedFile, capture};
pub use ledger::{Accepted, HeldLedger, accept, look as ledger};
pub use origin::here;
pub use restore::{check_files, check_seals, check_sizes, may_restore};
pub use shelf::{SnapshotState, StoredSnapshot, find, list, ready_manifest, remove};
pub use transfer::{ExportRequest, Imported, export, import};

pub(super) use restore::remove_restored;
pub(super) use shelf::{clear, has_leftovers};
