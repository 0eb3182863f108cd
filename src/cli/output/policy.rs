//! `policy show` and `policy explain`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::apply::prove::Proof;
use crate::fleet::Publish;
use crate::host::policy::{Clause, PacketVerdict, Traffic};
use crate::run::names::{ExplainedName, NameVerdict};
use crate::run::place::FilePlace;
use crate::run::policy::{Explained, ExplainedAnswer, NameListKind, ShownPolicy};

/// A network policy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicyJson {
    pub network: String,
    /// Whose rules stand behind those that are written.
    pub preset: Option<String>,
    /// Guests that have it.
    pub guests: Vec<String>,
    /// In the order in which they win: the first that fits a packet decides.
    pub clauses: Vec<ClauseJson>,
    /// Lists that it names.
    pub lists: Vec<ListJson>,
    /// Lists of domain names.
    pub names: Vec<NamesJson>,
    /// Bits a second towards the guest.
    pub rate_down: Option<u64>,
    /// Bits a second from the guest.
    pub rate_up: Option<u64>,
    pub budget: BudgetJson,
    /// Ways in to each guest.
    pub publish: Vec<PublishJson>,
}

/// A way in to the guests of a policy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PublishJson {
    pub name: String,
    /// "tcp" or "udp".
    pub protocol: String,
    pub guest_port: u16,
    /// Ports of the host, of which each guest has one; of one guest, its own.
    pub host: PortsJson,
    /// Who may come in.
    pub from: Vec<String>,
    pub place: PlaceJson,
}

/// How much one guest may use of what all share.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BudgetJson {
    /// At the same time.
    pub connections: u32,
    /// In a second.
    pub new_connections: u32,
    /// In a second.
    pub dns_queries: u32,
}

/// A list of addresses.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListJson {
    pub file: PathBuf,
    /// How many addresses and prefixes of IPv4 it has.
    pub entries: usize,
}

/// A list of domain names.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NamesJson {
    pub file: PathBuf,
    /// Whether these are the only names that there are; else they are denied.
    pub allow: bool,
    /// How many it has; each stands for all names below it too.
    pub names: usize,
}

/// One line of a policy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ClauseJson {
    pub verdict: VerdictJson,
    /// In words.
    pub text: String,
    /// Where fleet.toml has it; `null` for what a preset brings.
    pub place: Option<PlaceJson>,
}

/// What becomes of a packet.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictJson {
    /// It passes, and so does what answers it.
    Allowed,
    /// It does not pass, and the guest is told so.
    Refused,
    /// It does not pass, and nobody is told.
    Dropped,
}

/// A place in a file; both numbers from 1.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlaceJson {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
}

/// What becomes of what a guest sends somewhere.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExplainedJson {
    pub guest: String,
    pub network: String,
    /// The address or name that was asked about.
    pub to: String,
    /// What becomes of the name; `null` where an address was asked about.
    pub name: Option<ExplainedNameJson>,
    /// Whether anything of what was asked about passes.
    pub passes: bool,
    /// Whether the guest is cut off, so that nothing passes whatever its policy says; root alone is told.
    pub quarantined: bool,
    /// One for each line that decides; what passes comes first. None for a name, and for an address of IPv6, which guests do
    /// not have.
    pub answers: Vec<AnswerJson>,
    /// Ways in that the address may take.
    pub ways_in: Vec<PublishJson>,
    /// With --prove, the rules of nft that the packet met in the kernel, which came to the same; else `null`.
    pub proof: Option<Vec<String>>,
}

/// What becomes of a name that a guest asks for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExplainedNameJson {
    pub verdict: NameVerdictJson,
    /// Where fleet.toml says so.
    pub place: Option<PlaceJson>,
    /// The name by which a list has it, itself or one above it.
    pub entry: Option<String>,
    /// Where the list has that.
    pub entry_place: Option<PlaceJson>,
}

/// What decides on a name.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NameVerdictJson {
    /// The guest has nobody to ask.
    NoServer,
    /// No list has it: the name servers are asked.
    Unlisted,
    /// It is denied.
    Denied,
    /// It is one of the only names that there are.
    Allowed,
    /// It is none of the only names that there are.
    NotAllowed,
}

/// Ports in a row.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PortsJson {
    pub first: u16,
    /// Itself included.
    pub last: u16,
}

/// What one line decides.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AnswerJson {
    /// Protocols and ports, in words.
    pub traffic: String,
    pub tcp: Vec<PortsJson>,
    pub udp: Vec<PortsJson>,
    pub icmp: bool,
    /// Whatever is none of these.
    pub other: bool,
    pub by: ClauseJson,
    /// The entry that has the address.
    pub entry: String,
    /// Where the list has that entry; `null` for what the line itself names.
    pub entry_place: Option<PlaceJson>,
}

/// Rules of nft.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RulesJson {
    /// What `nft -f` takes.
    pub nft: String,
}

/// Whether a guest is cut off.
#[derive(Debug, Serialize, JsonSchema)]
pub struct QuarantineJson {
    pub guest: String,
    /// Whether it is cut off from every network now.
    pub quarantined: bool,
}

impl From<PacketVerdict> for VerdictJson {
    fn from(verdict: PacketVerdict) -> Self {
        match verdict {
            PacketVerdict::Allowed => Self::Allowed,
            PacketVerdict::Refused => Self::Refused,
            PacketVerdict::Dropped => Self::Dropped,
        }
    }
}

impl From<&FilePlace> for PlaceJson {
    fn from(place: &FilePlace) -> Self {
        Self { file: place.file.clone(), line: place.line, column: place.column }
    }
}

fn clause(clause: &Clause, place: Option<&FilePlace>) -> ClauseJson {
    ClauseJson { verdict: clause.verdict.into(), text: clause.to_string(), place: place.map(PlaceJson::from) }
}

/// `port` is the host's where it is known which one.
fn publish(way: &Publish, port: Option<u16>, place: &FilePlace) -> PublishJson {
    let (first, last) = port.map_or((*way.host.start(), *way.host.end()), |port| (port, port));
    PublishJson {
        name: way.name.to_string(),
        protocol: way.protocol.to_string(),
        guest_port: way.guest,
        host: PortsJson { first, last },
        from: way.from.iter().map(ToString::to_string).collect(),
        place: PlaceJson::from(place),
    }
}

fn ports(ranges: &[(u16, u16)]) -> Vec<PortsJson> {
    ranges.iter().map(|(first, last)| PortsJson { first: *first, last: *last }).collect()
}

impl From<&ShownPolicy> for PolicyJson {
    fn from(policy: &ShownPolicy) -> Self {
        let budget = policy.budget;
        Self {
            network: policy.network.to_string(),
            preset: policy.preset.map(|preset| preset.word().to_owned()),
            guests: policy.guests.iter().map(ToString::to_string).collect(),
            clauses: policy.clauses.iter().map(|(one, place)| clause(one, place.as_ref())).collect(),
            lists: policy
                .lists
                .iter()
                .map(|(file, entries)| ListJson { file: file.clone(), entries: *entries })
                .collect(),
            names: policy
                .names
                .iter()
                .map(|(file, (kind, count))| NamesJson {
                    file: file.clone(),
                    allow: *kind == NameListKind::Allow,
                    names: *count,
                })
                .collect(),
            rate_down: policy.rate_down.map(|rate| rate.bits_per_second()),
            rate_up: policy.rate_up.map(|rate| rate.bits_per_second()),
            budget: BudgetJson {
                connections: budget.connections,
                new_connections: budget.new_connections.times(),
                dns_queries: budget.dns_queries.times(),
            },
            publish: policy.publish.iter().map(|(way, place)| publish(way, None, place)).collect(),
        }
    }
}

impl ExplainedJson {
    /// With what the kernel said, if it was asked.
    pub fn new(explained: &Explained, proof: Option<&Proof>) -> Self {
        Self {
            guest: explained.guest.to_string(),
            network: explained.network.to_string(),
            to: explained.question.to.to_string(),
            name: explained.name.as_ref().map(ExplainedNameJson::from),
            passes: explained.passes(),
            quarantined: explained.quarantined,
            answers: explained.answers.iter().map(AnswerJson::from).collect(),
            ways_in: explained.ways_in.iter().map(|at| publish(&at.way, at.port, &at.place)).collect(),
            proof: proof.map(|proof| proof.path.clone()),
        }
    }
}

impl From<&ExplainedName> for ExplainedNameJson {
    fn from(name: &ExplainedName) -> Self {
        Self {
            verdict: match name.verdict {
                NameVerdict::NoServer => NameVerdictJson::NoServer,
                NameVerdict::Unlisted => NameVerdictJson::Unlisted,
                NameVerdict::Denied => NameVerdictJson::Denied,
                NameVerdict::Allowed => NameVerdictJson::Allowed,
                NameVerdict::NotAllowed => NameVerdictJson::NotAllowed,
            },
            place: name.place.as_ref().map(PlaceJson::from),
            entry: name.entry.as_ref().map(|(entry, _)| entry.clone()),
            entry_place: name.entry.as_ref().map(|(_, place)| PlaceJson::from(place)),
        }
    }
}

impl From<&ExplainedAnswer> for AnswerJson {
    fn from(found: &ExplainedAnswer) -> Self {
        let answer = &found.answer;
        let Traffic { tcp, udp, icmp, other } = answer.traffic.clone();
        Self {
            traffic: answer.traffic.to_string(),
            tcp: ports(&tcp),
            udp: ports(&udp),
            icmp,
            other,
            by: clause(&answer.clause, found.place.as_ref()),
            entry: answer.entry.to_string(),
            entry_place: found.entry.as_ref().map(PlaceJson::from),
        }
    }
}
