//! What a guest's logs are: which pipe becomes which, as data. A keeper copies the one to the other (`sys/log`), so that
//! a VMM's pipes are all that it writes to, and its logs have bounds that it does not know.

use std::path::PathBuf;

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
