//! A policy as one map: for every address the rule that decides, for each protocol and port.
//!
//! Rules are taken in the order in which they win. Lists of files are left out: they are sets that policies share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::fleet::{NEVER, NetworkPolicy, PRIVATE, PolicyRule, is_within_private};

use super::ranges::{self, Range};

/// What of a policy decides on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decider {
    /// A protocol that no policy opens.
    Protocols,
    /// A destination that no policy opens.
    Never,
    /// `deny`, by its place in the list.
    Deny(usize),
    /// A name server of `dns`.
    Dns,
    /// That private ranges are closed.
    Private,
    /// `allow`, by its place in the list.
    Allow(usize),
    /// Nothing yet: the lists of `allow`, and then `default`.
    Rest,
    /// `default`.
    Default,
}

impl Decider {
    /// Its name in the ruleset, behind `rule-POLICY-`.
    pub fn name(self) -> String {
        match self {
            Self::Protocols => "protocols".to_owned(),
            Self::Never => "never".to_owned(),
            Self::Deny(index) => format!("deny-{index}"),
            Self::Dns => "dns".to_owned(),
            Self::Private => "private".to_owned(),
            Self::Allow(index) => format!("allow-{index}"),
            Self::Rest => "rest".to_owned(),
            Self::Default => "default".to_owned(),
        }
    }

    /// That of this name.
    pub fn named(name: &str) -> Option<Self> {
        let number = |rest: &str| rest.parse().ok();
        Some(match name {
            "protocols" => Self::Protocols,
            "never" => Self::Never,
            "dns" => Self::Dns,
            "private" => Self::Private,
            "rest" => Self::Rest,
            "default" => Self::Default,
            _ => match name.split_once('-')? {
                ("deny", rest) => Self::Deny(number(rest)?),
                ("allow", rest) => Self::Allow(number(rest)?),
                _ => return None,
            },
        })
    }

    /// Whether the packet passes.
    pub fn allows(self, policy: &NetworkPolicy) -> bool {
        match self {
            Self::Dns | Self::Allow(_) => true,
            Self::Protocols | Self::Never | Self::Deny(_) | Self::Private => false,
            Self::Rest | Self::Default => policy.default_allow,
        }
    }
}

/// Protocols and ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    pub tcp: Vec<Range>,
    pub udp: Vec<Range>,
    pub icmp: bool,
}

impl Services {
    /// Those of a rule; one that names none means all.
    pub fn of(rule: &PolicyRule) -> Self {
        Self { tcp: ranges::of_ports(&rule.tcp), udp: ranges::of_ports(&rule.udp), icmp: rule.icmp }
    }

    fn dns() -> Self {
        Self { tcp: vec![(53, 53)], udp: vec![(53, 53)], icmp: false }
    }

    /// Whether it is every protocol and port.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// A rule with destinations of its own.
struct OwnClause {
    decider: Decider,
    to: Vec<Range>,
    service: Services,
}

/// Which rule decides on each port, where nothing wins before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortVerdicts {
    pub tcp: Vec<(Range, Decider)>,
    pub udp: Vec<(Range, Decider)>,
    pub icmp: Decider,
}

impl PortVerdicts {
    /// The rule, where one decides on everything.
    pub fn single(&self) -> Option<Decider> {
        let whole = [((0, 65_535), self.icmp)];
        (self.tcp == whole && self.udp == whole).then_some(self.icmp)
    }
}

/// All addresses, sorted and without overlaps, and what decides on their ports.
pub fn verdicts(
    policy: &NetworkPolicy,
    lists: &BTreeMap<PathBuf, Vec<IpNet>>,
    never: &[Ipv4Net],
) -> Vec<(Range, PortVerdicts)> {
    let clauses = clauses(policy, lists, never);
    let addresses: Vec<Vec<Range>> = clauses.iter().map(|clause| clause.to.clone()).collect();
    let mut known: BTreeMap<Vec<usize>, PortVerdicts> = BTreeMap::new();
    let mut all: Vec<(Range, PortVerdicts)> = Vec::new();
    for (range, mut holds) in ranges::cut(&addresses) {
        // Nothing comes behind a rule that decides on everything.
        if let Some(last) = holds.iter().position(|index| clauses[*index].service.is_all()) {
            holds.truncate(last + 1);
        }
        let ports = known.entry(holds).or_insert_with_key(|holds| ports(&clauses, holds)).clone();
        match all.last_mut() {
            Some((last, same)) if *same == ports && u64::from(last.1) + 1 == u64::from(range.0) => {
                last.1 = range.1
            }
            _ => all.push((range, ports)),
        }
    }
    all
}

/// In the order in which they win.
fn clauses(
    policy: &NetworkPolicy,
    lists: &BTreeMap<PathBuf, Vec<IpNet>>,
    never: &[Ipv4Net],
) -> Vec<OwnClause> {
    let nets = |nets: &[Ipv4Net]| nets.iter().map(ranges::of_net).collect::<Vec<_>>();
    let given = |decider: fn(usize) -> Decider, rules: &[PolicyRule]| {
        let clause = move |(index, rule): (usize, &PolicyRule)| OwnClause {
            decider: decider(index),
            to: nets(&v4(&rule.to)),
            service: Services::of(rule),
        };
        rules.iter().enumerate().map(clause).collect::<Vec<_>>()
    };
    let all = |decider, to| OwnClause { decider, to, service: Services::default() };
    let mut clauses = vec![all(Decider::Never, nets(&[&NEVER[..], never].concat()))];
    clauses.extend(given(Decider::Deny, &policy.deny));
    let servers: Vec<IpNet> = policy.dns.iter().copied().map(IpNet::from).collect();
    clauses.push(OwnClause { decider: Decider::Dns, to: nets(&v4(&servers)), service: Services::dns() });
    for (index, rule) in policy.allow.iter().enumerate() {
        let listed = rule.list.iter().filter_map(|path| lists.get(path)).flatten();
        let named = rule.to.iter().chain(listed).copied().collect::<Vec<_>>();
        let within: Vec<Ipv4Net> = v4(&named).into_iter().filter(is_within_private).collect();
        let decider = Decider::Allow(index);
        clauses.push(OwnClause { decider, to: nets(&within), service: Services::of(rule) });
    }
    clauses.push(all(Decider::Private, nets(&PRIVATE)));
    clauses.extend(given(Decider::Allow, &policy.allow));
    clauses.push(all(Decider::Rest, vec![(0, u32::MAX)]));
    clauses
}

/// Guests have IPv4 alone.
pub fn v4(nets: &[IpNet]) -> Vec<Ipv4Net> {
    let v4 = |net: &IpNet| match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None,
    };
    nets.iter().filter_map(v4).collect()
}

/// Of the clauses that hold somewhere, the first that names a port decides on it.
fn ports(clauses: &[OwnClause], holds: &[usize]) -> PortVerdicts {
    let clauses: Vec<&OwnClause> = holds.iter().map(|index| &clauses[*index]).collect();
    let of = |service: fn(&Services) -> &Vec<Range>| {
        let every = vec![(0, 65_535)];
        let named = |clause: &&OwnClause| match clause.service.is_all() {
            true => every.clone(),
            false => service(&clause.service).clone(),
        };
        let named: Vec<_> = clauses.iter().map(named).collect();
        let mut decided: Vec<(Range, Decider)> = Vec::new();
        for (range, holds) in ranges::cut(&named) {
            let decider = clauses[holds[0]].decider;
            match decided.last_mut() {
                Some((last, same)) if *same == decider && last.1 + 1 == range.0 => last.1 = range.1,
                _ => decided.push((range, decider)),
            }
        }
        decided
    };
    let first = |holds: fn(&Services) -> bool| {
        let clause = clauses.iter().find(|clause| clause.service.is_all() || holds(&clause.service));
        clause.map_or(Decider::Rest, |clause| clause.decider)
    };
    PortVerdicts {
        tcp: of(|service| &service.tcp),
        udp: of(|service| &service.udp),
        icmp: first(|service| service.icmp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(to: &[&str], tcp: &[u16]) -> PolicyRule {
        let tcp = tcp.iter().map(|port| *port..=*port).collect();
        PolicyRule { to: to.iter().map(|net| net.parse().unwrap()).collect(), tcp, ..PolicyRule::default() }
    }

    fn at(policy: &NetworkPolicy, address: &str, tcp: u32) -> Decider {
        let address = u32::from(address.parse::<std::net::Ipv4Addr>().unwrap());
        let all = verdicts(policy, &BTreeMap::new(), &["10.107.0.0/16".parse().unwrap()]);
        let (_, ports) =
            all.into_iter().find(|((start, end), _)| (*start..=*end).contains(&address)).unwrap();
        ports.tcp.into_iter().find(|((start, end), _)| (*start..=*end).contains(&tcp)).unwrap().1
    }

    #[test]
    fn the_first_rule_that_names_a_port_decides() {
        let policy = NetworkPolicy {
            dns: vec!["9.9.9.9".parse().unwrap(), "10.0.0.53".parse().unwrap()],
            deny: vec![rule(&["198.51.100.66/32"], &[]), rule(&["9.0.0.0/8"], &[443])],
            allow: vec![rule(&["0.0.0.0/0"], &[80, 443]), rule(&["10.1.0.0/16"], &[22])],
            ..NetworkPolicy::default()
        };
        for (address, port, decider) in [
            ("198.51.100.10", 80, Decider::Allow(0)),
            ("198.51.100.10", 22, Decider::Rest),
            ("198.51.100.66", 80, Decider::Deny(0)),
            ("9.9.9.9", 443, Decider::Deny(1)),
            ("9.9.9.9", 53, Decider::Dns),
            ("9.9.9.9", 80, Decider::Allow(0)),
            ("10.0.0.53", 53, Decider::Dns),
            ("10.0.0.53", 80, Decider::Private),
            ("10.1.2.3", 22, Decider::Allow(1)),
            ("10.1.2.3", 80, Decider::Private),
            ("10.107.0.6", 80, Decider::Never),
            ("169.254.169.254", 80, Decider::Never),
        ] {
            assert_eq!(at(&policy, address, port), decider, "{address}:{port}");
        }
    }
}
