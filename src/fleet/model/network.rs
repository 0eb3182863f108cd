//! What guests may reach, and how much of what all share.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::base::{Label, PerSecond, Rate, Rates};

/// What a guest may reach. Port 53 leads to `dns`, or to the resolver of `names`, before anything is judged. What wins then, from
/// first to last: destinations that no policy opens ([`NEVER`]), `deny`, what `allow` says of private ranges by entries that lie
/// within one, that private ranges are closed, `allow`, and for what nothing names, `default_allow`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPolicy {
    pub places: PolicyPlaces,
    /// Whose rules stand behind those that are written.
    pub preset: Option<Preset>,
    pub default_allow: bool,
    pub dns: Vec<IpAddr>,
    pub allow: Vec<PolicyRule>,
    pub deny: Vec<PolicyRule>,
    /// Towards the guest.
    pub rate_down: Option<Rate>,
    /// From the guest.
    pub rate_up: Option<Rate>,
    pub budget: Budget,
    pub names: Option<NamePolicy>,
    pub publish: Vec<Publish>,
}

impl NetworkPolicy {
    /// How fast a guest may send and be sent.
    pub fn rates(&self) -> Rates {
        Rates { up: self.rate_up, down: self.rate_down }
    }
}

/// A way in to each guest of a policy: a port of the host that leads to one of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where `fleet.toml` has it.
    pub place: Range<usize>,
    pub name: Label,
    pub protocol: Protocol,
    /// The guest's port.
    pub guest: u16,
    /// Ports of the host, of which each guest has one.
    pub host: RangeInclusive<u16>,
    /// Who may come in.
    pub from: Vec<Ipv4Net>,
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, protocol, guest, host, from, .. } = self;
        let from: Vec<_> = from.iter().map(ToString::to_string).collect();
        let (first, last) = (host.start(), host.end());
        let host = if first == last { first.to_string() } else { format!("{first}-{last}") };
        write!(f, "{name}: {guest}/{protocol}, by {host} of the host, from {}", from.join(", "))
    }
}

/// What has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl std::fmt::Display for Protocol {
    /// As nftables writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Domain names that a guest may not ask for, or the only ones that it may. A resolver of its own answers whatever the guest
/// sends to port 53, to whichever server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePolicy {
    /// Where `fleet.toml` has it.
    pub place: Range<usize>,
    /// Files of names, one a line, each with all below it. They win over `allow`.
    pub deny: Vec<PathBuf>,
    /// The same for the only names that there are; `None` leaves all others.
    pub allow: Option<Vec<PathBuf>>,
}

impl NamePolicy {
    /// All files of names.
    pub fn lists(&self) -> impl Iterator<Item = &PathBuf> {
        self.deny.iter().chain(self.allow.iter().flatten())
    }

    /// What guests would get round the names by: DNS over TLS and HTTPS; where names are all that counts, also QUIC, whose
    /// names no proxy reads.
    pub fn deny_rules(&self) -> Vec<PolicyRule> {
        let quic = self.allow.is_some().then_some(BuiltinList::Quic);
        [BuiltinList::Dot, BuiltinList::Doh].into_iter().chain(quic).map(BuiltinList::rule).collect()
    }
}

/// Where `fleet.toml` has the parts of a policy that are no rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyPlaces {
    pub table: Option<Range<usize>>,
    /// The first name server.
    pub dns: Option<Range<usize>>,
    /// `default`, or the preset that says it.
    pub default: Option<Range<usize>>,
}

/// Destinations and ports. No ports at all means TCP, UDP and ICMP, with every port: no other protocol leaves a host.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PolicyRule {
    /// Where `fleet.toml` has it; `None` for a rule of the preset.
    pub place: Option<Range<usize>>,
    /// The list that came with sisforge: what it holds is in `to`, `tcp` and `udp`.
    pub builtin: Option<BuiltinList>,
    pub to: Vec<IpNet>,
    /// A file of addresses or prefixes, one a line; read when rules are rendered.
    pub list: Option<PathBuf>,
    pub tcp: Vec<RangeInclusive<u16>>,
    pub udp: Vec<RangeInclusive<u16>>,
    pub icmp: bool,
}

/// What one guest may use of what all share: the tables and ports of the network that their connections go through, and the
/// name servers' patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Connections at the same time.
    pub connections: u32,
    /// Connections that begin. As many may begin at once.
    pub new_connections: PerSecond,
    /// Datagrams and TCP connections to port 53. As many may come at once.
    pub dns_queries: PerSecond,
}

impl Default for Budget {
    fn default() -> Self {
        Self { connections: 1024, new_connections: PerSecond::new(100), dns_queries: PerSecond::new(50) }
    }
}

/// What most want, by one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Nothing but what is written beside it.
    Closed,
    /// The web at public addresses, without mail servers and without DNS over TLS or HTTPS.
    Browse,
    /// Everything at public addresses.
    Open,
}

impl Preset {
    /// Its name in `fleet.toml`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Browse => "browse",
            Self::Open => "open",
        }
    }

    /// What happens to packets that no rule names.
    pub fn default_allow(self) -> bool {
        self == Self::Open
    }

    /// The rules that follow those that are written.
    pub fn allow(self) -> Vec<PolicyRule> {
        let web = PolicyRule {
            to: vec![everywhere()],
            tcp: vec![80..=80, 443..=443],
            udp: vec![443..=443],
            ..PolicyRule::default()
        };
        if self == Self::Browse { vec![web] } else { Vec::new() }
    }

    /// The same for what is refused.
    pub fn deny(self) -> Vec<PolicyRule> {
        let lists = [BuiltinList::Smtp, BuiltinList::Dot, BuiltinList::Doh];
        if self == Self::Browse { lists.map(BuiltinList::rule).into() } else { Vec::new() }
    }
}

/// Destinations that come with sisforge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuiltinList {
    /// Services that tell a cloud's virtual machines their secrets.
    Metadata,
    /// Addresses that are not of the public network.
    Private,
    /// Mail servers: TCP 25, 465 and 587.
    Smtp,
    /// DNS over TLS and over QUIC: port 853.
    Dot,
    /// DNS over HTTPS at the addresses of well-known resolvers: port 443.
    Doh,
    /// QUIC, and with it HTTP/3: UDP 443.
    Quic,
}

impl BuiltinList {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Metadata, Self::Private, Self::Smtp, Self::Dot, Self::Doh, Self::Quic];

    /// Its name behind `builtin:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Private => "private",
            Self::Smtp => "smtp",
            Self::Dot => "dot",
            Self::Doh => "doh",
            Self::Quic => "quic",
        }
    }

    /// The rule that names what it holds.
    pub fn rule(self) -> PolicyRule {
        let (to, tcp, udp): (&[Ipv4Net], &[u16], &[u16]) = match self {
            Self::Metadata => (&METADATA, &[], &[]),
            Self::Private => (&PRIVATE, &[], &[]),
            Self::Smtp => (&[EVERYWHERE], &[25, 465, 587], &[]),
            Self::Dot => (&[EVERYWHERE], &[853], &[853]),
            Self::Doh => (&DOH, &[443], &[443]),
            Self::Quic => (&[EVERYWHERE], &[], &[443]),
        };
        let ports = |ports: &[u16]| ports.iter().map(|port| *port..=*port).collect();
        PolicyRule {
            builtin: Some(self),
            to: to.iter().copied().map(IpNet::V4).collect(),
            tcp: ports(tcp),
            udp: ports(udp),
            ..PolicyRule::default()
        }
    }
}

const EVERYWHERE: Ipv4Net = net([0, 0, 0, 0], 0);

fn everywhere() -> IpNet {
    IpNet::V4(EVERYWHERE)
}

const fn net([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Metadata services: of most clouds (link-local), of Azure, of Alibaba Cloud, of Oracle Cloud.
pub const METADATA: [Ipv4Net; 4] = [
    net([169, 254, 0, 0], 16),
    net([168, 63, 129, 16], 32),
    net([100, 100, 100, 200], 32),
    net([192, 0, 0, 192], 32),
];

/// What is not routed on the public network and may be a site's own (IANA's special-purpose registry: RFC 1918, 6598, 6890,
/// 2544). Addresses for documentation are nobody's.
pub const PRIVATE: [Ipv4Net; 6] = [
    net([10, 0, 0, 0], 8),
    net([100, 64, 0, 0], 10),
    net([172, 16, 0, 0], 12),
    net([192, 0, 0, 0], 24),
    net([192, 168, 0, 0], 16),
    net([198, 18, 0, 0], 15),
];

/// Destinations that no policy opens, beside the fleet's own subnet: this network, loopback, metadata services, multicast and
/// reserved addresses (RFC 6890).
pub const NEVER: [Ipv4Net; 8] = [
    net([0, 0, 0, 0], 8),
    net([127, 0, 0, 0], 8),
    METADATA[0],
    METADATA[1],
    METADATA[2],
    METADATA[3],
    net([224, 0, 0, 0], 4),
    net([240, 0, 0, 0], 4),
];

/// Resolvers of AdGuard, Cisco, Cloudflare, ControlD, Google, Mullvad, NextDNS, Quad9 and dns0.eu that answer DNS over HTTPS,
/// by the addresses that they publish. Whoever hides such a resolver elsewhere is not found by a list.
const DOH: [Ipv4Net; 32] = [
    net([1, 0, 0, 1], 32),
    net([1, 0, 0, 2], 32),
    net([1, 0, 0, 3], 32),
    net([1, 1, 1, 1], 32),
    net([1, 1, 1, 2], 32),
    net([1, 1, 1, 3], 32),
    net([8, 8, 4, 4], 32),
    net([8, 8, 8, 8], 32),
    net([9, 9, 9, 9], 32),
    net([9, 9, 9, 10], 32),
    net([9, 9, 9, 11], 32),
    net([45, 90, 28, 0], 22),
    net([76, 76, 2, 0], 24),
    net([76, 76, 10, 0], 24),
    net([94, 140, 14, 14], 32),
    net([94, 140, 14, 15], 32),
    net([94, 140, 14, 140], 32),
    net([94, 140, 14, 141], 32),
    net([94, 140, 15, 15], 32),
    net([94, 140, 15, 16], 32),
    net([149, 112, 112, 9], 32),
    net([149, 112, 112, 10], 32),
    net([149, 112, 112, 11], 32),
    net([149, 112, 112, 112], 32),
    net([193, 110, 81, 0], 32),
    net([185, 253, 5, 0], 32),
    net([194, 242, 2, 0], 28),
    net([208, 67, 220, 220], 32),
    net([208, 67, 220, 222], 32),
    net([208, 67, 222, 222], 32),
    net([208, 67, 222, 220], 32),
    net([208, 67, 222, 123], 32),
];

/// Whether a destination lies within a private range, so that an `allow` of it opens a part of that.
pub fn is_within_private(net: &Ipv4Net) -> bool {
    PRIVATE.iter().any(|private| private.contains(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_list_is_a_network() {
        for list in BuiltinList::ALL {
            for net in list.rule().to {
                assert_eq!(net.trunc(), net, "{}", list.name());
            }
        }
        assert!(NEVER.iter().all(|net| net.trunc() == *net));
        assert!(METADATA.iter().all(|net| NEVER.contains(net)));
    }

    #[test]
    fn what_lies_within_a_private_range_names_it() {
        for (net, within) in
            [("10.1.0.0/16", true), ("10.0.0.0/8", true), ("8.0.0.0/6", false), ("0.0.0.0/0", false)]
        {
            assert_eq!(is_within_private(&net.parse().unwrap()), within, "{net}");
        }
    }
}
