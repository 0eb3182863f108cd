//! `policy log` and `policy flows`.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::Serialize;

use super::policy::{PlaceJson, VerdictJson};
use crate::base::network::protocol_word;
use crate::base::time::rfc3339_millis;
use crate::run::flows::{Dropped, Flow};

/// A packet that was dropped.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DroppedJson {
    /// When it was read (RFC 3339, UTC).
    pub time: String,
    pub guest: String,
    pub verdict: VerdictJson,
    /// In words.
    pub why: String,
    /// Where fleet.toml has the rule; `null` where none decided.
    pub place: Option<PlaceJson>,
    /// By its name, or its number.
    pub protocol: String,
    pub from: Ipv4Addr,
    /// `null` where the protocol has no ports.
    pub from_port: Option<u16>,
    pub to: Ipv4Addr,
    pub to_port: Option<u16>,
    /// Of the packet, without the header of Ethernet.
    pub bytes: u16,
    /// The name by which the guest had asked for its destination; `null` where that was not kept.
    pub name: Option<String>,
}

/// A connection.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FlowJson {
    /// When it was seen (RFC 3339, UTC).
    pub time: String,
    pub guest: String,
    /// "open", "began" or "ended".
    pub state: String,
    /// By its name, or its number.
    pub protocol: String,
    /// Who began.
    pub from: Ipv4Addr,
    /// `null` where the protocol has no ports.
    pub from_port: Option<u16>,
    pub to: Ipv4Addr,
    pub to_port: Option<u16>,
    /// Bytes of packets that whoever began sent; `null` where the kernel does not count them.
    pub sent: Option<u64>,
    /// Bytes of packets that answered; `null` where the kernel does not count them.
    pub answered: Option<u64>,
    /// The name by which the guest had asked for its destination; `null` where that was not kept.
    pub name: Option<String>,
}

/// What is told of a connection.
pub fn flow_word(flow: &Flow) -> &'static str {
    match flow.began {
        None => "open",
        Some(true) => "began",
        Some(false) => "ended",
    }
}

impl DroppedJson {
    /// Of such a guest.
    pub fn new(guest: &str, dropped: &Dropped) -> Self {
        let Dropped { time, verdict, why, place, packet, name } = dropped;
        let (from_port, to_port) = packet.ports.unzip();
        Self {
            time: rfc3339_millis(*time),
            guest: guest.to_string(),
            verdict: (*verdict).into(),
            why: why.clone(),
            place: place.as_ref().map(PlaceJson::from),
            protocol: protocol_word(packet.protocol),
            from: packet.from,
            from_port,
            to: packet.to,
            to_port,
            bytes: packet.bytes,
            name: name.clone(),
        }
    }
}

impl FlowJson {
    /// Of the guest of that name.
    pub fn new(guest: &str, flow: &Flow) -> Self {
        let connection = &flow.connection;
        Self {
            time: rfc3339_millis(flow.time),
            guest: guest.to_owned(),
            state: flow_word(flow).to_owned(),
            protocol: protocol_word(connection.protocol),
            from: connection.from,
            from_port: connection.from_port,
            to: connection.to,
            to_port: connection.port,
            sent: connection.sent,
            answered: connection.answered,
            name: flow.name.clone(),
        }
    }
}
