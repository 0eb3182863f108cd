//! The nft ruleset of a fleet, rendered whole from data: one table, swapped in one transaction.
//!
//! Every packet of a guest meets its policy, whatever connection it belongs to, so a policy that is swapped holds at
//! once. Answers alone come back, and those meet the policy as well: a server that was asked under an earlier one
//! does not send on. Guests have no IPv6: such packets are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use super::policy::Policies;
use crate::base::network::TAP_NAME_PREFIX;
use crate::base::{FleetName, GuestName, InterfaceName, Label, MacAddress, Rate, Sha256};
use crate::fleet::{Budget, NEVER, NetworkPolicy, PRIVATE, PolicyRule, is_within_private};

/// A ruleset by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// SHA-256 of the text.
    pub digest: Sha256,
    /// What `nft -f` is given.
    pub text: String,
    /// What it lets guests do, by which a change is told in words.
    pub policies: Policies,
}

impl Ruleset {
    /// A ruleset of this text.
    pub fn new(text: String) -> Self {
        Self { digest: Sha256::of(&text), text, policies: Policies::default() }
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
    /// Sorted by name.
    pub endpoints: Vec<Endpoint>,
    pub policies: &'a BTreeMap<Label, NetworkPolicy>,
    /// Contents of the lists that policies name.
    pub lists: &'a BTreeMap<PathBuf, Vec<IpNet>>,
}

/// Name of a fleet's table in the family `inet`. The prefix keeps it from being another program's.
pub fn table_name(fleet: &FleetName) -> String {
    format!("sisforge-{fleet}")
}

/// Renders the ruleset.
pub fn render(input: &FirewallInput<'_>) -> Ruleset {
    let table = table_name(input.fleet);
    let mut text = format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    declare_sets(&mut text, input);
    fixed_chains(&mut text, input);
    for endpoint in &input.endpoints {
        guest_chains(&mut text, endpoint, input.policies);
    }
    for (label, policy) in used_policies(input) {
        for way in [&OUT, &BACK] {
            policy_chain(&mut text, way, label, policy, input.lists);
        }
    }
    text.push_str("}\n");
    Ruleset::new(text)
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

fn declare_sets(text: &mut String, input: &FirewallInput<'_>) {
    let each = |line: &dyn Fn(&Endpoint) -> String| input.endpoints.iter().map(line).collect::<Vec<_>>();
    elements(text, "set taps { type ifname", &each(&|e| format!("\"{}\"", e.tap)));
    elements(
        text,
        "set identity { type ifname . ether_addr . ipv4_addr",
        &each(&|e| format!("\"{}\" . {} . {}", e.tap, e.mac, e.ip)),
    );
    elements(
        text,
        "map from_guest { type ifname : verdict",
        &each(&|e| format!("\"{}\" : goto from-{}", e.tap, e.name)),
    );
    elements(
        text,
        "map to_guest { type ifname : verdict",
        &each(&|e| format!("\"{}\" : goto to-{}", e.tap, e.name)),
    );
    let budgets = used_policies(input).map(|(_, policy)| policy.budget);
    let names: BTreeSet<_> = budgets
        .flat_map(|Budget { connections, new_connections, dns_queries }| {
            [
                format!("open-{connections}"),
                format!("new-{}", new_connections.times()),
                format!("dns-{}", dns_queries.times()),
            ]
        })
        .collect();
    for name in names {
        elements(text, &format!("set {name} {{ type ifname; flags dynamic; size 65535"), &[]);
    }
    let mut never = NEVER.to_vec();
    never.push(input.subnet);
    never.extend(input.closed);
    let never: Vec<_> = Ipv4Net::aggregate(&never).iter().map(ToString::to_string).collect();
    elements(text, "set never { type ipv4_addr; flags interval", &never);
}

/// Chains that are the same for all guests. The last two rules of `arriving` are for a TAP that no table knows any
/// more, because its guest could not be removed; they take nothing from the TAPs of another fleet.
fn fixed_chains(text: &mut String, input: &FirewallInput<'_>) {
    let (subnet, uplink) = (input.subnet, input.uplink);
    let _ = write!(
        text,
        r#"  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname @taps goto own_identity
    iifname != "lo" ip saddr {subnet} counter drop
    iifname "{TAP_NAME_PREFIX}*" meta nfproto ipv6 counter drop
    iifname "{TAP_NAME_PREFIX}*" fib saddr . iif oif missing counter drop
  }}
  chain own_identity {{
    meta nfproto ipv6 counter drop
    iifname . ether saddr . ip saddr != @identity counter drop
  }}
  chain to_host {{
    type filter hook input priority filter - 5; policy accept;
    iifname @taps goto answers_to_host
    iifname "{uplink}" ct direction original counter drop
  }}
  chain answers_to_host {{
    ct direction reply ct state established,related accept
    counter drop
  }}
  chain through {{
    type filter hook forward priority filter - 5; policy accept;
    iifname @taps goto outward
    oifname @taps oifname vmap @to_guest
    oifname @taps counter drop
  }}
  chain outward {{
    oifname != "{uplink}" counter drop
    ip daddr @never counter drop
    ct state invalid counter drop
    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    iifname vmap @from_guest
    counter drop
  }}
"#
    );
}

fn guest_chains(text: &mut String, endpoint: &Endpoint, policies: &BTreeMap<Label, NetworkPolicy>) {
    let policy = policies.get(&endpoint.policy);
    let limit = |rate: Option<Rate>| rate.map(limit_rule).unwrap_or_default();
    let (up, down) = (limit(policy.and_then(|p| p.rate_up)), limit(policy.and_then(|p| p.rate_down)));
    let (name, label) = (&endpoint.name, &endpoint.policy);
    let _ = write!(
        text,
        "  chain from-{name} {{\n{up}    counter goto policy-{label}\n  }}\n  chain to-{name} {{\n{down}    ct direction reply ct state related counter accept\n    ct direction reply ct state established counter goto answers-{label}\n    counter drop\n  }}\n"
    );
}

/// A policer: what comes faster is dropped. The kernel's bucket holds what one second lets pass and the burst
/// (`nft_limit_init`); the largest packet, which segmentation offload makes of many, must fit at the lowest rate.
fn limit_rule(rate: Rate) -> String {
    const LARGEST_PACKET: u64 = 65_550;
    let bytes = (rate.bits_per_second() / 8).max(1);
    format!("    limit rate over {bytes} bytes/second burst {LARGEST_PACKET} bytes counter drop\n")
}

/// A way through a policy, and where on it the server's side of a packet stands.
struct Way {
    chain: &'static str,
    address: &'static str,
    port: &'static str,
    refuse: &'static str,
    /// What is allowed; where it is counted, the policy's name follows.
    accept: &'static str,
}

impl Way {
    fn is_counted(&self) -> bool {
        self.accept != "accept"
    }
}

/// What a guest sends; refusals are told to it.
const OUT: Way = Way {
    chain: "policy",
    address: "daddr",
    port: "dport",
    refuse: "counter reject with icmpx admin-prohibited",
    accept: "goto budget-",
};

/// What is answered; refusals are told to nobody outside.
const BACK: Way =
    Way { chain: "answers", address: "saddr", port: "sport", refuse: "counter drop", accept: "accept" };

fn policy_chain(
    text: &mut String,
    way: &Way,
    label: &Label,
    policy: &NetworkPolicy,
    lists: &BTreeMap<PathBuf, Vec<IpNet>>,
) {
    let Way { chain, refuse, accept, .. } = way;
    let accept = format!("{accept}{}", if way.is_counted() { label.as_str() } else { "" });
    let _ = writeln!(text, "  chain {chain}-{label} {{");
    let mut rules = |rules: &[PolicyRule], verdict: &str| {
        for line in rules.iter().flat_map(|rule| rule_matches(rule, way, lists)) {
            let _ = writeln!(text, "    {line}{verdict}");
        }
    };
    rules(&policy.deny, refuse);
    rules(&name_servers(policy), &accept);
    rules(&parts_of_private(policy, lists), &accept);
    rules(&[PolicyRule { to: PRIVATE.map(IpNet::V4).into(), ..PolicyRule::default() }], refuse);
    rules(&policy.allow, &accept);
    let _ = writeln!(text, "    {}\n  }}", if policy.default_allow { &accept } else { *refuse });
    if way.is_counted() {
        budget_chain(text, label, policy.budget);
    }
}

/// Name servers, at port 53 alone.
fn name_servers(policy: &NetworkPolicy) -> Vec<PolicyRule> {
    let to: Vec<_> = policy.dns.iter().copied().map(IpNet::from).collect();
    let port = || vec![53..=53];
    let rule = PolicyRule { to, tcp: port(), udp: port(), ..PolicyRule::default() };
    if rule.to.is_empty() { Vec::new() } else { vec![rule] }
}

/// What rules allow of private ranges: their entries that lie within one.
fn parts_of_private(policy: &NetworkPolicy, lists: &BTreeMap<PathBuf, Vec<IpNet>>) -> Vec<PolicyRule> {
    let part = |rule: &PolicyRule| {
        let listed = rule.list.iter().filter_map(|path| lists.get(path)).flatten();
        let within = |net: &&IpNet| matches!(net, IpNet::V4(net) if is_within_private(net));
        let to: Vec<_> = rule.to.iter().chain(listed).filter(within).copied().collect();
        (!to.is_empty()).then(|| PolicyRule { to, list: None, ..rule.clone() })
    };
    policy.allow.iter().filter_map(part).collect()
}

/// What an allowed packet goes through: the guest's share of connections and of name servers. A set is named after its limit,
/// which stands in each of its elements.
fn budget_chain(text: &mut String, label: &Label, budget: Budget) {
    let Budget { connections, new_connections, dns_queries } = budget;
    let (new, dns) = (new_connections.times(), dns_queries.times());
    let _ = write!(
        text,
        "  chain budget-{label} {{
    meta l4proto udp th dport 53 update @dns-{dns} {{ iifname limit rate over {dns}/second burst {dns} packets }} counter drop
    ct status confirmed accept
    meta l4proto tcp th dport 53 update @dns-{dns} {{ iifname limit rate over {dns}/second burst {dns} packets }} counter drop
    update @new-{new} {{ iifname limit rate over {new}/second burst {new} packets }} counter drop
    add @open-{connections} {{ iifname ct count over {connections} }} counter drop
    accept
  }}
"
    );
}

/// The matches of one rule, each ending in a space: one for each protocol that it names.
fn rule_matches(rule: &PolicyRule, way: &Way, lists: &BTreeMap<PathBuf, Vec<IpNet>>) -> Vec<String> {
    let listed = rule.list.iter().filter_map(|path| lists.get(path)).flatten();
    let v4: Vec<Ipv4Net> = rule
        .to
        .iter()
        .chain(listed)
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(net.trunc()),
            IpNet::V6(_) => None,
        })
        .collect();
    let anywhere = rule.to.is_empty() && rule.list.is_none();
    if v4.is_empty() && !anywhere {
        return Vec::new();
    }
    let whole: Ipv4Net = Ipv4Net::default();
    let merged = Ipv4Net::aggregate(&v4);
    let destination = if anywhere || merged.contains(&whole) {
        String::new()
    } else {
        let nets: Vec<_> = merged.iter().map(ToString::to_string).collect();
        format!("ip {} {{ {} }} ", way.address, nets.join(", "))
    };
    let mut protocols = Vec::new();
    for (name, ports) in [("tcp", &rule.tcp), ("udp", &rule.udp)] {
        if !ports.is_empty() {
            protocols.push(format!("{destination}{name} {} {{ {} }} ", way.port, port_list(ports)));
        }
    }
    if rule.icmp {
        protocols.push(format!("{destination}ip protocol icmp "));
    }
    if protocols.is_empty() { vec![destination] } else { protocols }
}

/// Ports as nft's elements: merged, because nft refuses ranges that overlap.
fn port_list(ports: &[RangeInclusive<u16>]) -> String {
    let mut sorted: Vec<(u16, u16)> = ports.iter().map(|range| (*range.start(), *range.end())).collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (start, end) in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(start) <= u32::from(last.1) + 1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let shown = merged.iter().map(|(start, end)| match start == end {
        true => start.to_string(),
        false => format!("{start}-{end}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}
