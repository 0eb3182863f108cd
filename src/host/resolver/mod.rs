//! The resolver of a policy that names names: dnsmasq, and for a policy that allows some names alone also HAProxy, through
//! which the web is then reached. Both run in the fleet's network namespace as users of their own; the rules lead guests of
//! the policy there ([`super::firewall`]).
//!
//! dnsmasq 2.90 was taken over unbound 1.17 by measurement, with a million names (2 cores, all else idle): 84 MB and 2.1 s until
//! it answers, against 436 MB and 6.8 s with `local-zone`s, and 1195 MB and 19.3 s with a response policy zone.

mod dnsmasq;
mod haproxy;
pub mod list;
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use crate::base::{Class, Diagnosis, Diagnostic, Label, Sha256};
use crate::fleet::{NEVER, NamePolicy, NetworkPolicy, PRIVATE, PolicyRule, is_within_private};

use self::list::NameList;

pub use self::program::{ResolverProgram, needed};
pub use dnsmasq::{BY_TCP, ConfiguredNames, config as resolver_config};
pub use haproxy::config as proxy_config;

/// A resolver that is to run, with its proxy where the policy allows some names alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    pub policy: Label,
    pub seat: Seat,
    /// Of all that decides what it answers.
    pub digest: Sha256,
    /// Whom it asks.
    pub servers: Vec<Ipv4Addr>,
    /// No answer may lead there: what no policy opens, and what is private but for what an `allow` names.
    pub refused: Vec<Ipv4Net>,
    /// The proxy connects with nobody there: the same, but for what an `allow` names for the web.
    pub unreached: Vec<Ipv4Net>,
    pub deny: Vec<Arc<NameList>>,
    /// The only names that there are.
    pub allow: Option<Vec<Arc<NameList>>>,
}

impl Resolver {
    /// Whether a proxy runs beside it.
    pub fn has_proxy(&self) -> bool {
        self.allow.is_some()
    }

    /// What runs for it, in the order in which it is started.
    pub fn programs(&self) -> impl Iterator<Item = ResolverProgram> {
        ResolverProgram::ALL
            .into_iter()
            .filter(|program| *program == ResolverProgram::Dnsmasq || self.has_proxy())
    }

    /// Most memory of one of its programs, in bytes. dnsmasq takes 84 bytes for a name; each name server of an allowed one
    /// is an entry. Two hundred queries by TCP took it another 23 MB, and their page tables as much.
    pub fn memory(&self, program: ResolverProgram) -> u64 {
        const MIB: u64 = 1 << 20;
        match program {
            ResolverProgram::Dnsmasq => 128 * MIB + 256 * (self.names() * self.servers.len().max(1)) as u64,
            ResolverProgram::Haproxy => 1024 * MIB,
        }
    }

    /// A name that it answers for by itself, of which it asks nobody.
    pub fn own_name(&self) -> &str {
        let denied = self.deny.iter().flat_map(|list| list.names()).next();
        // Where some names alone exist, this one does not.
        denied.unwrap_or("sisforge.invalid")
    }

    /// How many names it knows.
    pub fn names(&self) -> usize {
        self.deny.iter().chain(self.allow.iter().flatten()).map(|list| list.len()).sum()
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |lists: &[Arc<NameList>]| lists.iter().map(|list| list.len()).sum::<usize>();
        write!(f, "{} of network {}: ", self.digest.short(), self.policy)?;
        if let Some(allow) = &self.allow {
            write!(f, "{} names alone, ", count(allow))?;
        }
        write!(f, "{} names denied", count(&self.deny))
    }
}

/// What a resolver has of its fleet for itself: users, and ports in the namespace. One whose names change has another, so that
/// the next one is there before guests are led to it, and the last one until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    pub number: u16,
    /// Who runs the resolver.
    pub uid: u32,
    /// Who runs the proxy.
    pub proxy_uid: u32,
}

/// Most seats of a fleet.
const SEATS: u32 = 4096;
/// Ports of the first seat. Those of the last are below what the kernel gives to connections (`ip_local_port_range`).
const FIRST_PORT: u16 = 10_000;
/// Ports of a seat, and what the used ones are for.
const PORTS: u16 = 4;
const DNS: u16 = 0;
const TLS: u16 = 1;
const HTTP: u16 = 2;

/// One of the ports of a seat, whose number is below [`SEATS`].
const fn port(number: u16, which: u16) -> u16 {
    FIRST_PORT + PORTS * number + which
}

impl Seat {
    /// One of the seats that a range of uids has. Guests get uids from its start, seats theirs from its end.
    fn new(number: u32, uids: &RangeInclusive<u32>) -> Self {
        let uid = uids.end() - 2 * number;
        // Below SEATS.
        Self { number: number as u16, uid, proxy_uid: uid - 1 }
    }

    /// That of this number, whose resolver is run by this user; `None` where there is none.
    pub fn of(number: u16, uid: u32) -> Option<Self> {
        let proxy_uid = uid.checked_sub(1)?;
        (u32::from(number) < SEATS).then_some(Self { number, uid, proxy_uid })
    }

    fn port(self, which: u16) -> u16 {
        port(self.number, which)
    }

    /// The ports at which guests are led to the seat of this number, whoever runs what is there; none where there is no such seat.
    pub fn ports_of(number: u16) -> Vec<u16> {
        let used = DNS..=HTTP;
        if u32::from(number) < SEATS { used.map(|which| port(number, which)).collect() } else { Vec::new() }
    }

    /// Where the resolver is asked.
    pub fn dns_port(self) -> u16 {
        self.port(DNS)
    }

    /// Where the proxy takes connections that were meant for port 443.
    pub fn tls_port(self) -> u16 {
        self.port(TLS)
    }

    /// The same for port 80.
    pub fn http_port(self) -> u16 {
        self.port(HTTP)
    }
}

/// Why a policy has no resolver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoResolver {
    #[error("network {0} denies every name server that it names, so nobody could be asked for a name")]
    NoServer(Label),
    #[error("no user is left for the resolver of network {0}: guests have all [host] uids")]
    NoSeat(Label),
    #[error("{} was not read", .0.display())]
    NotRead(PathBuf),
}

impl Diagnostic for NoResolver {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoServer(_) => Class::Invalid.hint("name another in `dns`, or take one out of `deny`"),
            Self::NoSeat(_) => Class::Invalid.hint("widen the range by two for each network with `names`"),
            Self::NotRead(_) => Class::Failed.no_hint(),
        }
    }
}

/// All that resolvers are made of.
#[derive(Clone, Copy, Debug)]
pub struct ResolverInput<'a> {
    /// Policies that a guest has.
    pub policies: &'a BTreeMap<&'a Label, &'a NetworkPolicy>,
    /// Contents of the lists of names.
    pub lists: &'a BTreeMap<PathBuf, Arc<NameList>>,
    /// Contents of the lists of addresses.
    pub addresses: &'a BTreeMap<PathBuf, Vec<IpNet>>,
    pub subnet: Ipv4Net,
    /// What of the host no guest may reach.
    pub closed: &'a [Ipv4Net],
    pub uids: &'a RangeInclusive<u32>,
    /// Those of guests.
    pub taken: &'a BTreeSet<u32>,
    /// What runs already, by its seat.
    pub running: &'a BTreeMap<u16, Sha256>,
}

/// The resolvers that policies want, by policy.
pub fn resolvers(input: &ResolverInput<'_>) -> Result<BTreeMap<Label, Resolver>, NoResolver> {
    let mut seats = Seats { input, given: BTreeSet::new() };
    let mut all = BTreeMap::new();
    for (label, policy) in input.policies {
        let Some(names) = &policy.names else { continue };
        let resolver = resolver(input, label, policy, names, &mut seats)?;
        all.insert((*label).clone(), resolver);
    }
    Ok(all)
}

fn resolver(
    input: &ResolverInput<'_>,
    label: &Label,
    policy: &NetworkPolicy,
    names: &NamePolicy,
    seats: &mut Seats<'_>,
) -> Result<Resolver, NoResolver> {
    let read = |paths: &[PathBuf]| -> Result<Vec<Arc<NameList>>, NoResolver> {
        let list = |path: &PathBuf| input.lists.get(path).cloned();
        paths.iter().map(|path| list(path).ok_or_else(|| NoResolver::NotRead(path.clone()))).collect()
    };
    let (deny, allow) = (read(&names.deny)?, names.allow.as_deref().map(read).transpose()?);
    let servers = servers(policy, input.addresses, input.subnet);
    if servers.is_empty() {
        return Err(NoResolver::NoServer(label.clone()));
    }
    let closed = |opened: &[Ipv4Net]| {
        let own = input.closed.iter().chain(&NEVER).copied().chain([input.subnet]);
        Ipv4Net::aggregate(&own.chain(private_but(opened)).collect::<Vec<_>>())
    };
    let refused = closed(&opened(policy, input.addresses, |_| true));
    let unreached = closed(&opened(policy, input.addresses, is_of_web));
    let digest = digest(label, &servers, &refused, &unreached, &deny, allow.as_deref());
    let seat = seats.give(&digest).ok_or_else(|| NoResolver::NoSeat(label.clone()))?;
    Ok(Resolver { policy: label.clone(), seat, digest, servers, refused, unreached, deny, allow })
}

/// What is private, but for these.
fn private_but(opened: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut closed: Vec<Ipv4Net> = PRIVATE.into();
    for hole in opened {
        let around = |net: Ipv4Net| -> Vec<Ipv4Net> {
            if hole.contains(&net) {
                return Vec::new();
            }
            if !net.contains(hole) {
                return vec![net];
            }
            // On the way down to it, the other half of each network stays closed.
            let half = |length: u8| {
                let within = Ipv4Net::new(hole.network(), length).ok()?;
                let halves = within.supernet()?.subnets(length).ok()?;
                halves.into_iter().find(|half| *half != within.trunc())
            };
            (net.prefix_len() + 1..=hole.prefix_len()).filter_map(half).collect()
        };
        closed = closed.into_iter().flat_map(around).collect();
    }
    closed
}

/// Private networks that an `allow` names which counts.
fn opened(
    policy: &NetworkPolicy,
    addresses: &BTreeMap<PathBuf, Vec<IpNet>>,
    counts: impl Fn(&PolicyRule) -> bool,
) -> Vec<Ipv4Net> {
    let named = |rule: &PolicyRule| {
        let listed = rule.list.iter().filter_map(|path| addresses.get(path)).flatten();
        rule.to.iter().chain(listed).copied().collect::<Vec<_>>()
    };
    let v4 = |net: IpNet| match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None,
    };
    let all = policy.allow.iter().filter(|rule| counts(rule)).flat_map(named).filter_map(v4);
    Ipv4Net::aggregate(&all.filter(is_within_private).collect::<Vec<_>>())
}

fn is_of_web(rule: &PolicyRule) -> bool {
    let is_all = rule.tcp.is_empty() && rule.udp.is_empty() && !rule.icmp;
    is_all || [80, 443].iter().all(|port| rule.tcp.iter().any(|ports| ports.contains(port)))
}

/// The name servers of a policy but for those that it denies, by UDP or by TCP, and what no policy opens.
pub fn servers(
    policy: &NetworkPolicy,
    addresses: &BTreeMap<PathBuf, Vec<IpNet>>,
    subnet: Ipv4Net,
) -> Vec<Ipv4Addr> {
    let v4 = policy.dns.iter().filter_map(|server| match server {
        IpAddr::V4(server) => Some(*server),
        IpAddr::V6(_) => None,
    });
    let denies = |rule: &PolicyRule, server: Ipv4Addr| {
        let is_all = rule.tcp.is_empty() && rule.udp.is_empty() && !rule.icmp;
        let listed = rule.list.iter().filter_map(|path| addresses.get(path)).flatten();
        let is_anywhere = rule.to.is_empty() && rule.list.is_none();
        (is_all || rule.udp.iter().chain(&rule.tcp).any(|ports| ports.contains(&53)))
            && (is_anywhere || rule.to.iter().chain(listed).any(|net| net.contains(&IpAddr::V4(server))))
    };
    let is_denied = |server: &Ipv4Addr| {
        NEVER.iter().chain([&subnet]).any(|net| net.contains(server))
            || policy.deny.iter().any(|rule| denies(rule, *server))
    };
    v4.filter(|server| !is_denied(server)).collect()
}

/// Version of the configurations that are rendered: another one starts resolvers anew.
const LAYOUT: u32 = 2;

fn digest(
    label: &Label,
    servers: &[Ipv4Addr],
    refused: &[Ipv4Net],
    unreached: &[Ipv4Net],
    deny: &[Arc<NameList>],
    allow: Option<&[Arc<NameList>]>,
) -> Sha256 {
    let digests = |lists: &[Arc<NameList>]| lists.iter().map(|list| list.digest).collect::<Vec<_>>();
    let (deny, allow) = (digests(deny), allow.map(digests));
    Sha256::of(format!("{LAYOUT} {label} {servers:?} {refused:?} {unreached:?} {deny:?} {allow:?}"))
}

/// Seats as they are given out.
struct Seats<'a> {
    input: &'a ResolverInput<'a>,
    given: BTreeSet<u32>,
}

impl Seats<'_> {
    /// A seat that nobody has, the same for the same digest wherever that can be: whoever comes and goes moves no other. Where
    /// another one runs still, none is put while there is room elsewhere: guests are led from the one to the other.
    fn give(&mut self, digest: &Sha256) -> Option<Seat> {
        let ResolverInput { uids, taken, running, .. } = self.input;
        let seats = ((uids.end() - uids.start()).div_ceil(2)).min(SEATS);
        let Sha256([a, b, c, d, ..]) = *digest;
        let first = u32::from_be_bytes([a, b, c, d]).checked_rem(seats)?;
        let is_taken = |seat: Seat| [seat.uid, seat.proxy_uid].iter().any(|uid| taken.contains(uid));
        let is_free = |number: &u32| !self.given.contains(number) && !is_taken(Seat::new(*number, uids));
        let all = || (first..seats).chain(0..first).filter(is_free);
        // Below SEATS.
        let runs = |number: &u32| running.get(&(*number as u16));
        let own = all().find(|number| runs(number) == Some(digest));
        let number = own.or_else(|| all().find(|number| runs(number).is_none())).or_else(|| all().next())?;
        self.given.insert(number);
        Some(Seat::new(number, uids))
    }
}

#[cfg(test)]
mod tests;
