//! What the kernel does with a TAP beyond passing packets: how it answers there (`Documentation/networking/ip-sysctl.rst`),
//! and how fast what goes to its guest leaves (tc(8)).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::Rate;

use super::ip::{self, IpError};
use super::tool::{Tool, ToolError};

/// Settings of an interface that faces a guest: packets from addresses that are not routed to it are dropped, no packet says which
/// way it takes, ARP is answered for the interface's own address alone, nobody is told of better routes, and there is no IPv6.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("ipv4", "rp_filter", "1"),
    ("ipv4", "accept_source_route", "0"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "arp_ignore", "1"),
    ("ipv4", "proxy_arp", "0"),
    ("ipv4", "route_localnet", "0"),
    ("ipv6", "disable_ipv6", "1"),
];

/// Bytes of a queue that a packet waits in, at the least: segmentation offload makes one packet of many.
const LEAST_BURST: u64 = 1 << 16;
/// Of a second: what may leave at once where the kernel's timer ticks rarely.
const TICK: u64 = 100;

fn key(name: &str, (family, key, _): (&str, &str, &str)) -> String {
    format!("net.{family}.conf.{name}.{key}")
}

/// Sets all of them; a kernel without IPv6 has no such setting and needs none.
pub fn harden(name: &str) -> Result<(), IpError> {
    for setting in SETTINGS {
        let key = key(name, setting);
        if setting.0 == "ipv6" && ip::get_sysctl(&key)?.is_none() {
            continue;
        }
        ip::set_sysctl(&key, setting.2)?;
    }
    Ok(())
}

/// Whether all of them are set.
pub fn is_hardened(name: &str) -> Result<bool, IpError> {
    for setting in SETTINGS {
        match ip::get_sysctl(&key(name, setting))? {
            Some(value) if value == setting.2 => {}
            None if setting.0 == "ipv6" => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Has what leaves an interface wait its turn, so that it comes no faster than `rate`; without one it is only shared fairly between
/// connections. The queue is fq_codel's where the kernel has it, which keeps no connection waiting for another.
pub fn shape(name: &str, rate: Option<Rate>) -> Result<(), ToolError> {
    const FAIR: &str = "fq_codel limit 1000 flows 128";
    let lines = match rate.map(Rate::bytes_per_second) {
        Some(rate) => {
            let burst = (rate / TICK).max(LEAST_BURST);
            // Half a second, for a kernel that has no better queue.
            let limit = (rate / 2).max(2 * LEAST_BURST);
            format!(
                "qdisc replace dev {name} root handle 1: tbf rate {rate}bps burst {burst} limit {limit}\n\
                 qdisc replace dev {name} parent 1: handle 2: {FAIR}\n"
            )
        }
        None => format!("qdisc del dev {name} root\nqdisc replace dev {name} root {FAIR}\n"),
    };
    match Tool::new("tc").args(["-force", "-batch", "-"]).stdin(lines).run() {
        Err(ToolError::Failed { stderr, .. }) if is_harmless(&stderr) => Ok(()),
        done => done.map(drop),
    }
}

/// Whether tc complains of nothing but a queue that this kernel does not have, or that was the kernel's own already.
fn is_harmless(stderr: &str) -> bool {
    let known =
        ["qdisc kind is unknown", "handle of zero", "No such file", "may be inconsistent", "Command failed"];
    stderr.lines().all(|line| known.iter().any(|known| line.contains(known)))
}

#[derive(Debug, Deserialize)]
struct Qdisc {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    dev: String,
    #[serde(default)]
    root: bool,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    rate: u64,
}

/// How fast packets leave the interfaces that are shaped, in bytes a second, by their names.
pub fn shapes() -> Result<BTreeMap<String, u64>, IpError> {
    let tool = Tool::new("tc").args(["-j", "qdisc", "show"]);
    parse_shapes(&tool.text()?).map_err(|source| IpError::Output { command: tool.command_line(), source })
}

fn parse_shapes(text: &str) -> Result<BTreeMap<String, u64>, serde_json::Error> {
    let all: Vec<Qdisc> = if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(text)? };
    let shaped = all.into_iter().filter(|qdisc| qdisc.root && qdisc.kind == "tbf");
    Ok(shaped.map(|qdisc| (qdisc.dev, qdisc.options.rate)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_a_shaper_is_read() {
        let text = r#"[{"kind":"noqueue","handle":"0:","dev":"lo","root":true,"refcnt":2,"options":{}},
            {"kind":"tbf","handle":"1:","dev":"sis-a","root":true,"refcnt":2,"options":{"rate":6250000,"burst":65531,"lat":50000}},
            {"kind":"fq_codel","handle":"2:","dev":"sis-a","parent":"1:","options":{"limit":1000,"flows":128}}]"#;
        assert_eq!(parse_shapes(text).unwrap(), BTreeMap::from([("sis-a".to_owned(), 6_250_000)]));
        assert_eq!(parse_shapes("").unwrap(), BTreeMap::new());
    }

    #[test]
    fn a_kernel_without_a_fair_queue_is_no_error() {
        assert!(is_harmless("Error: Specified qdisc kind is unknown.\nCommand failed -:2\n"));
        assert!(is_harmless("Error: Cannot delete qdisc with handle of zero.\nCommand failed -:1\n"));
        assert!(!is_harmless("Cannot find device \"sis-a\"\nCommand failed -:1\n"));
    }
}
