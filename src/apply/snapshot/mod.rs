//! Snapshots: made, listed, checked, consumed once, removed.

mod create;
mod error;
mod evidence;
mod origin;
mod restore;
mod shelf;

pub use create::{SnapshotRequest, create};
pub use error::SnapshotError;
pub use evidence::{Captured, CapturedFile, capture};
pub use origin::here;
pub use restore::check_files;
pub use shelf::{SnapshotState, StoredSnapshot, find, list, ready_manifest, remove};

pub(super) use restore::remove_restored;
pub(super) use shelf::{clear, has_leftovers};
