//! Ports of the host that lead to guests.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::host::publish::{PublishedChange, PublishedPort};

/// A port of the host that leads to a guest.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PublishedJson {
    pub guest: String,
    /// What the guest's network policy calls it.
    pub name: String,
    /// "tcp" or "udp".
    pub protocol: String,
    /// The host's port.
    pub port: u16,
    /// The guest's address.
    pub ip: Ipv4Addr,
    pub guest_port: u16,
    /// Who may come in.
    pub from: Vec<String>,
}

/// A way in that is there from now on, or no longer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PublishedChangeJson {
    pub opens: bool,
    #[serde(flatten)]
    pub way: PublishedJson,
}

impl From<&PublishedChange> for PublishedChangeJson {
    fn from(change: &PublishedChange) -> Self {
        Self { opens: change.opens, way: PublishedJson::from(&change.way) }
    }
}

impl From<&PublishedPort> for PublishedJson {
    fn from(way: &PublishedPort) -> Self {
        let PublishedPort { guest, name, protocol, port, ip, guest_port, from } = way;
        Self {
            guest: guest.to_string(),
            name: name.to_string(),
            protocol: protocol.to_string(),
            port: *port,
            ip: *ip,
            guest_port: *guest_port,
            from: from.iter().map(ToString::to_string).collect(),
        }
    }
}
