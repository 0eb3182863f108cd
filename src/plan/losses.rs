//! What a plan makes unreachable of what guests wrote: nothing that a step says by itself.

use crate::base::{ByteSize, GuestName};
use crate::host::observed::ObservedHost;
use crate::host::state::MachineDisk;
use crate::host::wanted::WantedHost;

use super::step::{GuestSteps, Plan};

/// What is lost, or stays behind, one sentence each.
pub fn losses(plan: &Plan, observed: &ObservedHost, wanted: &WantedHost) -> Vec<String> {
    let disks_in_jails: Vec<_> = plan.stop.iter().filter(|stop| has_own_disk(stop, observed)).collect();
    let lost = (!disks_in_jails.is_empty()).then(|| {
        let names: Vec<_> = disks_in_jails.iter().map(|stop| stop.guest.as_str()).collect();
        format!("what {} wrote is lost: its data disk goes with its jail", names.join(", "))
    });
    lost.into_iter().chain(stays_behind(plan, observed, wanted)).collect()
}

/// Whether what a guest that stops has written goes with its jail.
fn has_own_disk(stop: &GuestSteps, observed: &ObservedHost) -> bool {
    let guest = observed.guests.get(&stop.guest);
    let machine = guest.and_then(|guest| guest.machine());
    machine.is_some_and(|machine| matches!(machine.disk, MachineDisk::Ephemeral { .. }))
}

/// Kept data disks of guests that go: a user who was renamed finds another one.
fn stays_behind(plan: &Plan, observed: &ObservedHost, wanted: &WantedHost) -> Vec<String> {
    let goes = |stop: &&GuestSteps| !wanted.guests.contains_key(&stop.guest);
    let kept = plan.stop.iter().filter(goes).filter_map(|stop| {
        let disk = observed.guests.get(&stop.guest)?.disk?;
        Some((&stop.guest, ByteSize::from_bytes(disk.size)))
    });
    kept.map(|(guest, size)| {
        let stays = format!("the data disk of {guest} ({size}) stays in the store");
        match heir(plan, observed) {
            Some(heir) => format!(
                "{stays}, and {heir} starts with an empty one. If {heir} is {guest} by another name, first take {guest} \
                 down (`sisforge down {guest}`), then `sisforge disk export {guest} FILE` and `sisforge disk \
                 import {heir} FILE`"
            ),
            None => format!("{stays}: `sisforge disk rm {guest}` removes it"),
        }
    })
    .collect()
}

/// The one guest that is new, if there is just one.
fn heir<'a>(plan: &'a Plan, observed: &ObservedHost) -> Option<&'a GuestName> {
    let is_new = |start: &&GuestSteps| {
        start.starts() && observed.guests.get(&start.guest).is_none_or(|have| have.disk.is_none())
    };
    let mut new = plan
        .start
        .iter()
        .filter(is_new)
        .filter(|start| !plan.stop.iter().any(|stop| stop.guest == start.guest));
    let first = new.next()?;
    new.next().is_none().then_some(&first.guest)
}
