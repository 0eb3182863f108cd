//! Who has a guest of a pool: a record beside the guest's others. It is `spare.json` while the guest waits, and `session.json` from
//! the rename on by which somebody takes it, so that of two who try one gets it, and nobody needs to hold the host for it.
//! It goes with the guest's jail.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::base::time::parse_rfc3339;
use crate::base::{GuestName, Label};
use crate::host::layout::Layout;
use crate::host::observed::PoolRole;
use crate::host::pool::CLAIM_LIMIT;
use crate::host::state::{Session, SpareSpec};
use crate::sys::fs::FileError;
use crate::sys::process::ProcessInfo;

use super::{Record, Unreadable, Unwritten, read, write};

/// `spare.json` or `session.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// The VMM's process, so that a later one is not taken for it.
    pub pid: u32,
    /// In clock ticks since the host's boot.
    pub start_time: u64,
    pub pool: Label,
    pub paused: bool,
    /// Seconds.
    pub ttl: Option<u64>,
    /// The container with which its session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_with: Option<Label>,
    /// Written by whoever took it, right after.
    #[serde(default)]
    pub session: Option<Session>,
    /// Whether its session was ended: it is only waited for that it goes.
    #[serde(default)]
    pub is_over: bool,
}

impl Record for PoolRecord {
    const VERSION: u32 = 1;
}

impl PoolRecord {
    /// Of a guest that waits from now on.
    pub fn spare(vmm: &ProcessInfo, spare: &SpareSpec) -> Self {
        Self {
            pid: vmm.pid,
            start_time: vmm.start_time,
            pool: spare.pool.clone(),
            paused: spare.paused,
            ttl: spare.ttl.map(|ttl| ttl.as_secs()),
            ends_with: spare.ends_with.clone(),
            session: None,
            is_over: false,
        }
    }

    /// Whether it tells of this VMM, and not of an earlier one of the guest.
    pub fn is_of(&self, vmm: &ProcessInfo) -> bool {
        (self.pid, self.start_time) == (vmm.pid, vmm.start_time)
    }

    fn spec(&self) -> SpareSpec {
        let (pool, ttl) = (self.pool.clone(), self.ttl.map(Duration::from_secs));
        SpareSpec { pool, paused: self.paused, ttl, ends_with: self.ends_with.clone() }
    }
}

/// What a guest whose VMM runs is there for.
pub fn role(layout: &Layout, guest: &GuestName, vmm: &ProcessInfo) -> Result<Option<PoolRole>, Unreadable> {
    if let Some(taken) = taken(layout, guest)?.filter(|record| record.is_of(vmm)) {
        return Ok(Some(match taken.session.filter(|_| !taken.is_over) {
            Some(session) if session.expires.as_deref().is_some_and(is_past) => PoolRole::Used,
            Some(session) => PoolRole::InUse(session),
            None if !taken.is_over && is_being_taken(layout, guest) => PoolRole::InUse(Session {
                pool: taken.pool,
                label: None,
                started: String::new(),
                expires: None,
                disk: None,
                ends_with: None,
            }),
            None => PoolRole::Used,
        }));
    }
    let spare: Option<PoolRecord> = read(&layout.spare(guest))?;
    Ok(spare.filter(|record| record.is_of(vmm)).map(|record| PoolRole::Spare(record.spec())))
}

/// The same where no record of it can be read: somebody may have it, and keeps it; one that only waited is replaced.
pub fn role_unread(layout: &Layout, guest: &GuestName) -> Option<PoolRole> {
    if !layout.session(guest).exists() {
        return Some(PoolRole::Used);
    }
    let pool = guest.as_str().rsplit_once('-')?.0.parse().ok()?;
    Some(PoolRole::InUse(Session {
        pool,
        label: None,
        started: String::new(),
        expires: None,
        disk: None,
        ends_with: None,
    }))
}

/// The record of a guest that somebody took.
pub fn taken(layout: &Layout, guest: &GuestName) -> Result<Option<PoolRecord>, Unreadable> {
    read(&layout.session(guest))
}

/// A time that cannot be read is none that comes.
fn is_past(time: &str) -> bool {
    parse_rfc3339(time).is_ok_and(|time| time <= SystemTime::now())
}

/// Whether it was renamed a moment ago, by somebody who may be about to say more.
fn is_being_taken(layout: &Layout, guest: &GuestName) -> bool {
    let renamed = fs::metadata(layout.session(guest)).map(|meta| meta.ctime()).unwrap_or_default();
    let renamed = SystemTime::UNIX_EPOCH + Duration::from_secs(renamed.max(0).unsigned_abs());
    renamed.elapsed().is_ok_and(|since| since < CLAIM_LIMIT)
}

/// Whether a guest waits in this pool. Its name does not tell: that of another pool may go on where this one's ends.
pub fn waits_in(layout: &Layout, guest: &GuestName, pool: &Label) -> bool {
    // Nobody is given one whose record cannot be read, and `up` replaces it.
    read(&layout.spare(guest)).is_ok_and(|spare: Option<PoolRecord>| spare.is_some_and(|s| s.pool == *pool))
}

/// Takes a spare guest, if it is still there to be taken: whoever comes second does not get it.
pub fn take(layout: &Layout, guest: &GuestName) -> Result<Option<PoolRecord>, Unreadable> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (spare, session) = (layout.spare(guest), layout.session(guest));
    match renameat_with(CWD, &spare, CWD, &session, RenameFlags::NOREPLACE) {
        Ok(()) => taken(layout, guest),
        // Taken, or withdrawn; or taken by somebody who was killed, and not yet cleared away.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::EXIST) => Ok(None),
        Err(error) => Err(FileError::when("take", &spare)(error.into()).into()),
    }
}

/// Says whose it is, or that it is nobody's any more.
pub fn keep(layout: &Layout, guest: &GuestName, record: &PoolRecord) -> Result<(), Unwritten> {
    write(&layout.session(guest), record)
}

/// Makes a spare guest one that cannot be taken. `false` where somebody took it.
pub fn withdraw(layout: &Layout, guest: &GuestName) -> Result<bool, FileError> {
    match fs::remove_file(layout.spare(guest)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(!layout.session(guest).exists()),
        Err(error) => Err(FileError::when("remove", &layout.spare(guest))(error)),
    }
}
