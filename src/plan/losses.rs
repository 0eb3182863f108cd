//! What a plan makes unreachable of what guests wrote: nothing that a step says by itself.

use crate::base::{ByteSize, GuestName};
use crate::host::observed::{ObservedHost, ObservedVmm};
use crate::host::state::MachineDisk;
use crate::host::wanted::WantedHost;

use super::model::{GuestSteps, Plan};

/// What is lost, or stays behind, one sentence each. `is_locked` says whether `fleet.lock` has a guest.
pub fn losses(
    plan: &Plan,
    observed: &ObservedHost,
    wanted: &WantedHost,
    is_locked: impl Fn(&GuestName) -> bool,
) -> Vec<String> {
    let disks_in_jails: Vec<_> = plan.stop.iter().filter(|stop| has_own_disk(stop, observed)).collect();
    let lost = (!disks_in_jails.is_empty()).then(|| {
        let names: Vec<_> = disks_in_jails.iter().map(|stop| stop.guest.as_str()).collect();
        format!("what {} wrote is lost: its data disk goes with its jail", names.join(", "))
    });
    lost.into_iter()
        .chain(of_another_store(plan, observed))
        .chain(cut_off_elsewhere(observed, wanted))
        .chain(stays_behind(plan, observed, wanted, is_locked))
        .collect()
}

/// Guests that run and that this store knows nothing of: its place was changed beneath them.
fn of_another_store(plan: &Plan, observed: &ObservedHost) -> Option<String> {
    let is_foreign = |stop: &&GuestSteps| {
        let vmm = observed.guests.get(&stop.guest).and_then(|guest| guest.vmm.as_ref());
        vmm.is_some_and(ObservedVmm::is_of_another_store)
    };
    let names: Vec<_> = plan.stop.iter().filter(is_foreign).map(|stop| stop.guest.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "what {} wrote stays behind in another store. If `[host] store` was changed: set it back, run `sisforge down`, move the \
             directory, and only then change it",
            names.join(", ")
        )
    })
}

/// Guests who were cut off with another store, and stay so.
fn cut_off_elsewhere(observed: &ObservedHost, wanted: &WantedHost) -> Option<String> {
    let names: Vec<_> = observed.network.cut_off_unrecorded.iter().map(GuestName::as_str).collect();
    (!names.is_empty() && wanted.network.is_some()).then(|| {
        format!(
            "{} is quarantined, which this store does not know, and stays so: `sisforge release` ends it",
            names.join(", ")
        )
    })
}

/// Whether what a guest that stops has written goes with its jail.
fn has_own_disk(stop: &GuestSteps, observed: &ObservedHost) -> bool {
    let guest = observed.guests.get(&stop.guest);
    let machine = guest.and_then(|guest| guest.machine());
    machine.is_some_and(|machine| matches!(machine.disk, MachineDisk::Ephemeral { .. }))
}

/// Kept data disks of guests that go: a user who was renamed finds another one.
fn stays_behind(
    plan: &Plan,
    observed: &ObservedHost,
    wanted: &WantedHost,
    is_locked: impl Fn(&GuestName) -> bool,
) -> Vec<String> {
    let goes = |stop: &&GuestSteps| !wanted.guests.contains_key(&stop.guest);
    let kept = plan.stop.iter().filter(goes).filter_map(|stop| {
        let disk = observed.guests.get(&stop.guest)?.disk?;
        Some((&stop.guest, ByteSize::from_bytes(disk.size)))
    });
    let kept: Vec<_> = kept.collect();
    // Of several that go, nobody knows whose other name it is.
    let heir =
        if kept.len() == 1 { heir(plan, observed, wanted).filter(|heir| !is_locked(heir)) } else { None };
    let told = |(guest, size): &(&GuestName, ByteSize)| {
        let stays = format!("the data disk of {guest} ({size}) stays in the store");
        match heir {
            Some(heir) => format!(
                "{stays}, and {heir} starts with an empty one. If {heir} is {guest} by another name, first take {guest} \
                 down (`sisforge down {guest}`), then `sisforge disk export {guest} FILE` and `sisforge disk \
                 import {heir} FILE`"
            ),
            None => format!(
                "{stays}: `sisforge disk export {guest} FILE` takes what is on it out, `sisforge disk rm {guest}` removes it"
            ),
        }
    };
    kept.iter().map(told).collect()
}

/// The one guest that is new and keeps a disk, if there is just one.
fn heir<'a>(plan: &'a Plan, observed: &ObservedHost, wanted: &WantedHost) -> Option<&'a GuestName> {
    let is_new = |start: &&GuestSteps| {
        start.starts() && observed.guests.get(&start.guest).is_none_or(|have| have.disk.is_none())
    };
    let keeps =
        |start: &&GuestSteps| wanted.guests.get(&start.guest).is_some_and(|guest| guest.disk.is_some());
    let mut new = plan
        .start
        .iter()
        .filter(|start| is_new(start) && keeps(start))
        .filter(|start| !plan.stop.iter().any(|stop| stop.guest == start.guest));
    let first = new.next()?;
    new.next().is_none().then_some(&first.guest)
}
