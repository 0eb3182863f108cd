//! The steps that change a host. Each can be taken twice, and a host that stopped after any of them is understood
//! by the next [`super::diff`].

use std::fmt;

use crate::base::{ByteSize, FileDigest, GuestName, InterfaceName, Label, SnapshotName};
use crate::host::container::GuestContainer;
use crate::host::firewall::Ruleset;
use crate::host::network::NetworkSpec;
use crate::host::resolver::Resolver;
use crate::host::state::{CgroupLimits, Machine, SpareSpec, StoredKind, TapSpec};
use crate::host::wanted::HostRules;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Network(NetworkStep),
    Disk(DiskStep),
    Snapshot(SnapshotStep),
    Containers(ContainerStep),
    Pool(PoolStep),
    /// Brings an artifact into the store.
    StoreFile {
        digest: FileDigest,
        kind: StoredKind,
    },
    CreateTap {
        guest: GuestName,
        tap: TapSpec,
    },
    RemoveTap {
        guest: GuestName,
        tap: InterfaceName,
    },
    CreateCgroup {
        guest: GuestName,
        limits: CgroupLimits,
    },
    RemoveCgroup {
        guest: GuestName,
    },
    /// Takes a VMM back into its cgroup, out of which somebody moved it.
    JoinCgroup {
        guest: GuestName,
    },
    /// Lays out a new jail for a machine; those of earlier attempts go as far as they can.
    CreateJail {
        guest: GuestName,
        machine: Machine,
    },
    /// Unmounts and removes a guest's jails.
    RemoveJail {
        guest: GuestName,
    },
    /// Removes what is left of the jails of earlier attempts, beside the one that is in use.
    RemoveOldJails {
        guest: GuestName,
    },
    StartVmm {
        guest: GuestName,
        machine: Machine,
    },
    /// Tells a running VMM the rates and the balloon of a machine that is otherwise the same.
    AdjustVmm {
        guest: GuestName,
        machine: Machine,
    },
    /// Has the logs of a guest kept that runs, and whose keeper is gone.
    KeepLogs {
        guest: GuestName,
    },
    /// Waits until the guest says on its console that it is ready.
    AwaitReady {
        guest: GuestName,
    },
    /// Lets the process of a VMM run that somebody stopped, by SIGSTOP or by a freezer.
    ContinueVmm {
        guest: GuestName,
    },
    /// Lets a VMM go on that stands still for a snapshot whose maker was killed.
    ResumeVmm {
        guest: GuestName,
    },
    /// Asks the guest to shut down, waits, and ends what is left of its VMM.
    StopVmm {
        guest: GuestName,
    },
}

/// A change to the network of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkStep {
    /// Makes the fleet's network namespace, in which no packet goes anywhere yet.
    CreateNamespace,
    /// Leads out of the namespace: a pair of interfaces, routes over it, and forwarding between it and the uplink.
    ConnectNamespace {
        network: NetworkSpec,
        /// What is not as it should be.
        lacks: Vec<String>,
    },
    /// Swaps the nft table on the host's side of the namespace.
    LoadHostRules(HostRules),
    /// Swaps the whole nft table in the namespace.
    LoadRuleset(Ruleset),
    /// Removes the namespace with its rules, the way out of it, and what belongs to it on the host.
    RemoveNetwork,
    /// Removes the nft table and TAPs that an earlier sisforge left in the host's own network.
    RemoveEarlierNetwork,
    /// Starts the resolver of a policy, and its proxy; guests are led to it by the rules.
    StartResolver(Resolver),
    /// Ends whatever is in a seat for resolvers.
    StopResolver { seat: u16 },
}

/// A change to a data disk.
#[derive(Clone, Debug, PartialEq)]
pub enum DiskStep {
    /// Copies a stored disk to be a guest's own.
    CreateDisk { guest: GuestName, base: FileDigest, uid: u32 },
    /// Gives a data disk its name in the store again, which somebody removed: its jail still has it.
    RelinkDisk { guest: GuestName },
    /// Gives a data disk that is there to the guest's present uid, and to nobody else.
    ChownDisk { guest: GuestName, uid: u32 },
    /// Lengthens a data disk; the guest then grows the file system on it.
    GrowDisk {
        guest: GuestName,
        /// In bytes.
        from: u64,
        size: u64,
    },
}

/// A change to snapshots, or to the guest that goes on from one.
#[derive(Clone, Debug, PartialEq)]
pub enum SnapshotStep {
    /// Makes a snapshot one that was restored, by one rename: whoever comes second does not find it. Where the guest keeps
    /// its data disk, that of the snapshot takes its place, and the one that was there is kept beside it.
    ConsumeSnapshot { guest: GuestName, snapshot: SnapshotName, keeps_disk: bool },
    /// Has a VMM that was started for it load a consumed snapshot, and go on from it.
    LoadSnapshot { guest: GuestName, machine: Machine },
    /// Removes the files of a consumed snapshot that came up; its manifest stays.
    ForgetSnapshot { snapshot: SnapshotName },
    /// Removes what is left of snapshots that were not finished, and memory that no restore can use any more.
    ClearSnapshots,
}

/// A change to the containers of a guest that runs.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerStep {
    /// Ends containers that were started in a guest, and removes them.
    RemoveContainers { guest: GuestName, containers: Vec<Label> },
    /// Starts containers in a guest, in place of those of the same names.
    StartContainers { guest: GuestName, containers: Vec<GuestContainer> },
    /// Waits until containers are healthy that have a health check.
    AwaitHealthy { guest: GuestName, containers: Vec<GuestContainer> },
}

/// A change to what a guest is for its pool.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolStep {
    /// Records of a VMM that was just started that its guest boots to be a spare: nobody has had it.
    RaiseSpare { guest: GuestName, spare: SpareSpec },
    /// Has a guest that is ready wait until `session start` hands it out.
    MakeSpare { guest: GuestName, spare: SpareSpec },
    /// Ends a guest that waits, unless it was handed out meanwhile.
    EndSpare { guest: GuestName },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(step) => step.fmt(f),
            Self::Disk(step) => step.fmt(f),
            Self::Snapshot(step) => step.fmt(f),
            Self::Containers(step) => step.fmt(f),
            Self::Pool(step) => step.fmt(f),
            Self::StoreFile { digest, kind } => write!(f, "store {} {}", kind.word(), digest.short()),
            Self::CreateTap { tap, .. } => {
                write!(f, "create tap {} {} for uid {}", tap.name, tap.address, tap.owner)
            }
            Self::RemoveTap { tap, .. } => write!(f, "remove tap {tap}"),
            Self::CreateCgroup { limits, .. } => write!(f, "set cgroup limits: {limits}"),
            Self::RemoveCgroup { .. } => f.write_str("remove cgroup"),
            Self::JoinCgroup { .. } => f.write_str("take the vmm back into its cgroup"),
            Self::CreateJail { machine, .. } => {
                let (kernel, image) = (machine.kernel.short(), machine.image.short());
                write!(f, "create jail with kernel {kernel} image {image}")
            }
            Self::RemoveJail { .. } => f.write_str("remove jail"),
            Self::RemoveOldJails { .. } => f.write_str("remove jails of earlier attempts"),
            Self::StartVmm { machine: Machine { vmm, vcpus, memory_mib, .. }, .. } => {
                write!(f, "start {} with {vcpus} vcpu, {memory_mib} MiB", vmm.word())
            }
            Self::AdjustVmm { machine, .. } => {
                write!(f, "adjust the running {}: rates, balloon", machine.vmm.word())
            }
            Self::KeepLogs { .. } => f.write_str("keep logs again"),
            Self::AwaitReady { .. } => f.write_str("wait until ready"),
            Self::ContinueVmm { .. } => f.write_str("let the stopped vmm run"),
            Self::ResumeVmm { .. } => f.write_str("resume the paused vmm"),
            Self::StopVmm { .. } => f.write_str("stop vmm"),
        }
    }
}

impl fmt::Display for NetworkStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNamespace => f.write_str("set up the network namespace"),
            Self::ConnectNamespace { network, lacks } => {
                let NetworkSpec { uplink, pair } = network;
                write!(f, "connect {} with {uplink}: {}", pair.subnet, lacks.join(", "))
            }
            Self::LoadHostRules(rules) => {
                write!(f, "load nft ruleset of the host {}", rules.ruleset.digest.short())
            }
            Self::LoadRuleset(ruleset) => write!(f, "load nft ruleset {}", ruleset.digest.short()),
            Self::RemoveNetwork => f.write_str("remove the network namespace"),
            Self::RemoveEarlierNetwork => f.write_str("remove nft ruleset and taps of an earlier sisforge"),
            Self::StartResolver(resolver) => write!(f, "start resolver {resolver}"),
            Self::StopResolver { seat } => write!(f, "stop the resolver in seat {seat}"),
        }
    }
}

impl fmt::Display for DiskStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDisk { base, uid, .. } => {
                write!(f, "create data disk from {} for uid {uid}", base.short())
            }
            Self::RelinkDisk { .. } => f.write_str("give the data disk its name in the store again"),
            Self::ChownDisk { uid, .. } => write!(f, "give data disk to uid {uid}"),
            Self::GrowDisk { from, size, .. } => {
                let [from, size] = [*from, *size].map(ByteSize::from_bytes);
                write!(f, "grow data disk from {from} to {size}")
            }
        }
    }
}

impl fmt::Display for SnapshotStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsumeSnapshot { snapshot, .. } => write!(f, "consume snapshot {snapshot}"),
            Self::LoadSnapshot { .. } => f.write_str("load the snapshot and resume"),
            Self::ForgetSnapshot { snapshot } => write!(f, "remove the files of snapshot {snapshot}"),
            Self::ClearSnapshots => f.write_str("remove what is left of unfinished snapshots"),
        }
    }
}

impl fmt::Display for ContainerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |containers: &[GuestContainer]| {
            containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::RemoveContainers { containers, .. } => {
                let names: Vec<_> = containers.iter().map(Label::as_str).collect();
                write!(f, "remove containers {}", names.join(", "))
            }
            Self::StartContainers { containers, .. } => write!(f, "start containers {}", names(containers)),
            Self::AwaitHealthy { containers, .. } => {
                write!(f, "wait until healthy: containers {}", names(containers))
            }
        }
    }
}

impl fmt::Display for PoolStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RaiseSpare { spare, .. } => write!(f, "note that it boots for the pool {}", spare.pool),
            Self::MakeSpare { spare, .. } => write!(f, "stand by as a {spare}"),
            Self::EndSpare { .. } => f.write_str("end the spare"),
        }
    }
}

impl Step {
    /// Whether guests that are left are without rules after it.
    pub fn removes_rules(&self) -> bool {
        matches!(self, Self::Network(NetworkStep::RemoveNetwork | NetworkStep::RemoveEarlierNetwork))
    }
}
