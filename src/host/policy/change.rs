//! What another policy opens and closes.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv4Subnets};

use crate::base::{GuestName, Label};
use crate::fleet::{NEVER, PRIVATE};

use super::clause::{Clause, range};
use super::table::{Ipv4Range, PortMap, Span, range_of, segments};
use super::{Lists, PacketVerdict, Policies, Transport};

/// Destinations that become reachable, or cease to be, by one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    pub guests: Vec<GuestName>,
    /// The policy that they have now.
    pub policy: Label,
    pub opens: bool,
    /// `None` where it is about names.
    pub what: Option<Traffic>,
    /// In words: destinations or names.
    pub to: String,
    /// The clause that now decides.
    pub by: String,
    /// The line on which `fleet.toml` has that.
    pub line: Option<usize>,
}

impl fmt::Display for PolicyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, opens, what, to, by, guests, .. } = self;
        let verb = if *opens { "opens" } else { "closes" };
        let names: Vec<_> = guests.iter().take(SHOWN).map(GuestName::as_str).collect();
        let more = guests.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let line = self.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let what = what.as_ref().map(|what| format!("{what} to ")).unwrap_or_default();
        write!(f, "network {policy} {verb} {what}{to} ({line}{by}), for {}{more}", names.join(", "))
    }
}

/// Protocols and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traffic {
    /// First and last port of each range.
    pub tcp: Vec<(u16, u16)>,
    pub udp: Vec<(u16, u16)>,
    pub icmp: bool,
    /// Whatever is none of these.
    pub other: bool,
}

impl Traffic {
    /// This alone.
    pub fn of(transport: Transport) -> Self {
        match transport {
            Transport::Tcp(port) => Self { tcp: vec![(port, port)], ..Self::default() },
            Transport::Udp(port) => Self { udp: vec![(port, port)], ..Self::default() },
            Transport::Icmp => Self { icmp: true, ..Self::default() },
            Transport::Other(_) => Self { other: true, ..Self::default() },
        }
    }

    fn of_names() -> Self {
        Self { tcp: vec![(53, 53)], udp: vec![(53, 53)], ..Self::default() }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALL: &[(u16, u16)] = &[(0, u16::MAX)];
        // No policy opens others.
        if (self.tcp.as_slice(), self.udp.as_slice(), self.icmp) == (ALL, ALL, true) {
            return f.write_str("every protocol");
        }
        let ports = |name: &str, ranges: &[(u16, u16)]| match ranges {
            [] => None,
            ALL => Some(name.to_owned()),
            ranges => Some(format!("{name} {}", ranges.iter().map(range).collect::<Vec<_>>().join(", "))),
        };
        let icmp = self.icmp.then(|| "icmp".to_owned());
        let other = self.other.then(|| "other protocols".to_owned());
        let parts = [ports("tcp", &self.tcp), ports("udp", &self.udp), icmp, other];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// So many of guests, or of destinations, are told by name.
const SHOWN: usize = 4;

/// What guests that stay may reach, and could not, and the other way round: line by line.
pub fn changes(old: &Policies, new: &Policies) -> Vec<PolicyChange> {
    let mut pairs: BTreeMap<(&Label, &Label), Vec<GuestName>> = BTreeMap::new();
    for (guest, now) in &new.guests {
        if let Some(before) = old.guests.get(guest) {
            pairs.entry((before, now)).or_default().push(guest.clone());
        }
    }
    let mut all = Vec::new();
    for ((before, now), guests) in pairs {
        let (Some(old_clauses), Some(new_clauses)) = (old.policies.get(before), new.policies.get(now)) else {
            continue;
        };
        let (before, after) = (ListedPolicy(old_clauses, &old.lists), ListedPolicy(new_clauses, &new.lists));
        if before.says_the_same(&after) {
            continue;
        }
        let change = |opens, what, to, by: &Clause| PolicyChange {
            guests: guests.clone(),
            policy: now.clone(),
            opens,
            what: Some(what),
            to,
            by: by.to_string(),
            line: by.line,
        };
        all.extend(between(&before, &after).into_iter().map(|(line, ranges)| {
            let by = &new_clauses[line.clause];
            let to = if by.is_led() { "every address".to_owned() } else { words(&ranges, new_clauses) };
            change(line.opens, line.what, to, by)
        }));
        let servers = asked_anew(old_clauses, new_clauses).into_iter();
        all.extend(servers.map(|(opens, to, by)| change(opens, Traffic::of_names(), to, by)));
    }
    all
}

/// Name servers that are asked now and were not, and those that are no more, where some are and were; with the clause that has them.
fn asked_anew<'a>(old: &[Clause], new: &'a [Clause]) -> Vec<(bool, String, &'a Clause)> {
    let led = |clauses: &'_ [Clause]| clauses.iter().position(|clause| !clause.servers.is_empty());
    let Some((before, after)) = led(old).zip(led(new)) else { return Vec::new() };
    let (before, after) = (&old[before].servers, &new[after]);
    let but = |these: &[Ipv4Addr], others: &[Ipv4Addr]| -> Vec<String> {
        these.iter().filter(|server| !others.contains(server)).map(ToString::to_string).collect()
    };
    let both = [(true, but(&after.servers, before)), (false, but(before, &after.servers))];
    let told = both.into_iter().filter(|(_, servers)| !servers.is_empty());
    told.map(|(opens, servers)| (opens, servers.join(", "), after)).collect()
}

/// A policy with the lists that it names.
struct ListedPolicy<'a>(&'a [Clause], &'a Lists);

impl ListedPolicy<'_> {
    /// Whether no address need be looked at. Places in `fleet.toml` do not count.
    fn says_the_same(&self, other: &Self) -> bool {
        let bare = |clauses: &[Clause]| -> Vec<Clause> {
            clauses.iter().map(|clause| Clause { place: None, line: None, ..clause.clone() }).collect()
        };
        let named = |side: &Self| -> Vec<_> {
            side.0
                .iter()
                .filter_map(|clause| clause.list.as_ref())
                .map(|path| side.1.get(path).cloned())
                .collect()
        };
        bare(self.0) == bare(other.0) && named(self) == named(other)
    }
}

/// What changes by one clause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ChangeLine {
    /// In the new policy.
    clause: usize,
    opens: bool,
    what: Traffic,
}

/// All lines, and the addresses of each.
fn between(before: &ListedPolicy<'_>, after: &ListedPolicy<'_>) -> BTreeMap<ChangeLine, Vec<Ipv4Range>> {
    let (old, new) = (segments(before.0, before.1), segments(after.0, after.1));
    let mut known: HashMap<(*const PortMap, *const PortMap), Vec<ChangeLine>> = HashMap::new();
    let mut found: BTreeMap<ChangeLine, Vec<Ipv4Range>> = BTreeMap::new();
    let (mut i, mut j, mut first) = (0, 0, 0u32);
    while let (Some((_, old_row)), Some((_, new_row))) = (old.get(i), new.get(j)) {
        let ends = |all: &super::table::Segments, at: usize| all.get(at + 1).map(|(next, _)| *next);
        let (old_end, new_end) = (ends(&old, i), ends(&new, j));
        let end = [old_end, new_end].into_iter().flatten().min();
        let last = end.map_or(u32::MAX, |end| end - 1);
        let lines = match known.entry((Arc::as_ptr(old_row), Arc::as_ptr(new_row))) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(lines(before.0, old_row, after.0, new_row)),
        };
        for line in lines {
            let ranges = found.entry(line.clone()).or_default();
            match ranges.last_mut() {
                Some(range) if u64::from(range.last) + 1 == u64::from(first) => range.last = last,
                _ => ranges.push(Ipv4Range { first, last }),
            }
        }
        let Some(end) = end else { break };
        (i, j) = (i + usize::from(old_end == Some(end)), j + usize::from(new_end == Some(end)));
        first = end;
    }
    found
}

/// What differs where these rows are, by the clause that now decides.
fn lines(old: &[Clause], before: &PortMap, new: &[Clause], after: &PortMap) -> Vec<ChangeLine> {
    let passes = |clauses: &[Clause], index: usize| clauses[index].verdict == PacketVerdict::Allowed;
    let change = |was: usize, is: usize| {
        let (was, now) = (passes(old, was), passes(new, is));
        (was != now).then_some((is, now))
    };
    let mut by: BTreeMap<(usize, bool), Traffic> = BTreeMap::new();
    for (index, first, last) in joint(&before.tcp, &after.tcp, &change) {
        by.entry(index).or_default().tcp.push((first, last));
    }
    for (index, first, last) in joint(&before.udp, &after.udp, &change) {
        by.entry(index).or_default().udp.push((first, last));
    }
    if let Some(index) = change(before.icmp, after.icmp) {
        by.entry(index).or_default().icmp = true;
    }
    if let Some(index) = change(before.other, after.other) {
        by.entry(index).or_default().other = true;
    }
    by.into_iter().map(|((clause, opens), what)| ChangeLine { clause, opens, what }).collect()
}

/// Ports at which something changes.
fn joint(
    before: &[Span],
    after: &[Span],
    change: &dyn Fn(usize, usize) -> Option<(usize, bool)>,
) -> Vec<((usize, bool), u16, u16)> {
    let mut found: Vec<((usize, bool), u16, u16)> = Vec::new();
    for was in before {
        for is in after.iter().filter(|is| is.first <= was.last && was.first <= is.last) {
            let (first, last) = (was.first.max(is.first), was.last.min(is.last));
            let Some(by) = change(was.clause, is.clause) else { continue };
            match found.last_mut() {
                Some((known, _, end)) if *known == by && u32::from(*end) + 1 == u32::from(first) => {
                    *end = last
                }
                _ => found.push((by, first, last)),
            }
        }
    }
    found
}

/// Destinations for people: what they are called, a few prefixes, or how many more there are.
fn words(ranges: &[Ipv4Range], clauses: &[Clause]) -> String {
    let subnet = clauses.iter().filter(|clause| clause.kind == super::ClauseKind::Subnet);
    let closed: Vec<Ipv4Net> = subnet.flat_map(|clause| clause.to.clone()).chain(NEVER).collect();
    let private = without(&ranges_of(&PRIVATE), &ranges_of(&closed));
    let everywhere = ranges_of(&[Ipv4Net::default()]);
    let public = without(&without(&everywhere, &ranges_of(&closed)), &ranges_of(&PRIVATE));
    for (name, named) in [
        ("all public and private addresses", without(&everywhere, &ranges_of(&closed))),
        ("all public addresses", public),
        ("all private addresses", private),
    ] {
        if ranges == named {
            return name.to_owned();
        }
        let lacking = prefixes(&without(&named, ranges));
        if without(ranges, &named).is_empty() && lacking.len() <= SHOWN {
            return format!("{name} but {}", shown(&lacking));
        }
    }
    shown(&prefixes(ranges))
}

fn shown(nets: &[Ipv4Net]) -> String {
    let names: Vec<_> = nets.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = nets.len().saturating_sub(SHOWN);
    names.join(", ") + &if more > 0 { format!(" and {more} more prefixes") } else { String::new() }
}

fn prefixes(ranges: &[Ipv4Range]) -> Vec<Ipv4Net> {
    let subnets = |range: &Ipv4Range| Ipv4Subnets::new(Ipv4Addr::from(range.first), range.last.into(), 0);
    ranges.iter().flat_map(subnets).collect()
}

/// Sorted, and joined where they touch.
fn ranges_of(nets: &[Ipv4Net]) -> Vec<Ipv4Range> {
    let mut sorted: Vec<_> = nets.iter().map(range_of).collect();
    sorted.sort_unstable();
    let mut joined: Vec<Ipv4Range> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(before) if u64::from(range.first) <= u64::from(before.last) + 1 => {
                before.last = before.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// What is in the first and not in the second; both sorted and apart.
fn without(all: &[Ipv4Range], but: &[Ipv4Range]) -> Vec<Ipv4Range> {
    let mut left = Vec::new();
    for range in all {
        let mut first = u64::from(range.first);
        for hole in but.iter().filter(|hole| hole.first <= range.last && range.first <= hole.last) {
            if u64::from(hole.first) > first {
                left.push(Ipv4Range { first: first as u32, last: hole.first - 1 });
            }
            first = u64::from(hole.last) + 1;
        }
        if first <= u64::from(range.last) {
            left.push(Ipv4Range { first: first as u32, last: range.last });
        }
    }
    left
}
