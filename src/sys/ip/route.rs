//! Routes, and which interface the default route leads to.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::base::network::HostRoute;
use crate::sys::netlink::{MessageKind, Rtnetlink, RtnetlinkItem, find, number};

use super::IpError;
use super::found::address;
use super::link::{AF_INET, AF_INET6, InterfaceNames, unanswered};

/// `RTM_GETROUTE` of `linux/rtnetlink.h`.
const GET_ROUTE: MessageKind = MessageKind(0, 26);
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
/// What the kernel found out of a way, and no entry of a table (`RTM_F_CLONED`).
const CLONED: u32 = 0x200;
/// Before the attributes of each way of several: length, flags, weight, interface (`struct rtnexthop`).
const NEXT_HOP: usize = 8;

/// Of `RTN_*`, in the words of `ip`.
const KINDS: [&str; 10] = [
    "unspecified",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
];

fn table(number: u32) -> String {
    match number {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        number => number.to_string(),
    }
}

/// An entry of `struct rtmsg` (family, lengths of two prefixes, type of service, table, protocol, scope, kind, flags): one route
/// for each way that it goes.
fn routes_of(item: &RtnetlinkItem, name: &mut dyn FnMut(u32) -> Option<String>) -> Vec<HostRoute> {
    let all = item.attributes();
    let to = address(all, RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let Ok(to) = Ipv4Net::new(to, item.byte(1)) else { return Vec::new() };
    if item.byte(0) != AF_INET || item.word(8) & CLONED != 0 {
        return Vec::new();
    }
    let kind = KINDS.get(usize::from(item.byte(7))).copied().unwrap_or("unknown");
    let table = table(number(all, RTA_TABLE).unwrap_or_else(|| item.byte(4).into()));
    let metric = number(all, RTA_PRIORITY).unwrap_or_default();
    let mut route = |interface: Option<u32>, gateway| HostRoute {
        kind: kind.to_owned(),
        table: table.clone(),
        to,
        interface: interface.and_then(&mut *name),
        gateway,
        metric,
    };
    match find(all, RTA_MULTIPATH) {
        Some(hops) => next_hops(hops)
            .map(|(interface, hop)| route(Some(interface), address(hop, RTA_GATEWAY)))
            .collect(),
        None => vec![route(number(all, RTA_OIF), address(all, RTA_GATEWAY))],
    }
}

/// Interface and attributes of each way.
fn next_hops(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<NEXT_HOP>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let interface = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let hop = rest.get(NEXT_HOP..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((interface, hop))
    })
}

fn dump(family: u8) -> Result<Vec<RtnetlinkItem>, IpError> {
    let header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let dump = || -> io::Result<Vec<RtnetlinkItem>> { Rtnetlink::open()?.dump(GET_ROUTE, &header, &[]) };
    dump().map_err(unanswered("routes"))
}

/// The entries of all routing tables of IPv4.
pub fn routes() -> Result<Vec<HostRoute>, IpError> {
    let mut names = InterfaceNames::default();
    Ok(dump(AF_INET)?.iter().flat_map(|item| routes_of(item, &mut |index| names.of(index))).collect())
}

/// The interface that the default route leads to: IPv4's, else IPv6's.
pub fn default_uplink(routes: &[HostRoute]) -> Result<Option<String>, IpError> {
    if let Some(uplink) = default_of(routes) {
        return Ok(Some(uplink));
    }
    let is_default = |item: &&RtnetlinkItem| {
        let table = number(item.attributes(), RTA_TABLE).unwrap_or_else(|| item.byte(4).into());
        item.byte(1) == 0 && table == 254 && item.byte(7) == 1 && item.word(8) & CLONED == 0
    };
    let way = |item: &RtnetlinkItem| {
        let all = item.attributes();
        let hop = find(all, RTA_MULTIPATH).and_then(|hops| next_hops(hops).next().map(|(index, _)| index));
        Some((number(all, RTA_PRIORITY).unwrap_or_default(), hop.or_else(|| number(all, RTA_OIF))?))
    };
    let best = dump(AF_INET6)?.iter().filter(is_default).filter_map(way).min();
    Ok(best.and_then(|(_, index)| InterfaceNames::default().of(index)))
}

/// The default route of least metric. Two halves, by which a VPN takes it over and leaves it as it was, come before it.
fn default_of(routes: &[HostRoute]) -> Option<String> {
    let mut best: BTreeMap<Ipv4Net, &HostRoute> = BTreeMap::new();
    let leads_on = |route: &&HostRoute| {
        route.table == "main"
            && route.kind == "unicast"
            && route.to.prefix_len() <= 1
            && route.interface.is_some()
    };
    for route in routes.iter().filter(leads_on) {
        let entry = best.entry(route.to).or_insert(route);
        if route.metric < entry.metric {
            *entry = route;
        }
    }
    let to = |address: [u8; 4], prefix: u8| {
        let net = Ipv4Net::new(address.into(), prefix).ok()?;
        best.get(&net)?.interface.clone()
    };
    let halves = (to([0, 0, 0, 0], 1), to([128, 0, 0, 0], 1));
    let whole = to([0, 0, 0, 0], 0);
    match halves {
        (Some(lower), Some(upper)) if lower == upper => Some(lower),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::sys::netlink::push;

    /// An entry of the main table, and attributes of it.
    fn entry(kind: u8, to: &str, attributes: &[(u16, &[u8])]) -> RtnetlinkItem {
        let to: Ipv4Net = to.parse().unwrap();
        let header = [AF_INET, to.prefix_len(), 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        let mut all = Vec::new();
        push(&mut all, RTA_DST, &to.network().octets());
        attributes.iter().for_each(|(number, content)| push(&mut all, *number, content));
        RtnetlinkItem::of(&header, &all)
    }

    /// A way of several.
    fn hop(interface: u32, gateway: [u8; 4]) -> Vec<u8> {
        let mut hop = vec![16, 0, 0, 0];
        hop.extend(interface.to_ne_bytes());
        push(&mut hop, RTA_GATEWAY, &gateway);
        hop
    }

    fn read(items: &[RtnetlinkItem]) -> Vec<HostRoute> {
        let mut name = |index: u32| Some(format!("eth{}", index.checked_sub(1)?));
        items.iter().flat_map(|item| routes_of(item, &mut name)).collect()
    }

    #[test]
    fn a_route_is_read_with_each_way_that_it_goes() {
        let one = 1u32.to_ne_bytes();
        let hops = [hop(1, [192, 0, 2, 3]), hop(2, [192, 0, 3, 3])].concat();
        let mut cloned = entry(1, "192.0.2.9/32", &[(RTA_OIF, &one)]);
        cloned = RtnetlinkItem::of(&[2, 32, 0, 0, 254, 0, 0, 1, 0, 2, 0, 0], cloned.attributes());
        let routes = read(&[
            entry(1, "0.0.0.0/0", &[(RTA_GATEWAY, &[192, 0, 2, 1]), (RTA_OIF, &one)]),
            entry(7, "10.0.0.0/8", &[]),
            entry(2, "192.0.2.2/32", &[(RTA_OIF, &one), (RTA_TABLE, &255u32.to_ne_bytes())]),
            entry(1, "10.9.0.0/16", &[(RTA_MULTIPATH, &hops)]),
            cloned,
        ]);
        let shown: Vec<_> = routes
            .iter()
            .map(|route| {
                format!(
                    "{} {} {} {}",
                    route.kind,
                    route.table,
                    route.to,
                    route.interface.as_deref().unwrap_or("-")
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "unicast main 0.0.0.0/0 eth0",
                "unreachable main 10.0.0.0/8 -",
                "local local 192.0.2.2/32 eth0",
                "unicast main 10.9.0.0/16 eth0",
                "unicast main 10.9.0.0/16 eth1"
            ]
        );
        assert_eq!(routes[0].gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(routes[4].gateway, Some(Ipv4Addr::new(192, 0, 3, 3)));
    }

    #[test]
    fn two_halves_are_a_default_route_and_come_before_the_whole() {
        let route = |to: &str, interface: u32, metric: u32| {
            let (interface, metric) = (interface.to_ne_bytes(), metric.to_ne_bytes());
            entry(1, to, &[(RTA_OIF, &interface), (RTA_PRIORITY, &metric)])
        };
        let uplink = |routes: &[&RtnetlinkItem]| {
            default_of(&read(&routes.iter().map(|item| (*item).clone()).collect::<Vec<_>>()))
        };
        let whole = route("0.0.0.0/0", 1, 100);
        let (lower, upper) = (route("0.0.0.0/1", 8, 0), route("128.0.0.0/1", 8, 0));
        assert_eq!(uplink(&[&whole, &lower, &upper]).as_deref(), Some("eth7"));
        assert_eq!(uplink(&[&lower, &upper]).as_deref(), Some("eth7"));
        assert_eq!(uplink(&[&whole, &lower]).as_deref(), Some("eth0"), "half of a default is none");
        let better = route("0.0.0.0/0", 2, 50);
        assert_eq!(uplink(&[&whole, &better]).as_deref(), Some("eth1"));
        assert_eq!(uplink(&[]), None);
    }
}
