//! Logs: what serial ports of guests and their VMMs said, as it grows.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::base::GuestName;
use crate::host::layout::Layout;
use crate::host::logs::LogKind;
use crate::sys::fs::FileError;
use crate::sys::log::{Reader, Start};

use super::error::LogError;
use super::{RunError, Workspace, reach};

/// A log of a guest that is read on.
#[derive(Debug)]
pub struct GuestLog {
    pub guest: GuestName,
    path: PathBuf,
    reader: Reader,
}

/// Logs of the guests that are named, which must be there; of all that have one where none is named.
pub fn open(
    workspace: &Workspace<'_>,
    names: &[String],
    kind: LogKind,
    start: Start,
) -> Result<Vec<GuestLog>, RunError> {
    let (host, guests) = reach::with_logs(workspace, names)?;
    let mut logs = Vec::new();
    for guest in guests {
        let path = host.layout.guest(&guest).log(kind);
        match Reader::open(&path, start).map_err(FileError::when("read", &path))? {
            Some(reader) => logs.push(GuestLog { guest, path, reader }),
            None if names.is_empty() => {}
            None => return Err(absent(&host.layout, guest, kind, start).into()),
        }
    }
    Ok(logs)
}

/// Why a guest that was named has no log of this kind.
fn absent(layout: &Layout, guest: GuestName, kind: LogKind, start: Start) -> LogError {
    if start == Start::Previous && layout.guest(&guest).log(kind).exists() {
        LogError::NoPrevious(guest)
    } else if kind == LogKind::Metrics && layout.guest(&guest).log(LogKind::Serial).exists() {
        LogError::NoMetrics(guest)
    } else {
        LogError::NeverStarted(guest)
    }
}

impl GuestLog {
    /// Gives what was written since the last time, until about now: a guest may write faster than it is read here.
    pub fn read(&mut self, mut take: impl FnMut(Option<SystemTime>, &[u8])) -> Result<(), RunError> {
        let now = SystemTime::now();
        while let Some((time, bytes)) = self.reader.read().map_err(FileError::when("read", &self.path))? {
            take(time, &bytes);
            if time.is_some_and(|time| time > now) {
                break;
            }
        }
        Ok(())
    }
}
