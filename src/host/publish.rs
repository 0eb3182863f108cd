//! Ways in to guests: ports of the host that lead to ports of them.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::base::{GuestName, Label};
use crate::fleet::{Fleet, Protocol};
use crate::lock::model::Lock;

/// One port of the host, and where it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub guest: GuestName,
    /// What the policy calls it.
    pub name: Label,
    pub protocol: Protocol,
    /// The host's.
    pub port: u16,
    /// The guest's address, and its port.
    pub ip: Ipv4Addr,
    pub guest_port: u16,
    /// Who may come in, merged.
    pub from: Vec<Ipv4Net>,
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, guest_port, protocol, .. } = self;
        write!(f, "{name} {port}->{guest_port}/{protocol}")
    }
}

/// A way in that is there from now on, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedChange {
    pub opens: bool,
    pub way: PublishedPort,
}

impl fmt::Display for PublishedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, way) = (if self.opens { "opens" } else { "closes" }, &self.way);
        let from: Vec<_> = way.from.iter().map(ToString::to_string).collect();
        write!(f, "{verb} the port {}/{} of the host, from {}, ", way.port, way.protocol, from.join(", "))?;
        write!(f, "to {} of {} ({})", way.guest_port, way.guest, way.name)
    }
}

/// What differs: what closes, and then what opens.
pub fn changes(old: &[PublishedPort], new: &[PublishedPort]) -> Vec<PublishedChange> {
    let only = |these: &[PublishedPort], those: &[PublishedPort], opens| -> Vec<_> {
        let left = these.iter().filter(|way| !those.contains(way));
        left.map(|way| PublishedChange { opens, way: way.clone() }).collect()
    };
    [only(old, new, false), only(new, old, true)].concat()
}

/// What a fleet publishes, by its lock; `address` tells where a guest is.
pub fn published(
    fleet: &Fleet,
    lock: &Lock,
    address: impl Fn(&GuestName) -> Option<Ipv4Addr>,
) -> Vec<PublishedPort> {
    let mut all = Vec::new();
    for (guest, spec) in &fleet.guests {
        let (Some(numbers), Some(ip)) = (lock.guest.get(guest), address(guest)) else { continue };
        let ways = fleet.networks.get(&spec.network).into_iter().flat_map(|policy| &policy.publish);
        all.extend(ways.filter_map(|way| {
            let port = *numbers.ports.get(&way.name)?;
            let (name, from) = (way.name.clone(), Ipv4Net::aggregate(&way.from));
            let (guest, protocol, guest_port) = (guest.clone(), way.protocol, way.guest);
            Some(PublishedPort { guest, name, protocol, port, ip, guest_port, from })
        }));
    }
    all
}
