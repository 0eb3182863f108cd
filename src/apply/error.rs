//! What can go wrong while a host is read or changed.

mod ledger;
mod session_disk;
mod snapshot;
mod vmm;

use std::path::PathBuf;

use crate::base::FileDigest;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{FleetName, GuestName};
use crate::image::read::Flaw;
use crate::plan::check::HostLacks;
use crate::sys::cgroup::CgroupError;
use crate::sys::firecracker::{ApiError, BinaryError};
use crate::sys::fs::FileError;
use crate::sys::interrupt::Interrupted;
use crate::sys::ip::IpError;
use crate::sys::launch::LaunchError;
use crate::sys::mount::MountError;
use crate::sys::netns::NetnsError;
use crate::sys::nft::NftError;
use crate::sys::qemu::QmpError;
use crate::sys::ssh::SshError;
use crate::sys::tool::ToolError;

use super::network::FleetNetworkError;
use super::record::quarantine::QuarantineError;
use super::record::{Unreadable, Unwritten};

pub(super) use ledger::FORMAT;
pub use ledger::{LedgerError, TransferError};
pub use session_disk::SessionDiskError;
pub use snapshot::SnapshotError;
pub use vmm::VmmError;

/// An operation on the host that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Ip(#[from] IpError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Network(#[from] FleetNetworkError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Vmm(#[from] VmmError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    SessionDisk(#[from] SessionDiskError),
    #[error("this command was asked to end")]
    Interrupted(#[from] Interrupted),
    #[error("no artifact with the digest {0} was built")]
    NoArtifact(FileDigest),
    #[error("{} changed while it was copied into the store: its digest is {found}, not {expected}", path.display())]
    ArtifactChanged { path: PathBuf, expected: FileDigest, found: FileDigest },
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error(transparent)]
    Unmet(#[from] HostLacks),
    #[error("this host has no {path}, and {why} ({remedy})")]
    NoNode { path: &'static str, why: &'static str, remedy: &'static str },
    #[error("the data disk of {guest} is also that of another guest, {}: two guests that write to it would \
      destroy it", other.display())]
    DiskShared { guest: GuestName, other: PathBuf },
    #[error("{} does not contain an ext4 file system", path.display())]
    NoFileSystem { path: PathBuf, source: Flaw },
    #[error(
        "[host] jails of {fleet} was {}, where {} is not empty, and is now {}", place.display(), dir.display(), to.display()
    )]
    Moved { fleet: FleetName, dir: PathBuf, place: PathBuf, to: PathBuf },
    #[error("{} is not on a block device, so the `io` of a guest cannot be limited there", .0.display())]
    NoDevice(PathBuf),
    #[error(transparent)]
    Binary(#[from] BinaryError),
    #[error("{program} is not installed: it is the VMM that [fleet] vmm names")]
    NoVmm { program: &'static str },
    #[error("container {container} of {guest} {outcome}: {reason}")]
    Container { guest: GuestName, container: String, outcome: &'static str, reason: String },
}

// Hints that take more than a line.
const TWO_JAILS: &str = "stop the other guest, or give each a disk of its own; a jail that nothing runs in can be removed, and the disk stays";
const MOVE_BACK: &str = "take the old `jails` back; or with it take the fleet down, move the fleet's \
  directories `disks` and `snapshots` to the new place, and go on there";

impl Diagnostic for ApplyError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::{Failed, Invalid};
        match self {
            Self::File(error) => error.diagnosis().of(Failed),
            Self::Tool(error) => error.diagnosis(),
            Self::Ip(error) => error.diagnosis(),
            Self::Nft(error) => error.diagnosis(),
            Self::Netns(error) => error.diagnosis(),
            Self::Network(error) => error.diagnosis(),
            Self::Cgroup(error) => error.diagnosis(),
            Self::Mount(error) => error.diagnosis(),
            Self::Launch(error) => error.diagnosis().of(Failed),
            Self::Ssh(error) => error.diagnosis(),
            Self::Qmp(error) => error.diagnosis(),
            Self::Api(error) => error.diagnosis(),
            Self::Vmm(error) => error.diagnosis(),
            Self::Snapshot(error) => error.diagnosis(),
            Self::SessionDisk(error) => error.diagnosis(),
            Self::Unreadable(error) => error.diagnosis(),
            Self::Unwritten(error) => error.diagnosis(),
            Self::Quarantine(error) => error.diagnosis(),
            Self::Unmet(error) => error.diagnosis(),
            Self::Binary(error) => error.diagnosis(),
            Self::NoArtifact(_) => Failed.hint("run `sisforge build`"),
            Self::ArtifactChanged { .. } => Failed.hint("remove its directory in out/, and build again"),
            Self::DiskShared { .. } => Failed.hint(TWO_JAILS),
            Self::NoFileSystem { .. } => {
                Invalid.hint("it must be a raw image of one ext4 file system, without partitions")
            }
            Self::Moved { .. } => Failed.hint(MOVE_BACK),
            Self::NoDevice(_) => {
                Failed.hint("remove `io` from the guests, or move [host] store to a file system on a disk")
            }
            Self::NoVmm { program } => ToolError::Missing { tool: (*program).to_owned() }.diagnosis(),
            // What to do is in their words, or nothing is known.
            Self::NoNode { .. } | Self::Interrupted(_) | Self::Container { .. } => Failed.no_hint(),
        }
    }
}
