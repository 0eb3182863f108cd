//! What comes in at the ports that a policy publishes: judged once, like what guests begin, and marked.
//!
//! A guest's visitors have budgets of the same size as the guest itself, but their own: nobody who may come in uses up what the guest
//! may open, nor the tables that all share.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::Ipv4Net;

use crate::base::Label;
use crate::base::network::PAIR_HOST;
use crate::fleet::{NetworkPolicy, Publish};

use super::{RulesetParts, elements, noted};

/// The rules of a policy about what comes in; of one that publishes nothing, those that cut off what came in before.
pub struct Entrance {
    /// In the chain of what guests send, and in that of what is sent to them: what is left there is of connections that somebody
    /// outside began.
    pub from: String,
    pub to: String,
}

/// The connection has ended for both sides, who are told so.
const CUT: &str = "    ct state established meta l4proto tcp reject with tcp reset\n";

/// Who may come in where, as elements of a set. The host itself may, which is how proxies on it do.
fn admitted(published: &[Publish]) -> Vec<String> {
    let mut by_port: BTreeMap<_, Vec<Ipv4Net>> = BTreeMap::new();
    for way in published {
        let nets = by_port.entry((way.protocol, way.guest)).or_insert_with(|| vec![PAIR_HOST.into()]);
        nets.extend(&way.from);
    }
    let elements = by_port.iter().flat_map(|((protocol, port), nets)| {
        let element = move |net: Ipv4Net| format!("{protocol} . {port} . {net}");
        Ipv4Net::aggregate(nets).into_iter().map(element)
    });
    elements.collect()
}

fn set(label: &Label, policy: &NetworkPolicy) -> String {
    let mut set = String::new();
    let declared =
        format!("set published-{label} {{ type inet_proto . inet_service . ipv4_addr; flags interval");
    elements(&mut set, &declared, &admitted(&policy.publish));
    set
}

/// Adds the chains and the set.
pub fn entrance(
    text: &mut String,
    parts: &mut RulesetParts,
    label: &Label,
    policy: &NetworkPolicy,
    uplink: &str,
) -> Entrance {
    if policy.publish.is_empty() {
        return Entrance { from: CUT.to_owned(), to: CUT.to_owned() };
    }
    let set = set(label, policy);
    let mark = super::mark(&set);
    text.push_str(&set);
    let [new, open] = budgets(parts, policy);
    let unasked = noted::rule("oifname", "unasked");
    let coming = format!("meta l4proto . th dport . ip saddr @published-{label}");
    let answered = format!("meta l4proto . th sport . ip daddr @published-{label}");
    let _ = write!(
        text,
        r#"  chain visited-{label} {{
    ct mark {mark:#010x} counter name oifname map @down accept
    ct direction original {coming} goto visits-{label}
{CUT}    {unasked}    counter name "unasked" drop
  }}
  chain visits-{label} {{
    ct status confirmed ct mark set {mark:#010x} counter name oifname map @down accept
    {new} goto visitors
    {open} goto visitors
    ct mark set {mark:#010x} counter name oifname map @down accept
  }}
"#
    );
    let up = "counter name iifname map @up accept";
    let from = format!(
        "    ct mark {mark:#010x} {up}\n    ct direction reply {answered} ct mark set {mark:#010x} {up}\n{CUT}"
    );
    Entrance { from, to: format!("    iifname \"{uplink}\" goto visited-{label}\n") }
}

/// What tells that the visitors of a guest have used up its share.
fn budgets(parts: &mut RulesetParts, policy: &NetworkPolicy) -> [String; 2] {
    let (new, open) = (policy.budget.new_connections.times(), policy.budget.connections);
    let all = [
        (format!("visits-{new}"), "update", format!("limit rate over {new}/second burst {new} packets")),
        (format!("visitors-{open}"), "add", format!("ct count over {open}")),
    ];
    all.map(|(name, verb, limit)| {
        let rule = format!("{verb} @{name} {{ ip daddr {limit} }}");
        parts.budgets.insert(name, "type ipv4_addr; size 65535; flags dynamic;".to_owned());
        rule
    })
}
