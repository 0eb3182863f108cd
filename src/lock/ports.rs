//! Ports of the host that lead to guests: each keeps its own for as long as it stays.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Class, Diagnosis, Diagnostic, GuestName, Label};
use crate::fleet::{Fleet, Protocol, Publish};

use super::model::LockedGuest;

/// A policy publishes more than its ports of the host suffice for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no port of the host is left for {name} of {guest}: widen `host` in `publish`")]
pub struct OutOfPorts {
    pub guest: GuestName,
    pub name: Label,
}

impl Diagnostic for OutOfPorts {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

fn ways<'a>(fleet: &'a Fleet, guest: &GuestName) -> impl Iterator<Item = &'a Publish> {
    let policy = fleet.guests.get(guest).and_then(|spec| fleet.networks.get(&spec.network));
    policy.into_iter().flat_map(|policy| &policy.publish)
}

/// Gives every guest its ports. Those of `old` stay where they still fit; others are the first that are free.
pub fn assign(
    fleet: &Fleet,
    guests: &mut BTreeMap<GuestName, LockedGuest>,
    old: &BTreeMap<GuestName, LockedGuest>,
) -> Result<(), OutOfPorts> {
    let mut taken: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    for (guest, numbers) in guests.iter_mut() {
        numbers.ports.clear();
        for way in ways(fleet, guest) {
            let before = old.get(guest).and_then(|old| old.ports.get(&way.name)).copied();
            let kept = before.filter(|port| way.host.contains(port) && taken.insert((way.protocol, *port)));
            numbers.ports.extend(kept.map(|port| (way.name.clone(), port)));
        }
    }
    let mut without: Vec<(GuestName, &Publish)> = guests
        .iter()
        .flat_map(|(guest, numbers)| {
            let lacks = |way: &&Publish| !numbers.ports.contains_key(&way.name);
            ways(fleet, guest).filter(lacks).map(|way| (guest.clone(), way)).collect::<Vec<_>>()
        })
        .collect();
    // Who has the least choice comes first: where ranges overlap, everybody then has one if that is possible.
    without.sort_by_key(|(_, way)| *way.host.end());
    for (guest, way) in without {
        let free = way.host.clone().find(|port| taken.insert((way.protocol, *port)));
        let port = free.ok_or_else(|| OutOfPorts { guest: guest.clone(), name: way.name.clone() })?;
        guests.entry(guest).and_modify(|numbers| numbers.ports.extend([(way.name.clone(), port)]));
    }
    Ok(())
}
