//! Why a VMM ended, from its exit status and from what it said, and what to say of its guest.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::PoisonError;

use crate::fleet::VmmKind;
use crate::host::state::Machine;
use crate::host::vmm;
use crate::sys::jailer::Cause;

use super::linux::GuestHandle;
use super::{ApplyError, VmmError};

/// Why a VMM ended, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitCause {
    pub what: Option<String>,
    pub remedy: Option<&'static str>,
}

/// From the log of one start and from how its process ended, where this process started it.
pub fn exit_cause(vmm: VmmKind, status: Option<ExitStatus>, log: &str) -> ExitCause {
    let vmm = vmm::of(vmm);
    if let Some(Cause { what, remedy }) = vmm.cause(log) {
        return ExitCause { what: Some(what.to_owned()), remedy: Some(remedy) };
    }
    let Some(status) = status else { return ExitCause::default() };
    let what = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal} killed it"),
        (None, Some(code)) => match vmm.exit_reason(code) {
            Some(reason) => format!("{reason} (status {code})"),
            None => format!("status {code}"),
        },
        (None, None) => return ExitCause::default(),
    };
    ExitCause { what: Some(what), remedy: status.code().and_then(|code| vmm.exit_remedy(code)) }
}

impl GuestHandle<'_> {
    /// What to say of a guest whose VMM is gone; `said` are the last lines of the VMM itself. What the guest says is no cause:
    /// it may say anything.
    pub(super) fn why_it_ended(self, said: Vec<String>, last_lines: Vec<String>) -> ApplyError {
        let (host, guest) = (self.host, self.name);
        let machine: Option<Machine> = self.machine().ok().flatten();
        let launched = host.launched.lock().unwrap_or_else(PoisonError::into_inner).get(guest).cloned();
        let status = launched.and_then(|launched| launched.status());
        let why =
            machine.map(|machine| exit_cause(machine.vmm, status, &said.join("\n"))).unwrap_or_default();
        let (guest, cgroup) = (guest.clone(), host.layout.cgroup(guest));
        let last_lines = [said, last_lines].concat();
        match host.hierarchy.limits(&cgroup) {
            Some(limits) if host.hierarchy.oom_kills(&cgroup) > 0 => {
                VmmError::OutOfMemory { guest, limit: limits.memory, last_lines }.into()
            }
            _ => VmmError::Ended { guest, why, last_lines }.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait status of a process that exited, or that a signal ended.
    fn exited(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn what_is_known_of_an_end_is_said() {
        let words =
            |status, log: &str| exit_cause(VmmKind::Firecracker, status, log).what.unwrap_or_default();
        assert_eq!(words(exited(0), ""), "the guest shut down (status 0)");
        assert_eq!(words(Some(ExitStatus::from_raw(9)), ""), "signal 9 killed it");
        assert_eq!(words(exited(1), "Failed to exec into Firecracker: Permission denied (os error 13)"), {
            "programs cannot run from its jail's file system, which is mounted noexec"
        });
        assert_eq!(words(None, ""), "");
        assert_eq!(exit_cause(VmmKind::Qemu, exited(1), "").what.unwrap(), "status 1");
    }

    #[test]
    fn a_call_that_a_filter_forbids_is_said_to_be_one() {
        let why = exit_cause(
            VmmKind::Firecracker,
            exited(148),
            "Shutting down VM after intercepting a bad syscall (41).",
        );
        assert_eq!(why.what.unwrap(), "a system call that its seccomp filter forbids (status 148)");
        assert!(why.remedy.unwrap().contains("its log names the call"));
    }
}
