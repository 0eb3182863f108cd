//! Down: guests go, and everything of them but their data disks.

use std::time::Duration;

use crate::apply::Host;
use crate::apply::disk::{self, DiskBacking, DiskFile};
use crate::apply::linux::{LinuxHost, STOP_TIMEOUT};
use crate::apply::observe;
use crate::apply::snapshot::{self, SnapshotState, StoredSnapshot};
use crate::base::{GuestName, SnapshotName};
use crate::plan::Plan;
use crate::sys::interrupt;

use super::fleet_host::{FleetHost, OpenedHost};
use super::guests::named;
use super::held::Held;
use super::{Outcome, RunError, Workspace};

/// What to take down.
#[derive(Clone, Debug)]
pub struct DownRequest {
    /// These guests alone; all where none is named.
    pub guests: Vec<String>,
    /// How long a guest may take to shut down before it is killed.
    pub stop_timeout: Duration,
}

impl Default for DownRequest {
    fn default() -> Self {
        Self { guests: Vec::new(), stop_timeout: STOP_TIMEOUT }
    }
}

/// A host that is held, and what would be taken from it.
pub struct Down<'a> {
    held: Held<FleetHost<'a>>,
    pub plan: Plan,
    /// The guests that go, those of which only disks and logs are left among them.
    pub guests: Vec<GuestName>,
    /// Whether the whole fleet goes.
    of_all: bool,
}

/// Holds the host and finds out what is to be done; `None` where it never had anything of the fleet.
pub fn prepare<'a>(
    workspace: &'a Workspace<'a>,
    request: &DownRequest,
) -> Result<Option<Down<'a>>, RunError> {
    let host = OpenedHost::open(workspace)?.host;
    // A store that was removed ends no guest: cgroups and TAPs tell of those that run.
    if !host.layout.dir().exists() && observe::is_bare(&host.observe()?) {
        return Ok(None);
    }
    let mut held = FleetHost::hold_to_remove(workspace)?;
    held.host.stop_timeout = request.stop_timeout;
    let names = named(&request.guests, held.observed.guests.keys().chain(&held.declared))?;
    let plan = held.removal(&names);
    let of_all = names.is_empty();
    let guests = if of_all { held.there()? } else { names };
    Ok(Some(Down { held, plan, guests, of_all }))
}

impl Down<'_> {
    /// Takes the guests down.
    pub fn carry_out(self) -> Result<Outcome, RunError> {
        self.held.carry_out(self.plan)
    }

    /// Takes the guests down, and then removes their data disks, logs and records for good; these stay where a guest did not
    /// go. Whoever calls this has asked. Gives what is kept all the same, too.
    pub fn purge(self) -> Result<(Outcome, KeptBehind), RunError> {
        let _deferral = interrupt::defer();
        let outcome = self.held.carry_out(self.plan)?;
        let host = &self.held.host;
        if outcome.is_complete() {
            self.guests.iter().try_for_each(|guest| host.guest(guest).purge())?;
        }
        let kept =
            KeptBehind::find(host, |guest| self.of_all || guest.is_some_and(|it| self.guests.contains(it)))?;
        Ok((outcome, kept))
    }
}

/// What stays of a fleet or of guests whose data disks were removed: what users brought, what a restore set aside, and snapshots.
#[derive(Clone, Debug, Default)]
pub struct KeptBehind {
    /// As `disk rm` names them.
    pub disks: Vec<String>,
    pub snapshots: Vec<SnapshotName>,
}

impl KeptBehind {
    /// `None` stands for no guest in particular.
    fn find(host: &LinuxHost, is_asked_about: impl Fn(Option<&GuestName>) -> bool) -> Result<Self, RunError> {
        let owner = |disk: &DiskFile| disk.guest.clone().filter(|_| disk.session.is_none());
        let mut disks = disk::all(host)?;
        disks.retain(|disk| disk.backing == DiskBacking::File && is_asked_about(owner(disk).as_ref()));
        let mut snapshots = snapshot::list(&host.layout)?;
        let guest = |one: &StoredSnapshot| one.manifest.as_ref().map(|manifest| manifest.guest.clone());
        snapshots.retain(|one| one.place == SnapshotState::Ready && is_asked_about(guest(one).as_ref()));
        Ok(Self {
            disks: disks.into_iter().map(|disk| disk.name).collect(),
            snapshots: snapshots.into_iter().map(|one| one.name).collect(),
        })
    }
}
