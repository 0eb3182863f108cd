//! Whether packets take the ways that the policy is about, and no others.

use crate::sys::tool::package_of;

use super::facts::{Facts, FleetRequirements, Uplink};
use super::resources::at_least;
use super::{Check, CheckGroup, Fix, Level, Rule};

pub(super) fn checks(facts: &Facts, wants: &FleetRequirements) -> Vec<Check> {
    let mut all = vec![
        forwarding(facts),
        settings(
            RP_FILTER,
            facts,
            &[("net.ipv4.conf.all.rp_filter", "1"), ("net.ipv4.conf.default.rp_filter", "1")],
        ),
        settings(REDIRECTS, facts, &REDIRECT_KEYS.map(|key| (key, "0"))),
        settings(
            SOURCE_ROUTES,
            facts,
            &[
                ("net.ipv4.conf.all.accept_source_route", "0"),
                ("net.ipv4.conf.default.accept_source_route", "0"),
            ],
        ),
    ];
    all.push(neighbours(facts));
    all.push(conntrack(facts, wants));
    all.push(nft(facts));
    if !wants.programs.is_empty() {
        all.push(names(facts, wants));
    }
    all.push(forward_drops(facts));
    all
}

const NAMES: Rule = rule(
    "names",
    Level::Fatal,
    "policies with `names` are kept by a resolver and a proxy of the distribution",
);

fn names(facts: &Facts, wants: &FleetRequirements) -> Check {
    let packages: Vec<_> =
        facts.lacking.iter().map(|program| package_of(program).unwrap_or(program)).collect();
    NAMES.passes_if(
        facts.lacking.is_empty(),
        match facts.lacking.as_slice() {
            [] => wants.programs.join(", "),
            lacking => format!("not installed: {}", lacking.join(", ")),
        },
        format!("install it: on Debian, `apt-get install {}`", packages.join(" ")),
    )
}

const fn rule(id: &'static str, level: Level, why: &'static str) -> Rule {
    Rule { id, group: CheckGroup::Network, level, why }
}

const FORWARD: Rule = rule(
    "ip-forward",
    Level::Fatal,
    "guests reach the network through this host, which is a router for them: `up` switches that on for the uplink and the \
     fleet's own interface, and `down` puts it back",
);
const RP_FILTER: Rule =
    rule("rp-filter", Level::Error, "packets with a forged source address are dropped where they come in");
const REDIRECTS: Rule = rule("redirects", Level::Error, "ICMP redirects can route packets around the policy");
const REDIRECT_KEYS: [&str; 4] = [
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.default.accept_redirects",
    "net.ipv4.conf.all.send_redirects",
    "net.ipv4.conf.default.send_redirects",
];
const SOURCE_ROUTES: Rule =
    rule("source-routes", Level::Error, "source-routed packets can get around the policy");

/// Whether the uplink forwards, or `up` can have it do so.
fn forwarding(facts: &Facts) -> Check {
    let everywhere = facts.settings.get("net.ipv4.ip_forward").is_some_and(|value| value == "1");
    let elsewhere = if everywhere { ", as do all others (net.ipv4.ip_forward = 1)" } else { "" };
    match &facts.uplink {
        None => FORWARD.unknown("there is no uplink to look at", "name it: [host] uplink"),
        Some(Uplink { name, forwards: true, .. }) => FORWARD.pass(format!("{name} forwards{elsewhere}")),
        Some(Uplink { name, can_be_set: true, .. }) => {
            FORWARD.pass(format!("{name} does not forward yet; `up` switches it on"))
        }
        Some(Uplink { name, .. }) => FORWARD.missed(
            format!("{name} does not forward, and /proc/sys cannot be written here"),
            format!("where this container was started, set net.ipv4.conf.{name}.forwarding = 1"),
        ),
    }
}

/// Sysctls that are to have these values.
fn settings(rule: Rule, facts: &Facts, wanted: &[(&str, &str)]) -> Check {
    let value = |key: &str| facts.settings.get(key).map(String::as_str);
    let wrong: Vec<_> =
        wanted.iter().filter(|(key, wanted)| value(key).is_some_and(|value| value != *wanted)).collect();
    let unread: Vec<_> = wanted.iter().filter(|(key, _)| value(key).is_none()).map(|(key, _)| *key).collect();
    let show = |list: &[&(&str, &str)]| {
        let each = list.iter().map(|(key, _)| format!("{key} = {}", value(key).unwrap_or("?")));
        each.collect::<Vec<_>>().join(", ")
    };
    if wrong.is_empty() && !unread.is_empty() {
        return rule.unknown(format!("cannot be read: {}", unread.join(", ")), "");
    }
    if wrong.is_empty() {
        return rule.pass(show(&wanted.iter().collect::<Vec<_>>()));
    }
    let fixes: Vec<_> = wrong.iter().map(|(key, value)| Fix::sysctl(key, value)).collect();
    let remedy: Vec<_> = fixes.iter().map(ToString::to_string).collect();
    rule.missed(show(&wrong), format!("set {}", remedy.join(", "))).fixed_by(fixes)
}

/// Least sizes of the table of neighbours, at which it is swept, and at which it is full.
const NEIGHBOURS: [(&str, u64); 3] = [
    ("net.ipv4.neigh.default.gc_thresh1", 1024),
    ("net.ipv4.neigh.default.gc_thresh2", 2048),
    ("net.ipv4.neigh.default.gc_thresh3", 4096),
];

fn neighbours(facts: &Facts) -> Check {
    let rule = rule(
        "neighbours",
        Level::Warning,
        "when the neighbour table is full, packets of every guest are lost",
    );
    let checks = NEIGHBOURS.map(|(key, least)| at_least(rule, facts, key, least));
    let joined = |field: fn(&Check) -> &String| {
        let words: Vec<_> = checks.iter().map(field).filter(|text| !text.is_empty()).cloned().collect();
        words.join(", ")
    };
    let found = joined(|check| &check.found);
    let fixes: Vec<_> = checks.iter().flat_map(|check| check.fixes.clone()).collect();
    let worst = checks.iter().find(|check| check.verdict != super::Verdict::Pass);
    match worst {
        None => rule.pass(found),
        Some(_) => rule.missed(found, "set them to 1024, 2048, 4096 or more").fixed_by(fixes),
    }
}

/// Connections that one guest may have open at a time; a browser has some hundreds.
const CONNECTIONS_PER_GUEST: u64 = 1024;
const CONNECTIONS: u64 = 65_536;

fn conntrack(facts: &Facts, wants: &FleetRequirements) -> Check {
    let rule =
        rule("conntrack", Level::Warning, "when the conntrack table is full, no guest can open a connection");
    let (key, count) = ("net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count");
    let Some(max) = facts.number(key) else {
        return rule.unneeded(
            "no connection has been tracked since boot: the kernel creates the table with the \
              first rules",
        );
    };
    let used = facts.number(count).unwrap_or(0);
    let least = CONNECTIONS.max(CONNECTIONS_PER_GUEST * wants.guests);
    let found = format!("{used} of {max}");
    // Nearly full already: twice as much.
    let least = if used > max / 10 * 8 { least.max(max * 2) } else { least };
    rule.passes_if(max >= least, found, format!("set {key} to {least} or more"))
        .fixed_by(vec![Fix::sysctl(key, least)])
}

fn nft(facts: &Facts) -> Check {
    let rule = rule(
        "nft",
        Level::Fatal,
        "network policies are an nftables ruleset; if nft does not accept it, no guest starts",
    );
    match &facts.nft {
        None => rule.unknown("only root may ask", "run it as root"),
        Some(Ok(())) => rule.pass("a ruleset of this kind is accepted"),
        Some(Err(words)) => rule.missed(
            words.clone(),
            "install nftables; the kernel needs nf_tables, conntrack, NAT and the fib and limit expressions",
        ),
    }
}

fn forward_drops(facts: &Facts) -> Check {
    let rule = rule("forward", Level::Fatal, "packets that another firewall drops do not reach the policy");
    match facts.forward_drops.as_deref() {
        None => rule.unknown("only root may look", "run it as root"),
        Some([]) => rule.pass("no other chain drops forwarded packets"),
        Some(chains) => rule.missed(
            chains.join(", "),
            "accept packets of the fleets there (interfaces `sis-*`, both as iifname and as oifname), or set that chain's policy to accept",
        ),
    }
}
