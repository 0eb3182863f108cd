//! The stable numbers of guests: a guest that stays keeps them, whoever comes and goes around it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::base::network::tap_name;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{GuestName, MacAddress};
use crate::fleet::{Fleet, HostSpec};

use super::model::LockedGuest;
use super::ports::{self, OutOfPorts};

/// There are more guests than numbers. Validation refuses such a fleet, so this is met only by a lock of another one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfNumbers {
    #[error("no address or uid is left for guest {0}: widen [host] subnet or uids")]
    Guest(GuestName),
    #[error(transparent)]
    Ports(#[from] OutOfPorts),
}

impl Diagnostic for OutOfNumbers {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

/// How many guests a host's subnet and uids can hold.
pub fn capacity(host: &HostSpec) -> u32 {
    u32::try_from(host.address_capacity().min(host.uid_capacity())).unwrap_or(u32::MAX)
}

/// The numbers of slot `slot`: uid `first + slot`, and the slot's /30, of which the guest has the second address.
fn numbers(host: &HostSpec, name: &GuestName, slot: u32) -> Option<LockedGuest> {
    let ip = Ipv4Addr::from(u32::from(host.subnet.network()) + 4 * slot + 2);
    Some(LockedGuest {
        uid: host.uids.start() + slot,
        ip,
        mac: MacAddress::of_guest(ip),
        tap: tap_name(name).ok()?,
        ports: BTreeMap::new(),
    })
}

fn slot_of(host: &HostSpec, guest: &LockedGuest) -> Option<u32> {
    guest.uid.checked_sub(*host.uids.start())
}

/// All numbers of a fleet's guests, ports of the host among them.
pub fn numbered(
    fleet: &Fleet,
    old: &BTreeMap<GuestName, LockedGuest>,
) -> Result<BTreeMap<GuestName, LockedGuest>, OutOfNumbers> {
    let mut guests = assign(&fleet.host, fleet.guests.keys(), old)?;
    ports::assign(fleet, &mut guests, old)?;
    Ok(guests)
}

/// Gives every guest its numbers. Those of `old` stay where they still fit `host`; new guests take slots
/// above the highest in use before they fill gaps, so that the uid of a guest that left (and whose disk
/// is kept) is not soon another's.
pub fn assign<'a>(
    host: &HostSpec,
    guests: impl IntoIterator<Item = &'a GuestName>,
    old: &BTreeMap<GuestName, LockedGuest>,
) -> Result<BTreeMap<GuestName, LockedGuest>, OutOfNumbers> {
    let names: BTreeSet<&GuestName> = guests.into_iter().collect();
    let capacity = capacity(host);
    let fits = |name: &GuestName, guest: &LockedGuest| {
        // Its ports are nothing that a slot has.
        let guest = LockedGuest { ports: BTreeMap::new(), ..guest.clone() };
        slot_of(host, &guest)
            .filter(|slot| *slot < capacity && numbers(host, name, *slot).as_ref() == Some(&guest))
    };
    let mut slots: BTreeMap<u32, &GuestName> = BTreeMap::new();
    for name in &names {
        if let Some(slot) = old.get(*name).and_then(|guest| fits(name, guest)) {
            slots.entry(slot).or_insert(*name);
        }
    }
    let seated: BTreeSet<&GuestName> = slots.values().copied().collect();
    let highest_ever = old.iter().filter_map(|(name, guest)| fits(name, guest)).max();
    let mut next = highest_ever.map_or(0, |slot| slot + 1);
    for name in names.iter().filter(|name| !seated.contains(*name)) {
        let free = (next..capacity).chain(0..next).find(|slot| !slots.contains_key(slot));
        let slot = free.ok_or_else(|| OutOfNumbers::Guest((*name).clone()))?;
        slots.insert(slot, *name);
        next = slot + 1;
    }
    let numbered =
        slots.into_iter().filter_map(|(slot, name)| Some((name.clone(), numbers(host, name, slot)?)));
    Ok(numbered.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::LogLimits;

    fn host(subnet: &str, uids: std::ops::RangeInclusive<u32>) -> HostSpec {
        HostSpec {
            uplink_rates: Default::default(),
            uplink: None,
            subnet: subnet.parse().unwrap(),
            uids,
            store: "/s".into(),
            jails: None,
            logs: LogLimits::default(),
        }
    }

    fn names(names: &[&str]) -> Vec<GuestName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn each_guest_has_its_own_block_uid_and_tap() {
        let host = host("10.107.0.0/16", 200_000..=265_535);
        let given = assign(&host, &names(&["bob", "alice"]), &BTreeMap::new()).unwrap();
        let alice = &given[&"alice".parse().unwrap()];
        let bob = &given[&"bob".parse().unwrap()];
        assert_eq!((alice.uid, alice.ip.to_string()), (200_000, "10.107.0.2".into()));
        assert_eq!((bob.uid, bob.ip.to_string()), (200_001, "10.107.0.6".into()));
        assert_eq!((alice.mac.to_string().as_str(), alice.tap.as_str()), ("02:53:0a:6b:00:02", "sis-alice"));
    }

    #[test]
    fn a_guest_that_stays_keeps_its_numbers_and_a_new_one_does_not_take_those_that_left() {
        let host = host("10.107.0.0/16", 200_000..=265_535);
        let before = assign(&host, &names(&["alice", "bob"]), &BTreeMap::new()).unwrap();
        let after = assign(&host, &names(&["aaron", "alice"]), &before).unwrap();
        assert_eq!(after[&"alice".parse().unwrap()], before[&"alice".parse().unwrap()]);
        assert_eq!(after[&"aaron".parse().unwrap()].uid, 200_002);
    }

    #[test]
    fn gaps_are_filled_before_numbers_run_out() {
        let host = host("10.0.0.0/29", 2_000..=3_000);
        let before = assign(&host, &names(&["a", "b"]), &BTreeMap::new()).unwrap();
        let after = assign(&host, &names(&["b", "c"]), &before).unwrap();
        assert_eq!(after[&"c".parse().unwrap()].uid, 2_000);
        let error = assign(&host, &names(&["a", "b", "c"]), &before).unwrap_err();
        assert_eq!(error, OutOfNumbers::Guest("c".parse().unwrap()));
    }

    #[test]
    fn another_subnet_gives_everyone_new_numbers() {
        let before = assign(&host("10.0.0.0/24", 2_000..=3_000), &names(&["a"]), &BTreeMap::new()).unwrap();
        let after = assign(&host("10.9.0.0/24", 2_000..=3_000), &names(&["a"]), &before).unwrap();
        assert_eq!(after[&"a".parse().unwrap()].ip.to_string(), "10.9.0.2");
    }
}
