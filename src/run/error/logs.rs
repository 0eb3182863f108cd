//! What stands against showing a log.

use crate::base::{Class, Diagnosis, Diagnostic, GuestName};

/// Why a guest has no such log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{0} has no log of an earlier start: none is kept from before this one")]
    NoPrevious(GuestName),
    #[error("{0} has no metrics: its VMM writes none")]
    NoMetrics(GuestName),
    #[error("{0} has no such log: it was never started on this host")]
    NeverStarted(GuestName),
}

impl Diagnostic for LogError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::Failed;
        match self {
            Self::NoPrevious(guest) => {
                Failed.hint(format!("`sisforge logs {guest}` shows that of this start"))
            }
            Self::NoMetrics(_) => Failed.hint(
                "`metrics = true` in its `machine` has Firecracker write them, from its next start on; QEMU has none",
            ),
            Self::NeverStarted(_) => Failed.no_hint(),
        }
    }
}
