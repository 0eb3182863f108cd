//! Snapshots: made, listed, checked, consumed once, removed.

mod create;
mod error;
mod origin;
mod restore;
mod shelf;

pub use create::{Request, create};
pub use error::SnapshotError;
pub use origin::here;
pub use restore::check_files;
pub use shelf::{Place, Shelved, find, list, ready_manifest, remove};

pub(super) use restore::forget;
pub(super) use shelf::{clear, has_leftovers};
