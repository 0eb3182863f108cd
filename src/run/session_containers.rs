//! Sessions that end with a container: asked of their guests by whoever is about to bring a host to what its fleet wants.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use crate::apply::containers::{self, ContainerState, ContainerStatus};
use crate::apply::linux::LinuxHost;
use crate::apply::record;
use crate::apply::record::pool::PoolRecord;
use crate::base::{GuestName, Label};
use crate::fleet::Fleet;
use crate::host::observed::PoolRole;

use super::events::{self, FleetEvent};
use super::{RunError, host};

/// A container whose program failed may be about to be started again by Podman: it is asked once more.
const AGAIN: Duration = Duration::from_secs(1);

/// Marks the sessions over whose container has ended, of guests that the host has; what is then done with these is a plan's. Nobody
/// holds the host meanwhile, since guests may take long to answer. One that does not answer keeps its session.
pub(super) fn end_with_containers(fleet: &Fleet) -> Result<(), RunError> {
    let Some((host, ended)) = ended_sessions(fleet)? else { return Ok(()) };
    for EndedSession { guest, record, why } in ended {
        host.guest(&guest).keep_session(&PoolRecord { is_over: true, ..record })?;
        events::record(&host.layout, [FleetEvent::SessionEnded { guest: guest.to_string(), why: Some(why) }]);
    }
    Ok(())
}

/// The guests whose sessions that would mark over. Nothing is marked.
pub(super) fn ending_with_containers(fleet: &Fleet) -> Result<BTreeSet<GuestName>, RunError> {
    let ended = ended_sessions(fleet)?.map(|(_, ended)| ended).unwrap_or_default();
    Ok(ended.into_iter().map(|session| session.guest).collect())
}

/// A session whose container has ended.
struct EndedSession {
    guest: GuestName,
    record: PoolRecord,
    why: String,
}

/// All such sessions; `None` where the fleet has no sessions.
fn ended_sessions(fleet: &Fleet) -> Result<Option<(LinuxHost, Vec<EndedSession>)>, RunError> {
    if fleet.guests.values().all(|guest| guest.warm.is_none()) {
        return Ok(None);
    }
    let host = host::open(&fleet.head())?;
    let sessions = sessions(&host)?;
    let mut ended = ended(&host, &sessions);
    if ended.iter().any(|status| has_failed(&status.state)) {
        thread::sleep(AGAIN);
        ended = self::ended(&host, &sessions);
    }
    let of_session = |status: ContainerStatus| {
        let (guest, record, name) = sessions.iter().find(|(guest, ..)| *guest == status.guest)?;
        // Somebody may have ended it meanwhile, and another guest stand in its place.
        host.guest(guest).vmm_taken(record).ok()?;
        let why = format!("its container {name} {}", words(&status.state));
        Some(EndedSession { guest: guest.clone(), record: record.clone(), why })
    };
    let ended = ended.into_iter().filter_map(of_session).collect();
    Ok(Some((host, ended)))
}

/// Those that end with a container.
fn sessions(host: &LinuxHost) -> Result<Vec<(GuestName, PoolRecord, Label)>, RunError> {
    let mut found = Vec::new();
    for guest in record::guests(&host.layout)? {
        // Most guests of a large fleet have no such record.
        if !host.layout.guest(&guest).session().exists() {
            continue;
        }
        let handle = host.guest(&guest);
        let Some(vmm) = handle.vmm() else { continue };
        let Some(PoolRole::InUse(session)) = handle.role(&vmm) else { continue };
        if let (Some(name), Ok(Some(record))) = (session.ends_with, handle.taken()) {
            found.push((guest, record, name));
        }
    }
    Ok(found)
}

/// Their containers that have ended.
fn ended(host: &LinuxHost, sessions: &[(GuestName, PoolRecord, Label)]) -> Vec<ContainerStatus> {
    let guests: Vec<GuestName> = sessions.iter().map(|(guest, ..)| guest.clone()).collect();
    let wanted: BTreeSet<(&GuestName, &Label)> =
        sessions.iter().map(|(guest, _, name)| (guest, name)).collect();
    let mut found = containers::all(host, &guests);
    found.retain(|status| {
        let has_ended = matches!(status.state, ContainerState::Exited(_) | ContainerState::Removed);
        has_ended && wanted.contains(&(&status.guest, &status.name))
    });
    found
}

fn has_failed(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Exited(code) if *code != 0)
}

fn words(state: &ContainerState) -> String {
    match state {
        ContainerState::Exited(code) => format!("exited with status {code}"),
        _ => "was removed".to_owned(),
    }
}
