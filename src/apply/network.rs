//! The network of a fleet on its host: its namespace, the way out of that, and the rules on both sides.

pub mod forwarding;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipnet::Ipv4Net;

use crate::base::network::{HostRoute, INNER_UPLINK, PAIR_HOST, PAIR_HOST_MAC, PAIR_INNER, PAIR_INNER_MAC};
use crate::base::{
    Class, Diagnosis, Diagnostic, FleetName, Found, GuestName, InterfaceName, InvalidValue, Rates, Sha256,
};
use crate::host::firewall::{self, Ruleset, swap};
use crate::host::host_rules::{self, FAMILY};
use crate::host::layout::Layout;
use crate::host::network::{NetworkSpec, PairSpec, SETTINGS};
use crate::host::observed::{ObservedNetwork, ObservedRuleset};
use crate::host::policy::Policies;
use crate::host::publish::PublishedPort;
use crate::host::wanted::HostRules;
use crate::sys::fs::{self as files, FileError};
use crate::sys::ip::{self, Interface, IpError, Neighbour};
use crate::sys::netns::{self, NetnsError, Presence};
use crate::sys::nft::{self, NftError};
use crate::sys::pair::{self, HOST_SHARES, INNER_SHARES, Pair, PairEnd, PairError};
use crate::sys::shares::{self, ShareBy};
use crate::sys::tap;

use super::record::quarantine::{self, QuarantineError};
use super::record::{self, KernelRules, LoadedRuleset, Unreadable, Unwritten};
use super::resolver::{self, ResolverError};
use super::rules::{self, KnownRules, LoadedRules};

/// What was not found out, or not changed, of a fleet's network.
#[derive(Debug, thiserror::Error)]
pub enum FleetNetworkError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Ip(#[from] IpError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    #[error(transparent)]
    Name(#[from] InvalidValue),
}

impl Diagnostic for FleetNetworkError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Netns(error) => error.diagnosis(),
            Self::Ip(error) => error.diagnosis(),
            Self::Pair(error) => error.diagnosis(),
            Self::Nft(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Unreadable(error) => error.diagnosis(),
            Self::Unwritten(error) => error.diagnosis(),
            Self::Quarantine(error) => error.diagnosis(),
            Self::Resolver(error) => error.diagnosis(),
            Self::Name(_) => Class::Failed.no_hint(),
        }
    }
}

/// Whether conntrack counts the bytes of connections.
const COUNTS: &str = "net.netfilter.nf_conntrack_acct";

/// How the kernel treats what a TAP gives and takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TapSettings {
    /// Whether what comes from it is treated as it should be.
    pub hardened: bool,
    pub rates: Rates<Found<u64>>,
}

/// What was found in a fleet's network namespace.
#[derive(Debug, Default)]
pub(super) struct NamespaceState {
    pub interfaces: Vec<Interface>,
    /// By the name of a TAP.
    pub taps: BTreeMap<String, TapSettings>,
    /// What the kernel holds of the fleet's rules there.
    rules: Option<LoadedRules>,
    routes: Vec<HostRoute>,
    neighbours: Vec<Neighbour>,
    /// How fast what leaves it is shared between guests.
    shared: Option<Found<u64>>,
    is_set: bool,
    /// Whether those are cut off who should be.
    quarantine_is_whole: bool,
    /// Those who are, and should be by no record.
    cut_off_unrecorded: BTreeSet<GuestName>,
}

impl NamespaceState {
    /// What was read of the rules, where that was done.
    pub(super) fn read_rules(&self) -> Option<&KernelRules> {
        self.rules.as_ref()?.held.as_ref()
    }

    /// The fleet's rules there.
    pub(super) fn ruleset(&self, layout: &Layout) -> Option<ObservedRuleset> {
        let listing = self.rules.as_ref()?.listing;
        Some(if self.quarantine_is_whole {
            loaded(&layout.ruleset(), listing)
        } else {
            ObservedRuleset::Unknown
        })
    }
}

/// Looks into the fleet's network namespace; `None` where there is none that could be entered.
pub(super) fn inside(layout: &Layout) -> Result<Option<NamespaceState>, FleetNetworkError> {
    let netns = layout.netns();
    if netns::presence(&netns)? != Presence::There {
        return Ok(None);
    }
    let look = || -> Result<NamespaceState, FleetNetworkError> {
        let interfaces = ip::interfaces()?;
        Ok(NamespaceState {
            taps: tap_settings(&interfaces)?,
            shared: match interfaces.iter().find(|found| found.name == INNER_UPLINK) {
                Some(uplink) => shared(uplink, INNER_SHARES)?,
                None => None,
            },
            interfaces,
            rules: rules::look(layout.fleet(), known_rules(layout).as_ref())?,
            routes: ip::routes()?,
            neighbours: ip::permanent_neighbours()?,
            quarantine_is_whole: quarantine::is_whole(layout)?,
            cut_off_unrecorded: quarantine::unrecorded(layout)?,
            is_set: SETTINGS.iter().all(|(key, value)| is_setting(key, value)),
        })
    };
    netns::within(&netns, look)?.map(Some)
}

fn tap_settings(interfaces: &[Interface]) -> Result<BTreeMap<String, TapSettings>, IpError> {
    let mut shapes = tap::shapes(interfaces)?;
    let settings = |found: &Interface| {
        let rates = shapes.remove(&found.name).filter(|_| found.tap.is_some())?;
        Some((found.name.clone(), TapSettings { hardened: tap::is_hardened(found), rates }))
    };
    Ok(interfaces.iter().filter_map(settings).collect())
}

/// Whether a setting is so; a kernel without IPv6 has none of its own and needs none.
fn is_setting(key: &str, wanted: &str) -> bool {
    match ip::get_sysctl(key) {
        Ok(Some(value)) => value == wanted,
        Ok(None) => key.starts_with("net.ipv6."),
        Err(_) => false,
    }
}

/// How nft lists a fleet's table of a family; `None` where there is none.
pub(super) fn listing(family: &str, fleet: &FleetName) -> Result<Option<String>, FleetNetworkError> {
    Ok(nft::list_table(family, &firewall::table_name(fleet))?)
}

/// What a host has of a fleet's network, by what was found inside, and by the interfaces of the host.
pub(super) fn observe(
    layout: &Layout,
    inside: Option<&NamespaceState>,
    interfaces: &[Interface],
) -> Result<ObservedNetwork, FleetNetworkError> {
    let namespace = match (netns::presence(&layout.netns())?, inside) {
        (Presence::Absent, _) => None,
        (Presence::There, Some(inside)) if inside.is_set => Some(Found::Whole(())),
        _ => Some(Found::Half),
    };
    let listed = listing(FAMILY, layout.fleet())?;
    let ours = |interface: &&Interface| {
        interface.tap.is_some() && interface.alias.as_ref() == Some(&layout.tap_alias())
    };
    Ok(ObservedNetwork {
        namespace,
        pair: pair(layout, inside, interfaces)?,
        forwarding: forwarding::observed(layout)?,
        ports: listed.as_deref().and_then(host_rules::ports_in),
        published: listed.as_deref().map(|text| published(layout, Sha256::of(text))).unwrap_or_default(),
        rules: listed.map(|text| loaded(&layout.host_rules(), Sha256::of(text))),
        cut_off_unrecorded: inside.map(|inside| inside.cut_off_unrecorded.clone()).unwrap_or_default(),
        is_in_host: nft::has_table("inet", &firewall::table_name(layout.fleet()))?
            || interfaces.iter().any(|it| ours(&it)),
    })
}

/// What the rules that were loaded last let guests do, where that is known.
pub fn policies(layout: &Layout) -> Option<Policies> {
    let loaded: Option<LoadedRuleset> = record::read(&layout.ruleset()).ok().flatten();
    loaded?.policies
}

/// The ways in to guests that were loaded last, without a look at the kernel.
pub fn published_last(layout: &Layout) -> Vec<PublishedPort> {
    let loaded: Option<LoadedRuleset> = record::read(&layout.host_rules()).ok().flatten();
    loaded.map(|loaded| loaded.published).unwrap_or_default()
}

/// The ways in that rules have which are listed so.
fn published(layout: &Layout, listing: Sha256) -> Vec<PublishedPort> {
    let loaded: Option<LoadedRuleset> = record::read(&layout.host_rules()).ok().flatten();
    loaded.filter(|loaded| loaded.listing == listing).map(|loaded| loaded.published).unwrap_or_default()
}

/// Whether rules that are listed so are those that were loaded. Of which nothing is known, they are loaded anew, and so is
/// their record.
fn loaded(record: &Path, listing: Sha256) -> ObservedRuleset {
    let loaded: Option<LoadedRuleset> = record::read(record).ok().flatten();
    let loaded = loaded.filter(|loaded| loaded.listing == listing);
    loaded.map_or(ObservedRuleset::Unknown, |loaded| ObservedRuleset::Loaded(loaded.digest))
}

fn host_end(name: &InterfaceName) -> PairEnd<'_> {
    PairEnd { name: name.as_str(), mac: PAIR_HOST_MAC, address: PAIR_HOST, next_hop: PAIR_INNER }
}

/// What comes from the namespace itself has the first address of the fleet's, which is no guest's.
fn inner_end(subnet: Ipv4Net) -> PairEnd<'static> {
    PairEnd { name: INNER_UPLINK, mac: PAIR_INNER_MAC, address: subnet.network(), next_hop: PAIR_HOST }
}

/// The pair, and all that leads over it.
fn pair(
    layout: &Layout,
    inside: Option<&NamespaceState>,
    interfaces: &[Interface],
) -> Result<Option<Found<PairSpec<Found<u64>>>>, FleetNetworkError> {
    let name = layout.pair()?;
    let Some(host) = interfaces.iter().find(|found| found.name == name.as_str()) else {
        return Ok(None);
    };
    let half = Ok(Some(Found::Half));
    let inner = inside.and_then(|inside| {
        let found = inside.interfaces.iter().find(|found| found.name == INNER_UPLINK)?;
        Some((inside, found)).filter(|_| host.is_peer_of(found))
    });
    let Some((inside, inner)) = inner else { return half };
    let on_host = ip::routes()?;
    let into = on_host.iter().find(|route| {
        route.table == "main" && leads_to(route, &host.name) && route.gateway == Some(PAIR_INNER)
    });
    let Some(subnet) = into.map(|route| route.to) else { return half };
    let (here, there) = (host_end(&name), inner_end(subnet));
    let leads_out = |route: &HostRoute| {
        route.to == Ipv4Net::default() && leads_to(route, &inner.name) && route.gateway == Some(PAIR_HOST)
    };
    let ends = |route: &HostRoute| route.to == subnet && route.kind == "unreachable";
    let is_whole = here.is(host)
        && there.is(inner)
        && host.alias.as_ref() == Some(&layout.tap_alias())
        && host.mtu == inner.mtu
        && inside.routes.iter().any(leads_out)
        && inside.routes.iter().any(ends)
        && is_known(&ip::permanent_neighbours()?, &here, &there)
        && is_known(&inside.neighbours, &there, &here)
        && forwarding::is_on(name.as_str())
        && has_no_ipv6(name.as_str());
    let rates = Rates { up: inside.shared, down: shared(host, HOST_SHARES)? };
    Ok(Some(if is_whole { Found::Whole(PairSpec { mtu: host.mtu, subnet, rates }) } else { Found::Half }))
}

fn leads_to(route: &HostRoute, interface: &str) -> bool {
    route.interface.as_deref() == Some(interface)
}

/// How fast what leaves an interface is shared.
fn shared(interface: &Interface, by: ShareBy) -> Result<Option<Found<u64>>, IpError> {
    if interface.queue == ip::NO_QUEUE { Ok(None) } else { shares::rate(interface, by) }
}

/// Whether one end knows where the other is.
fn is_known(neighbours: &[Neighbour], end: &PairEnd<'_>, other: &PairEnd<'_>) -> bool {
    let mac = other.mac.to_string();
    let is_it = |known: &Neighbour| {
        (known.address, known.interface.as_str()) == (end.next_hop, end.name) && known.mac == mac
    };
    neighbours.iter().any(is_it)
}

fn has_no_ipv6(interface: &str) -> bool {
    is_setting(&format!("net.ipv6.conf.{}.disable_ipv6", interface.replace('.', "/")), "1")
}

/// Makes the namespace, in which no packet goes anywhere yet.
pub(super) fn create_namespace(layout: &Layout) -> Result<(), FleetNetworkError> {
    let netns = layout.netns();
    netns::create(&netns)?;
    let set = |(key, value): &(&str, &str)| match is_setting(key, value) {
        true => Ok(()),
        false => ip::set_sysctl(key, value),
    };
    Ok(netns::within(&netns, || SETTINGS.iter().try_for_each(set))??)
}

/// Makes the way out of the namespace. The host forwards last, when all else is there.
pub(super) fn connect(layout: &Layout, network: &NetworkSpec) -> Result<(), FleetNetworkError> {
    let name = layout.pair()?;
    let (netns, alias) = (layout.netns(), layout.tap_alias());
    pair::connect(&Pair {
        host: host_end(&name),
        inner: inner_end(network.pair.subnet),
        netns: &netns,
        alias: &alias,
        mtu: network.pair.mtu,
        subnet: network.pair.subnet,
        rates: network.pair.rates,
    })?;
    forwarding::forward_by(layout.fleet(), Some(&network.uplink))?;
    Ok(ip::set_sysctl(&forwarding::key(name.as_str()), "1")?)
}

/// Loads the rules on the host's side.
pub(super) fn load_host_rules(layout: &Layout, rules: &HostRules) -> Result<(), FleetNetworkError> {
    nft::load(&rules.ruleset.text)?;
    let listing = listing(FAMILY, layout.fleet())?;
    let Some(listing) = listing.map(Sha256::of) else { return Ok(()) };
    let (digest, published) = (rules.ruleset.digest, rules.published.clone());
    Ok(record::write(
        &layout.host_rules(),
        &LoadedRuleset { digest, listing, policies: None, published, by_set: false },
    )?)
}

/// What stands above the body of rules.
fn head(digest: Sha256) -> String {
    format!("# {digest}\n")
}

/// What is known of the rules that were loaded last.
fn known_rules(layout: &Layout) -> Option<KnownRules> {
    let known: LoadedRuleset = record::read(&layout.ruleset()).ok().flatten()?;
    let held: Option<KernelRules> = record::read(&layout.ruleset_held()).ok().flatten();
    let body = files::read_text_if_present(&layout.ruleset_body()).ok().flatten();
    Some(KnownRules {
        listing: known.listing,
        is_flat: !known.by_set,
        held: held.filter(|held| held.listing == known.listing),
        body: body.and_then(|text| Some(text.strip_prefix(&head(known.digest))?.to_owned())),
    })
}

/// Keeps what was read of the rules that were loaded last, so that the next look need not.
pub(super) fn keep_rules(layout: &Layout, held: &KernelRules) -> Result<(), Unwritten> {
    let known: Option<LoadedRuleset> = record::read(&layout.ruleset()).ok().flatten();
    match known.filter(|known| known.by_set && known.listing == held.listing) {
        Some(_) => record::write(&layout.ruleset_held(), held),
        None => Ok(()),
    }
}

/// Loads the rules in the namespace.
pub(super) fn load_ruleset(layout: &Layout, ruleset: &Ruleset) -> Result<(), FleetNetworkError> {
    let load = || -> Result<Option<LoadedRules>, FleetNetworkError> {
        // Before the rules, so that nobody who is cut off is ever held by those alone.
        if !quarantine::is_whole(layout)? {
            quarantine::load(layout)?;
        }
        let known = known_rules(layout);
        // It is of no use from here on; another namespace of this name may come to the same number.
        files::remove(&layout.ruleset_held())?;
        let leaving = resolver::leaving(layout, ruleset)?;
        let loaded = rules::load(layout.fleet(), ruleset, &leaving, known.as_ref())?;
        // There once rules have brought conntrack along; a kernel that cannot count tells no bytes of flows.
        if !is_setting(COUNTS, "1") {
            let _ = ip::set_sysctl(COUNTS, "1");
        }
        Ok(loaded)
    };
    let Some(LoadedRules { listing, held }) = netns::within(&layout.netns(), load)?? else { return Ok(()) };
    let (digest, policies) = (ruleset.digest, Some(ruleset.policies.clone()));
    // Whose it is stands above it: that of other rules is none.
    let body = head(digest) + &swap::body_of(&ruleset.parts);
    files::write_unsynced(&layout.ruleset_body(), body.as_bytes(), 0o600)?;
    let loaded = LoadedRuleset { digest, listing, policies, published: Vec::new(), by_set: true };
    record::write(&layout.ruleset(), &loaded)?;
    Ok(held.map_or(Ok(()), |held| record::write(&layout.ruleset_held(), &held))?)
}

/// Removes everything: the way out first, and then what is behind it.
pub(super) fn remove(layout: &Layout) -> Result<(), FleetNetworkError> {
    ip::delete_link(layout.pair()?.as_str())?;
    forwarding::forward_by(layout.fleet(), None)?;
    nft::delete_table(FAMILY, &firewall::table_name(layout.fleet()))?;
    netns::remove(&layout.netns())?;
    // Who is quarantined stays so; only what was loaded for it is gone.
    let body = layout.ruleset_body();
    let held = layout.ruleset_held();
    for loaded in [layout.host_rules(), layout.quarantine_rules(), held, body, layout.ruleset()] {
        files::remove(&loaded)?;
    }
    Ok(())
}

/// Removes what an earlier sisforge left in the host's own network. No guest of the fleet is there any more.
pub(super) fn remove_earlier(layout: &Layout) -> Result<(), FleetNetworkError> {
    for tap in ip::taps()?.into_iter().filter(|tap| tap.alias.as_ref() == Some(&layout.tap_alias())) {
        ip::delete_link(&tap.name)?;
    }
    Ok(nft::delete_table("inet", &firewall::table_name(layout.fleet()))?)
}
