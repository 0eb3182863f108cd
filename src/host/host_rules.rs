//! The rules on the host's side of a fleet's network: one small table, which lets the fleet's namespace talk to the uplink
//! and to nothing else. Guests are kept apart, and from the host, by the rules inside; these only bring their packets out.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::base::network::TAP_NAME_PREFIX;
use crate::base::{FleetName, InterfaceName};

use super::firewall::{Ruleset, table_name};

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
    /// Whether the uplink forwarded before any fleet came: then others route through this host, and go on doing so.
    pub was_router: bool,
}

/// Renders them. Only protocols whose connections have numbers of their own go out: what the host itself has open with
/// others could otherwise be taken for a guest's.
pub fn render(input: &HostRulesInput<'_>) -> Ruleset {
    let HostRulesInput { fleet, pair, uplink, subnet, ports, was_router } = input;
    let (table, first, last) = (table_name(fleet), ports.start(), ports.end());
    let mut text = format!(
        r#"add table {FAMILY} {table}
delete table {FAMILY} {table}
table {FAMILY} {table} {{
  chain arriving {{
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
    oifname "{pair}" counter drop
"#
    );
    if !was_router {
        // The uplink forwards for fleets alone; their interfaces are told by their name.
        let _ = writeln!(text, "    iifname \"{uplink}\" oifname != \"{TAP_NAME_PREFIX}*\" counter drop");
    }
    let _ = write!(
        text,
        r#"  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname "{uplink}" meta l4proto {{ tcp, udp }} masquerade to :{first}-{last} fully-random
    ip saddr {subnet} oifname "{uplink}" masquerade
  }}
}}
"#
    );
    Ruleset::new(text)
}

/// The range of ports in rules as nft lists them.
pub fn ports_in(listing: &str) -> Option<RangeInclusive<u16>> {
    let range = listing.split("masquerade to :").nth(1)?.split_whitespace().next()?;
    let (first, last) = range.split_once('-')?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_found_again_in_the_rules() {
        let input = |was_router| {
            render(&HostRulesInput {
                fleet: &"sis".parse().unwrap(),
                pair: &"sis-_0".parse().unwrap(),
                uplink: &"eth0".parse().unwrap(),
                subnet: "10.107.0.0/16".parse().unwrap(),
                ports: &(9101..=32_767),
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
