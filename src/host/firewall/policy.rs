//! The chains of a policy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::base::{Label, Sha256};
use crate::fleet::{Budget, NetworkPolicy, PolicyRule};

use super::noted;
use super::publish::{Entrance, entrance};
use super::ranges::{self, Range};
use super::verdicts::{Decider, PortVerdicts, Services, v4, verdicts};
use super::{AddressSet, FirewallInput, RulesetParts, elements, mark};

/// Who has how many connections with resolvers.
const RESOLVER_TCP: &str = "resolver-tcp";
/// So many queries by TCP a guest has open at once.
const TCP_QUERIES: u32 = 4;

/// Of the connections that all guests together can have with one port of one address, a guest has this part at most: two leave half of
/// them to others.
const PART_OF_A_DESTINATION: u32 = 4;

/// The addresses of every list, as a set.
pub fn list_sets(input: &FirewallInput<'_>) -> BTreeMap<PathBuf, AddressSet> {
    let used = super::used_policies(input).flat_map(|(_, policy)| policy.deny.iter().chain(&policy.allow));
    let paths = used.filter_map(|rule| rule.list.as_ref());
    let set = |path: &PathBuf| {
        let nets: Vec<Ipv4Net> = v4(input.lists.get(path)?);
        let ranges = ranges::merged(nets.iter().map(ranges::of_net).collect());
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|(start, end)| [start.to_be_bytes(), end.to_be_bytes()].concat())
            .collect();
        let name = format!("list-{}", Sha256::of(bytes).short());
        (!ranges.is_empty()).then(|| (path.clone(), AddressSet { name, ranges }))
    };
    paths.collect::<std::collections::BTreeSet<_>>().into_iter().filter_map(set).collect()
}

/// A policy that is being rendered.
struct Rendered<'a> {
    label: &'a Label,
    policy: &'a NetworkPolicy,
    lists: &'a BTreeMap<PathBuf, AddressSet>,
}

/// Adds the chains of a policy, with all that they name.
pub fn chains(
    parts: &mut RulesetParts,
    label: &Label,
    policy: &NetworkPolicy,
    input: &FirewallInput<'_>,
    lists: &BTreeMap<PathBuf, AddressSet>,
) {
    let rendered = Rendered { label, policy, lists };
    let mut text = rendered.judging(input);
    for decider in rendered.deciders() {
        let name = rendered.rule(decider);
        let (noted, verdict) = match decider.allows(policy) {
            true => (String::new(), format!("allowed-{label}")),
            false => (format!("    {}", noted::rule("iifname", &name)), "refused".to_owned()),
        };
        let _ = writeln!(text, "  chain {name} {{\n{noted}    counter name \"{name}\" goto {verdict}\n  }}");
        parts.counters.insert(name);
    }
    // It stands for all that decides whether a connection may be: another text has another mark.
    let mark = mark(&text);
    rendered.passing(&mut text, parts, input.uplink.as_str(), mark);
    rendered.counting(&mut text, parts, mark, input.ports);
    parts.rules.push_str(&text);
}

/// What tells that a guest has used up its share: of connections that begin, of those that are open, of queries. A set is named after
/// its limit, which stands in each of its elements.
fn budgets(parts: &mut RulesetParts, budget: Budget) -> [String; 3] {
    let set = "type ipv4_addr; size 65535; flags dynamic;";
    let limit = |times: u32| format!("limit rate over {times}/second burst {times} packets");
    let (new, dns, open) = (budget.new_connections.times(), budget.dns_queries.times(), budget.connections);
    let all = [
        (format!("new-{new}"), "update", limit(new)),
        (format!("open-{open}"), "add", format!("ct count over {open}")),
        (format!("dns-{dns}"), "update", limit(dns)),
    ];
    all.map(|(name, verb, limit)| {
        let rule = format!("{verb} @{name} {{ ip saddr {limit} }}");
        parts.budgets.insert(name, set.to_owned());
        rule
    })
}

/// What tells that a guest has its part of a destination, before the rest of a rule; nothing where it may not have as many connections
/// anyway.
fn part_of_a_destination(parts: &mut RulesetParts, budget: Budget, ports: u32) -> String {
    let most = (ports / PART_OF_A_DESTINATION).max(1);
    if budget.connections <= most {
        return String::new();
    }
    let (name, set) = (format!("to-one-{most}"), "type ipv4_addr . ipv4_addr . inet_proto . inet_service");
    parts.budgets.insert(name.clone(), format!("{set}; size 65535; flags dynamic;"));
    format!(
        "    meta l4proto {{ tcp, udp }} add @{name} {{ ip saddr . ip daddr . meta l4proto . th dport ct count over {most} }} \
         goto over_budget\n"
    )
}

impl Rendered<'_> {
    fn rule(&self, decider: Decider) -> String {
        format!("rule-{}-{}", self.label, decider.name())
    }

    /// Everything that may decide, whether it can come to that or not.
    fn deciders(&self) -> Vec<Decider> {
        let deny = (0..self.policy.deny.len()).map(Decider::Deny);
        let allow = (0..self.policy.allow.len()).map(Decider::Allow);
        let fixed = [Decider::Protocols, Decider::Never, Decider::Dns, Decider::Private, Decider::Default];
        fixed.into_iter().chain(deny).chain(allow).collect()
    }

    /// The map from addresses to what decides, and the chains that look there and on lists. Packets in both directions are judged by
    /// who answers the guest: what it sent to a name server may have been led to another. Maps hold every address and port: what is
    /// not found there came while maps were swapped, and comes again.
    fn judging(&self, input: &FirewallInput<'_>) -> String {
        let label = self.label;
        let mut text = String::new();
        let mut classes: BTreeMap<PortVerdicts, String> = BTreeMap::new();
        let mut goto = Vec::new();
        for (range, ports) in verdicts(self.policy, input.lists, &[&[input.subnet], input.closed].concat()) {
            let number = classes.len();
            let target = classes.entry(ports).or_insert_with_key(|ports| match ports.single() {
                Some(decider) => format!("goto {}", self.rule(decider)),
                None => format!("goto ports-{label}-{number}"),
            });
            goto.push(format!("{} : {target}", ranges::addresses(range)));
        }
        elements(&mut text, &format!("map to-{label} {{ type ipv4_addr : verdict; flags interval"), &goto);
        for (ports, target) in &classes {
            if let (None, Some(chain)) = (ports.single(), target.strip_prefix("goto ")) {
                self.ports(&mut text, chain, ports);
            }
        }
        let _ = writeln!(
            text,
            "  chain judge-{label} {{\n    meta l4proto != {{ icmp, tcp, udp }} goto rule-{label}-protocols"
        );
        for led in self.led_elsewhere() {
            let _ = writeln!(text, "    {led} goto refused");
        }
        self.lists(&mut text, &self.policy.deny, Decider::Deny);
        let _ = writeln!(text, "    ct reply ip saddr vmap @to-{label}\n    drop\n  }}");
        let _ = writeln!(text, "  chain {} {{", self.rule(Decider::Rest));
        self.lists(&mut text, &self.policy.allow, Decider::Allow);
        let _ = writeln!(text, "    goto {}\n  }}", self.rule(Decider::Default));
        text
    }

    /// What is led to the resolver and the proxy, and so never goes through: it is left from before there were names.
    fn led_elsewhere(&self) -> impl Iterator<Item = &'static str> {
        let names = self.policy.names.as_ref();
        let asked = names.map(|_| "meta l4proto { tcp, udp } ct reply proto-src 53");
        let web = names.and_then(|names| names.allow.as_ref());
        asked.into_iter().chain(web.map(|_| "meta l4proto tcp ct reply proto-src { 80, 443 }"))
    }

    /// What decides at addresses where that is a matter of ports.
    fn ports(&self, text: &mut String, chain: &str, ports: &PortVerdicts) {
        let _ = writeln!(text, "  chain {chain} {{");
        for (protocol, decided) in [("tcp", &ports.tcp), ("udp", &ports.udp)] {
            let goto = |(range, decider): &(Range, Decider)| {
                format!("{} : goto {}", ranges::ports(*range), self.rule(*decider))
            };
            let all = decided.iter().map(goto).collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "    meta l4proto {protocol} ct reply proto-src vmap {{ {all} }}");
        }
        let _ = writeln!(text, "    meta l4proto icmp goto {}\n    drop\n  }}", self.rule(ports.icmp));
    }

    /// The rules that name lists of files.
    fn lists(&self, text: &mut String, rules: &[PolicyRule], decider: fn(usize) -> Decider) {
        for (index, rule) in rules.iter().enumerate() {
            let Some(list) = rule.list.as_ref().and_then(|path| self.lists.get(path)) else { continue };
            for services in services(&Services::of(rule)) {
                let name = self.rule(decider(index));
                let _ = writeln!(text, "    {services}ct reply ip saddr @{} goto {name}", list.name);
            }
        }
    }

    /// What allowed packets go through that are of no connection which was let pass before. Each query counts, so connections to name
    /// servers have no mark.
    fn counting(&self, text: &mut String, parts: &mut RulesetParts, mark: u32, ports: u32) {
        let label = self.label;
        let [new, open, dns] = budgets(parts, self.policy.budget);
        let part = part_of_a_destination(parts, self.policy.budget, ports);
        let _ = write!(
            text,
            "  chain allowed-{label} {{
    meta l4proto udp ct original proto-dst 53 goto dns-{label}
    meta l4proto tcp ct original proto-dst 53 goto dns-{label}
    ct status confirmed ct mark set {mark:#010x} goto passed
    {new} goto over_budget
    {open} goto over_budget
{part}    ct mark set {mark:#010x} goto passed
  }}
  chain dns-{label} {{
    {}
    ct direction reply goto passed
    meta l4proto tcp ct status confirmed goto passed
    {dns} goto over_budget
    ct status confirmed goto passed
    {new} goto over_budget
    {open} goto over_budget
{part}    goto passed
  }}
",
            noted::answer()
        );
    }

    /// What goes through that is led to the resolver and the proxy. One guest holds no more connections with the resolver than
    /// it needs, which has few for all.
    fn asking(&self, text: &mut String, parts: &mut RulesetParts) {
        let label = self.label;
        parts
            .budgets
            .insert(RESOLVER_TCP.to_owned(), "type ipv4_addr; size 65535; flags dynamic;".to_owned());
        let _ = write!(
            text,
            r#"  chain asked-{label} {{
    meta l4proto tcp ct original proto-dst 53 ct state new add @{RESOLVER_TCP} {{ ip saddr ct count over {TCP_QUERIES} }} goto over_budget
    goto allowed-{label}
  }}
"#
        );
    }

    /// What packets of connections go through that were judged before, and what leads to the judgment.
    fn passing(&self, text: &mut String, parts: &mut RulesetParts, uplink: &str, mark: u32) {
        let label = self.label;
        let unasked = noted::rule("oifname", "unasked");
        let Entrance { from, to } = entrance(text, parts, label, self.policy, uplink);
        if self.policy.names.is_some() {
            self.asking(text, parts);
        }
        let _ = write!(
            text,
            r#"  chain from-{label} {{
    oifname != "{uplink}" goto strayed
    ct mark {mark:#010x} ct state established counter name iifname map @up accept
    ct state invalid,untracked counter name "invalid" drop
    ct state related jump told
    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    ct mark {mark:#010x} ct direction original counter name iifname map @up accept
    ct direction original goto judge-{label}
{from}    counter name "unasked" drop
  }}
  chain to-{label} {{
    ct mark {mark:#010x} ct direction reply counter name oifname map @down accept
    ct state invalid,untracked counter name "invalid" drop
    ct direction reply goto judge-{label}
{to}    {unasked}    counter name "unasked" drop
  }}
"#
        );
    }
}

/// The matches of protocols and ports of a rule, each ending in a space.
fn services(service: &Services) -> Vec<String> {
    if service.is_all() {
        return vec![String::new()];
    }
    let mut all = Vec::new();
    for (protocol, named) in [("tcp", &service.tcp), ("udp", &service.udp)] {
        if !named.is_empty() {
            let ports: Vec<_> = ranges::merged(named.clone()).into_iter().map(ranges::ports).collect();
            all.push(format!("meta l4proto {protocol} ct reply proto-src {{ {} }} ", ports.join(", ")));
        }
    }
    all.extend(service.icmp.then(|| "meta l4proto icmp ".to_owned()));
    all
}
