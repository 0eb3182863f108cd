//! Sessions: a guest of a pool is handed out, and taken back for good.
//!
//! Whoever takes one holds nothing: a rename decides between two who want the same guest (`apply/record/pool.rs`), so that nobody
//! waits for an `up` that starts others. Of `fleet.toml` the fleet's name and its store are read and nothing else.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::apply::linux::LinuxHost;
use crate::apply::record::pool::PoolRecord;
use crate::apply::record::quarantine;
use crate::apply::session_disk::{self, DiskMount, HeldSessionDisk};
use crate::apply::{ApplyError, network, observe};
use crate::base::time::{now, rfc3339};
use crate::base::{GuestName, InvalidValue, Label};
use crate::fleet::{self, suggest};
use crate::host::observed::PoolRole;
use crate::host::publish::PublishedPort;
use crate::host::state::{Session, SpareSpec};
use crate::sys::interrupt;

use super::events::{self, FleetEvent};
use super::fleet_host::FleetHost;
use super::session_error::SessionError;
use super::{Outcome, RunError, Workspace, host};

/// How often it is looked for a spare that is waited for.
const POLL: Duration = Duration::from_millis(50);

/// A guest of a pool.
#[derive(Clone, Debug)]
pub struct PoolGuest {
    pub guest: GuestName,
    /// `None` where nobody recorded its machine.
    pub ip: Option<Ipv4Addr>,
    /// The ways in to it.
    pub published: Vec<PublishedPort>,
    pub pool: Label,
    pub state: PoolGuestState,
    /// What became of the disk that its session brought; `None` where it brought none, and where the guest was not waited for.
    pub mount: Option<DiskMount>,
}

/// How a guest of a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolGuestState {
    /// It waits to be handed out.
    Spare,
    /// Somebody has it.
    InUse(Session),
    /// Its session is over, and `up` or `watch` removes it.
    Over,
}

/// Whom a guest is handed out for.
#[derive(Clone, Debug, Default)]
pub struct SessionRequest {
    pub label: Option<String>,
    /// In place of the pool's.
    pub ttl: Option<Duration>,
    /// How long to wait for a guest where none is spare.
    pub wait: Duration,
    /// The kept disk that it brings; it is made where there is none of that name.
    pub disk: Option<Label>,
}

/// Bytes of the longest label. Longer is no name, and fits no table.
const LABEL_LIMIT: usize = 256;

/// What may be said of whom a guest is for.
pub fn label(text: &str) -> Result<String, InvalidValue> {
    match text.len() {
        0..=LABEL_LIMIT => Ok(text.to_owned()),
        _ => Err(InvalidValue(format!("must be at most {LABEL_LIMIT} bytes"))),
    }
}

/// Hands out a guest of a pool.
///
/// # Errors
/// Where none is spare, or the one that was taken does not run; another one is tried first.
pub fn start(
    workspace: &Workspace<'_>,
    pool: &Label,
    request: &SessionRequest,
) -> Result<PoolGuest, RunError> {
    let host = located(workspace)?;
    let begun = Instant::now();
    loop {
        let mut failed = None;
        let spares = spares(&host, pool)?;
        // Nothing is made for a disk that is not there while nobody could be given it.
        let is_there = |name: &&Label| !spares.is_empty() || host.layout.session_disk_dir(name).exists();
        let disk = request.disk.as_ref().filter(is_there);
        let disk = disk.map(|name| hold_disk(&host, name)).transpose()?;
        for guest in spares {
            match take(&host, &guest, request, disk.as_ref()) {
                Ok(Some(session)) => {
                    events::record(&host.layout, [FleetEvent::of_session(&guest, &session)]);
                    // Others may look for what is in it meanwhile.
                    let mount = disk.map(drop).map(|()| {
                        // The session has begun, whatever cannot be read.
                        host.guest(&guest).await_session_disk().unwrap_or(DiskMount::Untold)
                    });
                    let pool = session.pool.clone();
                    let taken = described(&host, guest, pool, PoolGuestState::InUse(session));
                    return Ok(PoolGuest { mount, ..taken });
                }
                Ok(None) => {}
                // Where it was about the disk, another guest makes no difference.
                Err(error) if disk.is_some() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        drop(disk);
        if let Some(error) = failed {
            return Err(error);
        }
        if begun.elapsed() >= request.wait {
            return Err(none_is_spare(workspace, pool)?.into());
        }
        interrupt::end_if_asked();
        thread::sleep(POLL);
    }
}

/// Every guest of a pool that somebody has, or that waits.
pub fn list(workspace: &Workspace<'_>) -> Result<Vec<PoolGuest>, RunError> {
    let host = located(workspace)?;
    let mut found = Vec::new();
    for guest in observe::recorded(&host.layout)? {
        let Some(vmm) = host.guest(&guest).vmm() else { continue };
        let (pool, state) = match host.guest(&guest).role(&vmm) {
            Some(PoolRole::Spare(spare)) => (spare.pool, PoolGuestState::Spare),
            Some(PoolRole::InUse(session)) => (session.pool.clone(), PoolGuestState::InUse(session)),
            Some(PoolRole::Used) => match host.guest(&guest).taken() {
                Ok(Some(record)) => (record.pool, PoolGuestState::Over),
                _ => continue,
            },
            None => continue,
        };
        found.push(described(&host, guest, pool, state));
    }
    Ok(found)
}

/// Lets a session last for so long from now on; without a time, until somebody ends it.
pub fn extend(workspace: &Workspace<'_>, name: &str, ttl: Option<Duration>) -> Result<PoolGuest, RunError> {
    let host = located(workspace)?;
    let (guest, record, session) = in_use(&host, name)?;
    let session = Session { expires: ttl.map(after), ..session };
    let record = PoolRecord { session: Some(session.clone()), ..record };
    host.guest(&guest).keep_session(&record)?;
    Ok(described(&host, guest, session.pool.clone(), PoolGuestState::InUse(session)))
}

/// A session that is over: nobody is let in to its guest any more than before, and it is about to go.
pub struct SessionEnding<'a> {
    workspace: &'a Workspace<'a>,
    pub guest: GuestName,
    record: PoolRecord,
}

/// Ends a session: from now on, its guest is nobody's.
pub fn end<'a>(workspace: &'a Workspace<'a>, name: &str) -> Result<SessionEnding<'a>, RunError> {
    let host = located(workspace)?;
    let (guest, record, _) = in_use(&host, name)?;
    let record = PoolRecord { is_over: true, ..record };
    host.guest(&guest).keep_session(&record)?;
    events::record(&host.layout, [FleetEvent::SessionEnded { guest: guest.to_string(), why: None }]);
    Ok(SessionEnding { workspace, guest, record })
}

impl SessionEnding<'_> {
    /// Removes the guest with all that it had, once nobody else holds the host; `None` where somebody has done so meanwhile.
    pub fn carry_out(self) -> Result<Option<Outcome>, RunError> {
        let held = FleetHost::hold(self.workspace)?;
        // By now, another guest may stand in its place. Whoever lengthened the session meanwhile came too late.
        let vmm = held.host.guest(&self.guest).vmm();
        if !vmm.is_some_and(|vmm| self.record.is_of(&vmm)) {
            return Ok(None);
        }
        held.carry_out(held.removal(std::slice::from_ref(&self.guest))).map(Some)
    }
}

/// Looks whether a guest is one that waits.
pub(super) fn refuse_spare(host: &LinuxHost, guest: &GuestName) -> Result<(), RunError> {
    let Some(vmm) = host.guest(guest).vmm() else { return Ok(()) };
    match host.guest(guest).role(&vmm) {
        Some(PoolRole::Spare(spare)) => {
            Err(SessionError::Spare { guest: guest.clone(), pool: spare.pool }.into())
        }
        Some(PoolRole::InUse(_) | PoolRole::Used) | None => Ok(()),
    }
}

/// Looks whether a guest has a disk that its session brought: a snapshot would go on with that disk as it was, while others changed it.
pub(super) fn refuse_session_disk(host: &LinuxHost, guest: &GuestName) -> Result<(), RunError> {
    match host.guest(guest).session_disk() {
        Some((disk, _)) => Err(SessionError::HasDisk { guest: guest.clone(), disk }.into()),
        None => Ok(()),
    }
}

fn located(workspace: &Workspace<'_>) -> Result<LinuxHost, RunError> {
    let head = fleet::head(&workspace.settings.file)?;
    host::require_root()?;
    host::open(&head.host, &head.name)
}

/// Guests of a pool that may be spare.
fn spares(host: &LinuxHost, pool: &Label) -> Result<Vec<GuestName>, RunError> {
    let mut guests = observe::recorded(&host.layout)?;
    // One of its name was cut off, and stays so until somebody releases it.
    let is_cut_off = |guest: &GuestName| quarantine::since(&host.layout, guest).is_some();
    guests.retain(|guest| host.guest(guest).waits_in(pool) && !is_cut_off(guest));
    Ok(guests.into_iter().collect())
}

/// A session's disk that is in no guest, and that nobody else gives away for as long as this is held.
fn hold_disk(host: &LinuxHost, name: &Label) -> Result<HeldSessionDisk, ApplyError> {
    let held = session_disk::hold(&host.layout, name)?;
    held.refuse_taken(host)?;
    Ok(held)
}

/// Takes a guest, says for whom, gives it its disk, and lets it run; `None` where another took it.
fn take(
    host: &LinuxHost,
    guest: &GuestName,
    request: &SessionRequest,
    disk: Option<&HeldSessionDisk>,
) -> Result<Option<Session>, RunError> {
    let handle = host.guest(guest);
    // Before it is taken, so that a mistake costs nobody a spare.
    disk.map_or(Ok(()), |disk| handle.prepare_session_disk(disk))?;
    let Some(record) = handle.take()? else { return Ok(None) };
    let ttl = request.ttl.or(record.ttl.map(Duration::from_secs));
    let session = Session {
        pool: record.pool.clone(),
        label: request.label.clone(),
        started: now(),
        expires: ttl.map(after),
        disk: disk.map(|disk| disk.name.clone()),
        ends_with: record.ends_with.clone(),
    };
    let record = PoolRecord { session: Some(session.clone()), ..record };
    let resume = || match record.paused {
        true => handle.resume_taken(&record),
        false => handle.vmm_taken(&record).map(drop),
    };
    let taken = handle
        .keep_session(&record)
        .and_then(|()| disk.map_or(Ok(()), |disk| handle.attach_session_disk(&record, disk)))
        .and_then(|()| resume())
        .and_then(|()| disk.map_or(Ok(()), |_| handle.announce_session_disk()));
    if let Err(error) = taken {
        // What does not run is nobody's; where this cannot be written either, it is in a moment.
        let _ = handle.keep_session(&PoolRecord { is_over: true, ..record });
        return Err(error.into());
    }
    Ok(Some(session))
}

/// A time so long from now (RFC 3339, UTC).
fn after(ttl: Duration) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.saturating_add(ttl).as_secs())
}

fn described(host: &LinuxHost, guest: GuestName, pool: Label, state: PoolGuestState) -> PoolGuest {
    let machine = host.guest(&guest).machine().ok().flatten();
    let mut published = network::published_last(&host.layout);
    published.retain(|way| way.guest == guest);
    PoolGuest { ip: machine.map(|machine| machine.ip), guest, published, pool, state, mount: None }
}

/// A guest that somebody has.
fn in_use(host: &LinuxHost, name: &str) -> Result<(GuestName, PoolRecord, Session), RunError> {
    let mut others = BTreeSet::new();
    for guest in observe::recorded(&host.layout)? {
        let Some(vmm) = host.guest(&guest).vmm() else { continue };
        let Some(PoolRole::InUse(session)) = host.guest(&guest).role(&vmm) else { continue };
        if guest.as_str() != name {
            others.insert(guest);
            continue;
        }
        // One whose record cannot be read is given another.
        let unread = || SpareSpec { pool: session.pool.clone(), paused: false, ttl: None, ends_with: None };
        let record = host.guest(&guest).taken().ok().flatten();
        let record = record.unwrap_or_else(|| PoolRecord::spare(&vmm, &unread()));
        return Ok((guest, record, session));
    }
    let hint = suggest("sessions", name, others.iter().map(GuestName::as_str));
    Err(SessionError::NoSession { name: name.to_owned(), hint }.into())
}

/// Why no guest of a pool could be handed out.
fn none_is_spare(workspace: &Workspace<'_>, pool: &Label) -> Result<SessionError, RunError> {
    let fleet = workspace.fleet()?;
    let members = fleet.guests.values().filter(|spec| spec.pool.as_ref() == Some(pool));
    match members.map(|spec| spec.warm.as_ref()).next() {
        Some(Some(warm)) => {
            let mut in_use = list(workspace)?;
            in_use.retain(|guest| guest.pool == *pool && guest.state != PoolGuestState::Spare);
            Ok(SessionError::NoSpare { pool: pool.clone(), in_use: in_use.len(), max: warm.max })
        }
        Some(None) => Ok(SessionError::FixedPool(pool.clone())),
        None => {
            let pools: BTreeSet<&str> =
                fleet.guests.values().filter_map(|spec| Some(spec.pool.as_ref()?.as_str())).collect();
            Ok(SessionError::NoPool { name: pool.to_string(), hint: suggest("pools", pool.as_str(), pools) })
        }
    }
}
