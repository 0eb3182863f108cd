//! The pair of interfaces (veth) between a network namespace and the host's, and what leads over it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::base::{Class, Diagnosis, Diagnostic, MacAddress, Rates};

use super::ip::{self, Interface, IpError, set_interface_sysctl};
use super::netns::{Netns, NetnsError, within};
use super::shares::{ShareBy, share};
use super::tool::{Tool, ToolError};

/// Why a pair is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error(transparent)]
    Ip(#[from] IpError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Tool(#[from] ToolError),
}

impl Diagnostic for PairError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Ip(error) => error.diagnosis(),
            Self::Netns(error) => error.diagnosis(),
            Self::Tool(error) => error.diagnosis().of(Class::Failed),
        }
    }
}

/// One end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct PairEnd<'a> {
    pub name: &'a str,
    pub mac: MacAddress,
    /// Its own address, with which no route comes.
    pub address: Ipv4Addr,
    /// Where it sends what is for the other side: a neighbour that is not asked for.
    pub next_hop: Ipv4Addr,
}

impl PairEnd<'_> {
    /// Whether an interface is this end, and is up.
    pub fn is(&self, found: &Interface) -> bool {
        found.kind == "veth"
            && found.name == self.name
            && found.mac == self.mac.to_string()
            && found.up
            && found.addresses == [(self.address, 32)]
    }

    /// What `ip -batch` makes it so by, beside the pair itself.
    fn commands(&self, mtu: u32, other: MacAddress, scope: &str) -> String {
        let Self { name, mac, address, next_hop } = self;
        format!(
            "link set dev {name} address {mac} mtu {mtu}\naddress flush dev {name}\naddress add {address}/32 dev {name} scope {scope}\n\
             link set dev {name} up\nneigh replace {next_hop} lladdr {other} dev {name} nud permanent\n"
        )
    }
}

/// A pair that is to be.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    pub host: PairEnd<'a>,
    pub inner: PairEnd<'a>,
    /// The namespace that the inner end is in.
    pub netns: &'a Netns,
    /// Whose it is, in words that whoever made it chose.
    pub alias: &'a str,
    /// Of both ends, in bytes.
    pub mtu: u32,
    /// What is routed into the namespace. What of it is nobody's comes back at once.
    pub subnet: Ipv4Net,
    /// How much leaves the namespace (up) and comes into it, in bytes a second, of which each guest has its share.
    pub rates: Rates<u64>,
}

/// Whose a packet is that leaves the end on the host, for the namespace, and one that leaves the inner end.
pub const HOST_SHARES: ShareBy = ShareBy::Destination;
pub const INNER_SHARES: ShareBy = ShareBy::Source;

/// Makes a pair as it should be, whatever there is of it. Everything from inside goes to the host, and `subnet` comes in.
/// Neither end speaks IPv6.
pub fn connect(pair: &Pair<'_>) -> Result<(), PairError> {
    let (host, inner) = (&pair.host, &pair.inner);
    let found = ip::interfaces()?.into_iter().find(|found| found.name == host.name);
    let there = within(pair.netns, ip::interfaces)??.into_iter().find(|found| found.name == inner.name);
    let is_ours = |found: &Interface| {
        found.kind == "veth" && found.alias.as_ref().is_none_or(|alias| alias == pair.alias)
    };
    if let Some(Interface { name, kind, .. }) = found.as_ref().filter(|found| !is_ours(found)) {
        return Err(IpError::Foreign { name: name.clone(), kind: kind.clone() }.into());
    }
    if !found.iter().zip(&there).any(|(found, there)| found.is_peer_of(there)) {
        ip::delete_link(host.name)?;
        within(pair.netns, || ip::delete_link(inner.name))??;
        let name = pair.netns.path().file_name().unwrap_or_default();
        let ends = ["link", "add", host.name, "type", "veth", "peer", "name", inner.name, "netns"];
        Tool::new("ip").args(ends).arg(name).run()?;
    }
    Tool::new("ip").args(["link", "set", "dev", host.name, "alias", pair.alias]).run()?;
    set_interface_sysctl("ipv6", host.name, "disable_ipv6", "1")?;
    let (subnet, next_hop, own) = (pair.subnet, host.next_hop, host.address);
    let routes = format!("route replace {subnet} via {next_hop} dev {} onlink src {own}\n", host.name);
    batch(&(host.commands(pair.mtu, inner.mac, "link") + &routes))?;
    share(host.name, pair.rates.down, HOST_SHARES)?;
    within(pair.netns, || {
        let (name, next_hop) = (inner.name, inner.next_hop);
        let routes = format!(
            "route replace default via {next_hop} dev {name} onlink\nroute replace unreachable {subnet}\n"
        );
        set_interface_sysctl("ipv6", name, "disable_ipv6", "1")?;
        batch(&(inner.commands(pair.mtu, host.mac, "global") + &routes))?;
        Ok::<_, PairError>(share(name, pair.rates.up, INNER_SHARES)?)
    })??;
    Ok(())
}

fn batch(commands: &str) -> Result<(), PairError> {
    Tool::new("ip").args(["-batch", "-"]).stdin(commands).run()?;
    Ok(())
}
