//! Quarantine: a guest is cut off from every network, and brought back. Of `fleet.toml` its name and its store are read and nothing
//! else, the host is held by nobody, and no plan is made.

use crate::apply::record::quarantine as applied;
use crate::apply::{ApplyError, observe, record};
use crate::base::GuestName;
use crate::host::layout::Layout;
use crate::sys::cgroup;

use super::error::GuestError;
use super::events::{self, FleetEvent};
use super::guests::{declared, named};
use super::{RunError, Workspace, host};

/// Cuts a guest off.
pub fn quarantine(workspace: &Workspace<'_>, name: &str) -> Result<GuestName, RunError> {
    let (layout, guest) = find(workspace, name)?;
    applied::cut_off(&layout, &guest).map_err(ApplyError::from)?;
    events::record(&layout, [FleetEvent::Quarantined { guest: guest.to_string() }]);
    Ok(guest)
}

/// What came of a release.
#[derive(Clone, Debug)]
pub struct Released {
    pub guest: GuestName,
    /// Whether it was cut off before.
    pub was_cut_off: bool,
}

/// Brings a guest back.
pub fn release(workspace: &Workspace<'_>, name: &str) -> Result<Released, RunError> {
    let (layout, guest) = find(workspace, name)?;
    let was_cut_off = applied::release(&layout, &guest).map_err(ApplyError::from)?;
    let event = was_cut_off.then(|| FleetEvent::Released { guest: guest.to_string() });
    events::record(&layout, event);
    Ok(Released { guest, was_cut_off })
}

/// A guest of which the store or the host has something: one that runs may be of another store.
fn find(workspace: &Workspace<'_>, name: &str) -> Result<(Layout, GuestName), RunError> {
    let head = workspace.head()?;
    host::require_root()?;
    let layout = head.layout();
    let mut known = record::guests(&layout)?;
    known.extend(applied::all(&layout).map_err(ApplyError::from)?);
    known.extend(applied::unrecorded(&layout).map_err(ApplyError::from)?);
    // Nothing that cannot be told of cgroups keeps a guest from being cut off.
    known.extend(
        cgroup::detect().map(|hierarchy| observe::in_cgroups(&layout, &hierarchy)).unwrap_or_default(),
    );
    let guest = named(&[name.to_owned()], &known).map(|mut found| found.remove(0));
    Ok((layout, guest.map_err(|unknown| never_started(workspace, name).unwrap_or(unknown))?))
}

/// Says of a guest that is declared alone that there is nothing of it yet. A file with a mistake declares none.
fn never_started(workspace: &Workspace<'_>, name: &str) -> Option<RunError> {
    let fleet = workspace.fleet().ok()?;
    declared(name, &fleet).ok().map(|guest| GuestError::NeverStarted(guest).into())
}
