//! What a policy decides, without a kernel: a list of clauses in the order in which they win, of which the first that fits a
//! packet decides. [`super::firewall`] says the same in nft's words; the tests hold the two against each other with real
//! packets.

mod change;
mod clause;
mod effect;
mod explain;
mod question;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::base::{GuestName, Label};
use crate::fleet::{NetworkPolicy, SourceText};

pub use change::{PolicyChange, Traffic, changes};
pub use clause::{Clause, ClauseKind, Transports, clauses, clauses_on};
pub use effect::{Idle, idle};
pub use explain::{PolicyAnswer, explain};
pub use question::{Question, QuestionTarget};
pub use table::{PortMap, Span, row};

/// What a packet is carried by, and the port that it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp(u16),
    Udp(u16),
    Icmp,
    /// Any other protocol, by its number.
    Other(u8),
}

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest sends.
    Out,
    /// Something beyond the uplink sends to the guest, and was not asked.
    In,
}

/// A packet that begins something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub direction: Direction,
    /// Whom the guest sends to, or who sends to it.
    pub peer: Ipv4Addr,
    pub transport: Transport,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PacketVerdict {
    /// It passes, and so does what answers it.
    Allowed,
    /// It does not pass, and the guest is told so.
    Refused,
    /// It does not pass, and nobody is told.
    Dropped,
}

impl PacketVerdict {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// Addresses of lists that policies name, by the files' paths.
pub type Lists = BTreeMap<PathBuf, Vec<Ipv4Net>>;

/// Of the lists that were read, what is of IPv4.
pub fn lists_v4<'a>(lists: impl IntoIterator<Item = (&'a PathBuf, &'a Vec<IpNet>)>) -> Lists {
    let v4 = |net: &IpNet| match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None,
    };
    let all_v4 = |nets: &Vec<IpNet>| {
        // Nearly all are.
        let mut all = Vec::with_capacity(nets.len());
        all.extend(nets.iter().filter_map(v4));
        all
    };
    lists.into_iter().map(|(path, nets)| (path.clone(), all_v4(nets))).collect()
}

/// What decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    pub verdict: PacketVerdict,
    /// `None` where no policy is asked: of what begins outside.
    pub clause: Option<&'a Clause>,
    /// The entry of the clause's destinations, or of its list, that has the address.
    pub entry: Option<NamedNet<'a>>,
}

/// Where an address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedNet<'a> {
    pub net: Ipv4Net,
    /// The list that it stands in; `None` for what the rule itself names.
    pub list: Option<&'a PathBuf>,
}

/// Decides about a packet.
pub fn decide<'a>(clauses: &'a [Clause], lists: &'a Lists, packet: Packet) -> Decision<'a> {
    let dropped = Decision { verdict: PacketVerdict::Dropped, clause: None, entry: None };
    if packet.direction == Direction::In {
        return dropped;
    }
    let fitting = clauses.iter().filter(|clause| clause.transports.has(packet.transport));
    let found = fitting.filter_map(|clause| Some((clause, clause.entry(lists, packet.peer)?))).next();
    found.map_or(dropped, |(clause, entry)| Decision {
        verdict: clause.verdict,
        clause: Some(clause),
        entry: Some(entry),
    })
}

/// What every guest of a fleet may do: what is remembered of rules that were loaded, so that a change can be told in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Which policy each guest has.
    pub guests: BTreeMap<GuestName, Label>,
    pub policies: BTreeMap<Label, Vec<Clause>>,
    pub lists: Lists,
}

impl Policies {
    /// Those of these guests, with the lines of `fleet.toml`; what no guest has is left out.
    pub fn new(
        guests: BTreeMap<GuestName, Label>,
        networks: &BTreeMap<Label, NetworkPolicy>,
        lists: &BTreeMap<PathBuf, Vec<IpNet>>,
        subnet: Ipv4Net,
        source: &SourceText,
    ) -> Self {
        let with_line = |clause: Clause| {
            let line = clause.place.as_ref().map(|place| source.line_column(place.start).0);
            Clause { line, ..clause }
        };
        let clauses = |policy| clauses(policy, lists, subnet).into_iter().map(with_line).collect();
        let used: BTreeSet<&Label> = guests.values().collect();
        let policies = networks.iter().filter(|(label, _)| used.contains(label));
        let policies: BTreeMap<_, Vec<Clause>> =
            policies.map(|(label, policy)| (label.clone(), clauses(policy))).collect();
        let named: BTreeSet<&PathBuf> = policies.values().flatten().filter_map(|c| c.list.as_ref()).collect();
        let lists = lists_v4(lists.iter().filter(|(path, _)| named.contains(path)));
        Self { guests, policies, lists }
    }
}

#[cfg(test)]
mod tests;
