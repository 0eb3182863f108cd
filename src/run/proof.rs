//! Proof: a policy in nft's words, and the kernel's word on what it does with a packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::apply::ApplyError;
use crate::apply::prove::{Proof, ProveError, Scratch, Sender};
use crate::base::network::tap_name;
use crate::base::text::json;
use crate::base::{GuestName, InterfaceName, InvalidValue, Label, MacAddress, Sha256};
use crate::fleet::{Fleet, NetworkPolicy};
use crate::host::desired::{DesiredError, HostFacts};
use crate::host::firewall::{self, Endpoint, FirewallInput};
use crate::host::policy::Transport;
use crate::host::quarantine;
use crate::host::resolver::{ResolverInput, resolvers};
use crate::host::state::Machine;
use crate::lock::model::Lock;
use crate::sys::tool::Tool;

use super::error::HostNetworkError;
use super::guests::declared;
use super::policy::{Explained, network_of};
use super::{RunError, Workspace, facts, host};

/// Nft's rules for the guests that have the network of that name, for the guest of that name, or for all: where this host is the
/// fleet's, and whoever asks is root, those of all are what `up` loads.
///
/// # Errors
/// Where `fleet.lock` does not tell their numbers.
pub fn rules(workspace: &Workspace<'_>, name: Option<&str>) -> Result<String, RunError> {
    let fleet = workspace.fleet()?;
    let network = name.map(|name| network_of(&fleet, name)).transpose()?;
    let is_network = name.is_some_and(|name| fleet.networks.keys().any(|label| label.as_str() == name));
    let lock = Lock::read(&workspace.lock_path())?.ok_or_else(|| RunError::NoLock(workspace.lock_path()))?;
    let is_meant = |guest: &GuestName, own: &Label| match name {
        None => true,
        Some(_) if is_network => network.as_ref() == Some(own),
        Some(name) => guest.as_str() == name,
    };
    let meant = fleet.guests.iter().filter(|(guest, spec)| is_meant(guest, &spec.network));
    let host = HostPart::of(&fleet)?;
    let endpoints = meant.map(|(guest, spec)| {
        let numbers = lock.guest.get(guest).ok_or_else(|| DesiredError::NotLocked(guest.clone()))?;
        let locked = (numbers.tap.clone(), numbers.mac, numbers.ip);
        let restored = host.restored.get(guest);
        let (tap, mac, ip) =
            restored.map_or(locked, |machine| (machine.tap.clone(), machine.mac, machine.ip));
        Ok(Endpoint { name: guest.clone(), tap, mac, ip, policy: spec.network.clone() })
    });
    let endpoints: Result<Vec<_>, RunError> = endpoints.collect();
    Ok(rendered(&fleet, Some(&lock), endpoints?, &host)?.1)
}

/// What of a host decides about rules, beside its fleet and lock. The default is one that has nothing of the fleet.
#[derive(Debug, Default)]
struct HostPart {
    closed: Vec<Ipv4Net>,
    /// Ports that guests share outside; where that is not told, more than any budget.
    ports: Option<u32>,
    restored: BTreeMap<GuestName, Machine>,
    resolvers: BTreeMap<u16, Sha256>,
}

impl HostPart {
    /// That of this host, as far as whoever asks may know it.
    fn of(fleet: &Fleet) -> Result<Self, RunError> {
        let closed = facts::closed(fleet)?;
        let observed = host::look(&fleet.head())?;
        // Where no ports are left, that is for `plan` to say.
        let ports = facts::ports(fleet, &observed).ok().map(|ports| ports.len() as u32);
        let (restored, resolvers) = (HostFacts::restored(&observed), HostFacts::resolvers(&observed));
        Ok(Self { closed, ports, restored, resolvers })
    }
}

fn endpoint(
    guest: &GuestName,
    network: &Label,
    ip: Ipv4Addr,
    mac: MacAddress,
) -> Result<Endpoint, InvalidValue> {
    Ok(Endpoint { name: guest.clone(), tap: tap_name(guest)?, mac, ip, policy: network.clone() })
}

/// The way out, as the rules that are looked at here call it.
const UPLINK: &str = "uplink";

/// The way out, and the rules.
fn rendered(
    fleet: &Fleet,
    lock: Option<&Lock>,
    endpoints: Vec<Endpoint>,
    host: &HostPart,
) -> Result<(InterfaceName, String), RunError> {
    let uplink: InterfaceName = UPLINK.parse().map_err(|_| HostNetworkError::NoDefaultRoute)?;
    let used = endpoints.iter().filter_map(|endpoint| fleet.networks.get_key_value(&endpoint.policy));
    let used: BTreeMap<&Label, &NetworkPolicy> = used.collect();
    let (lists, names) =
        (facts::address_lists(used.values().copied())?, facts::name_lists(used.values().copied())?);
    let uids = lock
        .iter()
        .flat_map(|lock| &lock.guest)
        .map(|(guest, numbers)| host.restored.get(guest).map_or(numbers.uid, |machine| machine.uid));
    let resolvers = resolvers(&ResolverInput {
        policies: &used,
        lists: &names,
        addresses: &lists,
        subnet: fleet.host.subnet,
        closed: &host.closed,
        uids: &fleet.host.uids,
        taken: &uids.collect(),
        running: &host.resolvers,
    });
    let input = FirewallInput {
        resolvers: &resolvers.map_err(DesiredError::Resolver)?,
        fleet: &fleet.name,
        uplink: &uplink,
        subnet: fleet.host.subnet,
        closed: &host.closed,
        ports: host.ports.unwrap_or(u32::MAX),
        endpoints,
        policies: &fleet.networks,
        lists: &lists,
    };
    let text = firewall::render(&input).text;
    Ok((uplink, text))
}

/// What is asked of the program that is started in a network of its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProofRequest {
    sender: Sender,
    ruleset: String,
    to: Ipv4Addr,
    transport: Transport,
}

/// Has the kernel decide about the packet that was explained, by the rules of its guest, in a network of its own. The numbers of
/// a guest that is not locked yet are made up: they decide nothing.
///
/// # Errors
/// Where the kernel does otherwise than was explained, among others.
pub fn prove(workspace: &Workspace<'_>, explained: &Explained) -> Result<Proof, RunError> {
    let (Some(to), Some(transport)) = (explained.question.v4(), explained.question.transport) else {
        return Err(ProveError::Nothing.into());
    };
    let fleet = workspace.fleet()?;
    let guest = declared(explained.guest.as_str(), &fleet)?;
    let lock = Lock::read(&workspace.lock_path())?;
    let locked = lock.as_ref().and_then(|lock| lock.guest.get(&guest));
    let made_up = || Ipv4Addr::from(u32::from(fleet.host.subnet.network()).saturating_add(2));
    let ip = locked.map_or_else(made_up, |numbers| numbers.ip);
    let mac = locked.map_or_else(|| MacAddress::of_guest(ip), |numbers| numbers.mac);
    let endpoint =
        endpoint(&guest, &explained.network, ip, mac).map_err(|_| DesiredError::NotLocked(guest.clone()))?;
    let tap = endpoint.tap.clone();
    let host = HostPart { closed: explained.closed.clone(), ..HostPart::default() };
    let (uplink, mut ruleset) = rendered(&fleet, lock.as_ref(), vec![endpoint], &host)?;
    if explained.quarantined {
        // As on the host: a table of its own, which is asked first.
        ruleset += &quarantine::table(&fleet.name, &BTreeSet::from([tap.clone()]), &BTreeSet::new());
    }
    let request = ProofRequest { sender: Sender { tap, mac, ip, uplink }, ruleset, to, transport };
    let proof = ask(&request)?;
    if proof.passed == explained.passes() { Ok(proof) } else { Err(ProveError::Disproved(proof).into()) }
}

/// Asks this program, started in a network of its own. Who is not root has one where user namespaces may be made.
fn ask(request: &ProofRequest) -> Result<Proof, RunError> {
    let is_root = rustix::process::geteuid().is_root();
    let user: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    let unshare = Tool::new("unshare").args(user).args(["--net", "--"]);
    let answer = unshare.arg(host::program()?).arg("prove").stdin(json(request)).run();
    serde_json::from_slice(&answer.map_err(ApplyError::Tool)?).map_err(RunError::Manifest)
}

/// Answers such a request, in the network of this process.
pub fn answer(request: &ProofRequest) -> Result<Proof, RunError> {
    let mut scratch = Scratch::build(request.sender.clone())?;
    scratch.load(&request.ruleset)?;
    Ok(scratch.send(request.to, request.transport)?)
}
