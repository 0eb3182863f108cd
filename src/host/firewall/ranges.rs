//! Ranges of addresses and ports, and which of several clauses decides on each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

/// From the first to the last address or port, both included.
pub type Range = (u32, u32);

/// The addresses of a network.
pub fn of_net(net: &Ipv4Net) -> Range {
    (net.network().into(), net.broadcast().into())
}

/// Ports as ranges.
pub fn of_ports(ports: &[RangeInclusive<u16>]) -> Vec<Range> {
    ports.iter().map(|range| ((*range.start()).into(), (*range.end()).into())).collect()
}

/// The same numbers in as few ranges as there can be, sorted: nft refuses ranges that overlap.
pub fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if u64::from(start) <= u64::from(last.1) + 1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// A range of addresses as nft writes it.
pub fn addresses((start, end): Range) -> String {
    match start == end {
        true => Ipv4Addr::from(start).to_string(),
        false => format!("{}-{}", Ipv4Addr::from(start), Ipv4Addr::from(end)),
    }
}

/// A range of ports as nft writes it.
pub fn ports((start, end): Range) -> String {
    if start == end { start.to_string() } else { format!("{start}-{end}") }
}

/// Cuts numbers into ranges that do not overlap, each with all clauses that hold there, in the order in which they were given.
/// Neighbours of which the same holds are one; where nothing holds, there is none.
pub fn cut(clauses: &[Vec<Range>]) -> Vec<(Range, Vec<usize>)> {
    // What begins and what ends at a number.
    let mut turns: BTreeMap<u64, Vec<(usize, i32)>> = BTreeMap::new();
    for (index, ranges) in clauses.iter().enumerate() {
        for (start, end) in merged(ranges.clone()) {
            turns.entry(start.into()).or_default().push((index, 1));
            turns.entry(u64::from(end) + 1).or_default().push((index, -1));
        }
    }
    let mut cut: Vec<(Range, Vec<usize>)> = Vec::new();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut from = 0;
    for (at, changes) in turns {
        if !open.is_empty() {
            let holds: Vec<usize> = open.iter().copied().collect();
            let end = (at - 1) as u32;
            match cut.last_mut() {
                Some((last, same)) if *same == holds && u64::from(last.1) + 1 == from => last.1 = end,
                _ => cut.push(((from as u32, end), holds)),
            }
        }
        for (index, change) in changes {
            if change > 0 {
                open.insert(index)
            } else {
                open.remove(&index)
            };
        }
        from = at;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cut_where_what_holds_changes() {
        let found = cut(&[vec![(10, 20)], vec![(15, 30), (31, 40)], vec![(u32::MAX, u32::MAX)]]);
        let expected = [
            ((10, 14), vec![0]),
            ((15, 20), vec![0, 1]),
            ((21, 40), vec![1]),
            ((u32::MAX, u32::MAX), vec![2]),
        ];
        assert_eq!(found, expected);
        assert_eq!(cut(&[Vec::new()]), []);
    }
}
