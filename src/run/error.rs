//! What can stand against what a user asks for.

use std::io;
use std::path::PathBuf;

use crate::apply::ApplyError;
use crate::apply::prove::ProveError;
use crate::base::diagnostic::{Class, Diagnosis, Diagnostic, together};
use crate::base::problem::InvalidFile;
use crate::base::{GuestName, InvalidValue, SnapshotName};
use crate::build::needs::NeedDoubt;
use crate::build::{BuildError, ProjectError};
use crate::fleet::LoadError;
use crate::host::address_list::NoAddress;
use crate::host::desired::DesiredError;
use crate::host::versions::VersionError;
use crate::image::container::ContainerError;
use crate::image::read::ReadError;
use crate::lock::model::LockFileError;
use crate::plan::DiskWouldShrink;
use crate::sys::cgroup::CgroupError;
use crate::sys::firecracker::UnknownVersion;
use crate::sys::fs::FileError;
use crate::sys::git::GitError;
use crate::sys::http::NetworkError;
use crate::sys::ip::IpError;
use crate::sys::ssh::SshError;
use crate::sys::ssh_signature::SshSignatureError;

use super::saved_plan::SavedPlanError;

mod artifact;
mod containers;
mod disk;
mod guest;
mod logs;
mod network;
mod sbom;
mod session;

pub use artifact::ArtifactError;
pub use containers::ContainersError;
pub use disk::DataDiskError;
pub use guest::GuestError;
pub use logs::LogError;
pub use network::HostNetworkError;
pub use sbom::SbomError;
pub use session::SessionError;

/// A use case that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Lock(#[from] LockFileError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Desired(#[from] DesiredError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Prove(#[from] ProveError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Ip(#[from] IpError),
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Firecracker(#[from] UnknownVersion),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error(transparent)]
    Image(#[from] ReadError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    SavedPlan(#[from] SavedPlanError),
    #[error(transparent)]
    Sbom(#[from] SbomError),
    #[error(transparent)]
    Log(#[from] LogError),

    #[error(transparent)]
    Signature(#[from] SshSignatureError),
    #[error("no registry is named")]
    NoRegistry,
    #[error("nothing can be pushed offline")]
    PushOffline,

    #[error("this command needs root, which jails, TAPs, cgroups and nftables rules require")]
    NotRoot,
    #[error(
        "systemd does not run this host; without --install, `sisforge systemd` prints the unit for another one"
    )]
    NoSystemd,
    #[error("cannot find the path of this program")]
    Program(#[source] io::Error),
    #[error("cannot write the lock")]
    LockText(#[source] toml::ser::Error),
    #[error("cannot write the manifest of a jail")]
    Manifest(#[source] serde_json::Error),
    #[error("there is no {}", .0.display())]
    NoLock(PathBuf),
    #[error("{} does not fit {}:{}", path.display(), fleet.display(), indented(reasons))]
    StaleLock { path: PathBuf, fleet: PathBuf, reasons: Vec<String> },
    #[error("{}", lines(.0))]
    TurnedOff(Vec<NeedDoubt>),
    #[error("{}", lines(.0))]
    MachineFiles(Vec<String>),
    #[error("{}:{}: {source}", path.display(), source.line)]
    AddressList { path: PathBuf, source: NoAddress },
    #[error(transparent)]
    HostNetwork(#[from] HostNetworkError),
    #[error("with --repo, --file is a path in the repository, and this one is absolute")]
    AbsoluteFile,

    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Containers(#[from] ContainersError),
    #[error(transparent)]
    Disk(#[from] DataDiskError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Shrinks(Vec<DiskWouldShrink>),
    #[error("{} already exists", .0.display())]
    TreeExists(PathBuf),

    #[error("the name of a snapshot {0}")]
    SnapshotName(#[from] InvalidValue),
    #[error("snapshot {snapshot} cannot be restored as {guest}")]
    NotRestored {
        snapshot: SnapshotName,
        guest: GuestName,
        /// The guests that are to be taken down first, if that is a reason.
        running: Vec<GuestName>,
        #[source]
        obstacles: Option<ObstacleReason>,
    },
}

/// One of several reasons for an error; the next one stands behind it as its source.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct ObstacleReason {
    text: String,
    #[source]
    next: Option<Box<ObstacleReason>>,
}

impl ObstacleReason {
    /// All of them, one behind the other.
    pub(super) fn first_of(reasons: &[impl ToString]) -> Option<Self> {
        let behind = |next: Option<Self>, reason: &_| {
            Some(Self { text: ToString::to_string(reason), next: next.map(Box::new) })
        };
        reasons.iter().rev().fold(None, behind)
    }
}

fn lines(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn indented(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  {reason}")).collect()
}

const NAME_REGISTRY: &str = "write its address behind the command, as in `oci://registry.example.org/team/fleet`, or into [fleet] artifacts";
const MAKE_LOCK: &str = "run `sisforge lock` and commit the file";
const COMMIT_LOCK: &str = "run `sisforge lock` and commit the file, or run without --locked";
const NEEDS_ROOT: &str = "run it with sudo; `check`, `lock`, `build` and `tree` need no root";

impl Diagnostic for RunError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::{Failed, Invalid};
        match self {
            Self::Load(error) => error.diagnosis(),
            Self::Project(error) => error.diagnosis(),
            Self::Lock(error) => error.diagnosis(),
            Self::Build(error) => error.diagnosis(),
            Self::Desired(error) => error.diagnosis(),
            Self::Apply(error) => error.diagnosis(),
            Self::Prove(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Cgroup(error) => error.diagnosis(),
            Self::Ip(error) => error.diagnosis(),
            Self::Ssh(error) => error.diagnosis(),
            Self::Git(error) => error.diagnosis(),
            Self::Network(error) => error.diagnosis(),
            Self::Firecracker(error) => error.diagnosis(),
            Self::Version(error) => error.diagnosis(),
            Self::Image(error) => error.diagnosis(),
            Self::Container(error) => error.diagnosis(),
            Self::Containers(error) => error.diagnosis(),
            Self::SavedPlan(error) => error.diagnosis(),
            Self::Sbom(error) => error.diagnosis(),
            Self::Log(error) => error.diagnosis(),
            Self::Session(error) => error.diagnosis(),
            Self::Guest(error) => error.diagnosis(),
            Self::Disk(error) => error.diagnosis(),
            Self::Artifact(error) => error.diagnosis(),
            Self::HostNetwork(error) => error.diagnosis(),
            Self::Signature(error) => error.diagnosis(),
            Self::NoRegistry => Invalid.hint(NAME_REGISTRY),
            Self::PushOffline => Invalid.hint("run it without --offline"),
            Self::NotRoot => Failed.hint(NEEDS_ROOT),
            Self::Program(_) | Self::LockText(_) | Self::Manifest(_) | Self::NoSystemd => Failed.no_hint(),
            Self::NoLock(_) => Invalid.hint(MAKE_LOCK),
            Self::StaleLock { .. } => Invalid.hint(COMMIT_LOCK),
            Self::TurnedOff(all) => together(all),
            Self::Shrinks(all) => together(all),
            Self::TreeExists(_) => Invalid.hint("remove it, or name another directory with --out"),
            Self::MachineFiles(_) | Self::AddressList { .. } | Self::AbsoluteFile | Self::SnapshotName(_) => {
                Invalid.no_hint()
            }
            Self::NotRestored { running, .. } if running.is_empty() => Failed.no_hint(),
            Self::NotRestored { running, .. } => {
                let names: Vec<&str> = running.iter().map(GuestName::as_str).collect();
                Failed.hint(format!("first: `sisforge down {}`", names.join(" ")))
            }
        }
    }

    fn problems(&self) -> &[InvalidFile] {
        match self {
            Self::Load(error) => error.problems(),
            Self::Project(error) => error.problems(),
            Self::Build(error) => error.problems(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::causes;

    #[test]
    fn every_reason_against_a_restore_is_a_cause() {
        let error = RunError::NotRestored {
            snapshot: "monday".parse().unwrap(),
            guest: "bob".parse().unwrap(),
            running: ["alice", "bob"].map(|name| name.parse().unwrap()).to_vec(),
            obstacles: ObstacleReason::first_of(&["alice is running", "its disk is damaged"]),
        };
        assert_eq!(causes(&error), ["alice is running", "its disk is damaged"]);
        assert_eq!(error.hint().unwrap(), "first: `sisforge down alice bob`");
        assert!(ObstacleReason::first_of(&[""; 0]).is_none());
    }
}
