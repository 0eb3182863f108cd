//! What can stand against what a user asks for.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::apply::ApplyError;
use crate::apply::prove::ProveError;
use crate::base::diagnostic::{Class, Diagnosis, Diagnostic, together};
use crate::base::problem::InvalidFile;
use crate::base::{ByteSize, FleetName, GuestName, InterfaceName, InvalidValue, SnapshotName};
use crate::build::containers::AbsentImage;
use crate::build::needs::NeedDoubt;
use crate::build::{BuildError, ProjectError};
use crate::fleet::LoadError;
use crate::host::address_list::NoAddress;
use crate::host::desired::DesiredError;
use crate::host::network::LEAST_PORTS;
use crate::host::publish::PublishedPort;
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

use super::containers_error::ContainersError;
use super::guest_error::GuestError;
use super::saved_plan::SavedPlanError;
use super::session_error::SessionError;

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
    AbsentImages(Vec<AbsentImage>),
    #[error("{}", lines(.0))]
    MachineFiles(Vec<String>),
    #[error("{}:{}: {source}", path.display(), source.line)]
    AddressList { path: PathBuf, source: NoAddress },
    #[error("[host] uplink {:?}: this host has no such interface", .0.as_str())]
    NoUplink(InterfaceName),
    #[error("[host] uplink is \"auto\", and this host has no default route")]
    NoDefaultRoute,
    #[error("[host] subnet {subnet} overlaps {what}")]
    SubnetTaken { subnet: Ipv4Net, what: String },
    #[error("packets of the fleet {0} are told to somebody else already, and the kernel tells one alone")]
    Listened(FleetName),
    #[error("{way} cannot be published for {guest}: {port} is {whose}", port = .way.port, guest = .way.guest)]
    PortTaken { way: PublishedPort, whose: String },
    #[error(
        "no {LEAST_PORTS} ports in a row are left for the guests' connections: this host gives {}-{} to its own (net.ipv4.ip_local_port_range)", .0.start(), .0.end()
    )]
    NoPorts(RangeInclusive<u16>),
    #[error("{0} was started by an earlier sisforge, with its network in the host's own")]
    NotConverted(GuestName),
    #[error("with --repo, --file is a path in the repository, and this one is absolute")]
    AbsoluteFile,

    #[error("there is no guest {name:?}")]
    UnknownGuest { name: String, hint: String },
    #[error("there is no network policy and no guest {name:?}")]
    UnknownNetwork { name: String, hint: String },
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error("{0} is not running")]
    NotRunning(GuestName),
    #[error("{guest} {}", if *.runs { "is not ready yet" } else { "is not running" })]
    NotReady { guest: GuestName, runs: bool },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Containers(#[from] ContainersError),
    #[error("{0} has no sshd, so no command can be run in it")]
    NoSshd(GuestName),

    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Shrinks(Vec<DiskWouldShrink>),
    #[error("there is no data disk of {name:?}")]
    UnknownDisk { name: String, hint: String },
    #[error("{0} is running, and its disk is in use")]
    DiskInUse(GuestName),
    #[error("{0} has a data disk already")]
    DiskExists(String),
    #[error("{0} has no persistent disk: it is removed together with its jail")]
    EphemeralDisk(GuestName),
    #[error("{} has {size}, but the disk of {name} should have {wanted}", from.display())]
    DiskTooLarge { from: PathBuf, size: ByteSize, name: String, wanted: ByteSize },
    #[error("{} is not a file", .0.display())]
    NoFile(PathBuf),
    #[error("{} already exists", .0.display())]
    FileExists(PathBuf),
    #[error("{} already exists", .0.display())]
    TreeExists(PathBuf),

    #[error("{named:?} is {what}")]
    NoArtifact { named: String, what: String, hint: String },
    #[error("several build keys begin with {0}")]
    SeveralKeys(String),
    #[error("the configuration of {} is not known", .0.display())]
    NoConfiguration(PathBuf),

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

impl RunError {
    /// What is told of guests, disks, artifacts and snapshots that were named.
    fn of_a_name(&self) -> Diagnosis {
        use Class::{Failed, Invalid};
        match self {
            Self::UnknownGuest { hint, .. }
            | Self::UnknownNetwork { hint, .. }
            | Self::UnknownDisk { hint, .. }
            | Self::NoArtifact { hint, .. } => Invalid.hint(hint.clone()),
            Self::NotRunning(guest) => Failed.hint(format!("start it with `sisforge up {guest}`")),
            Self::NotReady { guest, .. } => Failed.hint(format!(
                "`sisforge up {guest}` starts it, `sisforge logs {guest}` shows its serial console"
            )),
            Self::NoSshd(_) => {
                Failed.hint("its image needs a recipe that starts one, such as rootless-podman")
            }
            Self::DiskInUse(guest) => Failed.hint(format!("`sisforge down {guest}` first")),
            Self::DiskExists(_) => {
                Failed.hint("`sisforge disk export` saves it; with --replace it is replaced, and lost")
            }
            Self::EphemeralDisk(_) => {
                Invalid.hint("members of pools, and disks with `backing = \"tmpfs\"`, are ephemeral")
            }
            Self::DiskTooLarge { .. } => Invalid.hint("give the disk its size in fleet.toml"),
            Self::FileExists(_) => Invalid.hint("remove it, or name another file"),
            Self::TreeExists(_) => Invalid.hint("remove it, or name another directory with --out"),
            Self::SeveralKeys(_) => Invalid.hint("write more of its digits"),
            Self::NoConfiguration(_) => {
                Invalid.hint("name its config file; `sisforge build` puts it next to the kernel")
            }
            Self::NotRestored { running, .. } if !running.is_empty() => {
                let names: Vec<&str> = running.iter().map(GuestName::as_str).collect();
                Failed.hint(format!("first: `sisforge down {}`", names.join(" ")))
            }
            _ => Failed.no_hint(),
        }
    }
}

impl RunError {
    /// What is told of artifacts and their registry.
    fn of_a_registry(&self) -> Diagnosis {
        match self {
            Self::Signature(error) => error.diagnosis(),
            Self::NoRegistry => Class::Invalid.hint(
                "write its address behind the command, as in `oci://registry.example.org/team/fleet`, or into [fleet] artifacts",
            ),
            Self::PushOffline => Class::Invalid.hint("run it without --offline"),
            _ => Class::Failed.no_hint(),
        }
    }

    /// What is told of fleet.lock.
    fn of_the_lock(&self) -> Diagnosis {
        Class::Invalid.hint(if matches!(self, Self::NoLock(_)) { MAKE_LOCK } else { COMMIT_LOCK })
    }

    /// What is told of the network around a fleet.
    fn of_the_network(&self) -> Diagnosis {
        use Class::{Failed, Invalid};
        match self {
            Self::NoUplink(_) => {
                Invalid.hint("`ip link` lists them; \"auto\" takes that of the default route")
            }
            Self::SubnetTaken { .. } => {
                Invalid.hint("give the fleet addresses that nobody has: [host] subnet")
            }
            Self::PortTaken { .. } => Invalid.hint(
                "publish by ports that nobody has (`host` in `publish`), or end whoever has it; `sisforge lock` tells who gets which",
            ),
            Self::Listened(_) => Failed.hint("end the other `sisforge policy log` first"),
            Self::NoPorts(_) => {
                Failed.hint("keep some for them: `sysctl net.ipv4.ip_local_reserved_ports=20000-29999`")
            }
            Self::NotConverted(_) => {
                Failed.hint("`sisforge up` without names converts the whole fleet, and restarts its guests")
            }
            Self::NoDefaultRoute => {
                Failed.hint("name the interface that faces the network, as in `uplink = \"eth0\"`")
            }
            _ => Failed.no_hint(),
        }
    }
}

const ADD_IMAGE: &str = "add the image to `images` of the guest's disk, or use an image that is there";
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
            Self::Session(error) => error.diagnosis(),
            Self::Guest(error) => error.diagnosis(),
            Self::Signature(_) | Self::NoRegistry | Self::PushOffline => self.of_a_registry(),
            Self::NotRoot => Failed.hint(NEEDS_ROOT),
            Self::Program(_) | Self::LockText(_) | Self::Manifest(_) | Self::NoSystemd => Failed.no_hint(),
            Self::NoLock(_) | Self::StaleLock { .. } => self.of_the_lock(),
            Self::TurnedOff(all) => together(all),
            Self::AbsentImages(_) => Invalid.hint(ADD_IMAGE),
            Self::Shrinks(all) => together(all),
            Self::MachineFiles(_)
            | Self::AddressList { .. }
            | Self::AbsoluteFile
            | Self::NoFile(_)
            | Self::SnapshotName(_) => Invalid.no_hint(),
            Self::NoUplink(_)
            | Self::SubnetTaken { .. }
            | Self::PortTaken { .. }
            | Self::Listened(_)
            | Self::NoPorts(_)
            | Self::NotConverted(_)
            | Self::NoDefaultRoute => self.of_the_network(),
            Self::UnknownGuest { .. }
            | Self::UnknownNetwork { .. }
            | Self::UnknownDisk { .. }
            | Self::NoArtifact { .. }
            | Self::NotRunning(_)
            | Self::NotReady { .. }
            | Self::NoSshd(_)
            | Self::DiskInUse(_)
            | Self::DiskExists(_)
            | Self::EphemeralDisk(_)
            | Self::DiskTooLarge { .. }
            | Self::FileExists(_)
            | Self::TreeExists(_)
            | Self::SeveralKeys(_)
            | Self::NoConfiguration(_)
            | Self::NotRestored { .. } => self.of_a_name(),
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
