//! The words that several stages share: values that are only ever made by parsing, and formats that are written in one place.
//! Nothing here reads a file.

pub mod diagnostic;
mod digest;
mod name;
pub mod network;
pub mod problem;
mod size;
pub mod text;
pub mod time;
mod uuid;

pub use diagnostic::{Class, Diagnosis, Diagnostic};
pub use digest::{FileDigest, Sha256};
pub use name::{
    FleetName, GuestName, GuestPath, InterfaceName, InvalidValue, KernelOption, Label, SnapshotName,
};
pub use network::MacAddress;
pub use size::{ByteSize, Rate};
pub use uuid::{uuid_from, uuid_text};

/// Name of the guest's user whose home is the data disk: the host logs in as that one.
pub const GUEST_USER: &str = "user";
