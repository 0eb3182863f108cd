//! A policy over all addresses at once: ranges of addresses that are treated alike, and what each protocol and port meets there.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::{Clause, Lists, Transport};

/// What each protocol and port meets at one address, as places in the list of clauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// All ports in order, without a gap.
    pub tcp: Vec<Span>,
    pub udp: Vec<Span>,
    pub icmp: usize,
    pub other: usize,
}

/// Ports that the same clause decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u16,
    pub last: u16,
    pub clause: usize,
}

/// Addresses from here on, up to the next of these, have this row.
pub(super) type Segments = Vec<(u32, Arc<PortMap>)>;

/// What an address meets. The last clause names every address and protocol.
pub fn row(clauses: &[Clause], lists: &Lists, address: Ipv4Addr) -> PortMap {
    let active = |index: &usize| clauses[*index].entry(lists, address).is_some();
    row_of(clauses, &(0..clauses.len()).filter(active).collect::<Vec<_>>())
}

/// All addresses, beginning with the lowest.
pub(super) fn segments(clauses: &[Clause], lists: &Lists) -> Segments {
    let mut events: Vec<(u64, usize, i32)> = Vec::new();
    for (index, clause) in clauses.iter().enumerate() {
        for Ipv4Range { first, last } in clause.destinations(lists).map(|entry| range_of(&entry.net)) {
            events.push((first.into(), index, 1));
            events.push((u64::from(last) + 1, index, -1));
        }
    }
    events.sort_unstable();
    let mut rows: HashMap<Vec<usize>, Arc<PortMap>> = HashMap::new();
    let mut depth: BTreeMap<usize, i32> = BTreeMap::new();
    let mut segments: Segments = Vec::new();
    let mut events = events.into_iter().peekable();
    while let Some((at, index, change)) = events.next() {
        *depth.entry(index).or_default() += change;
        if events.peek().is_some_and(|(next, ..)| *next == at) {
            continue;
        }
        let Ok(first) = u32::try_from(at) else { break };
        let active: Vec<usize> =
            depth.iter().filter(|(_, depth)| **depth > 0).map(|(index, _)| *index).collect();
        let row = rows.entry(active).or_insert_with_key(|active| Arc::new(row_of(clauses, active)));
        segments.push((first, row.clone()));
    }
    segments
}

fn row_of(clauses: &[Clause], active: &[usize]) -> PortMap {
    let decides = |transport| {
        active.iter().copied().find(|index| clauses[*index].transports.has(transport)).unwrap_or_default()
    };
    let ranges = |of: fn(&Clause) -> &[(u16, u16)]| active.iter().flat_map(move |index| of(&clauses[*index]));
    PortMap {
        tcp: spans(ranges(|clause| &clause.transports.tcp), &|port| decides(Transport::Tcp(port))),
        udp: spans(ranges(|clause| &clause.transports.udp), &|port| decides(Transport::Udp(port))),
        icmp: decides(Transport::Icmp),
        other: decides(Transport::Other(0)),
    }
}

fn spans<'a>(ranges: impl Iterator<Item = &'a (u16, u16)>, decides: &dyn Fn(u16) -> usize) -> Vec<Span> {
    let mut starts: Vec<u16> =
        ranges.flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten().chain([0]).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut spans: Vec<Span> = Vec::new();
    for (at, first) in starts.iter().enumerate() {
        let last = starts.get(at + 1).map_or(u16::MAX, |next| next - 1);
        let clause = decides(*first);
        match spans.last_mut() {
            Some(before) if before.clause == clause => before.last = last,
            _ => spans.push(Span { first: *first, last, clause }),
        }
    }
    spans
}

/// Addresses in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ipv4Range {
    pub first: u32,
    pub last: u32,
}

pub(super) fn range_of(net: &Ipv4Net) -> Ipv4Range {
    Ipv4Range { first: net.network().into(), last: net.broadcast().into() }
}
