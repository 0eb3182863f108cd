//! The host of a fleet, opened to be looked at or to be changed.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::apply::linux::{LinuxHost, Scope};
use crate::apply::{ApplyError, Host, preflight, store};
use crate::base::diagnostic::one_line;
use crate::fleet::{FleetHead, LogLimits};
use crate::host::layout::Layout;
use crate::host::observed::ObservedHost;
use crate::sys::cgroup;
use crate::sys::fs::{self, FileError, FileLock};
use crate::sys::lock_holder::{LockHolder, lock_holder};
use crate::sys::netns::{self, Presence};
use crate::sys::report::Report;

use super::RunError;

/// The host of a fleet, to look at; who changes it holds it ([`hold`]).
pub fn open(fleet: &FleetHead) -> Result<LinuxHost, RunError> {
    require_root()?;
    let layout = fleet.layout();
    preflight::check_jails_root(&layout)?;
    at(layout, fleet.host.logs, Scope::WholeHost)
}

/// What this host has of a fleet, as far as whoever asks may know it: nothing where it is not the fleet's, or who asks is not root.
pub(super) fn look(fleet: &FleetHead) -> Result<ObservedHost, RunError> {
    let netns = fleet.layout().netns();
    let is_there = netns::presence(&netns).map_err(ApplyError::from)? == Presence::There;
    match is_there && require_root().is_ok() {
        true => Ok(open(fleet)?.observe()?),
        false => Ok(ObservedHost::default()),
    }
}

/// A host whose store is somewhere.
pub(super) fn at(layout: Layout, logs: LogLimits, scope: Scope) -> Result<LinuxHost, RunError> {
    Ok(LinuxHost { logs, ..LinuxHost::new(layout, scope, cgroup::detect()?, program()?) })
}

/// This program itself, to be started again.
pub fn program() -> Result<PathBuf, RunError> {
    std::env::current_exe().map_err(RunError::Program)
}

/// Holds the fleet's host for this process alone, waiting for another that does.
pub(super) fn hold(layout: &Layout, report: &dyn Report) -> Result<FileLock, RunError> {
    fs::create_private_dir(&layout.dir())?;
    let lock = take_lock(layout, report)?;
    // Looked at again: whoever held it may have used another place.
    preflight::check_jails_root(layout)?;
    settle(layout)?;
    Ok(lock)
}

/// Holds the fleet's host to remove guests: a store that cannot be written to keeps nobody from that.
pub(super) fn hold_to_remove(layout: &Layout, report: &dyn Report) -> Result<FileLock, RunError> {
    let lock = match fs::create_private_dir(&layout.dir()).and_then(|()| take_lock(layout, report)) {
        Err(error) if is_about_writing(&error) => {
            report.note(&format!(
                "{}; this goes on, and nothing keeps another sisforge from this fleet meanwhile",
                one_line(&error)
            ));
            FileLock::without_file()
        }
        taken => taken?,
    };
    preflight::check_jails_root(layout)?;
    if let Err(error) = settle(layout) {
        report.note(&format!("{}; guests are stopped all the same", one_line(&error)));
    }
    Ok(lock)
}

/// Whether a file system takes nothing more.
fn is_about_writing(error: &FileError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let is_broken = error.source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    is_broken || matches!(error.source.kind(), ReadOnlyFilesystem | StorageFull | QuotaExceeded)
}

/// Puts down and puts right what every change goes out from.
fn settle(layout: &Layout) -> Result<(), RunError> {
    preflight::record_jails_root(layout)?;
    fs::remove(&layout.new_key())?;
    Ok(store::seal_all(layout)?)
}

/// How often is looked again whom a process waits for.
const LOOKED_EVERY: Duration = Duration::from_secs(2);

/// Takes the fleet's lock, and says for whom it waits.
fn take_lock(layout: &Layout, report: &dyn Report) -> Result<FileLock, FileError> {
    let path = layout.lock();
    if let Some(lock) = FileLock::attempt(&path)? {
        return Ok(lock);
    }
    thread::scope(|scope| {
        let (waiting, over) = mpsc::channel::<()>();
        let told = path.clone();
        scope.spawn(move || {
            let mut last = String::new();
            loop {
                let note = waits_for(lock_holder(&told));
                if note != last {
                    report.info(&note);
                }
                last = note;
                if over.recv_timeout(LOOKED_EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
        let lock = FileLock::wait(&path);
        drop(waiting);
        lock
    })
}

/// What whoever waits for a fleet is told.
fn waits_for(holder: Option<LockHolder>) -> String {
    let waits = "waiting for another sisforge that is changing this fleet";
    match holder {
        None => waits.to_owned(),
        Some(LockHolder { pid, command, is_stopped: false }) => format!("{waits}: process {pid} ({command})"),
        Some(LockHolder { pid, command, is_stopped: true }) => format!(
            "{waits}: process {pid} ({command}), which is stopped: let it go on with `kill -CONT {pid}`, or end it with \
             `kill -KILL {pid}`; this completes what it began"
        ),
    }
}

/// What changes or looks into a host needs root; building does not.
pub(super) fn require_root() -> Result<(), RunError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(RunError::NotRoot) }
}
