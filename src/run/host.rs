//! The host of a fleet, opened to be looked at or to be changed.

use std::path::PathBuf;

use crate::apply::linux::{LinuxHost, Scope};
use crate::apply::{ApplyError, Host, preflight, store};
use crate::base::FleetName;
use crate::fleet::{HostSpec, LogLimits};
use crate::host::layout::Layout;
use crate::host::observed::ObservedHost;
use crate::sys::cgroup;
use crate::sys::fs::{self, FileLock};
use crate::sys::netns::{self, Presence};
use crate::sys::report::Report;

use super::RunError;

/// The host of a fleet, to look at; who changes it holds it ([`hold`]).
pub fn open(host: &HostSpec, fleet: &FleetName) -> Result<LinuxHost, RunError> {
    require_root()?;
    let layout = Layout::new(host, fleet);
    preflight::place(&layout)?;
    at(layout, host.logs, Scope::WholeHost)
}

/// What this host has of a fleet, as far as whoever asks may know it: nothing where it is not the fleet's, or who asks is not root.
pub(super) fn look(host: &HostSpec, fleet: &FleetName) -> Result<ObservedHost, RunError> {
    let netns = Layout::new(host, fleet).netns();
    let is_there = netns::presence(&netns).map_err(ApplyError::from)? == Presence::There;
    match is_there && require_root().is_ok() {
        true => Ok(open(host, fleet)?.observe()?),
        false => Ok(ObservedHost::default()),
    }
}

/// A host whose store is somewhere.
pub(super) fn at(layout: Layout, logs: LogLimits, scope: Scope) -> Result<LinuxHost, RunError> {
    Ok(LinuxHost { logs, ..LinuxHost::new(layout, scope, cgroup::detect()?, program()?) })
}

/// This program itself, to be started again.
pub(super) fn program() -> Result<PathBuf, RunError> {
    std::env::current_exe().map_err(RunError::Program)
}

/// Holds the fleet's host for this process alone, waiting for another that does.
pub(super) fn hold(layout: &Layout, report: &dyn Report) -> Result<FileLock, RunError> {
    fs::create_private_dir(&layout.dir())?;
    let lock = match FileLock::attempt(&layout.lock())? {
        Some(lock) => lock,
        None => {
            report.note("waiting for another sisforge that is changing this fleet");
            FileLock::wait(&layout.lock())?
        }
    };
    // Looked at again: whoever held it may have used another place.
    preflight::place(layout)?;
    preflight::keep_place(layout)?;
    fs::remove(&layout.new_key())?;
    store::seal_all(layout)?;
    Ok(lock)
}

/// What changes or looks into a host needs root; building does not.
pub(super) fn require_root() -> Result<(), RunError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(RunError::NotRoot) }
}
