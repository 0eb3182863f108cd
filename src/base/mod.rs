//! The words that several stages share: values that are only ever made by parsing, and formats that are written in one place.
//! Nothing here reads a file.

/// Lets types be written and read as the text that they parse from.
macro_rules! serde_as_text {
    ($($type:ty),+) => { $(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+ };
}

pub mod diagnostic;
mod digest;
mod lfs;
mod name;
pub mod network;
pub mod problem;
mod size;
pub mod text;
pub mod time;
mod uuid;
pub mod web_page;

pub use diagnostic::{Class, Diagnosis, Diagnostic};
pub use digest::{FileDigest, Sha256};
pub use lfs::LfsPointer;
pub use name::{
    FleetName, GuestName, GuestPath, InterfaceName, InvalidValue, KernelOption, Label, SnapshotName,
    is_host_label,
};
pub use network::MacAddress;
pub use size::{ByteSize, PerSecond, Rate, Rates};
pub use uuid::{uuid_from, uuid_text};

/// Something that is there, perhaps not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    Whole(T),
    /// Half made, or half removed.
    Half,
}

/// The directory that each ext4 has, for what e2fsck recovers: nothing else may be in it.
pub const LOST_FOUND: &str = "/lost+found";

/// Whether a path of a file system takes the place of that directory, or is in it.
pub fn is_lost_found(path: &str) -> bool {
    path.strip_prefix(LOST_FOUND).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Name of the guest's user whose home is the data disk: the host logs in as that one.
pub const GUEST_USER: &str = "user";
