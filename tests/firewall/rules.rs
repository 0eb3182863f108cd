//! Policies and rulesets for tests, with little to write.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;
use sisforge::fleet::{NetworkPolicy, PolicyRule};
use sisforge::host::firewall::swap::{self, Present};
use sisforge::host::firewall::{self, Endpoint, FirewallInput, Ruleset, table_name};
use sisforge::sys::nft;

use super::world::{ALICE, BOB, Guest};

/// Destinations of a rule, and nothing else.
pub fn to(nets: &[&str]) -> PolicyRule {
    PolicyRule { to: nets.iter().map(|net| net.parse().unwrap()).collect(), ..PolicyRule::default() }
}

/// A rule with TCP ports.
pub fn tcp(nets: &[&str], ports: &[u16]) -> PolicyRule {
    PolicyRule { tcp: ports.iter().map(|port| *port..=*port).collect(), ..to(nets) }
}

/// A rule with UDP ports.
pub fn udp(nets: &[&str], ports: &[u16]) -> PolicyRule {
    PolicyRule { udp: ports.iter().map(|port| *port..=*port).collect(), ..to(nets) }
}

/// A policy that allows nothing yet.
pub fn deny_all() -> NetworkPolicy {
    NetworkPolicy::default()
}

/// A policy that allows whatever a policy can allow.
pub fn allow_all() -> NetworkPolicy {
    NetworkPolicy { default_allow: true, allow: vec![to(&["0.0.0.0/0", "::/0"])], ..deny_all() }
}

/// A fleet's rules: each guest with a policy of its own name.
pub struct Rules {
    pub fleet: &'static str,
    pub subnet: &'static str,
    pub guests: Vec<(Guest, NetworkPolicy)>,
    pub lists: BTreeMap<PathBuf, Vec<IpNet>>,
}

impl Rules {
    /// For alice and bob.
    pub fn of(alice: NetworkPolicy, bob: NetworkPolicy) -> Self {
        let guests = vec![(ALICE, alice), (BOB, bob)];
        Self { fleet: "sis", subnet: "10.107.0.0/16", guests, lists: BTreeMap::new() }
    }

    /// As sisforge renders them.
    pub fn render(&self) -> Ruleset {
        self.render_of(|guest| guest.name)
    }

    /// The same with one policy for all, that of the last guest.
    pub fn render_alike(&self) -> Ruleset {
        self.render_of(|_| "all")
    }

    fn render_of(&self, name: impl Fn(&Guest) -> &'static str) -> Ruleset {
        let label = |guest: &Guest| format!("{}-only", name(guest)).parse().unwrap();
        let endpoint = |(guest, _): &(Guest, NetworkPolicy)| Endpoint {
            name: guest.name.parse().unwrap(),
            tap: format!("sis-{}", guest.name).parse().unwrap(),
            mac: guest.mac.parse().unwrap(),
            ip: guest.ip.parse().unwrap(),
            policy: label(guest),
        };
        firewall::render(&FirewallInput {
            fleet: &self.fleet.parse().unwrap(),
            uplink: &"up0".parse().unwrap(),
            subnet: self.subnet.parse().unwrap(),
            closed: &[],
            ports: 20_000,
            resolvers: &BTreeMap::new(),
            endpoints: self.guests.iter().map(endpoint).collect(),
            policies: &self.guests.iter().map(|(guest, policy)| (label(guest), policy.clone())).collect(),
            lists: &self.lists,
        })
    }

    /// What nft is given to put them in the place of those that are there.
    pub fn calls(&self) -> Vec<String> {
        let there = nft::read_table("inet", &table_name(&self.fleet.parse().unwrap())).unwrap();
        let present = there.map(|table| Present {
            chains: table.chains,
            sets: table.sets,
            counters: table.counters,
            has_leaving: table.has_leaving,
        });
        swap::calls(&self.render().parts, present.as_ref())
    }

    /// Loaded as `up` loads them.
    pub fn load(&self) {
        for call in self.calls() {
            nft::load(&call).unwrap_or_else(|error| panic!("{error:?}\n{call}"));
        }
    }
}
