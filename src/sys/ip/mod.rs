//! Network links, addresses, routes and queues, asked of the kernel and changed there (rtnetlink(7)), and the sysctls that belong to
//! them.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::io_diagnosis;
use super::tool::{Tool, ToolError};

mod found;
pub mod link;
pub mod queue;
mod route;

pub use found::{Neighbour, interfaces, permanent_neighbours};
pub use link::{delete_index, delete_together, index, probe_neighbour};
pub use route::{default_uplink, routes};

use found::interface_named;

/// Why a link is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum IpError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// `tc` answered something else than it should.
    #[error("cannot parse the output of `{command}`")]
    Output { command: String, source: serde_json::Error },
    /// TAP devices cannot be made here.
    #[error(
        "/dev/net/tun is missing: load the driver (`modprobe tun`), or give the container the device \
         (`--device /dev/net/tun`)"
    )]
    NoTun,
    /// A link of that name is there and is none of ours.
    #[error("cannot create the interface {name}: a {kind} link of that name already exists")]
    Foreign { name: String, kind: String },
    /// A TAP of that name is there and is another's.
    #[error("cannot create the TAP {name}: it already exists and belongs to {alias}")]
    Taken { name: String, alias: String },
    /// The kernel did not do it.
    #[error("cannot {action} the interface {name}")]
    Interface { action: &'static str, name: String, source: io::Error },
    /// The kernel did not say what there is.
    #[error("cannot ask the kernel for the {what} of this network")]
    Unanswered { what: &'static str, source: io::Error },
    /// A setting below `/proc/sys`.
    #[error("cannot {action} the sysctl {key}{}", if .source.kind() == ErrorKind::ReadOnlyFilesystem {
        " (/proc/sys is read-only here; set it where the container was started)"
    } else { "" })]
    Sysctl { action: &'static str, key: String, source: io::Error },
}

impl Diagnostic for IpError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::Output { .. } => Class::Failed.hint("install a newer iproute2"),
            // What to do is in its words.
            Self::NoTun => Class::Failed.no_hint(),
            Self::Foreign { .. } => Class::Failed.hint("`ip link` shows it; remove it if nobody needs it"),
            Self::Taken { .. } => {
                Class::Failed.hint("`ip -details link` shows it; remove it if nobody needs it")
            }
            Self::Sysctl { source, .. } if source.kind() == ErrorKind::ReadOnlyFilesystem => {
                Class::Failed.no_hint()
            }
            Self::Sysctl { source, .. }
            | Self::Interface { source, .. }
            | Self::Unanswered { source, .. } => io_diagnosis(source),
        }
    }
}

/// A TAP device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    pub name: String,
    /// The uid that may attach to it; `None` for one that anyone may attach to.
    pub owner: Option<u32>,
    /// A group whose members may attach to it too.
    pub group: Option<u32>,
    /// Its first IPv4 address, with the length of the prefix.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Whether it is administratively up, with a process attached or not.
    pub up: bool,
    /// Whose it is, in words that whoever made it chose; `None` where nobody said.
    pub alias: Option<String>,
}

/// A network interface of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// The index of the other end of a pair, in whatever namespace that is, or of the interface that it lies on.
    pub peer: Option<u32>,
    /// Such as `veth`, or `loopback`.
    pub kind: String,
    pub mac: String,
    /// In bytes.
    pub mtu: u32,
    pub up: bool,
    /// What packets wait in that leave it.
    pub queue: String,
    /// As [`Tap::alias`].
    pub alias: Option<String>,
    /// Of IPv4, with the length of the prefix.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// How it treats packets.
    pub settings: link::InterfaceSettings,
    /// What it is as a TAP.
    pub tap: Option<Tap>,
}

impl Interface {
    /// Whether these are the two ends of one pair.
    pub fn is_peer_of(&self, other: &Self) -> bool {
        self.kind == "veth"
            && other.kind == "veth"
            && self.peer == Some(other.index)
            && other.peer == Some(self.index)
    }
}

/// What the queue is called in which nothing waits.
pub const NO_QUEUE: &str = "noqueue";

fn ip<const N: usize>(args: [&str; N]) -> Tool {
    Tool::new("ip").args(args)
}

/// All TAP devices of this network namespace.
pub fn taps() -> Result<Vec<Tap>, IpError> {
    Ok(interfaces()?.into_iter().filter_map(|found| found.tap).collect())
}

/// The TAP of that name, where there is one.
pub fn tap(name: &str) -> Result<Option<Tap>, IpError> {
    Ok(interface_named(name)?.and_then(|found| found.tap))
}

/// The interface of that name, which is a TAP and not another's.
fn own_tap(name: &str, alias: &str) -> Result<Option<(Interface, Tap)>, IpError> {
    let Some(mut found) = interface_named(name)? else { return Ok(None) };
    let Some(tap) = found.tap.take() else {
        return Err(IpError::Foreign { name: found.name, kind: found.kind });
    };
    match tap.alias {
        Some(other) if other != alias => Err(IpError::Taken { name: tap.name, alias: other }),
        _ => Ok(Some((found, tap))),
    }
}

/// Makes a TAP that only `owner` may attach to, gives it one address, and takes it up last: before that no packet
/// passes. Its alias says whose it is. It speaks no IPv6 and drops packets from addresses that are not routed to it. A TAP of that
/// name which is right already is left alone, so that a guest on it notices nothing; one of another owner is made anew. A TAP of
/// another alias, or a link of another kind, is left alone, and an error. Tells whether it was made anew.
pub fn create_tap(
    name: &str,
    owner: u32,
    address: Ipv4Addr,
    prefix: u8,
    alias: &str,
) -> Result<bool, IpError> {
    if !Path::new("/dev/net/tun").exists() {
        return Err(IpError::NoTun);
    }
    let mut found = own_tap(name, alias)?;
    if let Some((_, tap)) = &found
        && (tap.owner != Some(owner) || tap.group.is_some())
    {
        delete_link(name)?;
        found = None;
    }
    let is_new = found.is_none();
    if is_new {
        link::create_tap(name, owner)?;
    }
    set_interface_sysctl("ipv6", name, "disable_ipv6", "1")?;
    set_interface_sysctl("ipv4", name, "rp_filter", "1")?;
    let index = index(name)?.ok_or_else(|| link::missing(name))?;
    let addresses = found.as_ref().map_or(&[][..], |(interface, _)| &interface.addresses);
    if addresses != [(address, prefix)] {
        if !addresses.is_empty() {
            ip(["-4", "addr", "flush", "dev", name]).run()?;
        }
        link::add_address(name, index, address, prefix)?;
    }
    if !found.is_some_and(|(_, tap)| tap.alias.as_deref() == Some(alias) && tap.up) {
        link::take_up(name, index, alias)?;
    }
    Ok(is_new)
}

/// Sets what may be absent: a kernel without IPv6 has no such file and needs none.
pub fn set_interface_sysctl(family: &str, name: &str, key: &str, value: &str) -> Result<(), IpError> {
    let path = PathBuf::from(format!("/proc/sys/net/{family}/conf/{name}/{key}"));
    match write_if_other(&path, value) {
        Err(error) if error.kind() == ErrorKind::NotFound && family == "ipv6" => Ok(()),
        done => {
            done.map_err(|source| sysctl_error("set", &format!("net.{family}.conf.{name}.{key}"), source))
        }
    }
}

/// A value that is right already is not written: `/proc/sys` may be read-only in a container that was set up well.
fn write_if_other(path: &Path, value: &str) -> io::Result<()> {
    if std::fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value)
}

fn sysctl_error(action: &'static str, key: &str, source: io::Error) -> IpError {
    IpError::Sysctl { action, key: key.to_owned(), source }
}

/// Removes a link; absence is fine.
pub fn delete_link(name: &str) -> Result<(), IpError> {
    index(name)?.map_or(Ok(()), |index| delete_index(name, index))
}

/// As sysctl(8) has it: a slash in a key is a dot in a name.
fn sysctl_path(key: &str) -> PathBuf {
    let part = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    Path::new("/proc/sys").join(key.chars().map(part).collect::<String>())
}

/// The interfaces of this network namespace as ip's JSON, with all that the kernel counted of them.
pub fn statistics_json() -> Result<String, IpError> {
    Ok(Tool::new("ip").args(["-s", "-s", "-j", "-d", "addr", "show"]).text()?)
}

/// Sets a sysctl such as `net.ipv4.ip_forward`; one that has the value already is not written.
pub fn set_sysctl(key: &str, value: &str) -> Result<(), IpError> {
    write_if_other(&sysctl_path(key), value).map_err(|source| sysctl_error("set", key, source))
}

/// The value of a sysctl, without its newline; `None` where this kernel has none of that name.
pub fn get_sysctl(key: &str) -> Result<Option<String>, IpError> {
    match std::fs::read_to_string(sysctl_path(key)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(sysctl_error("read", key, source)),
    }
}
