//! Pools whose guests are handed out: which members are to be there, by who has one now.
//!
//! A member is *spare* once it is booted, ready and marked so; whoever is given it takes the mark, in one rename. A member that
//! is, or was, in use never becomes spare again: it is removed, and started anew from its image. So is one that runs and of which no
//! record says that it was started to be handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::{GuestName, Label};
use crate::fleet::{Fleet, PoolMember, WarmPool};

use super::observed::{ObservedHost, PoolRole};

/// The members of pools that are to be there.
pub fn wanted_members(fleet: &Fleet, observed: &ObservedHost) -> BTreeSet<GuestName> {
    let mut pools: BTreeMap<&Label, (&WarmPool, Vec<NumberedGuest<'_>>)> = BTreeMap::new();
    for (name, spec) in &fleet.guests {
        if let (Some(PoolMember { pool, number }), Some(warm)) = (&spec.pool, &spec.warm) {
            pools.entry(pool).or_insert_with(|| (warm, Vec::new())).1.push((*number, name));
        }
    }
    let all = pools.into_values().flat_map(|(pool, members)| of_pool(pool, members, observed));
    all.collect()
}

/// A guest with its number in its pool.
type NumberedGuest<'a> = (u32, &'a GuestName);

fn of_pool(pool: &WarmPool, members: Vec<NumberedGuest<'_>>, observed: &ObservedHost) -> BTreeSet<GuestName> {
    let role = |name: &GuestName| observed.guests.get(name)?.vmm.as_ref()?.role.as_ref();
    let runs = |name: &GuestName| observed.guests.get(name).is_some_and(|guest| guest.vmm.is_some());
    let (in_use, others): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|(_, name)| matches!(role(name), Some(PoolRole::InUse(_))));
    let (cut_off, mut free): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, name)| observed.quarantined.contains(*name));
    // Nobody is handed one that is cut off. What waits is kept as it is, and another waits beside it; none is started to be so.
    let waits =
        |(_, name): &NumberedGuest<'_>| matches!(role(name), Some(PoolRole::Spare(_) | PoolRole::Raised));
    let held: Vec<_> = cut_off.into_iter().filter(waits).collect();
    // Those that are nearest to it; the first ones where there is no difference. What has to be stopped first comes last.
    free.sort_by_key(|(number, name)| {
        let steps = match role(name) {
            Some(PoolRole::Spare(_)) => 0,
            Some(PoolRole::Raised) => 1,
            _ if !runs(name) => 2,
            _ => 3,
        };
        (steps, *number)
    });
    let left = (pool.max as usize).saturating_sub(in_use.len() + held.len());
    let spare = free.into_iter().take(left.min(pool.spare as usize)).chain(held);
    spare.chain(in_use).map(|(_, name)| name.clone()).collect()
}

/// How long whoever takes a spare may take to say for whom: one who was killed before leaves a guest that nobody has.
pub const CLAIM_LIMIT: Duration = Duration::from_secs(30);
