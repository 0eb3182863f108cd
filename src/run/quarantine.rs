//! Quarantine: a guest is cut off from every network, and brought back. Of `fleet.toml` its name and its store are read and nothing
//! else, the host is held by nobody, and no plan is made.

use crate::apply::record::quarantine as applied;
use crate::apply::{ApplyError, observe};
use crate::base::GuestName;
use crate::fleet;
use crate::host::layout::Layout;

use super::events::{self, FleetEvent};
use super::guest_error::GuestError;
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

/// A guest of which the store has something.
fn find(workspace: &Workspace<'_>, name: &str) -> Result<(Layout, GuestName), RunError> {
    let head = fleet::head(&workspace.settings.file)?;
    host::require_root()?;
    let layout = Layout::new(&head.host, &head.name);
    let known = observe::recorded(&layout)?;
    let cut_off = applied::all(&layout).map_err(ApplyError::from)?;
    let all: std::collections::BTreeSet<&GuestName> = known.iter().chain(cut_off.keys()).collect();
    let guest = named(&[name.to_owned()], all).map(|mut found| found.remove(0));
    Ok((layout, guest.map_err(|unknown| never_started(workspace, name).unwrap_or(unknown))?))
}

/// Says of a guest that is declared alone that there is nothing of it yet. A file with a mistake declares none.
fn never_started(workspace: &Workspace<'_>, name: &str) -> Option<RunError> {
    let fleet = workspace.fleet().ok()?;
    declared(name, &fleet).ok().map(|guest| GuestError::NeverStarted(guest).into())
}
