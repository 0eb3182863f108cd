//! Lines of a policy that decide nothing, because others win over all that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::table::{PortMap, Span, segments};
use super::{Clause, ClauseKind, Lists, PacketVerdict, Transport, Transports};

/// A rule that decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Its clause, by its place in the list.
    pub clause: usize,
    /// A clause that wins where it would decide, one that says otherwise before one that says the same; `None` where it names
    /// nothing at all.
    pub winner: Option<usize>,
    /// Whether what it says holds all the same.
    pub holds: bool,
}

/// The rules that `fleet.toml` has and that decide nothing, in their order.
pub fn idle(clauses: &[Clause], lists: &Lists) -> Vec<Idle> {
    let segments = segments(clauses, lists);
    let decide: BTreeSet<usize> = segments.iter().flat_map(|(_, row)| deciders(row, None)).collect();
    let is_rule = |clause: &Clause| matches!(clause.kind, ClauseKind::Allow | ClauseKind::Deny);
    // An `allow` of a private range stands twice.
    let decides = |clause: &Clause| {
        decide.iter().any(|index| is_rule(&clauses[*index]) && clauses[*index].place == clause.place)
    };
    let candidates = clauses.iter().enumerate();
    let candidates = candidates.filter(|(_, clause)| is_rule(clause) && !clause.private_alone);
    let candidates = candidates.filter(|(_, clause)| clause.place.is_some() && !decides(clause));
    // A resolver asks no server that is denied, and a proxy leads to no address that is.
    let is_obeyed = |clause: &Clause| {
        let led = clauses.iter().filter(|led| led.is_led());
        clause.kind == ClauseKind::Deny
            && led.map(|led| &led.transports).any(|led| {
                let has = |ports: &[(u16, u16)], of: fn(u16) -> Transport| {
                    ports.iter().any(|(port, _)| clause.transports.has(of(*port)))
                };
                has(&led.tcp, Transport::Tcp) || has(&led.udp, Transport::Udp)
            })
    };
    let candidates = candidates.filter(|(_, clause)| !is_obeyed(clause));
    candidates
        .map(|(index, clause)| {
            let has = |start: &u32| clause.entry(lists, Ipv4Addr::from(*start)).is_some();
            let rows = segments.iter().filter(|(start, _)| has(start));
            let rows: BTreeMap<*const PortMap, &PortMap> =
                rows.map(|(_, row)| (Arc::as_ptr(row), row.as_ref())).collect();
            let winners: BTreeSet<usize> =
                rows.values().flat_map(|row| deciders(row, Some(&clause.transports))).collect();
            let passes = |index: &usize| clauses[*index].verdict == PacketVerdict::Allowed;
            let allows = clause.verdict == PacketVerdict::Allowed;
            let against = winners.iter().copied().find(|winner| passes(winner) != allows);
            Idle { clause: index, winner: against.or(winners.first().copied()), holds: against.is_none() }
        })
        .collect()
}

/// The clauses that decide in a row about these protocols and ports, or about all.
fn deciders(row: &PortMap, asked: Option<&Transports>) -> Vec<usize> {
    let asked = asked.filter(|asked| !asked.are_all());
    let ports = |spans: &[Span], ranges: fn(&Transports) -> &[(u16, u16)]| -> Vec<usize> {
        let overlap = |span: &&Span| {
            let within = |(first, last): &(u16, u16)| *first <= span.last && span.first <= *last;
            asked.is_none_or(|asked| ranges(asked).iter().any(within))
        };
        spans.iter().filter(overlap).map(|span| span.clause).collect()
    };
    let icmp = asked.is_none_or(|asked| asked.icmp).then_some(row.icmp);
    let with_ports = [ports(&row.tcp, |asked| &asked.tcp), ports(&row.udp, |asked| &asked.udp)].concat();
    with_ports.into_iter().chain(icmp).collect()
}
