//! Packages: index and package bytes become verified contents.
//!
//! The chain of trust: a trusted key signs an index; the index names each package's identity (SHA-1 of its compressed control
//! member) and size; the control member names the SHA-256 of the compressed data member; that one the SHA-1 of each file.

mod alpine;
mod archive;
mod archive_writer;
mod contents;
mod control;
mod convert;
pub mod database;
mod debian;
mod dependency;
mod entry;
mod foreign;
mod found;
mod gzip;
#[cfg(test)]
mod hostile_tests;
mod index;
mod info;
mod installed;
mod listing;
mod pack;
mod package;
mod refusal;
mod repository;
mod rules;
mod scripts;
mod signature;
mod solver;
pub mod sparse;
mod stored;
mod stream;
pub mod tar;
mod version;

pub use alpine::AlpineKey;
pub use contents::{Contents, ContentsError};
pub use convert::{Changes, ConvertError, PackMap, UnknownDependency, convert_debs};
pub use debian::{Deb, DebError, map_version};
pub use dependency::{Checksum, Constraint, Dependency, InvalidChecksum, InvalidDependency, Operator};
pub use entry::{Entry, EntryError, EntryKind};
pub use foreign::ForeignFormat;
pub use found::{IndexedPackages, Trusted, VerifyError, check_file, is_index, package_files};
pub use index::{Index, IndexError};
pub use info::{Arch, InfoError, InvalidArch, PackageInfo};
pub use installed::{InstalledError, InstalledPackage, InstalledReason, RecordedFile, parse_installed};
pub use pack::{PackError, Packed, pack};
pub use package::{ExpectedPackage, PackageContents, PackageError};
pub use refusal::Refusal;
pub use repository::{INDEX_FILE, IndexingError, index_directory, sign_directory};
pub use rules::Rules;
pub use scripts::{Script, ScriptKind};
pub use signature::{DAMAGED, KeyError, KeyRing, SignatureError, SigningKey};
pub use solver::{Chosen, Repository, SolveError, SolverProblem, solve, solve_by};
pub use version::{InvalidVersion, Version};
