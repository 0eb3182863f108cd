//! What runs, for people: what `ps` and `status` show.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

use crate::base::GuestName;
use crate::host::state::{GuestState, HostState, Machine};
use crate::host::vmm::guest_address;
use crate::sys::process;

use super::linux::LinuxHost;
use super::observe;

/// How a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestPhase {
    /// Its VMM runs and it said that it is ready.
    Ready,
    /// Its VMM runs.
    Starting,
    /// Parts of it are there, but no VMM.
    Broken,
    /// Nothing of it is there but perhaps its data disk.
    Down,
}

impl GuestPhase {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Broken => "broken",
            Self::Down => "down",
        }
    }
}

/// One guest.
#[derive(Clone, Debug, Serialize)]
pub struct GuestStatus {
    pub name: GuestName,
    pub state: GuestPhase,
    pub pid: Option<u32>,
    pub uid: Option<u32>,
    pub ip: Option<Ipv4Addr>,
    #[serde(serialize_with = "seconds")]
    pub uptime: Option<Duration>,
    /// Resident memory of the VMM, in bytes.
    pub memory: Option<u64>,
    /// Times that the kernel killed something in the guest's cgroup for want of memory.
    pub oom_kills: u64,
    /// What the kernel did for want of memory, in words.
    pub note: Option<String>,
    #[serde(flatten)]
    pub machine: Option<Machine>,
}

fn seconds<S: serde::Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|duration| duration.as_secs()).serialize(serializer)
}

/// Every guest that the host has anything of.
pub fn guests(host: &LinuxHost, observed: &HostState) -> Vec<GuestStatus> {
    observed.guests.keys().map(|name| guest(host, observed, name)).collect()
}

/// One guest, whether the host has anything of it or not.
pub fn guest(host: &LinuxHost, observed: &HostState, name: &GuestName) -> GuestStatus {
    let state = observed.guests.get(name).cloned().unwrap_or_default();
    let vmm = observe::vmm_process(&host.layout, &host.hierarchy, name);
    let parts = state.tap.is_some() || state.jail || state.cgroup.is_some();
    let phase = match (vmm.is_some(), state.ready, parts) {
        (true, true, _) => GuestPhase::Ready,
        (true, false, _) => GuestPhase::Starting,
        (false, _, true) => GuestPhase::Broken,
        (false, _, false) => GuestPhase::Down,
    };
    GuestStatus {
        name: name.clone(),
        state: phase,
        pid: vmm.as_ref().map(|vmm| vmm.pid),
        uid: vmm.as_ref().map(|vmm| vmm.uid),
        ip: state.machine.as_ref().and_then(|machine| guest_address(&machine.command_line)),
        uptime: vmm.as_ref().map(process::uptime),
        memory: vmm.as_ref().and_then(|vmm| process::resident_memory(vmm.pid)),
        oom_kills: state.oom_kills,
        note: note(&state, vmm.is_some()),
        machine: state.machine,
    }
}

/// A cgroup counts from its guest's start on, so that kills in that of a guest which does not run are what ended it.
fn note(state: &GuestState, runs: bool) -> Option<String> {
    let limit = state.cgroup?.memory >> 20;
    match (state.oom_kills, runs) {
        (0, _) => None,
        (1, true) => Some("1 OOM kill".to_owned()),
        (kills, true) => Some(format!("{kills} OOM kills")),
        (_, false) => Some(format!("killed: out of memory (limit {limit} MiB)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::state::CgroupLimits;
    use crate::sys::cgroup::IoLimits;

    #[test]
    fn a_guest_that_the_kernel_killed_is_told_with_its_limit() {
        let limits = CgroupLimits {
            memory: 576 << 20,
            pids: 33,
            cpu_quota: 100_000,
            cpu_weight: 100,
            io: IoLimits::NONE,
        };
        let mut state = GuestState { cgroup: Some(limits), ..GuestState::default() };
        assert_eq!(note(&state, false), None);
        state.oom_kills = 1;
        assert_eq!(note(&state, true).unwrap(), "1 OOM kill");
        assert_eq!(note(&state, false).unwrap(), "killed: out of memory (limit 576 MiB)");
    }
}
