//! A policy as clauses, and the words for them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::fleet::{BuiltinList, NEVER, NetworkPolicy, PRIVATE, PolicyRule, is_within_private};

use super::{Lists, NamedNet, PacketVerdict, Transport};
use crate::host::resolver::servers;

/// Why a clause is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClauseKind {
    /// Protocols beside TCP, UDP and ICMP, which leave no host: others' connections could be taken for a guest's.
    Protocols,
    /// No policy opens these destinations.
    Never,
    /// The guests' own subnet: neither the host nor other guests are reached.
    Subnet,
    /// What the host has: its addresses, and what is behind its other interfaces. No part of a policy, but of what becomes of packets.
    Host,
    Deny,
    /// `dns`: port 53 leads to these, whoever is asked.
    NameServers,
    /// `names`: port 53 leads to the policy's resolver, whoever is asked.
    Resolver,
    /// `names` that are all there are: the web is reached by them, whatever address is meant.
    Proxy,
    /// What is private is closed, unless an `allow` names it.
    Private,
    Allow,
    /// What no rule names.
    Default,
}

/// Protocols and ports. Without any, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Transports {
    /// First and last port of each range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<(u16, u16)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub udp: Vec<(u16, u16)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub icmp: bool,
    /// Every other protocol.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others: bool,
}

impl Transports {
    /// Whether every protocol and port is meant.
    pub fn are_all(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty() && !self.icmp && !self.others
    }

    /// Whether this one is meant.
    pub fn has(&self, transport: Transport) -> bool {
        let within = |ranges: &[(u16, u16)], port| ranges.iter().any(|(a, b)| (*a..=*b).contains(&port));
        self.are_all()
            || match transport {
                Transport::Tcp(port) => within(&self.tcp, port),
                Transport::Udp(port) => within(&self.udp, port),
                Transport::Icmp => self.icmp,
                Transport::Other(_) => self.others,
            }
    }
}

impl fmt::Display for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_all() {
            return f.write_str("every protocol");
        }
        let mut parts: Vec<String> = [("tcp", &self.tcp), ("udp", &self.udp)]
            .into_iter()
            .filter(|(_, ranges)| !ranges.is_empty())
            .map(|(name, ranges)| {
                format!("{name} {}", ranges.iter().map(range).collect::<Vec<_>>().join(", "))
            })
            .collect();
        parts.extend(self.icmp.then(|| "icmp".to_owned()));
        parts.extend(self.others.then(|| "other protocols".to_owned()));
        f.write_str(&parts.join(", "))
    }
}

pub(super) fn range((first, last): &(u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// One step of a policy: what it says of these destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clause {
    pub kind: ClauseKind,
    pub verdict: PacketVerdict,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Ipv4Net>,
    /// A list that has more of them, which is looked up in [`Lists`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<PathBuf>,
    /// Whether those of the list alone count that lie within a private range.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private_alone: bool,
    #[serde(flatten)]
    pub transports: Transports,
    /// Whom that asks which is led here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Ipv4Addr>,
    /// Name of a list that comes with sisforge, which `to` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<String>,
    /// Where `fleet.toml` has it.
    #[serde(skip)]
    pub place: Option<Range<usize>>,
    /// Its line there, where that was asked for.
    #[serde(skip)]
    pub line: Option<usize>,
}

impl Clause {
    fn of_all_traffic(kind: ClauseKind, verdict: PacketVerdict, to: Vec<Ipv4Net>) -> Self {
        Self {
            kind,
            verdict,
            to,
            list: None,
            private_alone: false,
            transports: Transports::default(),
            servers: Vec::new(),
            builtin: None,
            place: None,
            line: None,
        }
    }

    /// Whether what it is about never goes where it was sent to.
    pub fn is_led(&self) -> bool {
        matches!(self.kind, ClauseKind::Resolver | ClauseKind::Proxy)
            || (self.kind == ClauseKind::NameServers && !self.servers.is_empty())
    }

    /// All that the clause names, of the lists as they are.
    pub fn destinations<'a>(&'a self, lists: &'a Lists) -> impl Iterator<Item = NamedNet<'a>> {
        let listed = self.list.iter().filter_map(|path| lists.get(path).map(|nets| (path, nets)));
        let listed = listed.flat_map(|(path, nets)| nets.iter().map(move |net| (Some(path), net)));
        let own = self.to.iter().map(|net| (None, net));
        let counts = |(list, net): &(Option<&PathBuf>, &Ipv4Net)| {
            list.is_none() || !self.private_alone || is_within_private(net)
        };
        own.chain(listed).filter(counts).map(|(list, net)| NamedNet { net: *net, list })
    }

    /// The first of them that has an address.
    pub(super) fn entry<'a>(&'a self, lists: &'a Lists, address: Ipv4Addr) -> Option<NamedNet<'a>> {
        self.destinations(lists).find(|entry| entry.net.contains(&address))
    }

    fn whom(&self) -> String {
        let mut all: Vec<String> = match &self.builtin {
            Some(name) => vec![format!("builtin:{name}")],
            None => self.to.iter().map(ToString::to_string).collect(),
        };
        all.extend(self.list.iter().map(|path| format!("list {}", path.display())));
        all.join(", ")
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = self.whom();
        match self.kind {
            ClauseKind::Protocols => f.write_str("TCP, UDP and ICMP leave the host, and no other protocol"),
            ClauseKind::Host => {
                write!(
                    f,
                    "no policy opens what this host has: its addresses, and networks behind its other interfaces ({whom})"
                )
            }
            ClauseKind::Never => {
                f.write_str("no policy opens this network, loopback, metadata services and multicast")
            }
            ClauseKind::Subnet => write!(f, "neither the host nor other guests are reached ({whom})"),
            ClauseKind::Deny => write!(f, "deny {} to {whom}", self.transports),
            // As before all of port 53 was led there.
            ClauseKind::NameServers if self.servers.is_empty() => write!(f, "dns {whom}"),
            ClauseKind::NameServers => {
                write!(f, "dns: port 53 leads to {}, whoever is asked", shown(&self.servers))
            }
            ClauseKind::Resolver => write!(
                f,
                "names: port 53 leads to this network's resolver, whoever is asked; it asks {}",
                shown(&self.servers)
            ),
            ClauseKind::Proxy => f.write_str(
                "names: the web is reached by allowed names alone (SNI, Host), through this network's proxy",
            ),
            ClauseKind::Private => {
                f.write_str("private ranges are closed, but for what an `allow` within them names")
            }
            ClauseKind::Allow => write!(f, "allow {} to {whom}", self.transports),
            ClauseKind::Default if self.verdict == PacketVerdict::Allowed => {
                f.write_str("allowed, since no rule names it")
            }
            ClauseKind::Default => f.write_str("refused, since no rule names it"),
        }
    }
}

fn shown(servers: &[Ipv4Addr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A policy as clauses, in the order in which they win ([`NetworkPolicy`] tells it). What is led elsewhere comes first: that is
/// done before anything is judged. The lists decide alone which name servers are denied.
pub fn clauses(
    policy: &NetworkPolicy,
    lists: &BTreeMap<PathBuf, Vec<IpNet>>,
    subnet: Ipv4Net,
) -> Vec<Clause> {
    let fixed = |kind, verdict, to: Vec<Ipv4Net>| Clause {
        place: policy.places.table.clone(),
        ..Clause::of_all_traffic(kind, verdict, to)
    };
    let mut all = led(policy, servers(policy, lists, subnet));
    let others = Transports { others: true, ..Transports::default() };
    let everywhere = vec![Ipv4Net::default()];
    let protocols = fixed(ClauseKind::Protocols, PacketVerdict::Refused, everywhere);
    all.push(Clause { transports: others, ..protocols });
    all.push(fixed(ClauseKind::Never, PacketVerdict::Dropped, NEVER.into()));
    all.push(fixed(ClauseKind::Subnet, PacketVerdict::Dropped, vec![subnet.trunc()]));
    all.extend(policy.deny.iter().map(|rule| of_rule(ClauseKind::Deny, PacketVerdict::Refused, rule)));
    let allow = || policy.allow.iter().map(|rule| of_rule(ClauseKind::Allow, PacketVerdict::Allowed, rule));
    let parts = allow().map(|mut clause| {
        clause.to.retain(is_within_private);
        Clause { private_alone: true, ..clause }
    });
    all.extend(parts.filter(|clause| !clause.to.is_empty() || clause.list.is_some()));
    all.push(fixed(ClauseKind::Private, PacketVerdict::Refused, PRIVATE.into()));
    all.extend(allow());
    let verdict = if policy.default_allow { PacketVerdict::Allowed } else { PacketVerdict::Refused };
    let place = policy.places.default.clone().or_else(|| policy.places.table.clone());
    all.push(Clause { place, ..fixed(ClauseKind::Default, verdict, vec![Ipv4Net::default()]) });
    all
}

/// The same on a host that has these addresses and networks ([`crate::host::network::own_networks`]).
pub fn clauses_on(clauses: Vec<Clause>, closed: &[Ipv4Net]) -> Vec<Clause> {
    if closed.is_empty() {
        return clauses;
    }
    let is_subnet = |clause: &Clause| clause.kind == ClauseKind::Subnet;
    let own = |subnet: &Clause| Clause { kind: ClauseKind::Host, to: closed.into(), ..subnet.clone() };
    let with_own = clauses.into_iter().flat_map(|clause| {
        let own = is_subnet(&clause).then(|| own(&clause));
        [clause].into_iter().chain(own)
    });
    with_own.collect()
}

/// What is led elsewhere, whatever address was meant.
fn led(policy: &NetworkPolicy, servers: Vec<Ipv4Addr>) -> Vec<Clause> {
    let whole = |kind, tcp: &[u16], udp: &[u16], place: &Option<Range<usize>>| {
        let ports = |ports: &[u16]| ports.iter().map(|port| (*port, *port)).collect();
        let to = vec![Ipv4Net::default()];
        Clause {
            transports: Transports { tcp: ports(tcp), udp: ports(udp), ..Transports::default() },
            place: place.clone(),
            ..Clause::of_all_traffic(kind, PacketVerdict::Allowed, to)
        }
    };
    match &policy.names {
        None if servers.is_empty() => Vec::new(),
        None => vec![Clause { servers, ..whole(ClauseKind::NameServers, &[53], &[53], &policy.places.dns) }],
        Some(names) => {
            let place = Some(names.place.clone());
            let resolver = Clause { servers, ..whole(ClauseKind::Resolver, &[53], &[53], &place) };
            let proxy = names.allow.is_some().then(|| whole(ClauseKind::Proxy, &[80, 443], &[], &place));
            [resolver].into_iter().chain(proxy).collect()
        }
    }
}

fn of_rule(kind: ClauseKind, verdict: PacketVerdict, rule: &PolicyRule) -> Clause {
    let v4 = |net: &IpNet| match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None,
    };
    let to = if rule.to.is_empty() && rule.list.is_none() {
        vec![Ipv4Net::default()]
    } else {
        rule.to.iter().filter_map(v4).collect()
    };
    let ports = |ranges: &[RangeInclusive<u16>]| ranges.iter().map(|r| (*r.start(), *r.end())).collect();
    Clause {
        list: rule.list.clone(),
        transports: Transports {
            tcp: ports(&rule.tcp),
            udp: ports(&rule.udp),
            icmp: rule.icmp,
            others: false,
        },
        builtin: rule.builtin.map(BuiltinList::name).map(str::to_owned),
        place: rule.place.clone(),
        ..Clause::of_all_traffic(kind, verdict, to)
    }
}
