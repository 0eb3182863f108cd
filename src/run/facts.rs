//! What only this machine can say: the interface that faces the network, the files that a fleet names, the VMM that is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use crate::apply::containers::file;
use crate::apply::{ApplyError, network};
use crate::base::network::HostRoute;
use crate::base::{FileDigest, InterfaceName, Sha256};
use crate::fleet::{ContainerSource, ContainerSpec, Fleet, NamePolicy, NetworkPolicy, Protocol};
use crate::host::desired::{DesiredError, HostFacts, NetworkAround};
use crate::host::firewall::{fleet_of_table, table_name};
use crate::host::host_rules::{FAMILY, published_in};
use crate::host::layout::{Layout, is_alias};
use crate::host::network::{PAIR_MTU_MAX, outer_ports, overlap, own_networks, parse_ports};
use crate::host::observed::ObservedHost;
use crate::host::publish::PublishedPort;
use crate::host::resolver::list::{self, NameList, NameListError};
use crate::host::{address_list, machine_file, pool, versions, vmm};
use crate::sys::firecracker::{self, FirecrackerVersion};
use crate::sys::ip::Interface;
use crate::sys::netns::{self, Presence};
use crate::sys::report::Report;
use crate::sys::verity::digest_of_bytes;
use crate::sys::{fs, ip, kvm, nft, ports, ssh};

use super::RunError;
use super::error::ContainersError;
use super::error::HostNetworkError;

/// Everything that decides what a fleet wants, beside its lock and its artifacts.
pub(super) fn facts(
    fleet: &Fleet,
    layout: &Layout,
    observed: &ObservedHost,
    report: &dyn Report,
) -> Result<HostFacts, RunError> {
    Ok(HostFacts {
        around: surroundings(fleet, observed)?,
        ssh_key: layout.key().exists().then(|| ssh::public_key(&layout.key())).transpose()?,
        lists: address_lists(fleet.networks.values())?,
        names: name_lists(fleet.networks.values())?,
        files: machine_files(fleet)?,
        kube_files: kube_files(fleet)?,
        secrets: secrets(fleet, layout)?,
        firecracker: firecracker(fleet, report)?,
        kvm: kvm::runs_ordinary_guests(),
        restored: HostFacts::restored(observed),
        resolvers: HostFacts::resolvers(observed),
        pool_members: pool::wanted_members(fleet, observed),
        in_use: HostFacts::in_use(observed),
    })
}

/// What is around the fleet's network on this host.
fn surroundings(fleet: &Fleet, observed: &ObservedHost) -> Result<NetworkAround, RunError> {
    let routes = ip::routes()?;
    let interfaces = ip::interfaces()?;
    let uplink = uplink(fleet, &routes, &interfaces)?;
    let mtu = interfaces.iter().find(|found| found.name == uplink.as_str()).map_or(PAIR_MTU_MAX, |it| it.mtu);
    Ok(NetworkAround {
        was_router: network::forwarding::was_router(&uplink),
        closed: own_networks(&routes, &uplink),
        ports: ports(fleet, observed)?,
        uplink,
        mtu,
    })
}

/// What no policy opens on this host, if it is the fleet's: one that has its network.
pub(super) fn closed(fleet: &Fleet) -> Result<Vec<Ipv4Net>, RunError> {
    let netns = fleet.head().layout().netns();
    if netns::presence(&netns).map_err(ApplyError::from)? != Presence::There {
        return Ok(Vec::new());
    }
    let routes = ip::routes()?;
    Ok(own_networks(&routes, &uplink(fleet, &routes, &ip::interfaces()?)?))
}

/// The interface that faces the network: the declared one, or that of the default route.
fn uplink(fleet: &Fleet, routes: &[HostRoute], interfaces: &[Interface]) -> Result<InterfaceName, RunError> {
    match &fleet.host.uplink {
        Some(name) if interfaces.iter().any(|found| found.name == name.as_str()) => Ok(name.clone()),
        Some(name) => Err(HostNetworkError::NoUplink(name.clone()).into()),
        None => {
            let found = ip::default_uplink(routes)?.and_then(|name| name.parse().ok());
            Ok(found.ok_or(HostNetworkError::NoDefaultRoute)?)
        }
    }
}

/// Ports of this host that guests can be seen with outside.
pub(super) fn ports(fleet: &Fleet, observed: &ObservedHost) -> Result<RangeInclusive<u16>, RunError> {
    let setting = |key: &str| Ok::<_, RunError>(ip::get_sysctl(key)?.unwrap_or_default());
    let ephemeral = setting("net.ipv4.ip_local_port_range")?;
    let mut bounds = ephemeral.split_whitespace().filter_map(|number| number.parse().ok());
    let ephemeral = bounds.next().unwrap_or(32_768)..=bounds.next().unwrap_or(60_999);
    let reserved = parse_ports(&setting("net.ipv4.ip_local_reserved_ports")?);
    let mut taken = ports::bound()?;
    taken.extend(fleet.networks.values().flat_map(|policy| &policy.publish).flat_map(|way| way.host.clone()));
    let found = outer_ports(&taken, &ephemeral, &reserved, observed.network.ports.clone());
    Ok(found.ok_or(HostNetworkError::NoPorts(ephemeral))?)
}

/// Looks whether the fleet's addresses are taken from nobody on this host.
pub(super) fn check_subnet(fleet: &Fleet, layout: &Layout) -> Result<(), RunError> {
    let interfaces = ip::interfaces()?;
    let alias = |name: &str| interfaces.iter().find(|found| found.name == name)?.alias.as_deref();
    let own = |name: &str| alias(name) == Some(&layout.tap_alias());
    let whose = |name: &str| alias(name).filter(|alias| is_alias(alias)).map(str::to_owned);
    match overlap(fleet.host.subnet, &ip::routes()?, own, whose) {
        None => Ok(()),
        Some(what) => Err(HostNetworkError::SubnetTaken { subnet: fleet.host.subnet, what }.into()),
    }
}

/// Checks whether the ports of the host that are to lead to guests are nobody's: of those that do already, that is not asked again.
pub(super) fn check_ports(
    fleet: &Fleet,
    observed: &ObservedHost,
    published: &[PublishedPort],
) -> Result<(), RunError> {
    let is_open = |way: &&PublishedPort| {
        let same = |there: &PublishedPort| (there.protocol, there.port) == (way.protocol, way.port);
        observed.network.published.iter().any(same)
    };
    let new: Vec<_> = published.iter().filter(|way| !is_open(way)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let mut taken = BTreeMap::new();
    for listener in ports::listeners()? {
        let protocol = if listener.is_tcp { Protocol::Tcp } else { Protocol::Udp };
        taken.insert((protocol, listener.port), listener);
    }
    let others = others_ports(fleet)?;
    for way in new {
        let port = (way.protocol, way.port);
        let by_program = || {
            let program = taken.get(&port)?.program();
            Some(program.map_or_else(|| "a program's of this host".into(), |it| format!("that of {it}")))
        };
        let by_fleet = others.get(&port).map(|fleet| format!("published by the fleet {fleet}"));
        if let Some(whose) = by_fleet.or_else(by_program) {
            return Err(HostNetworkError::PortTaken { way: way.clone(), whose }.into());
        }
    }
    Ok(())
}

/// Ports of this host that other fleets publish, with the names of these.
fn others_ports(fleet: &Fleet) -> Result<BTreeMap<(Protocol, u16), String>, RunError> {
    let mut all = BTreeMap::new();
    let own = table_name(&fleet.name);
    let tables = nft::tables(FAMILY).map_err(ApplyError::from)?;
    for table in tables.iter().filter(|table| **table != own) {
        let Some(name) = fleet_of_table(table) else { continue };
        let listing = nft::list_table(FAMILY, table).map_err(ApplyError::from)?.unwrap_or_default();
        all.extend(published_in(&listing).into_iter().map(|port| (port, name.to_owned())));
    }
    Ok(all)
}

/// Every list of addresses that these policies name, read.
pub(super) fn address_lists<'a>(
    policies: impl IntoIterator<Item = &'a NetworkPolicy>,
) -> Result<BTreeMap<PathBuf, Vec<IpNet>>, RunError> {
    let rules = policies.into_iter().flat_map(|policy| policy.allow.iter().chain(&policy.deny));
    let read = |path: &PathBuf| {
        let nets = address_list::parse(&fs::read_text(path)?);
        let nets = nets.map_err(|source| RunError::AddressList { path: path.clone(), source })?;
        Ok((path.clone(), nets))
    };
    rules.filter_map(|rule| rule.list.as_ref()).map(read).collect()
}

/// Every list of names that these policies name, read. One that is empty was meant to hold something.
pub(super) fn name_lists<'a>(
    policies: impl IntoIterator<Item = &'a NetworkPolicy>,
) -> Result<BTreeMap<PathBuf, Arc<NameList>>, RunError> {
    let names = policies.into_iter().filter_map(|policy| policy.names.as_ref());
    let paths: BTreeSet<&PathBuf> = names.flat_map(NamePolicy::lists).collect();
    paths.into_iter().map(|path| Ok((path.clone(), Arc::new(name_list(path)?)))).collect()
}

/// A list of names, read.
pub(super) fn name_list(path: &Path) -> Result<NameList, RunError> {
    let list = list::parse(&fs::read_text(path)?);
    let list = list.map_err(|source| NameListError::Line { path: path.to_owned(), source });
    let filled = |list: NameList| {
        if list.is_empty() { Err(NameListError::Empty(path.to_owned())) } else { Ok(list) }
    };
    Ok(list.and_then(filled).map_err(DesiredError::NameList)?)
}

/// Digests of all files that machines of the fleet name, each of which is what it is for.
pub(super) fn machine_files(fleet: &Fleet) -> Result<BTreeMap<PathBuf, FileDigest>, RunError> {
    let mut digests = BTreeMap::new();
    let mut wrong = Vec::new();
    for (file, path) in fleet.guests.values().flat_map(|guest| guest.machine.files()) {
        if digests.contains_key(path) {
            continue;
        }
        let content = fs::read(path)?;
        wrong
            .extend(machine_file::check(file, &content).err().map(|why| format!("{} {why}", path.display())));
        digests.insert(path.clone(), digest_of_bytes(&content));
    }
    if wrong.is_empty() { Ok(digests) } else { Err(RunError::MachineFiles(wrong)) }
}

/// Digests of the files of `kube` that containers name.
pub(super) fn kube_files(fleet: &Fleet) -> Result<BTreeMap<PathBuf, Sha256>, RunError> {
    let mut digests = BTreeMap::new();
    for container in containers(fleet) {
        if let ContainerSource::Kube(path) = &container.source {
            digests.insert(path.clone(), Sha256::of(file::kube(path)?));
        }
    }
    Ok(digests)
}

/// What secrets are compared by.
///
/// # Errors
/// Where one is not there, or is none that Podman takes: whoever starts guests must have it.
fn secrets(fleet: &Fleet, layout: &Layout) -> Result<BTreeMap<PathBuf, Sha256>, RunError> {
    let key = file::secret_key(layout)?;
    let mut digests = BTreeMap::new();
    for secret in containers(fleet).flat_map(|container| &container.secrets) {
        if !digests.contains_key(&secret.file) {
            let value = file::secret(&secret.file)
                .map_err(|source| ContainersError::NoSecret { name: secret.name.clone(), source })?;
            digests.insert(secret.file.clone(), file::digest(key.as_deref(), &value));
        }
    }
    Ok(digests)
}

fn containers(fleet: &Fleet) -> impl Iterator<Item = &ContainerSpec> {
    fleet.guests.values().flat_map(|guest| &guest.containers)
}

/// The version of Firecracker that the fleet runs on; `None` where it runs on another VMM, or none is installed.
fn firecracker(fleet: &Fleet, report: &dyn Report) -> Result<Option<FirecrackerVersion>, RunError> {
    if vmm::of(fleet.vmm).jailed_program().is_none() {
        return Ok(None);
    }
    let Some((firecracker, jailer)) = firecracker::installed()? else { return Ok(None) };
    versions::check(firecracker, jailer)?;
    if let Some(note) = versions::note(firecracker) {
        report.note(&note);
    }
    Ok(Some(firecracker))
}
