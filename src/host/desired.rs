//! What a fleet wants of its host.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use crate::base::FileDigest;
use crate::base::network::{INNER_UPLINK, host_side, pair_name};
use crate::base::{ByteSize, GuestName, InterfaceName, InvalidValue, Label, Rates, Sha256};
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::build::artifacts::Artifact;
pub use crate::build::artifacts::Artifacts;
use crate::fleet::{
    Backing, Bucket, ContainerSpec, Fleet, GuestSpec, MachineSpec, NetworkPolicy, RateLimiter, VmmKind,
};
use crate::lock::model::{Lock, LockedGuest};
use crate::sys::firecracker::FirecrackerVersion;

use super::container::GuestContainer;
use super::firewall::{self, Endpoint, FirewallInput, Ruleset};
use super::host_rules::{self, HostRulesInput};
use super::limits::limits;
use super::network::{NetworkSpec, PAIR_MTU_MAX, PairSpec};
use super::observed::{ObservedHost, ObservedResolver, PoolRole};
use super::policy::Policies;
use super::publish::published;
use super::resolver::list::{NameList, NameListError};
use super::resolver::{NoResolver, Resolver, ResolverInput, resolvers};
use super::state::{Machine, MachineDisk, SpareSpec, StoredKind, TapSpec};
use super::versions;
use super::vmm::{self, BootInfo, COMMAND_LINE_MAX};
use super::wanted::{HostRules, Startup, WantedDisk, WantedGuest, WantedHost, WantedNetwork};

impl Artifacts {
    /// Every artifact once, by digest: where its file is and what it is for.
    pub fn by_digest(&self) -> BTreeMap<FileDigest, (&Artifact, StoredKind)> {
        let kernel = std::iter::once((&self.kernel, StoredKind::Kernel));
        let images = self.images.values().map(|artifact| (artifact, StoredKind::Image));
        let disks = self.disks.values().map(|artifact| (artifact, StoredKind::Disk));
        let containers = self.containers.values().map(|artifact| (artifact, StoredKind::Containers));
        kernel
            .chain(images)
            .chain(disks)
            .chain(containers)
            .map(|(artifact, kind)| (artifact.digest, (artifact, kind)))
            .collect()
    }
}

/// What only the host can say.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The network around the fleet's.
    pub around: NetworkAround,
    /// Base64 part of the host's public ssh key; none before the first `up`.
    pub ssh_key: Option<String>,
    /// Addresses on the block and allow lists that policies name.
    pub lists: BTreeMap<PathBuf, Vec<IpNet>>,
    /// Names on the lists that policies name.
    pub names: BTreeMap<PathBuf, Arc<NameList>>,
    /// Digests of the files that machines name.
    pub files: BTreeMap<PathBuf, FileDigest>,
    /// The Firecracker that is installed; `None` where there is none, or the fleet runs on another VMM.
    pub firecracker: Option<FirecrackerVersion>,
    /// Whether KVM runs ordinary guests here.
    pub kvm: bool,
    /// Machines that go on from a snapshot: each stays as it is for as long as it runs.
    pub restored: BTreeMap<GuestName, Machine>,
    /// Resolvers that run, by their seats: each stays where it is.
    pub resolvers: BTreeMap<u16, Sha256>,
    /// Members of pools that are to be there, of those whose guests are handed out.
    pub pool_members: BTreeSet<GuestName>,
    /// Guests that somebody has, as they run, with their containers.
    pub in_use: BTreeMap<GuestName, (Machine, Vec<GuestContainer>)>,
    /// Digests of what containers name: of `kube` files, and, by a key of the fleet, of secrets.
    pub kube_files: BTreeMap<PathBuf, Sha256>,
    pub secrets: BTreeMap<PathBuf, Sha256>,
}

/// What is around a fleet's network.
#[derive(Clone, Debug)]
pub struct NetworkAround {
    /// The interface that faces the network.
    pub uplink: InterfaceName,
    /// Of the uplink, in bytes.
    pub mtu: u32,
    /// Whether the uplink forwarded before any fleet came.
    pub was_router: bool,
    /// What no policy can open: [`super::network::own_networks`].
    pub closed: Vec<Ipv4Net>,
    /// The ports that guests are seen with outside: [`super::network::outer_ports`].
    pub ports: RangeInclusive<u16>,
}

impl HostFacts {
    /// The machines of a host that go on from a snapshot. One that must leave the host's own network boots anew.
    pub fn restored(observed: &ObservedHost) -> BTreeMap<GuestName, Machine> {
        let stay = observed.guests.iter().filter(|(_, guest)| !guest.is_in_host());
        let machines = stay.filter_map(|(name, guest)| {
            let machine = guest.machine().filter(|machine| machine.restored_from.is_some())?;
            Some((name.clone(), machine.clone()))
        });
        machines.collect()
    }

    /// The guests of a host that somebody has.
    pub fn in_use(observed: &ObservedHost) -> BTreeMap<GuestName, (Machine, Vec<GuestContainer>)> {
        let guests = observed.guests.iter().filter_map(|(name, guest)| {
            let vmm = guest.vmm.as_ref()?;
            let machine = vmm.machine.as_ref().filter(|_| matches!(vmm.role, Some(PoolRole::InUse(_))))?;
            let containers = vmm.containers.iter().map(|started| started.container.clone()).collect();
            Some((name.clone(), (machine.clone(), containers)))
        });
        guests.collect()
    }

    /// The resolvers of a host that run.
    pub fn resolvers(observed: &ObservedHost) -> BTreeMap<u16, Sha256> {
        let running = observed.resolvers.iter().filter_map(|(seat, found)| match found {
            ObservedResolver::Running(digest) => Some((*seat, *digest)),
            ObservedResolver::Broken => None,
        });
        running.collect()
    }
}

/// A fleet, its lock and its artifacts that do not belong together, or a guest that no VMM could start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesiredError {
    #[error("fleet.lock has no address and uid for guest {0}")]
    NotLocked(GuestName),
    #[error("no artifact was built for guest {0}")]
    NotBuilt(GuestName),
    #[error(
        "the kernel command line of guest {guest} has {length} bytes, but at most {COMMAND_LINE_MAX} are allowed"
    )]
    CommandLineTooLong { guest: GuestName, length: usize },
    #[error("{} was not read", .0.display())]
    NotRead(PathBuf),
    #[error(transparent)]
    Name(#[from] InvalidValue),
    #[error(transparent)]
    NameList(#[from] NameListError),
    #[error(transparent)]
    Resolver(#[from] NoResolver),
    #[error("{}", sentences(.0))]
    Unsupported(Vec<Unsupported>),
}

impl Diagnostic for DesiredError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NameList(error) => error.diagnosis(),
            Self::Resolver(error) => error.diagnosis(),
            Self::NotLocked(_) => Class::Invalid.hint("run `sisforge lock`"),
            Self::NotBuilt(_) => Class::Failed.hint("run `sisforge build`"),
            Self::NotRead(_) | Self::Name(_) => Class::Failed.no_hint(),
            Self::CommandLineTooLong { .. } => Class::Invalid.no_hint(),
            Self::Unsupported(_) => {
                Class::Invalid.hint("install a Firecracker that has it, or remove the key")
            }
        }
    }
}

/// A key of a machine that the installed Firecracker can do nothing with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` of {} needs Firecracker {since}, but this host has {found}", names(.guests))]
pub struct Unsupported {
    pub key: &'static str,
    /// All that ask for it.
    pub guests: Vec<GuestName>,
    pub since: FirecrackerVersion,
    pub found: FirecrackerVersion,
}

fn names(guests: &[GuestName]) -> String {
    guests.iter().map(GuestName::as_str).collect::<Vec<_>>().join(", ")
}

fn sentences(all: &[Unsupported]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The state that `fleet` wants of its host.
///
/// # Errors
/// Where lock or artifacts lack a guest, or a guest cannot be started as declared.
pub fn desired(
    fleet: &Fleet,
    lock: &Lock,
    artifacts: &Artifacts,
    facts: &HostFacts,
) -> Result<WantedHost, DesiredError> {
    let mut guests = BTreeMap::new();
    let mut endpoints = Vec::new();
    for (name, spec) in &fleet.guests {
        let numbers = lock.guest.get(name).ok_or_else(|| DesiredError::NotLocked(name.clone()))?;
        let fresh = guest(fleet, name, spec, numbers, artifacts, facts)?;
        let mut endpoint = endpoint(name, spec, numbers);
        let guest = match (facts.restored.get(name), facts.in_use.get(name)) {
            (_, Some((machine, containers))) => in_use(fresh, machine, containers, spec, &mut endpoint),
            // Nobody is handed what another had: such a guest of a pool boots anew.
            (Some(machine), None) if spec.warm.is_none() => restored(fresh, machine, spec, &mut endpoint),
            _ => fresh,
        };
        // The rules are for all who may ever be there, so that nobody who comes or goes changes them.
        endpoints.push(endpoint);
        if spec.warm.is_none() || facts.pool_members.contains(name) {
            guests.insert(name.clone(), guest);
        }
    }
    // The order of bytes, in which an earlier sisforge has loaded them: no rule is swapped for its place.
    endpoints.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    supported(&guests, facts)?;
    let network = network(fleet, lock, &facts.around, &endpoints)?;
    let resolvers = wanted_resolvers(fleet, facts, &endpoints, &guests)?;
    let ruleset = ruleset(fleet, facts, endpoints, &resolvers)?;
    let resolvers = resolvers.into_values().map(|resolver| (resolver.seat.number, resolver)).collect();
    let stored = stored(artifacts, &guests);
    Ok(WantedHost { network: Some(network), ruleset: Some(ruleset), stored, guests, resolvers })
}

/// The rules, with what they let guests do.
fn ruleset(
    fleet: &Fleet,
    facts: &HostFacts,
    endpoints: Vec<Endpoint>,
    resolvers: &BTreeMap<Label, Resolver>,
) -> Result<Ruleset, InvalidValue> {
    let of_guests = endpoints.iter().map(|e: &Endpoint| (e.name.clone(), e.policy.clone())).collect();
    let subnet = fleet.host.subnet;
    let policies = Policies::new(of_guests, &fleet.networks, &facts.lists, subnet, &fleet.source);
    let ruleset = firewall::render(&FirewallInput {
        fleet: &fleet.name,
        uplink: &INNER_UPLINK.parse()?,
        subnet,
        closed: &facts.around.closed,
        ports: facts.around.ports.len() as u32,
        endpoints,
        policies: &fleet.networks,
        lists: &facts.lists,
        resolvers,
    });
    Ok(Ruleset { policies, ..ruleset })
}

/// All that the store is to have.
fn stored(
    artifacts: &Artifacts,
    guests: &BTreeMap<GuestName, WantedGuest>,
) -> BTreeMap<FileDigest, StoredKind> {
    let artifacts = artifacts.by_digest().into_iter().map(|(digest, (_, kind))| (digest, kind));
    let files = guests.values().flat_map(|guest| guest.machine().spec.files());
    files.map(|(_, digest)| (*digest, StoredKind::Machine)).chain(artifacts).collect()
}

/// Resolvers of the policies that guests have.
fn wanted_resolvers(
    fleet: &Fleet,
    facts: &HostFacts,
    endpoints: &[Endpoint],
    guests: &BTreeMap<GuestName, WantedGuest>,
) -> Result<BTreeMap<Label, Resolver>, NoResolver> {
    let used = endpoints.iter().filter_map(|endpoint| fleet.networks.get_key_value(&endpoint.policy));
    resolvers(&ResolverInput {
        policies: &used.collect(),
        lists: &facts.names,
        addresses: &facts.lists,
        subnet: fleet.host.subnet,
        closed: &facts.around.closed,
        uids: &fleet.host.uids,
        taken: &guests.values().map(|guest| guest.machine().uid).collect(),
        running: &facts.resolvers,
    })
}

/// A guest that boots, as the firewall sees it.
fn endpoint(name: &GuestName, spec: &GuestSpec, numbers: &LockedGuest) -> Endpoint {
    let LockedGuest { tap, mac, ip, .. } = numbers.clone();
    Endpoint { name: name.clone(), tap, mac, ip, policy: spec.network.clone() }
}

/// The way out of the fleet's namespace, and what its host lets through.
fn network(
    fleet: &Fleet,
    lock: &Lock,
    around: &NetworkAround,
    endpoints: &[Endpoint],
) -> Result<WantedNetwork, InvalidValue> {
    let addresses: BTreeMap<_, _> = endpoints.iter().map(|endpoint| (&endpoint.name, endpoint.ip)).collect();
    let mut published = published(fleet, lock, |guest| addresses.get(guest).copied());
    published.sort_by(|a, b| a.guest.as_str().cmp(b.guest.as_str()));
    let (subnet, uplink) = (fleet.host.subnet, &around.uplink);
    let ruleset = host_rules::render(&HostRulesInput {
        fleet: &fleet.name,
        pair: &pair_name(&fleet.name)?,
        uplink,
        subnet,
        ports: &around.ports,
        published: &published,
        was_router: around.was_router,
    });
    let rates = fleet.host.uplink_rates.bytes_per_second();
    let pair = PairSpec { mtu: around.mtu.min(PAIR_MTU_MAX), subnet, rates };
    let spec = NetworkSpec { uplink: uplink.clone(), pair };
    Ok(WantedNetwork { spec, rules: HostRules { ruleset, published } })
}

/// Looks whether the installed Firecracker can do all that the machines ask for.
fn supported(guests: &BTreeMap<GuestName, WantedGuest>, facts: &HostFacts) -> Result<(), DesiredError> {
    let Some(found) = facts.firecracker else { return Ok(()) };
    let mut wanting: BTreeMap<(&'static str, FirecrackerVersion), Vec<GuestName>> = BTreeMap::new();
    for (name, guest) in guests {
        for missing in versions::unsupported(&guest.machine().spec, found) {
            wanting.entry(missing).or_default().push(name.clone());
        }
    }
    let all = wanting.into_iter().map(|((key, since), guests)| Unsupported { key, guests, since, found });
    let all: Vec<_> = all.collect();
    if all.is_empty() { Ok(()) } else { Err(DesiredError::Unsupported(all)) }
}

/// What a guest's VMM is told beyond its numbers; one that shapes traffic is told the policy's rates as well.
fn machine_spec(
    vmm: VmmKind,
    spec: &MachineSpec,
    policy: Option<&NetworkPolicy>,
    facts: &HostFacts,
) -> Result<MachineSpec<FileDigest>, DesiredError> {
    let digest =
        |path: &PathBuf| facts.files.get(path).copied().ok_or_else(|| DesiredError::NotRead(path.clone()));
    let mut spec = spec.renamed(digest)?;
    if let Some(policy) = policy.filter(|_| vmm::of(vmm).shapes_traffic()) {
        for (limits, rate) in
            [(&mut spec.network.up, policy.rate_up), (&mut spec.network.down, policy.rate_down)]
        {
            if *limits == RateLimiter::default() {
                limits.bandwidth = rate.map(|rate| Bucket::steady(rate.bytes_per_second()));
            }
        }
    }
    Ok(spec)
}

/// A guest that is brought back from a snapshot, in the place of one that boots. It has the address that is in its memory,
/// so the host's side and the rules follow it; containers are started in a guest that boots.
fn restored(fresh: WantedGuest, machine: &Machine, spec: &GuestSpec, endpoint: &mut Endpoint) -> WantedGuest {
    let startup = Startup::Restored { machine: machine.clone(), fresh: Box::new(fresh.machine().clone()) };
    WantedGuest { startup, containers: Vec::new(), ..around(fresh, machine, spec, endpoint) }
}

/// A guest that somebody has: what it was started with stays, and the host around it follows the file.
fn in_use(
    fresh: WantedGuest,
    machine: &Machine,
    containers: &[GuestContainer],
    spec: &GuestSpec,
    endpoint: &mut Endpoint,
) -> WantedGuest {
    let (startup, containers) = (Startup::InUse(machine.clone()), containers.to_vec());
    WantedGuest { startup, containers, spare: None, ..around(fresh, machine, spec, endpoint) }
}

/// The host around a machine that is not the one that would be started.
fn around(fresh: WantedGuest, machine: &Machine, spec: &GuestSpec, endpoint: &mut Endpoint) -> WantedGuest {
    endpoint.tap = machine.tap.clone();
    endpoint.mac = machine.mac;
    endpoint.ip = machine.ip;
    WantedGuest {
        disk: fresh.disk.map(|disk| WantedDisk { uid: machine.uid, ..disk }),
        tap: tap(machine, fresh.tap.rates),
        cgroup: limits(machine, spec),
        ..fresh
    }
}

/// The TAP of a machine: the guest's address decides the host's.
fn tap(machine: &Machine, rates: Rates) -> TapSpec {
    TapSpec { name: machine.tap.clone(), owner: machine.uid, address: host_side(machine.ip), rates }
}

fn guest(
    fleet: &Fleet,
    name: &GuestName,
    spec: &GuestSpec,
    numbers: &LockedGuest,
    artifacts: &Artifacts,
    facts: &HostFacts,
) -> Result<WantedGuest, DesiredError> {
    let missing = || DesiredError::NotBuilt(name.clone());
    let image = artifacts.images.get(&spec.image).ok_or_else(missing)?;
    let disk = artifacts.disks.get(name).ok_or_else(missing)?;
    let policy = fleet.networks.get(&spec.network);
    let ephemeral = spec.is_ephemeral();
    let machine_disk = if ephemeral {
        let in_memory = spec.disk.backing == Backing::Tmpfs;
        MachineDisk::Ephemeral { base: disk.digest, size: disk.size, in_memory }
    } else {
        MachineDisk::Kept
    };
    let kvm = facts.kvm && !vmm::of(fleet.vmm).needs_kvm();
    let machine = Machine {
        vmm: fleet.vmm,
        uid: numbers.uid,
        tap: numbers.tap.clone(),
        mac: numbers.mac,
        ip: numbers.ip,
        vcpus: spec.vcpus,
        memory_mib: spec.memory.mib(),
        kernel: artifacts.kernel.digest,
        image: image.digest,
        disk: machine_disk,
        images: artifacts.containers.get(name).map(|artifact| artifact.digest),
        command_line: String::new(),
        spec: machine_spec(fleet.vmm, &spec.machine, policy, facts)?,
        kvm,
        session_disk: spec.warm.as_ref().and_then(|warm| warm.disk).map(ByteSize::bytes),
        restored_from: None,
    };
    let command_line = command_line(name, &machine, policy, facts)?;
    let machine = Machine { command_line, ..machine };
    let kept = WantedDisk { uid: numbers.uid, size: disk.size, base: disk.digest };
    Ok(WantedGuest {
        disk: (!ephemeral).then_some(kept),
        tap: tap(&machine, policy.map(NetworkPolicy::rates).unwrap_or_default()),
        cgroup: limits(&machine, spec),
        startup: Startup::Boot(machine),
        containers: containers(&spec.containers, facts)?,
        spare: spare(fleet.vmm, spec),
    })
}

/// Containers with their files by digest.
fn containers(declared: &[ContainerSpec], facts: &HostFacts) -> Result<Vec<GuestContainer>, DesiredError> {
    let digest = |known: &BTreeMap<PathBuf, Sha256>, path: &PathBuf| {
        known.get(path).copied().ok_or_else(|| DesiredError::NotRead(path.clone()))
    };
    let with_digests = |container: &ContainerSpec| {
        let kube = |path: &PathBuf| digest(&facts.kube_files, path);
        container.with_files(kube, |secret| digest(&facts.secrets, &secret.file))
    };
    declared.iter().map(with_digests).collect()
}

fn spare(vmm: VmmKind, spec: &GuestSpec) -> Option<SpareSpec> {
    let (pool, warm) = (spec.pool.as_ref()?.pool.clone(), spec.warm.as_ref()?);
    let paused = warm.paused && vmm::of(vmm).keeps_time_while_paused();
    Some(SpareSpec { pool, paused, ttl: warm.ttl, ends_with: warm.ends_with.clone() })
}

/// What the kernel of a guest is started with.
fn command_line(
    guest: &GuestName,
    machine: &Machine,
    policy: Option<&NetworkPolicy>,
    facts: &HostFacts,
) -> Result<String, DesiredError> {
    let host = host_side(machine.ip);
    let boot = BootInfo {
        guest,
        ip: machine.ip,
        host,
        // Where that leads is a matter of the rules, so that other name servers restart nobody.
        dns: policy.is_some_and(|policy| !policy.dns.is_empty()).then_some(host),
        ssh_key: facts.ssh_key.as_deref(),
        session_disk: machine.session_disk_device(),
    };
    let line = vmm::command_line(machine.vmm, machine.kvm, &boot);
    if line.len() > COMMAND_LINE_MAX {
        return Err(DesiredError::CommandLineTooLong { guest: guest.clone(), length: line.len() });
    }
    Ok(line)
}
