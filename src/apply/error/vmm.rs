//! What stands against a guest's VMM, its jail, and the keeper of its logs.

use std::time::Duration;

use crate::apply::exit_cause::ExitCause;
use crate::base::{Class, Diagnosis, Diagnostic, GuestName};

/// Why a VMM does not start, does not get its guest ready, or does not end.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    #[error("the VMM of {guest} was not in the cgroup {cgroup} for every controller, and was killed")]
    NotInCgroup { guest: GuestName, cgroup: String },
    #[error("the VMM of {guest} was killed by the kernel: out of memory{}{}", limit_of(.limit), indented(.last_lines))]
    OutOfMemory { guest: GuestName, limit: Option<u64>, last_lines: Vec<String> },
    #[error("the VMM of {guest} ended before the guest was ready{}{}", what(.why), indented(.last_lines))]
    Ended { guest: GuestName, why: ExitCause, last_lines: Vec<String> },
    #[error("the VMM of {0} exited in the meantime")]
    Gone(GuestName),
    #[error("{guest} was not ready within {} s{}", .after.as_secs(), indented(.last_lines))]
    NotReady { guest: GuestName, after: Duration, last_lines: Vec<String> },
    #[error("services of {guest} did not start: {services}{}", indented(.last_lines))]
    Services { guest: GuestName, services: String, last_lines: Vec<String> },
    #[error("cannot remove all jails of {guest}{}", indented(.left))]
    NotRemoved { guest: GuestName, left: Vec<String> },
    #[error("the data disk of {0} is gone: it was in memory, or in a jail that was removed")]
    DiskGone(GuestName),
    #[error("{0} has no jail to start in")]
    NoJail(GuestName),
    #[error("{0} was handed out meanwhile, and is left as it is")]
    HandedOut(GuestName),
    #[error("the VMM of {0} does not exit, not even after SIGKILL")]
    DoesNotEnd(GuestName),
    #[error("the logs of {guest} are not kept: `sisforge keep-logs` does not start{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    NoKeeper { guest: GuestName, said: String },
    #[error("the process that keeps the logs of {0} does not exit, not even after SIGKILL")]
    KeeperDoesNotEnd(GuestName),
}

// Hints that take more than a line.
const IN_THE_KERNEL: &str = "it is blocked in the kernel, perhaps waiting for a disk: `dmesg` may say why; a reboot of the host \
     ends it";
const WHAT_STAYS: &str = "`lsattr` shows files that are immutable, `fuser -vm` shows who uses a mount";

impl Diagnostic for VmmError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::Failed;
        match self {
            Self::OutOfMemory { .. } => {
                Failed.hint("give the guest more `memory`, or a smaller disk in memory")
            }
            Self::Ended { why: ExitCause { remedy: Some(remedy), .. }, .. } => Failed.hint(*remedy),
            Self::Ended { guest, .. } | Self::Gone(guest) => {
                Failed.hint(format!("`sisforge logs {guest} --vmm` shows what its VMM said"))
            }
            Self::NotReady { guest, .. } => Failed.hint(format!(
                "`sisforge logs {guest}` shows its serial console; `sisforge up --timeout SECONDS` waits longer"
            )),
            Self::Services { guest, .. } => {
                Failed.hint(format!("`sisforge logs {guest}` shows what it said"))
            }
            Self::NotRemoved { .. } => Failed.hint(WHAT_STAYS),
            Self::HandedOut(_) => Failed.hint("run the command again: it goes by what is there then"),
            Self::NoJail(_) => Failed.hint("`sisforge up` makes one"),
            Self::DoesNotEnd(_) | Self::KeeperDoesNotEnd(_) => Failed.hint(IN_THE_KERNEL),
            // What to do is in their words, or nothing is known.
            Self::NotInCgroup { .. } | Self::NoKeeper { .. } | Self::DiskGone(_) => Failed.no_hint(),
        }
    }
}

fn what(why: &ExitCause) -> String {
    why.what.as_ref().map(|what| format!(": {what}")).unwrap_or_default()
}

fn limit_of(bytes: &Option<u64>) -> String {
    bytes.map(|bytes| format!(" (limit {} MiB)", bytes >> 20)).unwrap_or_default()
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}
