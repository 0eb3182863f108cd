//! Packages: index and package bytes become verified contents.

mod dependency;
mod package;
mod version;

pub use dependency::{Checksum, Dependency};
pub use package::{Entry, EntryKind, PackageContents, PackageError, PackageInfo, Script, ScriptKind};
pub use version::Version;
