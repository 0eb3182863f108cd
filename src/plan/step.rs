//! The steps that change a host. Each can be taken twice, and a host that stopped after any of them is understood
//! by the next [`super::diff`].

use std::collections::BTreeSet;
use std::fmt;

use crate::base::{ByteSize, FileDigest, GuestName, InterfaceName, Label, SnapshotName};
use crate::host::container::GuestContainer;
use crate::host::firewall::Ruleset;
use crate::host::network::NetworkSpec;
use crate::host::policy::PolicyChange;
use crate::host::publish::PublishedChange;
use crate::host::resolver::Resolver;
use crate::host::state::{CgroupLimits, Machine, SpareSpec, StoredKind, TapSpec};
use crate::host::wanted::HostRules;

use super::why::StepReason;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
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
    /// Removes the namespace with its rules, the way out of it, and what belongs to it on the host.
    RemoveNetwork,
    /// Removes the nft table and TAPs that an earlier sisforge left in the host's own network.
    RemoveEarlierNetwork,
    /// Starts the resolver of a policy, and its proxy; guests are led to it by the rules.
    StartResolver(Resolver),
    /// Ends whatever is in a seat for resolvers.
    StopResolver {
        seat: u16,
    },
    /// Brings an artifact into the store.
    StoreFile {
        digest: FileDigest,
        kind: StoredKind,
    },
    /// Swaps the whole nft table in the namespace.
    LoadRuleset(Ruleset),
    /// Copies a stored disk to be a guest's own.
    CreateDisk {
        guest: GuestName,
        base: FileDigest,
        uid: u32,
    },
    /// Gives a data disk its name in the store again, which somebody removed: its jail still has it.
    RelinkDisk {
        guest: GuestName,
    },
    /// Gives a data disk that is there to the guest's present uid, and to nobody else.
    ChownDisk {
        guest: GuestName,
        uid: u32,
    },
    /// Lengthens a data disk; the guest then grows the file system on it.
    GrowDisk {
        guest: GuestName,
        /// In bytes.
        from: u64,
        size: u64,
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
    /// Ends containers that were started in a guest, and removes them.
    RemoveContainers {
        guest: GuestName,
        containers: Vec<Label>,
    },
    /// Starts containers in a guest, in place of those of the same names.
    StartContainers {
        guest: GuestName,
        containers: Vec<GuestContainer>,
    },
    /// Waits until containers are healthy that have a health check.
    AwaitHealthy {
        guest: GuestName,
        containers: Vec<GuestContainer>,
    },
    /// Lets the process of a VMM run that somebody stopped, by SIGSTOP or by a freezer.
    ContinueVmm {
        guest: GuestName,
    },
    /// Lets a VMM go on that stands still for a snapshot whose maker was killed.
    ResumeVmm {
        guest: GuestName,
    },
    /// Makes a snapshot one that was restored, by one rename: whoever comes second does not find it. Where the guest keeps
    /// its data disk, that of the snapshot takes its place, and the one that was there is kept beside it.
    ConsumeSnapshot {
        guest: GuestName,
        snapshot: SnapshotName,
        keeps_disk: bool,
    },
    /// Has a VMM that was started for it load a consumed snapshot, and go on from it.
    LoadSnapshot {
        guest: GuestName,
        machine: Machine,
    },
    /// Removes the files of a consumed snapshot that came up; its manifest stays.
    ForgetSnapshot {
        snapshot: SnapshotName,
    },
    /// Removes what is left of snapshots that were not finished, and memory that no restore can use any more.
    ClearSnapshots,
    /// Asks the guest to shut down, waits, and ends what is left of its VMM.
    StopVmm {
        guest: GuestName,
    },
    /// Has a guest that is ready wait until `session start` hands it out.
    MakeSpare {
        guest: GuestName,
        spare: SpareSpec,
    },
    /// Ends a guest that waits, unless it was handed out meanwhile.
    EndSpare {
        guest: GuestName,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNamespace
            | Self::ConnectNamespace { .. }
            | Self::LoadHostRules(_)
            | Self::LoadRuleset(_)
            | Self::RemoveNetwork
            | Self::RemoveEarlierNetwork
            | Self::StartResolver(_)
            | Self::StopResolver { .. } => self.fmt_network(f),
            Self::StoreFile { digest, kind } => write!(f, "store {} {}", kind.word(), digest.short()),
            Self::CreateDisk { base, uid, .. } => {
                write!(f, "create data disk from {} for uid {uid}", base.short())
            }
            Self::ChownDisk { uid, .. } => write!(f, "give data disk to uid {uid}"),
            Self::GrowDisk { from, size, .. } => {
                let [from, size] = [*from, *size].map(ByteSize::from_bytes);
                write!(f, "grow data disk from {from} to {size}")
            }
            Self::CreateTap { tap, .. } => {
                write!(f, "create tap {} {} for uid {}", tap.name, tap.address, tap.owner)
            }
            Self::RemoveTap { tap, .. } => write!(f, "remove tap {tap}"),
            Self::CreateCgroup { limits, .. } => write!(f, "set cgroup limits: {limits}"),
            Self::RemoveCgroup { .. } => f.write_str("remove cgroup"),
            Self::CreateJail { machine, .. } => {
                let (kernel, image) = (machine.kernel.short(), machine.image.short());
                write!(f, "create jail with kernel {kernel} image {image}")
            }
            Self::RemoveOldJails { .. } => f.write_str("remove jails of earlier attempts"),
            Self::RemoveJail { .. } => f.write_str("remove jail"),
            Self::StartVmm { machine: Machine { vmm, vcpus, memory_mib, .. }, .. } => {
                write!(f, "start {} with {vcpus} vcpu, {memory_mib} MiB", vmm.word())
            }
            Self::AdjustVmm { machine, .. } => {
                write!(f, "adjust the running {}: rates, balloon", machine.vmm.word())
            }
            Self::KeepLogs { .. } => f.write_str("keep logs again"),
            Self::AwaitReady { .. } => f.write_str("wait until ready"),
            Self::RemoveContainers { .. } | Self::StartContainers { .. } | Self::AwaitHealthy { .. } => {
                self.fmt_containers(f)
            }
            Self::ResumeVmm { .. } => f.write_str("resume the paused vmm"),
            Self::RelinkDisk { .. } => f.write_str("give the data disk its name in the store again"),
            Self::JoinCgroup { .. } => f.write_str("take the vmm back into its cgroup"),
            Self::ContinueVmm { .. } => f.write_str("let the stopped vmm run"),
            Self::ConsumeSnapshot { snapshot, .. } => write!(f, "consume snapshot {snapshot}"),
            Self::LoadSnapshot { .. } => f.write_str("load the snapshot and resume"),
            Self::ForgetSnapshot { snapshot } => write!(f, "remove the files of snapshot {snapshot}"),
            Self::ClearSnapshots => f.write_str("remove what is left of unfinished snapshots"),
            Self::StopVmm { .. } => f.write_str("stop vmm"),
            Self::MakeSpare { spare, .. } => write!(f, "stand by as a {spare}"),
            Self::EndSpare { .. } => f.write_str("end the spare"),
        }
    }
}

impl Step {
    /// Whether guests that are left are without rules after it.
    pub fn removes_rules(&self) -> bool {
        matches!(self, Self::RemoveNetwork | Self::RemoveEarlierNetwork)
    }

    fn fmt_containers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            // No step of containers.
            _ => Ok(()),
        }
    }

    fn fmt_network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            // No step of the network.
            _ => Ok(()),
        }
    }
}

/// What happens to one guest, in order, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestSteps {
    pub guest: GuestName,
    /// Such as `new` or `vcpus 1 -> 2`.
    pub why: StepReason,
    pub steps: Vec<Step>,
    /// What clears away after one of `steps` failed.
    pub undo: Vec<Step>,
    /// Taken after all of `steps`; their failure clears nothing away.
    pub then: Vec<Step>,
}

impl GuestSteps {
    /// Steps that nothing follows and nothing undoes.
    pub fn new(guest: &GuestName, why: StepReason, steps: Vec<Step>) -> Self {
        Self { guest: guest.clone(), why, steps, undo: Vec::new(), then: Vec::new() }
    }

    /// Whether a VMM is started by them; those of a guest that stays put something right while it runs.
    pub fn starts(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::StartVmm { .. }))
    }

    /// Every step that is taken where none fails, in order.
    pub fn all(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.then)
    }
}

/// Everything that is to be done. Lists are carried out in the order of the fields; the guests of one list are
/// independent of each other.
///
/// A guest that goes is dead before the rules that held it are swapped, and rules are there before a new guest's
/// TAP is. Where every guest that stops comes back, rules are swapped before anything else ([`Plan::rules_come_first`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub prepare: Vec<Step>,
    pub stop: Vec<GuestSteps>,
    pub rules: Vec<Step>,
    /// What the new rules open and close.
    pub policy_changes: Vec<PolicyChange>,
    /// The same of ports of the host.
    pub published_changes: Vec<PublishedChange>,
    pub start: Vec<GuestSteps>,
    /// What `up` will not do, one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.prepare.is_empty() && self.stop.is_empty() && self.rules.is_empty() && self.start.is_empty()
    }

    /// Takes out all that would be done to these guests.
    pub fn leave_out(&mut self, guests: &BTreeSet<GuestName>) {
        self.stop.retain(|steps| !guests.contains(&steps.guest));
        self.start.retain(|steps| !guests.contains(&steps.guest));
    }

    /// Whether a guest that is stopped is started again.
    pub fn comes_back(&self, guest: &GuestName) -> bool {
        self.start.iter().any(|start| start.guest == *guest)
    }

    /// The guests for which not all is done where these were stopped and started.
    pub fn left_by(
        &self,
        stopped: &[GuestName],
        started: &[GuestName],
    ) -> impl Iterator<Item = GuestName> + use<> {
        let stop = self.stop.iter().map(|steps| &steps.guest).filter(|guest| !stopped.contains(guest));
        let start = self.start.iter().map(|steps| &steps.guest).filter(|guest| !started.contains(guest));
        stop.chain(start).cloned().collect::<BTreeSet<_>>().into_iter()
    }

    /// Whether new rules can be loaded before any other step, so that they wait for no guest and no copy: every guest that
    /// is stopped stands in them too, by the same name of its TAP, so that none is ever without rules.
    pub fn rules_come_first(&self) -> bool {
        !self.rules.iter().any(Step::removes_rules)
            && self.stop.iter().all(|stopped| self.comes_back(&stopped.guest))
    }

    /// Each step on a line of its own below the guest that it is for.
    pub fn detailed(&self) -> String {
        self.text(true)
    }

    /// How much there is to do.
    pub fn counts(&self) -> PlanCounts {
        let comes_back = |stop: &&GuestSteps| self.comes_back(&stop.guest);
        let restart = self.stop.iter().filter(comes_back).count();
        let started = self.start.iter().filter(|guest| guest.starts()).count();
        PlanCounts {
            start: started.saturating_sub(restart),
            restart,
            stop: self.stop.len() - restart,
            change: self.start.len() - started,
            host: self.prepare.len() + self.rules.len(),
        }
    }

    fn text(&self, with_steps: bool) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        let host = |text: &mut String, steps: &[Step]| {
            for step in steps {
                let _ = writeln!(text, "{step}");
            }
        };
        let guest = |text: &mut String, verb: &str, guest: &GuestSteps| {
            let _ = writeln!(text, "{verb} {}: {}", guest.guest, guest.why);
            for step in guest.all().filter(|_| with_steps) {
                let _ = writeln!(text, "  {step}");
            }
        };
        host(&mut text, &self.prepare);
        self.stop.iter().for_each(|stopped| guest(&mut text, "stop", stopped));
        host(&mut text, &self.rules);
        for change in self.policy_changes.iter().filter(|_| with_steps) {
            let _ = writeln!(text, "  {change}");
        }
        for change in self.published_changes.iter().filter(|_| with_steps) {
            let _ = writeln!(text, "  {change}");
        }
        for started in &self.start {
            guest(&mut text, if started.starts() { "start" } else { "change" }, started);
        }
        text
    }
}

/// How many guests a plan does what to, and how many steps it takes on the host itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    /// Guests that do not run yet.
    pub start: usize,
    /// Guests that are stopped and come back as another machine.
    pub restart: usize,
    /// Guests that go.
    pub stop: usize,
    /// Guests that stay as they run.
    pub change: usize,
    /// Steps that are for no one guest.
    pub host: usize,
}

impl fmt::Display for PlanCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, restart, stop, change, host } = *self;
        let guests =
            [(start, "to start"), (restart, "to restart"), (stop, "to stop"), (change, "to change in place")];
        let host = (host, if host == 1 { "step on the host" } else { "steps on the host" });
        let all = guests.into_iter().chain([host]).filter(|(count, _)| *count > 0);
        f.write_str(&all.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(false))
    }
}
