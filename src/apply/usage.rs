//! What guests use of their host.

use std::collections::BTreeMap;

use crate::base::GuestName;
use crate::host::observed::ObservedHost;
use crate::sys::cgroup::Usage;
use crate::sys::fs as files;
use crate::sys::netns::{self, Presence};
use crate::sys::traffic::{self, InterfaceTraffic};

use super::linux::LinuxHost;

/// Of one guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestUsage {
    /// Of its VMM, by the guest's cgroup.
    pub cgroup: Usage,
    /// Of its TAP, as the host sees it: what was received is what the guest sent.
    pub tap: Option<InterfaceTraffic>,
    /// Bytes of the host's disk that its data disk takes.
    pub disk: Option<u64>,
}

/// Of each guest that the host has anything of. What cannot be read is missing: a guest may end at any moment.
pub fn guests(host: &LinuxHost, observed: &ObservedHost) -> BTreeMap<GuestName, GuestUsage> {
    let netns = host.layout.netns();
    let is_there = netns::presence(&netns).is_ok_and(|presence| presence == Presence::There);
    let inside = is_there.then(|| netns::within(&netns, traffic::interfaces).ok()?.ok()).flatten();
    let traffic = inside.unwrap_or_default();
    let usage = |(name, guest): (&GuestName, &crate::host::observed::ObservedGuest)| {
        let disk = std::fs::metadata(host.layout.disk(name)).ok();
        let usage = GuestUsage {
            cgroup: host.hierarchy.usage(&host.layout.cgroup(name)),
            tap: guest.tap.as_ref().and_then(|tap| traffic.get(tap.name.as_str()).copied()),
            disk: disk.as_ref().map(files::allocated),
        };
        (name.clone(), usage)
    };
    observed.guests.iter().map(usage).collect()
}
