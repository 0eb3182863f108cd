//! Whether a host can carry out a plan, decided from what was counted on it.

use std::fmt;

use crate::base::{ByteSize, GuestName};

use super::step::{Plan, Step};

/// The memory of a host, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// RAM and swap together.
    pub total: u64,
    /// What programs can have without any being swapped out.
    pub available: u64,
    /// What the guests hold that the plan stops.
    pub freed: u64,
}

/// Why guests do not find the memory that they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryShortage {
    /// One guest alone is larger than the host: it can never have what it is given.
    Impossible { guest: GuestName, needed: u64, total: u64 },
    /// What starts can together touch more than there is. That is legal, and may go well: guests rarely touch all.
    Overcommitted { needed: u64, free: u64 },
}

impl MemoryShortage {
    /// Whether the plan cannot be carried out.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Impossible { .. })
    }
}

impl fmt::Display for MemoryShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible { guest, needed, total } => write!(
                f,
                "{guest} needs {} of memory, but this host has {} including swap",
                ByteSize::from_bytes(*needed),
                ByteSize::from_mib(total >> 20)
            ),
            Self::Overcommitted { needed, free } => write!(
                f,
                "the guests that start may use {} of memory together, but {} are available: if they use it \
                 all, the kernel kills",
                ByteSize::from_bytes(*needed),
                ByteSize::from_mib(free >> 20)
            ),
        }
    }
}

/// The guest that a step starts, and the memory that it is given, in bytes.
fn starting(step: &Step) -> Option<(&GuestName, u64)> {
    match step {
        Step::StartVmm { guest, machine } if !machine.spec.huge_pages => {
            Some((guest, machine.memory_mib << 20))
        }
        _ => None,
    }
}

/// Whether the guests that a plan starts find their memory. Huge pages are set aside, and counted by themselves.
pub fn memory(plan: &Plan, host: HostMemory) -> Option<MemoryShortage> {
    let guests: Vec<_> = plan.start.iter().flat_map(|guest| guest.all().filter_map(starting)).collect();
    let (total, free) = (host.total, host.available.saturating_add(host.freed));
    if let Some((guest, needed)) = guests.iter().copied().find(|(_, needed)| *needed > total) {
        return Some(MemoryShortage::Impossible { guest: guest.clone(), needed, total });
    }
    let needed = guests.iter().map(|(_, needed)| needed).sum();
    (needed > free).then_some(MemoryShortage::Overcommitted { needed, free })
}
