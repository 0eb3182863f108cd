//! Network links and addresses through iproute2's JSON (`ip -j`), and the sysctls that belong to them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::io_diagnosis;
use super::tool::{Tool, ToolError};

pub mod link;
mod route;

pub use link::{delete_index, index};
pub use route::{default_uplink, routes};

/// Why a link is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum IpError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// `ip` answered something else than it should.
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
    /// The owner is a user name that nothing resolves.
    #[error("the TAP {name} belongs to {owner:?}, which is not a user of this host")]
    Owner { name: String, owner: String },
    /// The kernel did not do it.
    #[error("cannot {action} the interface {name}")]
    Interface { action: &'static str, name: String, source: io::Error },
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
            Self::Owner { .. } => Class::Failed.no_hint(),
            Self::Sysctl { source, .. } if source.kind() == ErrorKind::ReadOnlyFilesystem => {
                Class::Failed.no_hint()
            }
            Self::Sysctl { source, .. } | Self::Interface { source, .. } => io_diagnosis(source),
        }
    }
}

/// A TAP device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    pub name: String,
    /// The uid that may attach to it; `None` for one that anyone may attach to.
    pub owner: Option<u32>,
    /// Its first IPv4 address, with the length of the prefix.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Whether it is administratively up, with a process attached or not.
    pub up: bool,
    /// Whose it is, in words that whoever made it chose; empty where nobody said.
    pub alias: String,
}

/// A network interface of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// The index of the other end of a pair, in whatever namespace that is.
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
    pub alias: String,
    /// Of IPv4, with the length of the prefix.
    pub addresses: Vec<(Ipv4Addr, u8)>,
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

/// A link as `ip -j -d addr show` prints it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Link {
    ifname: String,
    ifindex: u32,
    link_index: Option<u32>,
    address: String,
    mtu: u32,
    flags: Vec<String>,
    link_type: String,
    qdisc: String,
    ifalias: String,
    linkinfo: LinkInfo,
    addr_info: Vec<InterfaceAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LinkInfo {
    info_kind: String,
    info_data: Tun,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tun {
    r#type: String,
    /// A number, or the name where the host knows one; `-N` does not change that.
    user: Option<Id>,
    group: Option<Id>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u32),
    Name(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct InterfaceAddress {
    local: Option<IpAddr>,
    prefixlen: u8,
}

impl Link {
    fn is_tap(&self) -> bool {
        self.linkinfo.info_kind == "tun" && self.linkinfo.info_data.r#type == "tap"
    }

    fn addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.addr_info.iter().filter_map(|address| Some((address.local?, address.prefixlen)))
    }

    fn addresses_v4(&self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        self.addresses().filter_map(|(address, prefix)| match address {
            IpAddr::V4(address) => Some((address, prefix)),
            IpAddr::V6(_) => None,
        })
    }

    fn owner(&self) -> Result<Option<u32>, IpError> {
        match &self.linkinfo.info_data.user {
            None => Ok(None),
            Some(Id::Number(uid)) => Ok(Some(*uid)),
            Some(Id::Name(owner)) => {
                let uid = Tool::new("id").args(["-u", "--", owner]).text()?.trim().parse();
                uid.map(Some).map_err(|_| IpError::Owner { name: self.ifname.clone(), owner: owner.clone() })
            }
        }
    }

    /// Such as `veth`, or `loopback` where nothing else is said.
    fn kind(&self) -> &str {
        if self.linkinfo.info_kind.is_empty() { &self.link_type } else { &self.linkinfo.info_kind }
    }

    fn interface(&self) -> Result<Interface, IpError> {
        Ok(Interface {
            name: self.ifname.clone(),
            index: self.ifindex,
            peer: self.link_index,
            kind: self.kind().to_owned(),
            mac: self.address.clone(),
            mtu: self.mtu,
            up: self.is_up(),
            queue: self.qdisc.clone(),
            alias: self.ifalias.clone(),
            addresses: self.addresses_v4().collect(),
            tap: if self.is_tap() { Some(self.tap()?) } else { None },
        })
    }

    fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }

    fn tap(&self) -> Result<Tap, IpError> {
        Ok(Tap {
            name: self.ifname.clone(),
            owner: self.owner()?,
            address: self.addresses_v4().next(),
            up: self.is_up(),
            alias: self.ifalias.clone(),
        })
    }
}

fn ip<const N: usize>(args: [&str; N]) -> Tool {
    Tool::new("ip").args(args)
}

/// Runs a query; `ip` prints nothing at all, or empty objects, where there is nothing to show.
fn query<T: for<'de> Deserialize<'de>>(tool: &Tool) -> Result<Vec<T>, IpError> {
    parse_list(&tool.text()?).map_err(|source| IpError::Output { command: tool.command_line(), source })
}

fn parse_list<T: for<'de> Deserialize<'de>>(text: &str) -> Result<Vec<T>, serde_json::Error> {
    if text.trim().is_empty() { Ok(Vec::new()) } else { serde_json::from_str(text) }
}

/// A missing link is no failure of the tool but an answer.
fn is_absence(error: &ToolError) -> bool {
    let stderr = error.stderr();
    stderr.contains("does not exist") || stderr.contains("Cannot find device")
}

fn link(name: &str) -> Result<Option<Link>, IpError> {
    match query::<Link>(&ip(["-j", "-d", "addr", "show", "dev", name])) {
        Ok(links) => Ok(links.into_iter().find(|link| link.ifname == name)),
        Err(IpError::Tool(error)) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All interfaces of this network namespace.
pub fn interfaces() -> Result<Vec<Interface>, IpError> {
    let links = query::<Link>(&ip(["-j", "-d", "addr", "show"]))?;
    links.iter().filter(|link| !link.ifname.is_empty()).map(Link::interface).collect()
}

/// All TAP devices of this network namespace.
pub fn taps() -> Result<Vec<Tap>, IpError> {
    let links = query::<Link>(&ip(["-j", "-d", "addr", "show", "type", "tun"]))?;
    links.iter().filter(|link| link.is_tap()).map(Link::tap).collect()
}

/// The TAP of that name, where there is one.
pub fn tap(name: &str) -> Result<Option<Tap>, IpError> {
    link(name)?.filter(Link::is_tap).as_ref().map(Link::tap).transpose()
}

/// Whether a link of that name is there, of whatever kind.
pub fn link_exists(name: &str) -> Result<bool, IpError> {
    link(name).map(|link| link.is_some())
}

/// The TAP of that name, unless it is another's, or no TAP.
fn own_tap(name: &str, alias: &str) -> Result<Option<Link>, IpError> {
    if index(name)?.is_none() {
        return Ok(None);
    }
    let Some(link) = link(name)? else { return Ok(None) };
    if !link.is_tap() {
        return Err(IpError::Foreign { name: name.to_owned(), kind: link.kind().to_owned() });
    }
    if !link.ifalias.is_empty() && link.ifalias != alias {
        return Err(IpError::Taken { name: name.to_owned(), alias: link.ifalias.clone() });
    }
    Ok(Some(link))
}

/// Makes a TAP that only `owner` may attach to, gives it one address, and takes it up last: before that no packet
/// passes. Its alias says whose it is. It speaks no IPv6 and drops packets from addresses that are not routed to it. A TAP of that name which is
/// right already is left alone, so that a guest on it notices nothing; one of another owner is made anew. A TAP of
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
    if let Some(link) = &found
        && (link.owner()? != Some(owner) || link.linkinfo.info_data.group.is_some())
    {
        delete_link(name)?;
        found = None;
    }
    let is_new = found.is_none();
    if is_new {
        link::create_tap(name, owner)?;
    }
    let link = found.unwrap_or_default();
    set_interface_sysctl("ipv6", name, "disable_ipv6", "1")?;
    set_interface_sysctl("ipv4", name, "rp_filter", "1")?;
    let missing =
        || IpError::Interface { action: "find", name: name.to_owned(), source: ErrorKind::NotFound.into() };
    let index = index(name)?.ok_or_else(missing)?;
    if link.addresses_v4().collect::<Vec<_>>() != [(address, prefix)] {
        if link.addresses_v4().next().is_some() {
            ip(["-4", "addr", "flush", "dev", name]).run()?;
        }
        link::add_address(name, index, address, prefix)?;
    }
    if link.ifalias != alias || !link.is_up() {
        link::take_up(name, index, alias)?;
    }
    Ok(is_new)
}

/// A neighbour as `ip -j neigh` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Neighbour {
    pub dst: String,
    pub dev: String,
    pub lladdr: String,
}

/// Neighbours that are not asked for, since somebody said where they are.
pub fn permanent_neighbours() -> Result<Vec<Neighbour>, IpError> {
    query(&ip(["-j", "-4", "neigh", "show", "nud", "permanent"]))
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
    match ip(["link", "delete", "dev", name]).run() {
        Err(error) if !is_absence(&error) => Err(error.into()),
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const TAP: &str = r#"[{"ifindex":2,"ifname":"sis-alice","flags":["NO-CARRIER","BROADCAST","MULTICAST","UP"],
        "mtu":1500,"operstate":"DOWN","link_type":"ether","ifalias":"ours","address":"2a:fe:c1:a7:de:06",
        "linkinfo":{"info_kind":"tun","info_data":{"type":"tap","pi":false,"persist":true,"user":200001}},
        "addr_info":[{"family":"inet","local":"10.107.0.1","prefixlen":30,"scope":"global","label":"sis-alice"}]},
        {"ifname":"t2","flags":["POINTOPOINT","NOARP"],"link_type":"none",
        "linkinfo":{"info_kind":"tun","info_data":{"type":"tun","user":"root"}},"addr_info":[]}]"#;

    #[test]
    fn a_tap_is_told_from_a_tun_and_read_whole() {
        let links: Vec<Link> = parse_list(TAP).unwrap();
        assert!(!links[1].is_tap());
        let expected = Tap {
            name: "sis-alice".to_owned(),
            owner: Some(200_001),
            address: Some((Ipv4Addr::new(10, 107, 0, 1), 30)),
            up: true,
            alias: "ours".to_owned(),
        };
        assert_eq!(links[0].tap().unwrap(), expected);
    }

    #[test]
    fn an_owner_that_ip_prints_by_name_is_still_a_number() {
        let links: Vec<Link> = parse_list(TAP).unwrap();
        assert_eq!(links[1].owner().unwrap(), Some(0));
    }

    #[test]
    fn nothing_printed_is_nothing_there() {
        assert!(parse_list::<Link>("").unwrap().is_empty());
        assert!(parse_list::<Link>("[{},{}]").unwrap().iter().all(|link| !link.is_tap()));
    }
}
