//! What a guest's logs are: which pipe becomes which, as data. A keeper copies the one to the other (`sys/log`), so that
//! a VMM's pipes are all that it writes to, and its logs have bounds that it does not know.

use std::path::{Path, PathBuf};

use crate::base::GuestName;
use crate::fleet::VmmKind;

use super::layout::Layout;
use super::names::{METRICS, VMM_LOG};

/// One of a guest's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// What the guest writes to its serial port.
    Serial,
    /// What the VMM says of itself, its jailer and its stderr included.
    Vmm,
    /// Firecracker's metrics where they are asked for, one JSON object a line: at its start and each minute.
    Metrics,
}

impl LogKind {
    /// The name of the file, without its ending.
    pub fn word(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Vmm => "vmm",
            Self::Metrics => "metrics",
        }
    }
}

/// A pipe, and the log that is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStream {
    pub kind: LogKind,
    pub pipe: PathBuf,
}

/// The pipes of a guest's VMM, whose jail's root is `root`. The serial port's comes first: it is the VMM's stdout, so it
/// ends when the VMM does. Firecracker opens its own by their names in the jail; where no metrics are asked for, there is no
/// pipe for them.
pub fn streams(layout: &Layout, guest: &GuestName, vmm: VmmKind, root: &Path) -> Vec<LogStream> {
    let stream = |kind, pipe| LogStream { kind, pipe };
    let serial = stream(LogKind::Serial, layout.pipe(guest, LogKind::Serial));
    match vmm {
        VmmKind::Qemu => vec![serial, stream(LogKind::Vmm, layout.pipe(guest, LogKind::Vmm))],
        VmmKind::Firecracker => vec![
            serial,
            stream(LogKind::Vmm, root.join(VMM_LOG)),
            stream(LogKind::Metrics, root.join(METRICS)),
        ],
    }
}
