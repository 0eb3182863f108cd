//! The nft rules of a fleet, rendered whole from data, and swapped in one transaction.
//!
//! What a guest sends is held against its identity before the kernel puts fragments together. A connection is judged by
//! its policy once: its mark is then that of the policy's text, and packets of marked connections pass. Another policy has
//! another mark, so whatever was open meets it with the next packet, in whichever direction. Guests have no IPv6.
//!
//! Lists, budgets and counters outlive a swap ([`swap`]): a list is a set that all policies share, named after its content.

pub mod names;
pub mod noted;
mod policy;
mod publish;
pub mod ranges;
pub mod swap;
pub mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use super::policy::Policies;
use super::resolver::Resolver;
use crate::base::network::TAP_NAME_PREFIX;
use crate::base::{FleetName, GuestName, InterfaceName, Label, MacAddress, Sha256};
use crate::fleet::NetworkPolicy;

use self::ranges::Range;

/// A ruleset by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// SHA-256 of the text.
    pub digest: Sha256,
    /// What `nft -f` is given where nothing is there.
    pub text: String,
    /// What it lets guests do, by which a change is told in words.
    pub policies: Policies,
    /// The same in pieces, to be put in the place of earlier rules.
    pub parts: RulesetParts,
}

/// The pieces of a ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesetParts {
    /// Name of the tables, of the families `inet` and `arp`.
    pub table: String,
    /// Sets of addresses that stand on lists.
    pub lists: Vec<AddressSet>,
    /// Names of all counters.
    pub counters: BTreeSet<String>,
    /// Declarations of the sets that hold what guests use of their budgets, by name.
    pub budgets: BTreeMap<String, String>,
    /// Everything else of the table `inet`.
    pub rules: String,
    /// The whole table `arp`.
    pub arp: String,
    /// Who is led to resolvers, by policy.
    pub led: BTreeMap<Label, names::LedGuests>,
}

/// Addresses of a list, as a set of nft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    /// After its content.
    pub name: String,
    /// Sorted, merged.
    pub ranges: Vec<Range>,
}

impl Ruleset {
    /// A ruleset of this text, which is not known in pieces.
    pub fn new(text: String) -> Self {
        Self {
            digest: Sha256::of(&text),
            text,
            policies: Policies::default(),
            parts: RulesetParts::default(),
        }
    }
}

impl Ruleset {
    /// What tells whether nft takes the rules: all but what stands on lists, whose addresses are no words of anybody.
    pub fn to_check(&self) -> String {
        if self.parts.lists.is_empty() {
            return self.text.clone();
        }
        let one = |list: &AddressSet| AddressSet {
            ranges: list.ranges.iter().copied().take(1).collect(),
            ..list.clone()
        };
        let lists = self.parts.lists.iter().map(one).collect();
        swap::from_nothing(&RulesetParts { lists, ..self.parts.clone() })
    }
}

/// One guest, as the firewall sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub name: GuestName,
    pub tap: InterfaceName,
    pub mac: MacAddress,
    pub ip: Ipv4Addr,
    pub policy: Label,
}

/// All that a ruleset is made of.
#[derive(Clone, Debug)]
pub struct FirewallInput<'a> {
    pub fleet: &'a FleetName,
    /// The way out, in the namespace that the rules are loaded in.
    pub uplink: &'a InterfaceName,
    pub subnet: Ipv4Net,
    /// What of the host no policy can open: [`super::network::own_networks`].
    pub closed: &'a [Ipv4Net],
    /// How many ports all guests share outside: so many connections at most lead to one port of one address.
    pub ports: u32,
    /// Sorted by name.
    pub endpoints: Vec<Endpoint>,
    pub policies: &'a BTreeMap<Label, NetworkPolicy>,
    /// Contents of the lists that policies name.
    pub lists: &'a BTreeMap<PathBuf, Vec<IpNet>>,
    /// By policy.
    pub resolvers: &'a BTreeMap<Label, Resolver>,
}

/// Name of a fleet's tables in the families `inet` and `arp`. The prefix keeps them from being another program's.
pub fn table_name(fleet: &FleetName) -> String {
    format!("{TABLE_PREFIX}{fleet}")
}

const TABLE_PREFIX: &str = "sisforge-";

/// Whose table has such a name.
pub fn fleet_of_table(table: &str) -> Option<&str> {
    table.strip_prefix(TABLE_PREFIX)
}

/// Counters that are no guest's and no rule's: what was dropped, and why.
const COUNTERS: [&str; 8] = [
    "not-its-own",    // another MAC or address than the guest's, or IPv6
    "fragments",      // of a guest
    "subnet-spoofed", // a guest's address that comes from elsewhere
    "to-host",        // a guest to the host itself
    "strayed",        // a guest to another interface than the uplink
    "invalid",        // of no connection
    "unasked",        // towards a guest that did not ask
    "over-budget",
];

/// Renders the ruleset.
pub fn render(input: &FirewallInput<'_>) -> Ruleset {
    let mut parts = RulesetParts { table: table_name(input.fleet), ..RulesetParts::default() };
    parts.counters.extend(COUNTERS.map(str::to_owned));
    parts.budgets.insert(noted::SET.to_owned(), "type ifname; size 65535; flags dynamic;".to_owned());
    guests(&mut parts, input);
    parts.rules.push_str(&fixed_chains(input));
    let lists = policy::list_sets(input);
    for (label, policy) in used_policies(input) {
        policy::chains(&mut parts, label, policy, input, &lists);
    }
    let rules = names::NameRules {
        guests: &input.endpoints.iter().map(|endpoint| (endpoint.ip, &endpoint.policy)).collect::<Vec<_>>(),
        policies: &used_policies(input).collect(),
        resolvers: input.resolvers,
        addresses: input.lists,
        sets: &lists,
        subnet: input.subnet,
        uplink: input.uplink,
    };
    parts.rules.push_str(&names::render(&rules));
    parts.led = names::led(&rules);
    let mut lists: Vec<_> = lists.into_values().collect();
    lists.sort_by(|a, b| a.name.cmp(&b.name));
    lists.dedup();
    parts.lists = lists;
    parts.arp = arp_table(&parts.table, input);
    let text = swap::from_nothing(&parts);
    Ruleset { digest: Sha256::of(&text), text, policies: Policies::default(), parts }
}

/// That of connections which rules of this text let pass. Zero is that of all others.
fn mark(text: &str) -> u32 {
    let Sha256([a, b, c, d, ..]) = Sha256::of(text);
    u32::from_be_bytes([a, b, c, d]).max(1)
}

/// The policies that a guest has.
fn used_policies<'a>(input: &FirewallInput<'a>) -> impl Iterator<Item = (&'a Label, &'a NetworkPolicy)> {
    let used: BTreeSet<&Label> = input.endpoints.iter().map(|endpoint| &endpoint.policy).collect();
    let policies = input.policies;
    policies.iter().filter(move |(label, _)| used.contains(label))
}

fn elements(text: &mut String, declaration: &str, elements: &[String]) {
    let _ = write!(text, "  {declaration}; ");
    if !elements.is_empty() {
        let _ = write!(text, "elements = {{ {} }}; ", elements.join(", "));
    }
    text.push_str("}\n");
}

/// The elements that say who is who: one table for IPv4, one for ARP.
fn identities(input: &FirewallInput<'_>) -> Vec<String> {
    input.endpoints.iter().map(|e| format!("\"{}\" . {} . {}", e.tap, e.mac, e.ip)).collect()
}

/// What there is for each guest: elements of sets and maps alone, so that no packet pays for another guest.
fn guests(parts: &mut RulesetParts, input: &FirewallInput<'_>) {
    let each = |line: &dyn Fn(&Endpoint) -> String| input.endpoints.iter().map(line).collect::<Vec<_>>();
    let text = &mut parts.rules;
    elements(text, "set taps { type ifname", &each(&|e| format!("\"{}\"", e.tap)));
    elements(text, "set identity { type ifname . ether_addr . ipv4_addr", &identities(input));
    for (map, chain) in [("from_guest", "from"), ("to_guest", "to")] {
        let goto = each(&|e| format!("\"{}\" : goto {chain}-{}", e.tap, e.policy));
        elements(text, &format!("map {map} {{ type ifname : verdict"), &goto);
    }
    for counted in ["up", "down", "refused"] {
        let counters = each(&|e| format!("\"{}\" : \"{counted}-{}\"", e.tap, e.name));
        elements(text, &format!("map {counted} {{ type ifname : counter"), &counters);
        parts.counters.extend(each(&|e| format!("{counted}-{}", e.name)));
    }
}

/// Chains that are the same for all guests. The last two rules of `arriving` are for a TAP that no table knows any
/// more, because its guest could not be removed; they take nothing from the TAPs of another fleet. Conntrack puts fragments
/// together at -400, in queues that all share, so `arriving` comes before. An ICMP error counts as of the connection that it tells of,
/// whoever sends it: `told` takes it of nobody but whose connection it is.
fn fixed_chains(input: &FirewallInput<'_>) -> String {
    let chains = include_str!("firewall/fixed.nft");
    let noted = |line: &str| match line.split_once("NOTED(").and_then(|(before, rest)| {
        let (side, why) = rest.strip_suffix(')')?.split_once(", ")?;
        Some(format!("{before}{}", noted::rule(side, why)))
    }) {
        Some(rule) => rule,
        None => format!("{line}\n"),
    };
    chains
        .lines()
        .map(noted)
        .collect::<String>()
        .replace("SUBNET", &input.subnet.to_string())
        .replace("UPLINK", input.uplink.as_str())
        .replace("TAP-PREFIX", TAP_NAME_PREFIX)
}

/// Whoever has another's MAC or address is not answered, and remembered by no neighbour table.
fn arp_table(table: &str, input: &FirewallInput<'_>) -> String {
    let mut text = format!("table arp {table} {{\n");
    elements(
        &mut text,
        "set taps { type ifname",
        &input.endpoints.iter().map(|e| format!("\"{}\"", e.tap)).collect::<Vec<_>>(),
    );
    elements(&mut text, "set identity { type ifname . ether_addr . ipv4_addr", &identities(input));
    text.push_str(
        r"  chain arriving {
    type filter hook input priority filter; policy accept;
    iifname . arp saddr ether . arp saddr ip @identity accept
    iifname @taps drop
  }
}
",
    );
    text
}
