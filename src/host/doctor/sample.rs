//! A ruleset of the kind that a fleet has, to ask the host's nft and kernel whether they would take it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::Label;
use crate::base::MacAddress;
use crate::fleet::{HostSpec, NetworkPolicy, PolicyRule};
use crate::host::firewall::{self, Endpoint, FirewallInput};

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
    let input = FirewallInput {
        fleet: &"doctor-probe".parse().ok()?,
        uplink: &"lo".parse().ok()?,
        subnet: HostSpec::default().subnet,
        endpoints: vec![endpoint],
        policies: &BTreeMap::from([(label, policy)]),
        lists: &BTreeMap::from([(list, vec!["192.0.2.0/24".parse().ok()?])]),
    };
    Some(firewall::render(&input).text)
}
