//! Network namespaces with a name, as `ip netns` makes and lists them (ip-netns(8)): a file below `/run/netns` on which the
//! namespace is mounted.
//!
//! Whoever works in one enters it with a thread of its own ([`within`]). Programs that such a thread starts are in it too,
//! and so is what it reads of `/proc/sys/net`. `ip netns exec` would also mount another `/sys`, without cgroups.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{FileError, io_diagnosis, remove as remove_file};
use super::tool::{Tool, ToolError};

/// Why a namespace is not there, or cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot enter the network namespace {}{}", path.display(), hint(.source))]
    Enter { path: PathBuf, source: io::Error },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (this needs root, and CAP_SYS_ADMIN in a container)",
        // setns(2), of a file on which nothing is mounted.
        io::ErrorKind::InvalidInput => " (it is not a namespace, but a file left over from one)",
        _ => "",
    }
}

impl Diagnostic for NetnsError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Enter { source, .. } => io_diagnosis(source),
        }
    }
}

/// Where `ip netns` keeps them.
const DIR: &str = "/run/netns";

/// A network namespace by its name, whether it is there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns(PathBuf);

impl Netns {
    /// The one of this name.
    pub fn named(name: &str) -> Self {
        Self(Path::new(DIR).join(name))
    }

    /// What it is opened by.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// What is at a namespace's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    /// A file on which no namespace is mounted: it was half made, or half removed.
    Broken,
    There,
}

/// `linux/magic.h`
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Looks whether a namespace is there.
pub fn presence(netns: &Netns) -> Result<Presence, NetnsError> {
    match rustix::fs::statfs(netns.path()) {
        Ok(stat) if stat.f_type == NSFS_MAGIC => Ok(Presence::There),
        Ok(_) => Ok(Presence::Broken),
        Err(rustix::io::Errno::NOENT) => Ok(Presence::Absent),
        Err(error) => Err(FileError::when("look at", netns.path())(error.into()).into()),
    }
}

/// What tells one from the next of its name; `None` where none is there.
pub fn identity(netns: &Netns) -> Option<u64> {
    let is_there = presence(netns).is_ok_and(|presence| presence == Presence::There);
    is_there.then(|| std::fs::metadata(netns.path()).ok().map(|meta| meta.ino())).flatten()
}

/// The identity of the namespace that this thread is in.
pub fn own_identity() -> Option<u64> {
    std::fs::metadata("/proc/thread-self/ns/net").ok().map(|meta| meta.ino())
}

/// Number of an interface of this thread's network namespace; `None` where it is not there.
pub fn interface_index(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    rustix::net::netdevice::name_to_index(socket.ok()?, name).ok()
}

/// Makes a namespace in which nothing but a loopback interface is, and that is up; one that is there stays as it is, but for
/// that.
pub fn create(netns: &Netns) -> Result<(), NetnsError> {
    if presence(netns)? != Presence::There {
        // On what is left of one, `ip` would not make another.
        remove_file(netns.path())?;
        Tool::new("ip").args(["netns", "add"]).arg(name(netns)).run()?;
    }
    Tool::new("ip").arg("-n").arg(name(netns)).args(["link", "set", "lo", "up"]).run()?;
    Ok(())
}

/// Removes a namespace by its name; absence is fine. It ends with the last process in it, and with it all that is in it.
pub fn remove(netns: &Netns) -> Result<(), NetnsError> {
    match presence(netns)? {
        Presence::There => {
            Tool::new("ip").args(["netns", "delete"]).arg(name(netns)).run()?;
        }
        Presence::Broken => remove_file(netns.path())?,
        Presence::Absent => {}
    }
    Ok(())
}

fn name(netns: &Netns) -> &std::ffi::OsStr {
    netns.path().file_name().unwrap_or_default()
}

/// Does work on a thread in a namespace, and waits for it. Nothing else of this process is moved.
pub fn within<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    within_path(netns.path(), work)
}

/// The same in a namespace by any file that it is mounted on, such as `/proc/PID/ns/net`.
pub fn within_path<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let inside = || enter(path).map(|()| work());
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Moves this thread into a namespace for good, and with it all that it starts or becomes.
pub fn enter(path: &Path) -> Result<(), NetnsError> {
    let failed = |source| NetnsError::Enter { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), network).map_err(|error| failed(error.into()))
}
