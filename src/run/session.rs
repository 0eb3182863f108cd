//! Sessions: a guest of a pool is handed out, and taken back for good.
//!
//! Whoever takes one holds nothing: a rename decides between two who want the same guest (`apply/record/pool.rs`), so that nobody
//! waits for an `up` that starts others. Of `fleet.toml` the fleet's name and its store are read and nothing else.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::apply::linux::LinuxHost;
use crate::apply::record::pool::PoolRecord;
use crate::apply::record::quarantine::{self, CutOff};
use crate::apply::session_disk::{self, DiskMount, HeldSessionDisk};
use crate::apply::{ApplyError, network, record};
use crate::base::diagnostic::one_line;
use crate::base::time::{now, rfc3339};
use crate::base::{GuestName, InvalidValue, Label, SnapshotName};
use crate::fleet::{Fleet, GuestSpec, suggest};
use crate::host::observed::PoolRole;
use crate::host::publish::PublishedPort;
use crate::host::state::Session;
use crate::sys::interrupt;

use super::error::SessionError;
use super::events::{self, FleetEvent};
use super::fleet_host::FleetHost;
use super::{Outcome, RunError, Workspace};

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
    /// `None` where neither its record nor `fleet.toml` can be read.
    pub pool: Option<Label>,
    pub state: PoolGuestState,
    /// One that is cut off is not handed out.
    pub quarantined: Option<CutOff>,
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

/// Hands out a guest of a pool, as long as somebody asks for it.
///
/// # Errors
/// Where none is spare, or the one that was taken does not run; another one is tried first.
pub fn start(
    workspace: &Workspace<'_>,
    pool: &Label,
    request: &SessionRequest,
    is_asked: &dyn Fn() -> bool,
) -> Result<PoolGuest, RunError> {
    let host = workspace.head_host()?;
    let begun = Instant::now();
    let mut has_looked = false;
    loop {
        if !is_asked() {
            return Err(SessionError::NobodyAsks(pool.clone()).into());
        }
        if let Some(taken) = hand_out(&host, pool, request)? {
            return Ok(taken);
        }
        if begun.elapsed() >= request.wait {
            return Err(none_is_spare(workspace, &host, pool)?.into());
        }
        // No time brings one of a pool that is not there. A file with a mistake in it may be mended meanwhile.
        if !has_looked
            && let Ok(error) = none_is_spare(workspace, &host, pool)
            && !error.may_pass()
        {
            return Err(error.into());
        }
        has_looked = true;
        interrupt::end_if_asked();
        thread::sleep(POLL);
    }
}

/// Hands out the first spare that runs, and takes the disk where one is brought; `None` where there is none.
fn hand_out(host: &LinuxHost, pool: &Label, request: &SessionRequest) -> Result<Option<PoolGuest>, RunError> {
    let mut failed = None;
    let spares = spares(host, pool)?;
    // Nothing is made for a disk that is not there while nobody could be given it.
    let is_there = |name: &&Label| !spares.is_empty() || host.layout.session_disk_dir(name).exists();
    let disk = request.disk.as_ref().filter(is_there);
    let disk = disk.map(|name| hold_disk(host, name)).transpose()?;
    for guest in spares {
        match take(host, &guest, request, disk.as_ref()) {
            Ok(Some(session)) => {
                events::record(&host.layout, [FleetEvent::of_session(&guest, &session)]);
                // Others may look for what is in it meanwhile.
                let mount = disk.map(drop).map(|()| {
                    // The session has begun, whatever cannot be read.
                    host.guest(&guest).await_session_disk().unwrap_or(DiskMount::Untold)
                });
                let pool = session.pool.clone();
                let taken = described(host, guest, pool, PoolGuestState::InUse(session));
                return Ok(Some(PoolGuest { mount, ..taken }));
            }
            Ok(None) => {}
            Err(error) if disk.as_ref().is_some_and(|disk| !may_go_elsewhere(host, disk, &error)) => {
                return Err(error);
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Every guest of a pool that somebody has, or that waits.
pub fn list(workspace: &Workspace<'_>) -> Result<Vec<PoolGuest>, RunError> {
    let host = workspace.head_host()?;
    let mut found = Vec::new();
    // A file with a mistake in it does not say.
    let fleet = LazyCell::new(|| workspace.fleet().ok());
    let declared = |guest: &GuestName| Some(fleet.as_ref()?.guests.get(guest)?.pool.as_ref()?.pool.clone());
    for guest in record::guests(&host.layout)? {
        let Some(vmm) = host.guest(&guest).vmm() else { continue };
        let (pool, state) = match host.guest(&guest).role(&vmm) {
            Some(PoolRole::Spare(spare)) => (Some(spare.pool), PoolGuestState::Spare),
            Some(PoolRole::InUse(session)) => (session.pool.clone(), PoolGuestState::InUse(session)),
            Some(PoolRole::Raised) => continue,
            Some(PoolRole::Used) => match host.guest(&guest).taken() {
                Ok(Some(record)) => (record.pool, PoolGuestState::Over),
                _ => continue,
            },
            None => continue,
        };
        let pool = pool.or_else(|| declared(&guest));
        found.push(described(&host, guest, pool, state));
    }
    Ok(found)
}

/// Lets a session last for so long from now on; without a time, until somebody ends it.
pub fn extend(workspace: &Workspace<'_>, name: &str, ttl: Option<Duration>) -> Result<PoolGuest, RunError> {
    let host = workspace.head_host()?;
    let (guest, record, role) = session_of(&host, name)?;
    let PoolRole::InUse(session) = role else { return Err(SessionError::Over(guest).into()) };
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

/// Ends a session: from now on, its guest is nobody's. One that is over already, be it by its time or by somebody who was killed over
/// that, has its guest removed.
pub fn end<'a>(workspace: &'a Workspace<'a>, name: &str) -> Result<SessionEnding<'a>, RunError> {
    let host = workspace.head_host()?;
    let (guest, record, _) = session_of(&host, name)?;
    if record.is_over {
        return Ok(SessionEnding { workspace, guest, record });
    }
    let record = PoolRecord { is_over: true, ..record };
    // Nothing keeps a session from its end, not even a store that cannot be written to: the guest goes.
    if let Err(error) = host.guest(&guest).keep_session(&record) {
        workspace.report.note(&format!("{}; {guest} is removed all the same", one_line(&error)));
    }
    events::record(&host.layout, [FleetEvent::SessionEnded { guest: guest.to_string(), why: None }]);
    Ok(SessionEnding { workspace, guest, record })
}

impl SessionEnding<'_> {
    /// Removes the guest with all that it had, once nobody else holds the host; `None` where somebody has done so meanwhile.
    pub fn carry_out(self) -> Result<Option<Outcome>, RunError> {
        let held = FleetHost::hold_to_remove(self.workspace)?;
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
        Some(PoolRole::Raised | PoolRole::InUse(_) | PoolRole::Used) | None => Ok(()),
    }
}

/// Looks whether somebody has, or had, or may be given a guest: what is kept of one must not come back where another is.
pub(super) fn refuse_handed_out(
    workspace: &Workspace<'_>,
    host: &LinuxHost,
    guest: &GuestName,
) -> Result<(), RunError> {
    refuse_spare(host, guest)?;
    let handle = host.guest(guest);
    let has_role = handle.vmm().is_some_and(|vmm| handle.role(&vmm).is_some());
    // A file with a mistake in it does not say.
    let is_member = || workspace.fleet().is_ok_and(|fleet| is_handed_out(&fleet, guest));
    match has_role || is_member() {
        true => Err(SessionError::NoSnapshot(guest.clone()).into()),
        false => Ok(()),
    }
}

/// Looks whether a guest is of a pool whose guests are handed out: nobody is given what another had.
pub(super) fn refuse_as_target(
    fleet: &Fleet,
    snapshot: &SnapshotName,
    guest: &GuestName,
) -> Result<(), SessionError> {
    let (snapshot, guest_name) = (snapshot.clone(), guest.clone());
    match is_handed_out(fleet, guest) {
        true => Err(SessionError::NoRestore { snapshot, guest: guest_name }),
        false => Ok(()),
    }
}

fn is_handed_out(fleet: &Fleet, guest: &GuestName) -> bool {
    fleet.guests.get(guest).is_some_and(|spec| spec.warm.is_some())
}

/// Looks whether somebody has one of these guests: another that came in its place would not be theirs.
pub(super) fn refuse_in_use(host: &LinuxHost, guests: &[GuestName]) -> Result<(), RunError> {
    let in_use = guests.iter().find(|guest| {
        let vmm = host.guest(guest).vmm();
        vmm.is_some_and(|vmm| matches!(host.guest(guest).role(&vmm), Some(PoolRole::InUse(_))))
    });
    in_use.map_or(Ok(()), |guest| Err(SessionError::InUse(guest.clone()).into()))
}

/// Guests of a pool that may be spare.
fn spares(host: &LinuxHost, pool: &Label) -> Result<Vec<GuestName>, RunError> {
    let mut guests = record::guests(&host.layout)?;
    // One of its name was cut off, and stays so until somebody releases it.
    let is_cut_off = |guest: &GuestName| quarantine::of(&host.layout, guest).is_some();
    guests.retain(|guest| host.guest(guest).waits_in(pool) && !is_cut_off(guest));
    Ok(guests.into_iter().collect())
}

/// Whether another guest may have a disk that one did not get: where it was about the disk, that makes no difference, and each would
/// cost a spare; and what the first may have still is given to nobody else.
fn may_go_elsewhere(host: &LinuxHost, disk: &HeldSessionDisk, error: &RunError) -> bool {
    let is_about_disk = match error {
        RunError::Apply(ApplyError::SessionDisk(_)) => true,
        RunError::Apply(ApplyError::File(error)) => error.path == disk.path(),
        _ => false,
    };
    !is_about_disk && disk.refuse_taken(host).is_ok()
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
    if let Some(disk) = disk {
        handle.prepare_session_disk(disk)?;
    }
    let Some(record) = handle.take()? else { return Ok(None) };
    let ttl = request.ttl.or(record.ttl.map(Duration::from_secs));
    let session = Session {
        pool: record.pool.clone(),
        label: request.label.clone(),
        started: Some(now()),
        expires: ttl.map(after),
        disk: disk.map(|disk| disk.name.clone()),
        ends_with: record.ends_with.clone(),
    };
    let record = PoolRecord { session: Some(session.clone()), ..record };
    let begun = handle.keep_session(&record).and_then(|()| handle.begin_session(&record, disk));
    if let Err(error) = begun {
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

fn described(host: &LinuxHost, guest: GuestName, pool: Option<Label>, state: PoolGuestState) -> PoolGuest {
    let machine = host.guest(&guest).machine().ok().flatten();
    let mut published = network::published_last(&host.layout);
    published.retain(|way| way.guest == guest);
    let quarantined = quarantine::of(&host.layout, &guest);
    let ip = machine.map(|machine| machine.ip);
    PoolGuest { ip, guest, published, pool, state, quarantined, mount: None }
}

/// The session of a guest, in use or over, for as long as its VMM runs.
fn session_of(host: &LinuxHost, name: &str) -> Result<(GuestName, PoolRecord, PoolRole), RunError> {
    let recorded = record::guests(&host.layout)?;
    let role_of = |guest: &GuestName| {
        let vmm = host.guest(guest).vmm()?;
        Some((host.guest(guest).role(&vmm)?, vmm))
    };
    if let Some(guest) = recorded.iter().find(|guest| guest.as_str() == name) {
        let found = role_of(guest).and_then(|(role, vmm)| {
            let record = host.guest(guest).taken().ok().flatten().filter(|record| record.is_of(&vmm));
            let record = match &role {
                // One whose record cannot be read is given another.
                PoolRole::InUse(_) => record.or_else(|| Some(PoolRecord::unread(&vmm))),
                PoolRole::Used => record,
                PoolRole::Raised | PoolRole::Spare(_) => None,
            };
            Some((guest.clone(), record?, role))
        });
        return found.ok_or_else(|| SessionError::Nobodys(guest.clone()).into());
    }
    let has_session =
        |guest: &&GuestName| matches!(role_of(guest), Some((PoolRole::InUse(_) | PoolRole::Used, _)));
    let others: Vec<_> = recorded.iter().filter(has_session).map(GuestName::as_str).collect();
    let hint = suggest("sessions", name, others);
    Err(SessionError::NoSession { name: name.to_owned(), hint }.into())
}

fn is_member(spec: &GuestSpec, pool: &Label) -> bool {
    spec.pool.as_ref().is_some_and(|member| member.pool == *pool)
}

/// Why no guest of a pool could be handed out.
fn none_is_spare(
    workspace: &Workspace<'_>,
    host: &LinuxHost,
    pool: &Label,
) -> Result<SessionError, RunError> {
    let fleet = workspace.fleet()?;
    let members: Vec<_> = fleet.guests.iter().filter(|(_, spec)| is_member(spec, pool)).collect();
    match members.first().map(|(_, spec)| spec.warm.as_ref()) {
        Some(Some(warm)) => {
            let mut in_use = list(workspace)?;
            in_use.retain(|guest| guest.pool.as_ref() == Some(pool) && guest.state != PoolGuestState::Spare);
            let is_in_use = |name: &GuestName| in_use.iter().any(|guest| guest.guest == *name);
            let cut_off = members
                .iter()
                .map(|(name, _)| *name)
                .filter(|name| host.layout.quarantined(name).exists() && !is_in_use(name));
            let (cut_off, in_use) = (cut_off.cloned().collect(), in_use.len());
            Ok(SessionError::NoSpare { pool: pool.clone(), in_use, max: warm.max, cut_off })
        }
        Some(None) => Ok(SessionError::FixedPool(pool.clone())),
        None => {
            let pools: BTreeSet<&str> =
                fleet.guests.values().filter_map(|spec| Some(spec.pool.as_ref()?.pool.as_str())).collect();
            Ok(SessionError::NoPool { name: pool.to_string(), hint: suggest("pools", pool.as_str(), pools) })
        }
    }
}
