//! What a host has of a fleet, as it was found. Whatever is there but not whole has a word for that; nothing here says what
//! should be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::base::{FileDigest, Found, GuestName, InterfaceName, Rates, Sha256};

use crate::sys::cgroup::IoLimits;

use super::container::StartedContainer;
use super::network::{NetworkSpec, PairSpec};
use super::policy::Policies;
use super::publish::PublishedPort;
use super::state::{CgroupLimits, Machine, Session, SpareSpec, StoredKind, TapSpec};

/// Everything of one fleet on one host. The default is a host that has nothing of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedHost {
    pub network: ObservedNetwork,
    /// The nft table in the fleet's network namespace.
    pub ruleset: Option<ObservedRuleset>,
    /// What the rules that were loaded last let guests do, where a record says it.
    pub policies: Option<Policies>,
    /// Immutable files of the store that hold what their names say, whatever each is for.
    pub stored: BTreeSet<FileDigest>,
    /// Those that do not, or that others than root may write.
    pub damaged: BTreeSet<FileDigest>,
    pub guests: BTreeMap<GuestName, ObservedGuest>,
    /// Guests that are cut off, whether anything else of them is there or not.
    pub quarantined: BTreeSet<GuestName>,
    /// Resolvers of policies that name names, by their seats.
    pub resolvers: BTreeMap<u16, ObservedResolver>,
    /// Whether something is left of snapshots whose maker, or whose restore, did not come to its end.
    pub snapshot_leftovers: bool,
}

/// A resolver, with its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedResolver {
    /// All of it runs, as it was started from what has this digest.
    Running(Sha256),
    /// Something of it is gone, or nothing says what it is.
    Broken,
}

/// The network of a fleet, part by part. The default is a host that has nothing of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedNetwork {
    /// The namespace with its settings.
    pub namespace: Option<Found<()>>,
    /// The pair that leads out of it, with all that leads over it.
    pub pair: Option<Found<PairSpec<Found<u64>>>>,
    /// Interfaces of the host that the fleet had switched on for forwarding, and whether they still are.
    pub forwarding: BTreeMap<InterfaceName, bool>,
    /// The nft table on the host's side.
    pub rules: Option<ObservedRuleset>,
    /// The ways in to guests that it has, where it is known what was loaded.
    pub published: Vec<PublishedPort>,
    /// The ports that guests are seen with outside, by that table.
    pub ports: Option<RangeInclusive<u16>>,
    /// Guests whom the kernel cuts off and of whom the store has no record: its place was changed since.
    pub cut_off_unrecorded: BTreeSet<GuestName>,
    /// Whether an earlier sisforge left a table or a TAP of the fleet in the host's own network.
    pub is_in_host: bool,
}

impl ObservedNetwork {
    /// What of the way out of the namespace is not as it should be.
    #[must_use]
    pub fn lacks(&self, wanted: &NetworkSpec) -> Vec<&'static str> {
        let others = self.forwarding.keys().any(|interface| *interface != wanted.uplink);
        let forwards = self.forwarding.get(&wanted.uplink) == Some(&true) && !others;
        let parts =
            [("pair", self.pair != Some(Found::Whole(wanted.pair.whole()))), ("forwarding", !forwards)];
        parts.into_iter().filter(|(_, lacks)| *lacks).map(|(what, _)| what).collect()
    }

    /// Whether the namespace or what belongs to it is there, be it in part.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.namespace.is_some() || self.pair.is_some() || !self.forwarding.is_empty() || self.rules.is_some()
    }
}

/// The rules in a fleet's nft table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedRuleset {
    /// As they were loaded from the text of this SHA-256.
    Loaded(Sha256),
    /// Changed since, or nobody recorded what was loaded.
    Unknown,
}

/// One guest, part by part. The default is a guest of which nothing is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedGuest {
    /// The data disk in the store.
    pub disk: Option<ObservedDisk>,
    /// Whether a data disk that the store should have is in its jail alone: somebody removed its name in the store.
    pub lost_disk: bool,
    pub tap: Option<ObservedTap>,
    pub cgroup: Option<ObservedCgroup>,
    /// Whether it has jails in which no VMM lives.
    pub idle_jails: bool,
    /// Whether records and pipes of a VMM are there, and no VMM.
    pub idle_records: bool,
    /// Whether its VMM has ended, and processes that it started have not.
    pub strays: bool,
    /// The process that was started as its VMM; where nobody put that down, whatever runs in its cgroup or in one of its jails.
    pub vmm: Option<ObservedVmm>,
}

/// A data disk in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedDisk {
    /// Owner of the file.
    pub uid: u32,
    /// Whether its mode and its group let nobody else open it.
    pub private: bool,
    /// In bytes, holes included.
    pub size: u64,
}

/// A TAP between host and guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTap {
    pub name: InterfaceName,
    /// The only user who may attach to it; `None` where anyone may.
    pub owner: Option<u32>,
    /// The host's address on it.
    pub address: Option<Ipv4Addr>,
    pub up: bool,
    /// Whether it stands in the host's own network, where an earlier sisforge had it.
    pub is_in_host: bool,
    /// Whether the kernel treats what comes from it as it should.
    pub hardened: bool,
    /// How fast packets come from its guest and go to it.
    pub rates: Rates<Found<u64>>,
}

impl ObservedTap {
    /// Whether it is the one that is wanted, for the guest that runs on it.
    #[must_use]
    pub fn is(&self, wanted: &TapSpec) -> bool {
        let Self { name, owner, address, up, is_in_host, .. } = self;
        let is_same = *name == wanted.name && *owner == Some(wanted.owner);
        is_same && *address == Some(wanted.address) && *up && !is_in_host
    }

    /// Whether it is also set as is wanted. What is not can be set while a guest runs.
    #[must_use]
    pub fn is_set(&self, wanted: &TapSpec) -> bool {
        self.hardened && self.rates == wanted.rates.bytes_per_second().whole()
    }
}

/// What a guest's cgroup allows its VMM; `None` is no limit. Each is as in [`CgroupLimits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedLimits {
    pub memory: Option<u64>,
    pub pids: Option<u64>,
    /// In the period that is set here, as much as it comes to in another.
    pub cpu_quota: Option<u64>,
    pub cpu_weight: u64,
    pub io: IoLimits,
}

impl From<CgroupLimits> for ObservedLimits {
    /// As they are found where they are set.
    fn from(limits: CgroupLimits) -> Self {
        let CgroupLimits { memory, pids, cpu_quota, cpu_weight, io } = limits;
        let [memory, pids, cpu_quota] = [memory, pids, cpu_quota].map(Some);
        Self { memory, pids, cpu_quota, cpu_weight, io }
    }
}

/// The cgroup of a guest's VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedCgroup {
    pub limits: Found<ObservedLimits>,
    /// Times that the kernel killed a process in it for want of memory.
    pub oom_kills: u64,
}

/// A process that is a guest's VMM, or has its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedVmm {
    /// The machine, as it was started. `None` where no record says it, or where the VMM waits for a snapshot that it has not
    /// loaded: what runs is then not known, and nothing but a new start mends it.
    pub machine: Option<Machine>,
    /// Records of it that are there and cannot be read, in words.
    pub unreadable: Vec<String>,
    /// Whether it lives in a jail of the guest.
    pub jailed: bool,
    /// Whether somebody took it out of the guest's cgroup, for one controller at least: that limits it no longer.
    pub outside_cgroup: bool,
    /// Whether its process stands still, by SIGSTOP or by a freezer.
    pub halted: bool,
    /// What it reads of the store that was changed since it was stored.
    pub damaged: Vec<StoredKind>,
    /// Whether its data disk has no name any more: it goes with the VMM, unless it is copied first.
    pub disk_only_open: bool,
    /// Whether its logs are being kept.
    pub logged: bool,
    /// Whether the guest has said that it is ready.
    pub ready: bool,
    /// Containers that have been started in it.
    pub containers: Vec<StartedContainer>,
    /// Whether it stands still for a snapshot whose maker was killed.
    pub paused: Option<Paused>,
    /// What it is there for, of a member of a pool whose guests are handed out.
    pub role: Option<PoolRole>,
}

impl ObservedVmm {
    /// Whether this store has neither its jail nor a record of it.
    pub fn is_of_another_store(&self) -> bool {
        !self.jailed && self.machine.is_none() && self.unreadable.is_empty()
    }
}

/// What a running member of a pool is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolRole {
    /// It was started to be handed out, and does not wait yet.
    Raised,
    /// It waits to be handed out.
    Spare(SpareSpec),
    /// Somebody has it.
    InUse(Session),
    /// Somebody had it.
    Used,
}

/// Why a VMM stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Its snapshot is not whole: the guest goes on.
    Unfinished,
    /// Its snapshot is whole and was to end it: the guest must not go on beside it.
    Frozen,
}

impl ObservedGuest {
    /// The machine that runs, where it is known.
    #[must_use]
    pub fn machine(&self) -> Option<&Machine> {
        self.vmm.as_ref()?.machine.as_ref()
    }

    /// Whether anything is left to remove with its jails.
    #[must_use]
    pub fn has_leftovers(&self) -> bool {
        self.idle_jails || self.idle_records || self.vmm.is_some()
    }

    /// Whether its VMM ended by itself since the host was started: what the kernel had for it is there, and nobody took it down.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.vmm.is_none() && (self.tap.is_some() || self.cgroup.is_some())
    }

    /// Whether its network is the host's own, as an earlier sisforge had it.
    #[must_use]
    pub fn is_in_host(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.is_in_host)
    }

    /// Whether it has any jail.
    #[must_use]
    pub fn has_jail(&self) -> bool {
        self.idle_jails || self.vmm.as_ref().is_some_and(|vmm| vmm.jailed)
    }

    /// Times that the kernel killed a process of it for want of memory, since its cgroup was made.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.cgroup.map_or(0, |cgroup| cgroup.oom_kills)
    }
}
