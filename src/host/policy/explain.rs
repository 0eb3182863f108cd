//! What becomes of what a guest sends to an address, and which line says so.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use super::change::Traffic;
use super::table::{PortMap, Span, row};
use super::{Clause, Direction, Lists, Packet, PacketVerdict, Transport, decide};

/// What one clause decides about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyAnswer {
    pub traffic: Traffic,
    pub verdict: PacketVerdict,
    pub clause: Clause,
    /// What has the address: an entry of the rule.
    pub entry: Ipv4Net,
    /// The list that the entry stands in, if it does.
    pub list: Option<PathBuf>,
}

/// What becomes of one thing that is sent to an address, or of all that any policy opens; in the latter case what passes comes first.
pub fn explain(
    clauses: &[Clause],
    lists: &Lists,
    to: Ipv4Addr,
    transport: Option<Transport>,
) -> Vec<PolicyAnswer> {
    if let Some(transport) = transport {
        let packet = Packet { direction: Direction::Out, peer: to, transport };
        let found = decide(clauses, lists, packet);
        let clause = found.clause.map(|clause| answer(clause, lists, to, Traffic::of(transport)));
        return clause.flatten().into_iter().collect();
    }
    let row = row(clauses, lists, to);
    let traffic = |index: &usize| answer(&clauses[*index], lists, to, decided_by(&row, *index));
    let mut answers: Vec<_> = deciding(&row).iter().filter_map(traffic).collect();
    answers.sort_by_key(|answer| answer.verdict);
    answers
}

fn answer(clause: &Clause, lists: &Lists, to: Ipv4Addr, traffic: Traffic) -> Option<PolicyAnswer> {
    let entry = clause.entry(lists, to)?;
    let (verdict, clause) = (clause.verdict, clause.clone());
    Some(PolicyAnswer { traffic, verdict, clause, entry: entry.net, list: entry.list.cloned() })
}

/// The clauses of a row, in their order.
fn deciding(row: &PortMap) -> Vec<usize> {
    let spans = row.tcp.iter().chain(&row.udp).map(|span| span.clause);
    let mut all: Vec<_> = spans.chain([row.icmp]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn decided_by(row: &PortMap, clause: usize) -> Traffic {
    let ports = |spans: &[Span]| -> Vec<(u16, u16)> {
        spans.iter().filter(|span| span.clause == clause).map(|span| (span.first, span.last)).collect()
    };
    Traffic {
        tcp: ports(&row.tcp),
        udp: ports(&row.udp),
        icmp: row.icmp == clause,
        other: row.other == clause,
    }
}
