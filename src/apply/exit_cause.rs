//! Why a VMM ended, from its exit status and from what it said.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::fleet::VmmKind;
use crate::host::vmm;
use crate::sys::jailer::Cause;

/// Why a VMM ended, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitCause {
    pub what: Option<String>,
    pub remedy: Option<&'static str>,
}

/// From the log of one start and from how its process ended, where this process started it.
pub fn why(vmm: VmmKind, status: Option<ExitStatus>, log: &str) -> ExitCause {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait status of a process that exited, or that a signal ended.
    fn exited(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn what_is_known_of_an_end_is_said() {
        let words = |status, log: &str| why(VmmKind::Firecracker, status, log).what.unwrap_or_default();
        assert_eq!(words(exited(0), ""), "the guest shut down (status 0)");
        assert_eq!(words(Some(ExitStatus::from_raw(9)), ""), "signal 9 killed it");
        assert_eq!(words(exited(1), "Failed to exec into Firecracker: Permission denied (os error 13)"), {
            "programs cannot run from its jail's file system, which is mounted noexec"
        });
        assert_eq!(words(None, ""), "");
        assert_eq!(why(VmmKind::Qemu, exited(1), "").what.unwrap(), "status 1");
    }

    #[test]
    fn a_call_that_a_filter_forbids_is_said_to_be_one() {
        let why =
            why(VmmKind::Firecracker, exited(148), "Shutting down VM after intercepting a bad syscall (41).");
        assert_eq!(why.what.unwrap(), "a system call that its seccomp filter forbids (status 148)");
        assert!(why.remedy.unwrap().contains("its log names the call"));
    }
}
