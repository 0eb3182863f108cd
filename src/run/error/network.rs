//! What stands against a fleet in the network of its host.

use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::base::{Class, Diagnosis, Diagnostic, FleetName, GuestName, InterfaceName};
use crate::host::network::LEAST_PORTS;
use crate::host::publish::PublishedPort;

/// What a fleet needs of the network around it, and does not get.
#[derive(Debug, thiserror::Error)]
pub enum HostNetworkError {
    #[error("[host] uplink {:?}: this host has no such interface", .0.as_str())]
    NoUplink(InterfaceName),
    #[error("[host] uplink is \"auto\", and this host has no default route")]
    NoDefaultRoute,
    #[error("[host] subnet {subnet} overlaps {what}")]
    SubnetTaken { subnet: Ipv4Net, what: String },
    #[error(
        "another process reads the packet log of the fleet {0} already, and the kernel has one reader for it"
    )]
    Listened(FleetName),
    #[error("{way} cannot be published for {guest}: {port} is {whose}", port = .way.port, guest = .way.guest)]
    PortTaken { way: PublishedPort, whose: String },
    #[error(
        "no {LEAST_PORTS} ports in a row are left for the guests' connections: this host gives {}-{} to its own (net.ipv4.ip_local_port_range)", .0.start(), .0.end()
    )]
    NoPorts(RangeInclusive<u16>),
    #[error("{0} was started by an earlier sisforge, with its network in the host's own")]
    OthersInHostNetwork(GuestName),
}

impl Diagnostic for HostNetworkError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::{Failed, Invalid};
        match self {
            Self::NoUplink(_) => {
                Invalid.hint("`ip link` lists them; \"auto\" takes that of the default route")
            }
            Self::NoDefaultRoute => {
                Failed.hint("name the interface that faces the network, as in `uplink = \"eth0\"`")
            }
            Self::SubnetTaken { .. } => {
                Invalid.hint("give the fleet addresses that nobody has: [host] subnet")
            }
            Self::Listened(_) => Failed.hint("end the other `sisforge policy log` first"),
            Self::PortTaken { .. } => Invalid.hint(
                "publish by ports that nobody has (`host` in `publish`), or end whoever has it; `sisforge lock` tells who gets which",
            ),
            Self::NoPorts(_) => {
                Failed.hint("keep some for them: `sysctl net.ipv4.ip_local_reserved_ports=20000-29999`")
            }
            Self::OthersInHostNetwork(_) => {
                Failed.hint("`sisforge up` without names converts the whole fleet, and restarts its guests")
            }
        }
    }
}
