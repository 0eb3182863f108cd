//! Pools whose guests are handed out: which members are to be there, by who has one now.
//!
//! A member is *spare* once it is booted, ready and marked so; whoever is given it takes the mark, in one rename. A member that
//! is, or was, in use never becomes spare again: it is removed, and started anew from its image.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::{GuestName, Label};
use crate::fleet::{Fleet, WarmPool};

use super::observed::{ObservedHost, PoolRole};

/// How a member of a pool is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolPlace {
    /// As it runs, until its session is over.
    InUse,
    Spare,
}

/// The members of pools that are to be there.
pub fn places(fleet: &Fleet, observed: &ObservedHost) -> BTreeMap<GuestName, PoolPlace> {
    let mut pools: BTreeMap<&Label, (&WarmPool, Vec<&GuestName>)> = BTreeMap::new();
    for (name, spec) in &fleet.guests {
        if let (Some(pool), Some(warm)) = (&spec.pool, &spec.warm) {
            pools.entry(pool).or_insert_with(|| (warm, Vec::new())).1.push(name);
        }
    }
    let all = pools.into_values().flat_map(|(pool, members)| of_pool(pool, members, observed));
    all.collect()
}

fn of_pool(
    pool: &WarmPool,
    members: Vec<&GuestName>,
    observed: &ObservedHost,
) -> BTreeMap<GuestName, PoolPlace> {
    let role = |name: &GuestName| observed.guests.get(name)?.vmm.as_ref()?.role.as_ref();
    let runs = |name: &GuestName| observed.guests.get(name).is_some_and(|guest| guest.vmm.is_some());
    let in_use: BTreeSet<&GuestName> =
        members.iter().copied().filter(|name| matches!(role(name), Some(PoolRole::InUse(_)))).collect();
    let mut free: Vec<&GuestName> = members.into_iter().filter(|name| !in_use.contains(name)).collect();
    // Those that are nearest to it: spare already, else running; the first ones where there is no difference. One whose session is over
    // has to be stopped first, so it comes last.
    free.sort_by_key(|name| {
        let is_used = matches!(role(name), Some(PoolRole::Used));
        (is_used, !matches!(role(name), Some(PoolRole::Spare(_))), !runs(name), number(name))
    });
    let left = (pool.max as usize).saturating_sub(in_use.len());
    let spare = free.into_iter().take(left.min(pool.spare as usize));
    let spare = spare.map(|name| (name.clone(), PoolPlace::Spare));
    in_use.iter().map(|name| ((*name).clone(), PoolPlace::InUse)).chain(spare).collect()
}

/// The number of a member, by its name.
fn number(name: &GuestName) -> u32 {
    name.as_str().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

/// How long whoever takes a spare may take to say for whom: one who was killed before leaves a guest that nobody has.
pub const CLAIM_LIMIT: Duration = Duration::from_secs(30);
