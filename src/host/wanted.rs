//! What a host should have of a fleet.

use std::collections::BTreeMap;

use crate::base::{FileDigest, GuestName};

use super::container::GuestContainer;
use super::firewall::Ruleset;
use super::network::NetworkSpec;
use super::publish::PublishedPort;
use super::resolver::Resolver;
use super::state::{CgroupLimits, Machine, SpareSpec, StoredKind, TapSpec};

/// Everything of one fleet on one host. The default is a host that should have nothing of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WantedHost {
    pub network: Option<WantedNetwork>,
    /// The rules in the fleet's network namespace.
    pub ruleset: Option<Ruleset>,
    /// Immutable files of the store: kernels, root images, data disks to copy, container images.
    pub stored: BTreeMap<FileDigest, StoredKind>,
    pub guests: BTreeMap<GuestName, WantedGuest>,
    /// Resolvers of policies that name names, by their seats.
    pub resolvers: BTreeMap<u16, Resolver>,
}

/// The network namespace of a fleet, and what leads out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedNetwork {
    pub spec: NetworkSpec,
    pub rules: HostRules,
}

/// The rules on the host's side.
#[derive(Clone, Debug, PartialEq)]
pub struct HostRules {
    pub ruleset: Ruleset,
    /// The ways in that they have.
    pub published: Vec<PublishedPort>,
}

/// One guest, which is to run and be ready.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedGuest {
    /// The data disk in the store, of a guest that keeps one.
    pub disk: Option<WantedDisk>,
    pub tap: TapSpec,
    pub cgroup: CgroupLimits,
    pub startup: Startup,
    /// Containers that are started in it once it has booted.
    pub containers: Vec<GuestContainer>,
    /// Of one that is to wait until it is handed out.
    pub spare: Option<SpareSpec>,
}

/// What a guest is to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Startup {
    /// It boots this machine.
    Boot(Machine),
    /// It is brought back from a snapshot, or was, and is left as it runs.
    Restored {
        /// With `restored_from`.
        machine: Machine,
        /// What another start would boot.
        fresh: Box<Machine>,
    },
    /// Somebody has it, and it is left as it runs.
    InUse(Machine),
}

impl WantedGuest {
    /// The machine that is to run.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        match &self.startup {
            Startup::Boot(machine) | Startup::Restored { machine, .. } | Startup::InUse(machine) => machine,
        }
    }
}

/// A kept data disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedDisk {
    /// Owner of the file.
    pub uid: u32,
    /// In bytes, holes included. One that is larger stays so.
    pub size: u64,
    /// The stored disk that one which is missing is copied from.
    pub base: FileDigest,
}
