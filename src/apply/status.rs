//! What runs, for people: what `ps` and `status` show.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use crate::base::time::rfc3339;
use crate::base::{Found, GuestName};
use crate::host::observed::{ObservedCgroup, ObservedGuest, ObservedHost, ObservedLimits, PoolRole};
use crate::host::publish::PublishedPort;
use crate::host::state::{Machine, Session};
use crate::sys::process;

use super::linux::{GuestHandle, LinuxHost};
use super::record::quarantine::{self, CutOff};

/// How a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestPhase {
    /// Its VMM runs and it said that it is ready.
    Ready,
    /// It is booted, and waits to be handed out.
    Spare,
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
            Self::Spare => "spare",
            Self::Starting => "starting",
            Self::Broken => "broken",
            Self::Down => "down",
        }
    }
}

/// One guest.
#[derive(Clone, Debug)]
pub struct GuestStatus {
    pub name: GuestName,
    pub state: GuestPhase,
    pub pid: Option<u32>,
    pub uid: Option<u32>,
    pub ip: Option<Ipv4Addr>,
    pub uptime: Option<Duration>,
    /// Resident memory of the VMM, in bytes.
    pub memory: Option<u64>,
    /// Times that the kernel killed something in the guest's cgroup for want of memory.
    pub oom_kills: u64,
    /// What the kernel did for want of memory, and what cannot be read of it, in words.
    pub note: Option<String>,
    pub quarantined: Option<CutOff>,
    pub machine: Option<Machine>,
    /// Whose it is, of a guest of a pool that somebody has.
    pub session: Option<Session>,
    /// The ways in to it.
    pub published: Vec<PublishedPort>,
}

/// Every guest that the host has anything of.
pub fn guests(host: &LinuxHost, observed: &ObservedHost) -> Vec<GuestStatus> {
    observed.guests.keys().map(|name| guest(host, observed, name)).collect()
}

/// One guest, whether the host has anything of it or not.
pub fn guest(host: &LinuxHost, observed: &ObservedHost, name: &GuestName) -> GuestStatus {
    let nothing = ObservedGuest::default();
    let state = observed.guests.get(name).unwrap_or(&nothing);
    let seen = host.cache.vmm(name).map(|seen| seen.process);
    let vmm = seen.or_else(|| host.guest(name).vmm());
    let parts = state.tap.is_some() || state.has_jail() || state.cgroup.is_some();
    let is_ready = state.vmm.as_ref().is_some_and(|vmm| vmm.ready);
    let role = state.vmm.as_ref().and_then(|vmm| vmm.role.clone());
    let phase = match (vmm.is_some(), is_ready, parts) {
        (true, ..) if matches!(role, Some(PoolRole::Spare(_))) => GuestPhase::Spare,
        (true, true, _) => GuestPhase::Ready,
        (true, false, _) => GuestPhase::Starting,
        (false, _, true) => GuestPhase::Broken,
        (false, _, false) => GuestPhase::Down,
    };
    GuestStatus {
        name: name.clone(),
        state: phase,
        pid: vmm.as_ref().map(|vmm| vmm.id.pid),
        uid: vmm.as_ref().and_then(process::uid),
        ip: state.machine().map(|machine| machine.ip),
        uptime: vmm.as_ref().and_then(process::uptime),
        memory: vmm.as_ref().and_then(|vmm| process::resident_memory(vmm.id.pid)),
        oom_kills: state.oom_kills(),
        note: note(
            state,
            vmm.is_some(),
            host.guest(name).ended_with_host().filter(|_| phase == GuestPhase::Broken),
        ),
        quarantined: quarantined(host, observed, name),
        machine: state.machine().cloned(),
        session: match role {
            Some(PoolRole::InUse(session)) => Some(session),
            Some(PoolRole::Raised | PoolRole::Spare(_) | PoolRole::Used) | None => None,
        },
        published: observed.network.published.iter().filter(|way| way.guest == *name).cloned().collect(),
    }
}

fn quarantined(host: &LinuxHost, observed: &ObservedHost, name: &GuestName) -> Option<CutOff> {
    // With another store: nobody knows since when.
    let is_unrecorded = observed.network.cut_off_unrecorded.contains(name);
    quarantine::of(&host.layout, name).or(is_unrecorded.then_some(CutOff { since: None }))
}

fn note(state: &ObservedGuest, runs: bool, with_host: Option<String>) -> Option<String> {
    let unreadable = state.vmm.iter().flat_map(|vmm| vmm.unreadable.iter().cloned());
    let killed = state.cgroup.and_then(|cgroup| out_of_memory(cgroup, runs));
    let strays = state.strays.then(|| "its vmm has ended, and left processes".to_owned());
    let all: Vec<_> = with_host.into_iter().chain(killed).chain(strays).chain(unreadable).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

impl GuestHandle<'_> {
    /// Where a guest was last started before the host was: what ended it.
    fn ended_with_host(self) -> Option<String> {
        let (host, guest) = (self.host, self.name);
        let started =
            fs::metadata(host.layout.guest(guest).machine()).and_then(|record| record.modified()).ok()?;
        host_restarted(started, process::booted()?)
    }
}

fn host_restarted(started: SystemTime, booted: SystemTime) -> Option<String> {
    let since = booted.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    (started < booted).then(|| format!("it ended with the host, which started again at {}", rfc3339(since)))
}

/// A cgroup counts from its guest's start on, so that kills in that of a guest which does not run are what ended it.
fn out_of_memory(cgroup: ObservedCgroup, runs: bool) -> Option<String> {
    match (cgroup.oom_kills, runs, cgroup.limits) {
        (0, ..) => None,
        (1, true, _) => Some("1 OOM kill".to_owned()),
        (kills, true, _) => Some(format!("{kills} OOM kills")),
        (_, false, Found::Whole(ObservedLimits { memory: Some(limit), .. })) => {
            Some(format!("killed: out of memory (limit {} MiB)", limit >> 20))
        }
        (_, false, _) => Some("killed: out of memory".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::IoLimits;

    #[test]
    fn a_guest_that_the_kernel_killed_is_told_with_its_limit() {
        let limits = ObservedLimits {
            memory: Some(576 << 20),
            pids: Some(33),
            cpu_quota: Some(100_000),
            cpu_weight: 100,
            io: IoLimits::NONE,
        };
        let with = |limits, oom_kills| ObservedGuest {
            cgroup: Some(ObservedCgroup { limits, oom_kills }),
            ..ObservedGuest::default()
        };
        assert_eq!(note(&with(Found::Whole(limits), 0), false, None), None);
        assert_eq!(note(&with(Found::Whole(limits), 1), true, None).unwrap(), "1 OOM kill");
        let told = note(&with(Found::Whole(limits), 1), false, None).unwrap();
        assert_eq!(told, "killed: out of memory (limit 576 MiB)");
        let unlimited = ObservedLimits { memory: None, ..limits };
        for limits in [Found::Half, Found::Whole(unlimited)] {
            assert_eq!(note(&with(limits, 1), false, None).unwrap(), "killed: out of memory");
        }
    }

    #[test]
    fn a_guest_that_was_started_before_its_host_is_told_to_have_ended_with_it() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let told = host_restarted(at(1_700_000_000), at(1_700_000_600)).unwrap();
        assert_eq!(told, "it ended with the host, which started again at 2023-11-14T22:23:20Z");
        assert_eq!(host_restarted(at(1_700_000_601), at(1_700_000_600)), None);
        assert_eq!(note(&ObservedGuest::default(), false, Some(told.clone())), Some(told));
    }
}
