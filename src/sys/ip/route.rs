//! Routes of IPv4, and which interface the default route leads to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::base::network::HostRoute;

use super::{IpError, ip, query};

/// A route as `ip -j route show table all` prints it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PrintedRoute {
    r#type: String,
    table: String,
    dst: String,
    gateway: Option<Ipv4Addr>,
    dev: String,
    metric: u32,
    nexthops: Vec<NextHop>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NextHop {
    gateway: Option<Ipv4Addr>,
    dev: String,
}

impl PrintedRoute {
    /// One for each way that it goes.
    fn routes(self) -> Vec<HostRoute> {
        let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
        let to = match self.dst.as_str() {
            "default" => Some(Ipv4Net::default()),
            dst if dst.contains('/') => dst.parse().ok(),
            dst => dst.parse::<Ipv4Addr>().ok().map(Ipv4Net::from),
        };
        let Some(to) = to else { return Vec::new() };
        let own = NextHop { gateway: self.gateway, dev: self.dev };
        let hops = if self.nexthops.is_empty() { vec![own] } else { self.nexthops };
        let route = |hop: NextHop| HostRoute {
            kind: or(&self.r#type, "unicast"),
            table: or(&self.table, "main"),
            to,
            interface: hop.dev,
            gateway: hop.gateway,
            metric: self.metric,
        };
        hops.into_iter().map(route).collect()
    }
}

/// The entries of all routing tables.
pub fn routes() -> Result<Vec<HostRoute>, IpError> {
    let printed = query::<PrintedRoute>(&ip(["-j", "-4", "route", "show", "table", "all"]))?;
    Ok(printed.into_iter().flat_map(PrintedRoute::routes).collect())
}

/// The interface that the default route leads to: IPv4's, else IPv6's.
pub fn default_uplink(routes: &[HostRoute]) -> Result<Option<String>, IpError> {
    if let Some(uplink) = default_of(routes) {
        return Ok(Some(uplink));
    }
    let printed = query::<PrintedRoute>(&ip(["-j", "-6", "route", "show", "default"]))?;
    let best = printed.into_iter().filter(|route| !route.dev.is_empty()).min_by_key(|route| route.metric);
    Ok(best.map(|route| route.dev))
}

/// The default route of least metric. Two halves, by which a VPN takes it over and leaves it as it was, come before it.
fn default_of(routes: &[HostRoute]) -> Option<String> {
    let mut best: BTreeMap<Ipv4Net, &HostRoute> = BTreeMap::new();
    let leads_on = |route: &&HostRoute| {
        route.table == "main"
            && route.kind == "unicast"
            && route.to.prefix_len() <= 1
            && !route.interface.is_empty()
    };
    for route in routes.iter().filter(leads_on) {
        let entry = best.entry(route.to).or_insert(route);
        if route.metric < entry.metric {
            *entry = route;
        }
    }
    let to = |address: [u8; 4], prefix: u8| {
        let net = Ipv4Net::new(address.into(), prefix).ok()?;
        best.get(&net).map(|route| route.interface.clone())
    };
    let halves = (to([0, 0, 0, 0], 1), to([128, 0, 0, 0], 1));
    let whole = to([0, 0, 0, 0], 0);
    match halves {
        (Some(lower), Some(upper)) if lower == upper => Some(lower),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<HostRoute> {
        let printed: Vec<PrintedRoute> = super::super::parse_list(text).unwrap();
        printed.into_iter().flat_map(PrintedRoute::routes).collect()
    }

    #[test]
    fn a_route_is_read_with_what_ip_leaves_out() {
        let routes = parse(
            r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]},{"type":"unreachable","dst":"10.0.0.0/8","flags":[]},
            {"type":"local","dst":"192.0.2.2","dev":"eth0","table":"local","scope":"host","flags":[]},
            {"dst":"10.9.0.0/16","flags":[],"nexthops":[{"gateway":"192.0.2.3","dev":"eth0","weight":1,"flags":[]},
            {"gateway":"192.0.3.3","dev":"eth1","weight":1,"flags":[]}]}]"#,
        );
        let shown: Vec<_> = routes
            .iter()
            .map(|route| format!("{} {} {} {}", route.kind, route.table, route.to, route.interface))
            .collect();
        assert_eq!(
            shown,
            [
                "unicast main 0.0.0.0/0 eth0",
                "unreachable main 10.0.0.0/8 ",
                "local local 192.0.2.2/32 eth0",
                "unicast main 10.9.0.0/16 eth0",
                "unicast main 10.9.0.0/16 eth1"
            ]
        );
    }

    #[test]
    fn two_halves_are_a_default_route_and_come_before_the_whole() {
        let whole = r#"{"dst":"default","gateway":"192.0.2.1","dev":"eth0","metric":100,"flags":[]}"#;
        let half = |dst: &str, dev: &str| format!(r#"{{"dst":"{dst}","dev":"{dev}","flags":[]}}"#);
        let uplink = |routes: &[&str]| default_of(&parse(&format!("[{}]", routes.join(","))));
        let (lower, upper) = (half("0.0.0.0/1", "tun0"), half("128.0.0.0/1", "tun0"));
        assert_eq!(uplink(&[whole, &lower, &upper]).as_deref(), Some("tun0"));
        assert_eq!(uplink(&[&lower, &upper]).as_deref(), Some("tun0"));
        assert_eq!(uplink(&[whole, &lower]).as_deref(), Some("eth0"), "half of a default is none");
        let better = r#"{"dst":"default","dev":"eth1","metric":50,"flags":[]}"#;
        assert_eq!(uplink(&[whole, better]).as_deref(), Some("eth1"));
        assert_eq!(uplink(&[]), None);
    }
}
