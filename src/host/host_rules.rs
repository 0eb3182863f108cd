//! The rules on the host's side of a fleet's network: one small table, which lets the fleet's namespace talk to the uplink
//! and to nothing else. Guests are kept apart, and from the host, by the rules inside; these only bring their packets out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::base::network::TAP_NAME_PREFIX;
use crate::base::{FleetName, InterfaceName};

use crate::fleet::Protocol;

use super::firewall::{Ruleset, table_name};
use super::publish::PublishedPort;

/// Family of the table. An earlier sisforge had all its rules in one of the family `inet`, with the same name.
pub const FAMILY: &str = "ip";

/// All that the rules are made of.
#[derive(Clone, Debug)]
pub struct HostRulesInput<'a> {
    pub fleet: &'a FleetName,
    /// The host's end of the pair.
    pub pair: &'a InterfaceName,
    pub uplink: &'a InterfaceName,
    pub subnet: Ipv4Net,
    /// Ports that guests are seen with outside.
    pub ports: &'a RangeInclusive<u16>,
    /// Ways in to guests.
    pub published: &'a [PublishedPort],
    /// Whether the uplink forwarded before any fleet came: then others route through this host, and go on doing so.
    pub was_router: bool,
}

/// Renders them. Only protocols whose connections have numbers of their own go out: what the host itself has open with
/// others could otherwise be taken for a guest's.
pub fn render(input: &HostRulesInput<'_>) -> Ruleset {
    let HostRulesInput { fleet, pair, uplink, subnet, ports, published, was_router } = input;
    let published = ways_in(published, uplink);
    let table = table_name(fleet);
    let mut text = format!(
        r#"add table {FAMILY} {table}
delete table {FAMILY} {table}
table {FAMILY} {table} {{
{published}  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{pair}" ip saddr != {subnet} counter drop
    iifname != {{ "{pair}", "lo" }} ip saddr {subnet} counter drop
  }}
  chain to_host {{
    type filter hook input priority filter - 5; policy accept;
    iifname "{pair}" ct direction original counter drop
  }}
  chain through {{
    type filter hook forward priority filter - 5; policy accept;
    iifname "{pair}" oifname "{uplink}" ip protocol {{ icmp, tcp, udp }} accept
    iifname "{pair}" counter drop
    oifname "{pair}" iifname "{uplink}" ct direction reply accept
    oifname "{pair}" iifname "{uplink}" ct status dnat ip daddr . meta l4proto . th dport . ip saddr @visitors accept
    oifname "{pair}" iifname "{uplink}" ct state related ip protocol icmp accept
    oifname "{pair}" counter drop
"#
    );
    if !was_router {
        // The uplink forwards for fleets alone; their interfaces are told by their name.
        let _ = writeln!(text, "    iifname \"{uplink}\" oifname != \"{TAP_NAME_PREFIX}*\" counter drop");
    }
    text += &leaving(*subnet, uplink, ports);
    Ruleset::new(text)
}

/// How guests are seen outside.
fn leaving(subnet: Ipv4Net, uplink: &InterfaceName, ports: &RangeInclusive<u16>) -> String {
    let (first, last) = (ports.start(), ports.end());
    format!(
        r#"  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname "{uplink}" meta l4proto {{ tcp, udp }} masquerade to :{first}-{last} fully-random
    ip saddr {subnet} oifname "{uplink}" masquerade
  }}
}}
"#
    )
}

/// What leads to guests.
fn ways_in(published: &[PublishedPort], uplink: &InterfaceName) -> String {
    let sets = sets(published);
    format!(
        r#"{sets}  chain coming {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{uplink}" fib daddr type local meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport . ip saddr map @published
  }}
"#
    )
}

/// Which port leads whom where, and who may therefore be on the way to which port of a guest.
fn sets(published: &[PublishedPort]) -> String {
    let leads = published.iter().flat_map(|way| {
        let PublishedPort { protocol, port, ip, guest_port, from, .. } = way;
        from.iter().map(move |net| format!("{protocol} . {port} . {net} : {ip} . {guest_port}"))
    });
    let leads: Vec<_> = leads.collect();
    let mut visitors: BTreeMap<_, Vec<Ipv4Net>> = BTreeMap::new();
    for PublishedPort { protocol, ip, guest_port, from, .. } in published {
        visitors.entry((ip, protocol, guest_port)).or_default().extend(from);
    }
    let visitors = visitors.iter().flat_map(|((ip, protocol, port), from)| {
        let element = move |net| format!("{ip} . {protocol} . {port} . {net}");
        Ipv4Net::aggregate(from).into_iter().map(element)
    });
    let visitors: Vec<_> = visitors.collect();
    format!(
        "  map published {{ type inet_proto . inet_service . ipv4_addr : ipv4_addr . inet_service; flags interval; {}}}\n  \
         set visitors {{ type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; {}}}\n",
        listed(&leads),
        listed(&visitors)
    )
}

fn listed(elements: &[String]) -> String {
    if elements.is_empty() { String::new() } else { format!("elements = {{ {} }}; ", elements.join(", ")) }
}

/// The range of ports in rules as nft lists them.
pub fn ports_in(listing: &str) -> Option<RangeInclusive<u16>> {
    let range = listing.split("masquerade to :").nth(1)?.split_whitespace().next()?;
    let (first, last) = range.split_once('-')?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// The ports that lead to guests, in rules as nft lists them.
pub fn published_in(listing: &str) -> BTreeSet<(Protocol, u16)> {
    let map = listing.split("map published {").nth(1).and_then(|rest| rest.split("\n\t}").next());
    let elements =
        map.and_then(|map| map.split("elements = {").nth(1)).map(|rest| rest.trim_end_matches('}'));
    let port = |element: &str| {
        let (protocol, rest) = element.split_once(" . ")?;
        let port = rest.split(" . ").next()?.trim().parse().ok()?;
        let protocol =
            [Protocol::Tcp, Protocol::Udp].into_iter().find(|it| it.to_string() == protocol.trim())?;
        Some((protocol, port))
    };
    elements.unwrap_or_default().split(',').filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_publishes_a_port_is_found_again() {
        let listing = "table ip sisforge-x {\n\tmap published {\n\t\ttype inet_proto\n\t\tflags interval\n\t\telements = { tcp . 20000 . 10.1.0.0/16 : 10.107.0.2 . 6080,\n\t\t\t     udp . 20001 . 0.0.0.0/0 : 10.107.0.2 . 6080 }\n\t}\n\n\tset visitors {\n\t\telements = { 10.107.0.2 . tcp . 7 . 0.0.0.0/0 }\n\t}\n";
        assert_eq!(published_in(listing), [(Protocol::Tcp, 20_000), (Protocol::Udp, 20_001)].into());
        assert!(published_in(&listing.replace("map published", "map other")).is_empty());
    }

    #[test]
    fn the_ports_are_found_again_in_the_rules() {
        let input = |was_router| {
            render(&HostRulesInput {
                fleet: &"sis".parse().unwrap(),
                pair: &"sis-_0".parse().unwrap(),
                uplink: &"eth0".parse().unwrap(),
                subnet: "10.107.0.0/16".parse().unwrap(),
                ports: &(9101..=32_767),
                published: &[],
                was_router,
            })
            .text
        };
        assert_eq!(ports_in(&input(true)), Some(9101..=32_767));
        assert_eq!(ports_in("table ip x { }"), None);
        let closes = "iifname \"eth0\" oifname != \"sis-*\"";
        assert!(input(false).contains(closes) && !input(true).contains(closes));
    }
}
