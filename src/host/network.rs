//! A fleet's network: a namespace with its TAPs and its policy, and one pair of interfaces that leads out of it. What of its
//! host the policy can never open is decided here, and which ports its guests are seen with outside.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::{Ipv4Net, Ipv4Subnets};

use crate::base::network::{HostRoute, TAP_NAME_PREFIX};
use crate::base::{Found, InterfaceName, Rates};

/// The way out of a fleet's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// The interface of the host that faces the network.
    pub uplink: InterfaceName,
    pub pair: PairSpec,
}

/// What leads over the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairSpec<R = u64> {
    /// In bytes; that of the uplink, so that whoever sends more is told inside.
    pub mtu: u32,
    /// Addresses of all guests, which are routed into the namespace.
    pub subnet: Ipv4Net,
    /// What the uplink carries, of which each guest has its share.
    pub rates: Rates<R>,
}

impl PairSpec {
    /// As it is found where all of it is as it should be.
    pub fn whole(self) -> PairSpec<Found<u64>> {
        let Self { mtu, subnet, rates } = self;
        PairSpec { mtu, subnet, rates: rates.whole() }
    }
}

/// Largest MTU of a pair.
pub const PAIR_MTU_MAX: u32 = 65_535;

/// Settings of a namespace, with their values. It is a router, trusts no packet's own idea of its way, and has no IPv6.
/// Forwarding comes first, since the kernel sets others with it.
pub const SETTINGS: [(&str, &str); 11] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "1"),
    ("net.ipv4.conf.default.rp_filter", "1"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_source_route", "0"),
    ("net.ipv4.conf.default.accept_source_route", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
];

/// Whether an interface of the host is a fleet's: its pair, or a TAP that an earlier sisforge left there.
fn is_of_a_fleet(interface: &str) -> bool {
    interface.starts_with(TAP_NAME_PREFIX)
}

/// A default route, or half of one, says of no network that it is there.
fn names_a_network(route: &HostRoute) -> bool {
    route.to.prefix_len() > 1
}

/// What of the host no guest may reach, whatever its policy allows: the host's own addresses, and every network that it has
/// behind another interface than its uplink. Other fleets see to themselves.
pub fn own_networks(routes: &[HostRoute], uplink: &InterfaceName) -> Vec<Ipv4Net> {
    let others = routes.iter().filter(|route| !route.interface.as_deref().is_some_and(is_of_a_fleet));
    let (own, routed): (Vec<_>, Vec<_>) = others.partition(|route| route.table == "local");
    let mut nets: Vec<Ipv4Net> =
        own.into_iter().filter(|route| route.kind == "local").map(|route| route.to).collect();
    let mut routed: Vec<_> = routed
        .into_iter()
        .filter(|route| route.table == "main" && route.kind == "unicast" && names_a_network(route))
        .collect();
    // Of two routes to one network, that of less metric is taken.
    routed.sort_by_key(|route| (route.to.prefix_len(), route.to, route.metric));
    routed.dedup_by_key(|route| route.to);
    // A smaller network within another may lie elsewhere.
    let mut behind_others: Vec<Ipv4Net> = Vec::new();
    for route in routed {
        if route.interface.as_deref() == Some(uplink.as_str()) {
            behind_others = behind_others.iter().flat_map(|net| without(*net, route.to)).collect();
        } else {
            behind_others.push(route.to);
        }
    }
    nets.extend(behind_others);
    Ipv4Net::aggregate(&nets)
}

/// A network without a part of it.
fn without(net: Ipv4Net, part: Ipv4Net) -> Vec<Ipv4Net> {
    if part.contains(&net) {
        return Vec::new();
    }
    if !net.contains(&part) {
        return vec![net];
    }
    let number = |address: Ipv4Addr| u32::from(address);
    let before = number(net.network())..number(part.network());
    let after = u64::from(number(part.broadcast())) + 1..u64::from(number(net.broadcast())) + 1;
    let mut rest = Vec::new();
    if !before.is_empty() {
        rest.extend(Ipv4Subnets::new(before.start.into(), (before.end - 1).into(), 0));
    }
    if let (Ok(start), false) = (u32::try_from(after.start), after.is_empty()) {
        rest.extend(Ipv4Subnets::new(start.into(), net.broadcast(), 0));
    }
    rest
}

/// What a fleet's addresses would be taken from: the first route or address of the host that overlaps them, in words.
/// `own` tells which interfaces are the fleet's, and `whose` tells another fleet's by its interface.
pub fn overlap(
    subnet: Ipv4Net,
    routes: &[HostRoute],
    own: impl Fn(&str) -> bool,
    whose: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let overlaps = |route: &&HostRoute| {
        (subnet.contains(&route.to) || route.to.contains(&subnet))
            && names_a_network(route)
            && !route.interface.as_deref().is_some_and(&own)
    };
    let leads = |route: &&HostRoute| ["unicast", "local"].contains(&route.kind.as_str());
    let first = routes.iter().filter(leads).find(overlaps)?;
    let interface = first.interface.as_deref();
    let on = |words: &str| interface.map(|interface| format!("{words} {interface}")).unwrap_or_default();
    Some(match (interface.and_then(whose), first.kind.as_str()) {
        (Some(whose), _) => format!("{} of {whose}", first.to),
        (None, "local") => format!("{}, an address of this host{}", first.to.addr(), on(" on")),
        (None, _) => format!("the route {} of this host{}", first.to, on(", which leads to")),
    })
}

/// Fewest ports that guests share outside.
pub const LEAST_PORTS: usize = 1024;

/// The ports that guests are seen with outside: a range in which nobody of the host has one, and from which the kernel gives
/// none to connections of its own. What the host itself sent for can then arrive in no guest (CVE-2021-3773). The range that
/// is in use stays for as long as it is so; `None` where there is none.
pub fn outer_ports(
    taken: &BTreeSet<u16>,
    ephemeral: &RangeInclusive<u16>,
    reserved: &BTreeSet<u16>,
    in_use: Option<RangeInclusive<u16>>,
) -> Option<RangeInclusive<u16>> {
    let is_free = |port: u16| {
        port >= 1024 && !taken.contains(&port) && (!ephemeral.contains(&port) || reserved.contains(&port))
    };
    if let Some(range) = in_use.filter(|range| range.clone().all(is_free)) {
        return Some(range);
    }
    let mut best: Option<RangeInclusive<u16>> = None;
    let mut start = None;
    for port in 1024..=u16::MAX {
        if !is_free(port) {
            start = None;
            continue;
        }
        let first = *start.get_or_insert(port);
        if best.as_ref().is_none_or(|best| best.len() < usize::from(port - first) + 1) {
            best = Some(first..=port);
        }
    }
    best.filter(|range| range.len() >= LEAST_PORTS)
}

/// Reads `net.ipv4.ip_local_reserved_ports`: `8080,9148-9150`.
pub fn parse_ports(text: &str) -> BTreeSet<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> HostRoute {
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap();
        HostRoute {
            kind: word().to_owned(),
            table: word().to_owned(),
            to: word().parse().unwrap(),
            interface: Some(word().to_owned()),
            gateway: None,
            metric: words.next().map_or(0, |metric| metric.parse().unwrap()),
        }
    }

    fn routes(all: &[&str]) -> Vec<HostRoute> {
        all.iter().map(|text| route(text)).collect()
    }

    fn shown(nets: &[Ipv4Net]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn own_addresses_and_networks_behind_other_interfaces_are_closed() {
        let routes = routes(&[
            "unicast main 0.0.0.0/0 eth0",
            "unicast main 192.0.2.0/24 eth0",
            "unicast main 10.9.0.0/16 eth1",
            "unicast main 10.8.0.0/16 docker0",
            "unicast main 10.107.0.0/16 sis-_0123456789",
            "local local 192.0.2.2/32 eth0",
            "broadcast local 192.0.2.255/32 eth0",
            "local local 169.254.255.1/32 sis-_0123456789",
            "unicast 100 172.16.0.0/12 eth1",
        ]);
        let closed = own_networks(&routes, &"eth0".parse().unwrap());
        assert_eq!(shown(&closed), ["10.8.0.0/15", "192.0.2.2/32"]);
    }

    #[test]
    fn a_network_of_the_uplink_within_one_of_another_interface_stays_open() {
        let routes = routes(&[
            "unicast main 10.0.0.0/8 eth1",
            "unicast main 10.128.0.0/9 eth0",
            "unicast main 10.128.7.0/24 eth2",
            "unicast main 10.64.0.0/10 eth1 7",
            "unicast main 10.64.0.0/10 eth0 5",
        ]);
        let closed = own_networks(&routes, &"eth0".parse().unwrap());
        assert_eq!(shown(&closed), ["10.0.0.0/10", "10.128.7.0/24"]);
        assert_eq!(
            shown(&without("0.0.0.0/0".parse().unwrap(), "255.255.255.0/24".parse().unwrap())).len(),
            24
        );
    }

    #[test]
    fn what_overlaps_is_named_and_a_default_route_does_not() {
        let routes = routes(&[
            "unicast main 0.0.0.0/0 eth0",
            "unicast main 128.0.0.0/1 tun0",
            "unreachable main 10.0.0.0/8 ",
            "unicast main 10.107.0.0/16 sis-_own",
            "unicast main 192.0.2.0/24 eth0",
            "local local 198.51.100.7/32 lo",
            "unicast main 10.5.0.0/16 sis-_other",
        ]);
        let whose = |name: &str| (name == "sis-_other").then(|| "sisforge fleet b".to_owned());
        let overlap =
            |subnet: &str| overlap(subnet.parse().unwrap(), &routes, |name| name == "sis-_own", whose);
        assert_eq!(overlap("10.107.0.0/16"), None);
        assert_eq!(
            overlap("192.0.2.64/26").unwrap(),
            "the route 192.0.2.0/24 of this host, which leads to eth0"
        );
        assert_eq!(
            overlap("192.0.0.0/8").unwrap(),
            "the route 192.0.2.0/24 of this host, which leads to eth0"
        );
        assert_eq!(overlap("198.51.100.0/24").unwrap(), "198.51.100.7, an address of this host on lo");
        assert_eq!(overlap("10.5.5.0/24").unwrap(), "10.5.0.0/16 of sisforge fleet b");
    }

    #[test]
    fn guests_have_ports_outside_that_nobody_of_the_host_has() {
        let ports = |taken: &[u16], ephemeral, reserved: &str, in_use| {
            outer_ports(&taken.iter().copied().collect(), &ephemeral, &parse_ports(reserved), in_use)
        };
        assert_eq!(ports(&[22, 9100], 32_768..=60_999, "", None), Some(9101..=32_767));
        assert_eq!(ports(&[22, 9100], 32_768..=60_999, "", Some(2000..=4000)), Some(2000..=4000));
        assert_eq!(ports(&[3000, 9100], 32_768..=60_999, "", Some(2000..=4000)), Some(9101..=32_767));
        assert_eq!(ports(&[], 1024..=65_535, "", None), None, "the kernel gives all to the host's own");
        assert_eq!(ports(&[], 1024..=65_535, "20000-29999,80", None), Some(20_000..=29_999));
    }
}
