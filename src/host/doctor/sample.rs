//! Rules of the kind that a fleet has, inside its namespace and on the host's side of it, to ask the host's nft and kernel whether
//! they would take it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::{FleetName, InterfaceName, Label, MacAddress};
use crate::fleet::{HostSpec, NetworkPolicy, PolicyRule};
use crate::host::firewall::{self, Endpoint, FirewallInput};
use crate::host::host_rules::{self, HostRulesInput};

/// Its text; `None` never, since all names in it are well-formed.
pub fn ruleset() -> Option<String> {
    let label: Label = "probe".parse().ok()?;
    let list = PathBuf::from("list");
    let rule = PolicyRule {
        tcp: vec![80..=80, 440..=443],
        udp: vec![443..=443],
        icmp: true,
        ..PolicyRule::default()
    };
    let policy = NetworkPolicy {
        dns: vec!["9.9.9.9".parse().ok()?],
        allow: vec![PolicyRule { to: vec!["0.0.0.0/0".parse().ok()?], ..rule }],
        deny: vec![PolicyRule { list: Some(list.clone()), ..PolicyRule::default() }],
        rate_down: Some("50Mbit/s".parse().ok()?),
        rate_up: Some("10Mbit/s".parse().ok()?),
        ..NetworkPolicy::default()
    };
    let endpoint = Endpoint {
        name: "probe".parse().ok()?,
        tap: "sis-probe".parse().ok()?,
        mac: MacAddress([2, 0x53, 10, 107, 0, 2]),
        ip: "10.107.0.2".parse().ok()?,
        policy: label.clone(),
    };
    let (fleet, interface) = ("doctor-probe".parse().ok()?, "lo".parse().ok()?);
    let input = FirewallInput {
        resolvers: &BTreeMap::new(),
        fleet: &fleet,
        uplink: &interface,
        subnet: HostSpec::default().subnet,
        closed: &[],
        ports: 1024,
        endpoints: vec![endpoint],
        policies: &BTreeMap::from([(label, policy)]),
        lists: &BTreeMap::from([(list, vec!["192.0.2.0/24".parse().ok()?])]),
    };
    Some(firewall::render(&input).text + &on_the_host(&fleet, &interface))
}

fn on_the_host(fleet: &FleetName, interface: &InterfaceName) -> String {
    let input = HostRulesInput {
        fleet,
        pair: interface,
        uplink: interface,
        subnet: HostSpec::default().subnet,
        ports: &(1024..=2047),
        published: &[],
        was_router: false,
    };
    host_rules::render(&input).text
}
