//! What to say of a VMM that ended.

use crate::apply::VmmError;
use std::sync::PoisonError;

use crate::host::state::Machine;

use super::ApplyError;
use super::exit_cause::why;
use super::linux::GuestHandle;

impl GuestHandle<'_> {
    /// What to say of a guest whose VMM is gone; `said` are the last lines of the VMM itself. What the guest says is no cause:
    /// it may say anything.
    pub(super) fn why_it_ended(self, said: Vec<String>, last_lines: Vec<String>) -> ApplyError {
        let (host, guest) = (self.host, self.name);
        let machine: Option<Machine> = self.machine().ok().flatten();
        let launched = host.launched.lock().unwrap_or_else(PoisonError::into_inner).get(guest).cloned();
        let status = launched.and_then(|launched| launched.status());
        let why = machine.map(|machine| why(machine.vmm, status, &said.join("\n"))).unwrap_or_default();
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
