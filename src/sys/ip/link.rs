//! One interface: changed and removed by the kernel itself (rtnetlink(7)), since that is done for each guest.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::sys::netlink::{MessageKind, Rtnetlink, RtnetlinkBatch, find, push};

use super::IpError;

/// `RTM_*` of `linux/rtnetlink.h`.
const NEW_LINK: MessageKind = MessageKind(0, 16);
const DELETE_LINK: MessageKind = MessageKind(0, 17);
const SET_LINK: MessageKind = MessageKind(0, 19);
const NEW_ADDRESS: MessageKind = MessageKind(0, 20);
const NEW_NEIGHBOUR: MessageKind = MessageKind(0, 28);
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
/// `linux/neighbour.h`.
pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
const NUD_PROBE: u16 = 0x10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
pub(super) const IFF_UP: u32 = 1;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

/// The index of the interface of that name, where there is one.
pub fn index(name: &str) -> Result<Option<u32>, IpError> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    match socket.and_then(|socket| rustix::net::netdevice::name_to_index(&socket, name)) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(error) => Err(failed("look for", name)(error.into())),
    }
}

pub(super) fn failed(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> IpError {
    let name = name.to_owned();
    move |source| IpError::Interface { action, name, source }
}

/// Why it is not known what there is.
pub(super) fn unanswered(what: &'static str) -> impl FnOnce(io::Error) -> IpError {
    move |source| IpError::Unanswered { what, source }
}

/// Why one that should be there cannot be changed.
pub(in crate::sys) fn missing(name: &str) -> IpError {
    failed("find", name)(io::ErrorKind::NotFound.into())
}

/// Names of interfaces by their indices, each asked for once.
#[derive(Debug, Default)]
pub(super) struct InterfaceNames(BTreeMap<u32, Option<String>>);

impl InterfaceNames {
    /// `None` for one that went meanwhile.
    pub(super) fn of(&mut self, index: u32) -> Option<String> {
        let ask = || {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
            rustix::net::netdevice::index_to_name(&socket, index).ok()
        };
        self.0.entry(index).or_insert_with(ask).clone()
    }
}

/// `struct ifinfomsg`.
pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Settings of an interface for IPv4 and IPv6, as the kernel has them (`IPV4_DEVCONF_*` from 1 on, `DEVCONF_*` from 0 on).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSettings {
    ipv4: Vec<u8>,
    ipv6: Option<Vec<u8>>,
}

impl InterfaceSettings {
    /// Those in the attributes of an interface.
    pub(super) fn of(link: &[u8]) -> Self {
        let families = find(link, IFLA_AF_SPEC).unwrap_or_default();
        let of = |family: u8, number| Some(find(find(families, family.into())?, number)?.to_vec());
        Self { ipv4: of(AF_INET, IFLA_INET_CONF).unwrap_or_default(), ipv6: of(AF_INET6, IFLA_INET6_CONF) }
    }

    /// One for IPv4 by its number, where the kernel knows it.
    pub fn ipv4(&self, number: usize) -> Option<u32> {
        value_at(&self.ipv4, number.checked_sub(1)?)
    }

    /// Whether there is an IPv6 that this one is not set for by its number.
    pub fn lacks_ipv6(&self, number: usize) -> bool {
        self.ipv6.as_ref().is_some_and(|all| value_at(all, number) != Some(1))
    }
}

fn value_at(all: &[u8], index: usize) -> Option<u32> {
    all.get(index * 4..)?.first_chunk().map(|value| u32::from_ne_bytes(*value))
}

/// Gives an interface another address.
pub(super) fn add_address(name: &str, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), IpError> {
    let mut header = vec![AF_INET, prefix, 0, 0];
    header.extend(index.to_ne_bytes());
    let mut attributes = Vec::new();
    push(&mut attributes, IFA_LOCAL, &address.octets());
    push(&mut attributes, IFA_ADDRESS, &address.octets());
    let add =
        |socket: Rtnetlink| socket.request(NEW_ADDRESS, NLM_F_CREATE | NLM_F_EXCL, &header, &attributes);
    Rtnetlink::open().and_then(add).map_err(failed("give an address to", name))
}

/// Has a neighbour asked whether it is where it should be, by up to three ARP requests, a second apart. Who asks tells its own
/// hardware address by that, so that the neighbour knows it, whatever it knew before.
pub fn probe_neighbour(name: &str, address: Ipv4Addr, mac: [u8; 6]) -> Result<(), IpError> {
    let index = index(name)?.ok_or_else(|| missing(name))?;
    // `struct ndmsg`: family, padding, index, state, flags, type.
    let mut header = vec![AF_INET, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend(NUD_PROBE.to_ne_bytes());
    header.extend([0, 0]);
    let mut attributes = Vec::new();
    push(&mut attributes, NDA_DST, &address.octets());
    push(&mut attributes, NDA_LLADDR, &mac);
    let probe =
        |socket: Rtnetlink| socket.request(NEW_NEIGHBOUR, NLM_F_CREATE | NLM_F_REPLACE, &header, &attributes);
    Rtnetlink::open().and_then(probe).map_err(failed("ask the neighbour behind", name))
}

/// Makes a TAP that stays, and that this uid alone may attach to. Nobody can while it is being made.
#[cfg(not(target_env = "musl"))]
pub(super) fn create_tap(name: &str, owner: u32) -> Result<(), IpError> {
    let create = || -> io::Result<()> {
        let tap = tappers::linux::Tap::create_named(tappers::Interface::new(name)?)?;
        tap.set_owner(owner)?;
        tap.set_persistent(true)
    };
    create().map_err(failed("make", name))
}

/// The same by ip-tuntap(8), in a binary for which no crate does it.
#[cfg(target_env = "musl")]
pub(super) fn create_tap(name: &str, owner: u32) -> Result<(), IpError> {
    let words = ["tuntap", "add", "dev", name, "mode", "tap", "user", &owner.to_string()];
    Ok(crate::sys::tool::Tool::new("ip").args(words).run().map(drop)?)
}

/// Says whose an interface is, and takes it up.
pub(super) fn take_up(name: &str, index: u32, alias: &str) -> Result<(), IpError> {
    let mut attributes = Vec::new();
    push(&mut attributes, IFLA_IFALIAS, alias.as_bytes());
    let take =
        |socket: Rtnetlink| socket.request(NEW_LINK, 0, &link_header(index, IFF_UP, IFF_UP), &attributes);
    Rtnetlink::open().and_then(take).map_err(failed("take up", name))
}

/// Makes an interface that packets of another are led through (`drivers/net/ifb.c`), unless it is there, and takes it up; gives its
/// index.
pub fn create_ifb(name: &str, alias: &str) -> Result<u32, IpError> {
    let mut kind = Vec::new();
    push(&mut kind, IFLA_INFO_KIND, b"ifb\0");
    let mut attributes = Vec::new();
    push(&mut attributes, IFLA_IFNAME, format!("{name}\0").as_bytes());
    push(&mut attributes, IFLA_LINKINFO, &kind);
    let create = |socket: Rtnetlink| {
        socket.request(NEW_LINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, 0, 0), &attributes)
    };
    let there = match index(name)? {
        Some(there) => Some(there),
        None => {
            Rtnetlink::open().and_then(create).map_err(failed("make", name))?;
            index(name)?
        }
    };
    let there = there.ok_or_else(|| missing(name))?;
    take_up(name, there, alias)?;
    Ok(there)
}

/// The group of interfaces that go: `gone`. None is in it but while the kernel takes one call.
const GONE: u32 = 0x676f_6e65;

/// Removes interfaces of this thread's network; absence is fine. The kernel waits for milliseconds until nobody uses one any more,
/// with all others held up, and for many no longer than for one: those of a group go together.
pub fn delete_together(indices: &[u32]) -> Result<(), IpError> {
    let group = |group: u32| {
        let mut attributes = Vec::new();
        push(&mut attributes, IFLA_GROUP, &group.to_ne_bytes());
        attributes
    };
    let all_of = |number: u32| {
        let mut batch = RtnetlinkBatch::default();
        indices.iter().for_each(|index| batch.push(SET_LINK, &link_header(*index, 0, 0), &group(number)));
        batch
    };
    let is_gone = |error| error == Errno::NODEV;
    let run = |socket: Rtnetlink| {
        let mut batch = all_of(GONE);
        batch.push(DELETE_LINK, &link_header(0, 0, 0), &group(GONE));
        socket.run(batch, is_gone).inspect_err(|_| {
            // What stays is in no such group any more; where that fails too, whoever removes it by itself is told.
            let _ = socket.run(all_of(0), is_gone);
        })
    };
    Rtnetlink::open().and_then(run).map_err(failed("remove", "of a guest that goes"))
}

/// Removes an interface; absence is fine.
pub fn delete_index(name: &str, index: u32) -> Result<(), IpError> {
    let delete = |socket: Rtnetlink| socket.request(DELETE_LINK, 0, &link_header(index, 0, 0), &[]);
    match Rtnetlink::open().and_then(delete) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(()),
        done => done.map_err(failed("remove", name)),
    }
}
