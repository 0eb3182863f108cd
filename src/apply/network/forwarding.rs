//! Which interfaces the host forwards from for the sake of fleets: switched on by the first that comes, put back when the last has
//! left.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::{FleetName, InterfaceName};
use crate::host::layout::Layout;
use crate::sys::fs::{self as files, FileLock};
use crate::sys::ip;
use crate::sys::netns::{self, Presence};

use super::super::record::{self, ForwardedInterface, Forwarding};
use super::{FleetNetworkError, is_setting};

/// The switch for what comes in by an interface.
pub fn key(interface: &str) -> String {
    // A dot in a name of an interface is written as a slash (sysctl(8)).
    format!("net.ipv4.conf.{}.forwarding", interface.replace('.', "/"))
}

/// Whether packets that arrive on an interface are forwarded.
pub(super) fn is_on(interface: &str) -> bool {
    is_setting(&key(interface), "1")
}

/// Whether an interface forwarded before any fleet came.
pub fn was_router(interface: &InterfaceName) -> bool {
    settled(|| before_fleets(interface), || is_on(interface.as_str()))
}

/// What the record says, or the setting where no fleet is in the record.
///
/// Another fleet may switch an interface on between a look at the record and one at the setting. It is in the record before
/// that, so the setting counts only where the record is still without the interface afterwards.
fn settled(mut recorded: impl FnMut() -> Option<bool>, setting: impl Fn() -> bool) -> bool {
    loop {
        if let Some(before) = recorded() {
            return before;
        }
        let forwards = setting();
        if recorded().is_none() {
            return forwards;
        }
    }
}

/// What is known of an interface that fleets had switched on; nothing where that cannot be read.
fn before_fleets(interface: &InterfaceName) -> Option<bool> {
    let mut known: Forwarding = record::read(&Layout::forwarding()).ok().flatten()?;
    known.of(own_network()).get(interface).map(|it| it.before)
}

/// What tells the network of this thread from others that share the record.
fn own_network() -> u64 {
    netns::own_identity().unwrap_or_default()
}

/// Which interfaces a fleet had switched on, and whether they still are.
pub(super) fn observed(layout: &Layout) -> Result<BTreeMap<InterfaceName, bool>, FleetNetworkError> {
    let mut known = record::read::<Forwarding>(&Layout::forwarding())?.unwrap_or_default();
    let interfaces = known.of(own_network()).iter();
    let ours = interfaces.filter(|(_, interface)| interface.fleets.contains(layout.fleet()));
    Ok(ours.map(|(name, _)| (name.clone(), is_on(name.as_str()))).collect())
}

/// Has the host forward what comes in by this interface, and by no other for the sake of this fleet.
pub(super) fn forward_by(fleet: &FleetName, uplink: Option<&InterfaceName>) -> Result<(), FleetNetworkError> {
    let path = Layout::forwarding();
    if uplink.is_none() && !path.exists() {
        return Ok(());
    }
    files::create_private_dir(path.parent().unwrap_or(Path::new("/")))?;
    let _lock = FileLock::wait(&path.with_extension("lock"))?;
    let mut known = record::read::<Forwarding>(&path)?.unwrap_or_default();
    if let Some(uplink) = uplink {
        let before = is_on(uplink.as_str());
        let new = ForwardedInterface { before, fleets: [].into() };
        known.of(own_network()).entry(uplink.clone()).or_insert(new).fleets.insert(fleet.clone());
        // Known first: whoever is killed here finds it again.
        record::write(&path, &known)?;
        ip::set_sysctl(&key(uplink.as_str()), "1")?;
    }
    let mut left = Vec::new();
    known.of(own_network()).retain(|name, interface| {
        // Whoever has no namespace any more has left, however that came about.
        interface.fleets.retain(|it| if it == fleet { uplink == Some(name) } else { is_there(it) });
        let is_needed = !interface.fleets.is_empty();
        if !is_needed && !interface.before {
            left.push(name.clone());
        }
        is_needed
    });
    left.iter().try_for_each(|name| put_back(name.as_str()))?;
    known.networks.retain(|_, interfaces| !interfaces.is_empty());
    if known.networks.is_empty() { Ok(files::remove(&path)?) } else { Ok(record::write(&path, &known)?) }
}

/// Whether a fleet has a network namespace.
fn is_there(fleet: &FleetName) -> bool {
    netns::presence(&Layout::netns_of(fleet)).is_ok_and(|presence| presence != Presence::Absent)
}

/// Puts an interface back as it was before any fleet came, unless somebody made the whole host a router meanwhile.
fn put_back(interface: &str) -> Result<(), FleetNetworkError> {
    let key = key(interface);
    let is_router = ip::get_sysctl("net.ipv4.conf.all.forwarding")?.as_deref() == Some("1");
    match ip::get_sysctl(&key)? {
        Some(_) if !is_router => Ok(ip::set_sysctl(&key, "0")?),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::apply::record::Forwarding;

    use super::settled;

    #[test]
    fn a_network_has_what_an_earlier_sisforge_noted_and_nothing_of_another() {
        let text = r#"{ "interfaces": { "eth0": { "before": true, "fleets": ["f"] } } }"#;
        let mut known: Forwarding = serde_json::from_str(text).unwrap();
        assert!(known.of(1)[&"eth0".parse().unwrap()].before);
        assert!(known.of(2).is_empty());
        let again: Forwarding = serde_json::from_str(&serde_json::to_string(&known).unwrap()).unwrap();
        assert_eq!(again, known);
    }

    #[test]
    fn a_fleet_that_comes_between_two_looks_makes_no_router_of_the_host() {
        let mut looks = [None, Some(false), Some(false)].into_iter();
        assert!(!settled(|| looks.next().unwrap(), || true), "that fleet switched it on");
        assert!(settled(|| None, || true));
        assert!(!settled(|| None, || false));
        assert!(settled(|| Some(true), || unreachable!("the record says it")));
    }
}
