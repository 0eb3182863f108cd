//! What interfaces and neighbours there are, asked of the kernel in one question each (rtnetlink(7)): `ip` takes longer to start, and
//! looks up the name of each TAP's owner.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use crate::sys::netlink::{MessageKind, Rtnetlink, RtnetlinkItem, find, number, push, text};

use super::link::{
    AF_INET, IFF_UP, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, NDA_DST, NDA_LLADDR,
    link_header,
};
use super::{Interface, IpError, Tap, link};

/// `RTM_*` of `linux/rtnetlink.h`.
const GET_LINK: MessageKind = MessageKind(0, 18);
const GET_ADDRESS: MessageKind = MessageKind(0, 22);
const GET_NEIGHBOUR: MessageKind = MessageKind(0, 30);
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_EXT_MASK: u16 = 29;
/// No counters, which are most of what is told of an interface (`RTEXT_FILTER_SKIP_STATS`).
const WITHOUT_COUNTERS: u32 = 1 << 3;
const IFLA_INFO_DATA: u16 = 2;
/// `IFLA_TUN_*` of `linux/if_link.h`.
const TUN_OWNER: u16 = 1;
const TUN_GROUP: u16 = 2;
const TUN_TYPE: u16 = 3;
const TYPE_TAP: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// All interfaces of this network namespace.
pub fn interfaces() -> Result<Vec<Interface>, IpError> {
    let look = || -> io::Result<Vec<Interface>> {
        let socket = Rtnetlink::open()?;
        let mut asked = Vec::new();
        push(&mut asked, IFLA_EXT_MASK, &WITHOUT_COUNTERS.to_ne_bytes());
        let links = socket.dump(GET_LINK, &link_header(0, 0, 0), &asked)?;
        let addresses = addresses(&socket)?;
        Ok(links.iter().filter_map(|item| interface(item, &addresses)).collect())
    };
    look().map_err(link::unanswered("interfaces"))
}

/// The interface of that name, where there is one.
pub(super) fn interface_named(name: &str) -> Result<Option<Interface>, IpError> {
    let Some(index) = link::index(name)? else { return Ok(None) };
    let look = || -> io::Result<Option<Interface>> {
        let socket = Rtnetlink::open()?;
        let links = socket.ask(GET_LINK, &link_header(index, 0, 0))?;
        let addresses = addresses(&socket)?;
        Ok(links.iter().find_map(|item| interface(item, &addresses)))
    };
    match look() {
        // It went meanwhile.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        found => found.map_err(link::failed("look for", name)),
    }
}

/// Addresses of IPv4 with the lengths of their prefixes, by the index of their interface.
fn addresses(socket: &Rtnetlink) -> io::Result<BTreeMap<u32, Vec<(Ipv4Addr, u8)>>> {
    let mut all: BTreeMap<u32, Vec<(Ipv4Addr, u8)>> = BTreeMap::new();
    // `struct ifaddrmsg`: family, prefix, flags, scope, index.
    for item in socket.dump(GET_ADDRESS, &[AF_INET, 0, 0, 0, 0, 0, 0, 0], &[])? {
        let attributes = item.attributes();
        let address = address(attributes, IFA_LOCAL).or_else(|| address(attributes, IFA_ADDRESS));
        if let Some(address) = address.filter(|_| item.byte(0) == AF_INET) {
            all.entry(item.word(4)).or_default().push((address, item.byte(1)));
        }
    }
    Ok(all)
}

/// An address of IPv4 in an attribute.
pub(super) fn address(attributes: &[u8], number: u16) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = find(attributes, number)?.try_into().ok()?;
    Some(octets.into())
}

/// An interface of `struct ifinfomsg` (family, type of hardware, index, flags) and its attributes.
fn interface(item: &RtnetlinkItem, addresses: &BTreeMap<u32, Vec<(Ipv4Addr, u8)>>) -> Option<Interface> {
    let attributes = item.attributes();
    let (index, up) = (item.word(4), item.word(8) & IFF_UP != 0);
    let name = text(attributes, IFLA_IFNAME)?;
    let alias = text(attributes, IFLA_IFALIAS).filter(|alias| !alias.is_empty());
    let addresses = addresses.get(&index).cloned().unwrap_or_default();
    let info = find(attributes, IFLA_LINKINFO).unwrap_or_default();
    let kind = text(info, IFLA_INFO_KIND).unwrap_or_else(|| hardware(item.short(2)).to_owned());
    let data = find(info, IFLA_INFO_DATA).unwrap_or_default();
    let is_tap = kind == "tun" && find(data, TUN_TYPE) == Some(&[TYPE_TAP]);
    let tap = is_tap.then(|| Tap {
        name: name.clone(),
        owner: number(data, TUN_OWNER),
        group: number(data, TUN_GROUP),
        address: addresses.first().copied(),
        up,
        alias: alias.clone(),
    });
    Some(Interface {
        index,
        peer: number(attributes, IFLA_LINK),
        mac: find(attributes, IFLA_ADDRESS).map(hardware_address).unwrap_or_default(),
        mtu: number(attributes, IFLA_MTU).unwrap_or_default(),
        up,
        queue: text(attributes, IFLA_QDISC).unwrap_or_default(),
        settings: link::InterfaceSettings::of(attributes),
        name,
        kind,
        alias,
        addresses,
        tap,
    })
}

/// What an interface is for which no driver says more (`linux/if_arp.h`), in the words of `ip`.
fn hardware(kind: u16) -> &'static str {
    match kind {
        1 => "ether",
        512 => "ppp",
        772 => "loopback",
        65_534 => "none",
        _ => "link",
    }
}

fn hardware_address(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Somebody on the other end of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub address: Ipv4Addr,
    pub interface: String,
    /// Its hardware address.
    pub mac: String,
}

/// Neighbours that are not asked for, since somebody said where they are, and at which address.
pub fn permanent_neighbours() -> Result<Vec<Neighbour>, IpError> {
    // `struct ndmsg`: family, padding, index, state, flags, type.
    let dump =
        |socket: Rtnetlink| socket.dump(GET_NEIGHBOUR, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
    let all = Rtnetlink::open().and_then(dump).map_err(link::unanswered("neighbours"))?;
    let mut names = link::InterfaceNames::default();
    let neighbour = |item: &RtnetlinkItem| {
        let attributes = item.attributes();
        Some(Neighbour {
            address: address(attributes, NDA_DST).filter(|_| item.byte(0) == AF_INET)?,
            interface: names.of(item.word(4))?,
            mac: hardware_address(find(attributes, NDA_LLADDR)?),
        })
    };
    let is_permanent = |item: &&RtnetlinkItem| item.short(8) & NUD_PERMANENT != 0;
    Ok(all.iter().filter(is_permanent).filter_map(neighbour).collect())
}
