//! What the kernel does with a TAP beyond passing packets: how it answers there (`Documentation/networking/ip-sysctl.rst`),
//! and how fast what goes to its guest and comes from it may be (tc(8)).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Arguments, Write as _};

use serde::Deserialize;

use crate::base::Rates;
use crate::base::network::TAP_NAME_PREFIX;

use super::ip::link::InterfaceSettings;
use super::ip::{self, IpError, link};
use super::tool::{Tool, ToolError};

/// Settings of an interface that faces a guest: packets from addresses that are not routed to it are dropped, no packet says which
/// way it takes, ARP is answered for the interface's own address alone, nobody is told of better routes, and there is no IPv6.
/// Each with its number in what the kernel tells of an interface.
const SETTINGS: [(&str, &str, &str, usize); 8] = [
    ("ipv4", "rp_filter", "1", 8),
    ("ipv4", "accept_source_route", "0", 9),
    ("ipv4", "accept_redirects", "0", 4),
    ("ipv4", "send_redirects", "0", 6),
    ("ipv4", "arp_ignore", "1", 19),
    ("ipv4", "proxy_arp", "0", 3),
    ("ipv4", "route_localnet", "0", 26),
    ("ipv6", "disable_ipv6", "1", 26),
];

/// Packets and flows of a queue that is fair to all connections.
const PACKETS: u32 = 1000;
const FLOWS: u32 = 128;
/// Bytes of a queue that a packet waits in, at the least: segmentation offload makes one packet of many.
pub(super) const LEAST_BURST: u64 = 1 << 16;
/// The kernel counts a burst in 32 bits, as time.
pub(super) const MOST_BURST: u64 = 1 << 26;
/// Of a second: what may leave at once where the kernel's timer ticks rarely.
pub(super) const TICK: u64 = 100;

fn key(name: &str, (family, key, ..): (&str, &str, &str, usize)) -> String {
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

/// The interfaces that have all of them set.
pub fn hardened() -> Result<BTreeSet<String>, IpError> {
    let is_set = |settings: &InterfaceSettings| {
        SETTINGS.iter().all(|(family, _, value, number)| match *family {
            "ipv6" => !settings.lacks_ipv6(*number),
            _ => settings.ipv4(*number).is_some_and(|found| found.to_string() == *value),
        })
    };
    let all = link::settings()?.into_iter();
    Ok(all.filter(|(_, settings)| is_set(settings)).map(|(name, _)| name).collect())
}

/// Has what goes to a guest, and what comes from it, wait its turn, so that neither is faster than its rate. What goes to it waits on
/// its TAP; without a rate, it is only shared fairly between connections. What comes from it is led through an interface of its own
/// (ifb, `tc-mirred(8)`) before anything else sees it, and comes back to the TAP when it is its turn: so all that a guest sends counts,
/// whoever gets it. The queues are fq_codel's where the kernel has it, which keeps no connection waiting for another.
pub fn shape(name: &str, rates: Rates, alias: &str) -> Result<(), IpError> {
    let Rates { up, down } = rates.bytes_per_second();
    let ifb = ifb(name);
    if up.is_some() {
        link::create_ifb(&ifb, alias)?;
    }
    let mut batch = Batch::default();
    batch.queue(name, down);
    match up {
        Some(_) => {
            batch.queue(&ifb, up);
            batch.line(true, format_args!("qdisc replace dev {name} ingress"));
            batch.line(
                true,
                format_args!(
                    "filter replace dev {name} parent ffff: protocol all pref 1 handle 800::1 u32 match u32 0 0 \
                     action mirred egress redirect dev {ifb}"
                ),
            );
        }
        None => batch.line(false, format_args!("qdisc del dev {name} ingress")),
    }
    batch.run()?;
    if up.is_none() {
        unshape(name)?;
    }
    Ok(())
}

/// The same of a TAP that was made just now, on which nothing waits yet. One without rates starts no program.
pub fn shape_new(name: &str, rates: Rates, alias: &str) -> Result<(), IpError> {
    if rates != Rates::default() {
        return shape(name, rates, alias);
    }
    link::queue_fairly(name, PACKETS, FLOWS)?;
    // Of one of that name before it.
    unshape(name)
}

/// Removes what the packets of a guest wait in that comes from its TAP; absence is fine.
pub fn unshape(name: &str) -> Result<(), IpError> {
    let ifb = ifb(name);
    link::index(&ifb)?.map_or(Ok(()), |index| link::delete_index(&ifb, index))
}

/// The interface that what comes from a TAP waits on. It is as long as the TAP's name.
fn ifb(tap: &str) -> String {
    format!("ifb-{}", tap.strip_prefix(TAP_NAME_PREFIX).unwrap_or(tap))
}

/// What tc is to do in one call.
#[derive(Debug, Default)]
pub(super) struct Batch {
    lines: String,
    count: usize,
    /// Numbers of the lines that must succeed.
    needed: Vec<usize>,
}

impl Batch {
    pub(super) fn line(&mut self, is_needed: bool, line: Arguments<'_>) {
        let _ = writeln!(self.lines, "{line}");
        self.count += 1;
        if is_needed {
            self.needed.push(self.count);
        }
    }

    /// What leaves an interface, at a rate in bytes a second.
    fn queue(&mut self, name: &str, rate: Option<u64>) {
        let fair = format!("fq_codel limit {PACKETS} flows {FLOWS}");
        let Some(rate) = rate else {
            // It may have been the kernel's own already, and not every kernel has a better one.
            self.line(false, format_args!("qdisc del dev {name} root"));
            self.line(false, format_args!("qdisc replace dev {name} root {fair}"));
            return;
        };
        let burst = (rate / TICK).clamp(LEAST_BURST, MOST_BURST);
        // Half a second, for a kernel that has no better queue.
        let limit = (rate / 2).clamp(2 * LEAST_BURST, u32::MAX.into());
        self.line(
            true,
            format_args!(
                "qdisc replace dev {name} root handle 1: tbf rate {rate}bps burst {burst} limit {limit}"
            ),
        );
        self.line(false, format_args!("qdisc replace dev {name} parent 1: handle 2: {fair}"));
    }

    pub(super) fn run(self) -> Result<(), ToolError> {
        match Tool::new("tc").args(["-force", "-batch", "-"]).stdin(self.lines).run() {
            Err(ToolError::Failed { stderr, .. }) if is_harmless(&stderr, &self.needed) => Ok(()),
            done => done.map(drop),
        }
    }
}

/// Whether what tc complains of is of none of these lines.
fn is_harmless(stderr: &str, needed: &[usize]) -> bool {
    let mut failed = stderr.lines().filter_map(|line| line.strip_prefix("Command failed -:")).peekable();
    let is_needed = |line: &str| line.trim().parse().is_ok_and(|number| needed.contains(&number));
    failed.peek().is_some() && !failed.any(is_needed)
}

#[derive(Debug, Deserialize)]
pub(super) struct Qdisc {
    #[serde(default)]
    pub(super) kind: String,
    #[serde(default)]
    dev: String,
    #[serde(default)]
    pub(super) root: bool,
    #[serde(default)]
    pub(super) parent: String,
    #[serde(default)]
    pub(super) options: Options,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    pub(super) rate: u64,
    limit: u64,
}

/// How fast packets go to and come from the guests of these TAPs, in bytes a second. What comes from a guest goes nowhere, at rate 0,
/// where what it is led through is not whole.
pub fn shapes<'a>(taps: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, Rates<u64>>, IpError> {
    let tool = Tool::new("tc").args(["-j", "qdisc", "show"]);
    let qdiscs = parse_qdiscs(&tool.text()?)
        .map_err(|source| IpError::Output { command: tool.command_line(), source })?;
    let is_led = |tap: &&str| qdiscs.iter().any(|qdisc| qdisc.kind == "ingress" && qdisc.dev == *tap);
    let taps: Vec<&str> = taps.collect();
    let led: Vec<&str> = taps.iter().copied().filter(is_led).collect();
    let filters = if led.is_empty() { String::new() } else { filters(&led)? };
    Ok(taps.into_iter().map(|tap| (tap.to_owned(), shape_of(tap, &qdiscs, &filters))).collect())
}

fn filters(taps: &[&str]) -> Result<String, ToolError> {
    let line = |tap: &&str| format!("filter show dev {tap} ingress\n");
    Tool::new("tc").args(["-batch", "-"]).stdin(taps.iter().map(line).collect::<String>()).text()
}

/// `filters` are those of all TAPs, as tc shows them.
fn shape_of(tap: &str, qdiscs: &[Qdisc], filters: &str) -> Rates<u64> {
    let rate = |name: &str| {
        let mut shapers = qdiscs.iter().filter(|qdisc| qdisc.root && qdisc.kind == "tbf");
        shapers.find(|qdisc| qdisc.dev == name).map(|qdisc| qdisc.options.rate)
    };
    let is_led = qdiscs.iter().any(|qdisc| qdisc.kind == "ingress" && qdisc.dev == tap);
    let ifb = ifb(tap);
    let whole = rate(&ifb).filter(|_| filters.contains(&format!("(Egress Redirect to device {ifb})")));
    Rates { up: is_led.then(|| whole.unwrap_or(0)), down: rate(tap) }
}

pub(super) fn parse_qdiscs(text: &str) -> Result<Vec<Qdisc>, serde_json::Error> {
    if text.trim().is_empty() { Ok(Vec::new()) } else { serde_json::from_str(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_a_shaper_are_read() {
        let text = r#"[{"kind":"noqueue","handle":"0:","dev":"lo","root":true,"refcnt":2,"options":{}},
            {"kind":"tbf","handle":"1:","dev":"sis-a","root":true,"refcnt":2,"options":{"rate":6250000,"burst":65531,"lat":50000}},
            {"kind":"fq_codel","handle":"2:","dev":"sis-a","parent":"1:","options":{"limit":1000,"flows":128}},
            {"kind":"ingress","handle":"ffff:","dev":"sis-b","parent":"ffff:fff1","options":{}},
            {"kind":"tbf","handle":"1:","dev":"ifb-b","root":true,"refcnt":2,"options":{"rate":2500000,"burst":65535}}]"#;
        let qdiscs = parse_qdiscs(text).unwrap();
        let whole = "\taction order 1: mirred (Egress Redirect to device ifb-b) stolen\n";
        for (tap, filters, up, down) in [
            ("sis-a", "", None, Some(6_250_000)),
            ("sis-b", whole, Some(2_500_000), None),
            // Its interface is gone.
            ("sis-b", "\taction order 1: mirred (Egress Redirect to device *) stolen\n", Some(0), None),
            ("sis-c", whole, None, None),
        ] {
            assert_eq!(shape_of(tap, &qdiscs, filters), Rates { up, down }, "{tap}");
        }
        assert!(parse_qdiscs("").unwrap().is_empty());
    }

    #[test]
    fn only_what_a_kernel_may_lack_is_no_error() {
        let stderr = "Error: Specified qdisc kind is unknown.\nCommand failed -:2\n";
        assert!(is_harmless(stderr, &[1, 3]));
        assert!(!is_harmless(stderr, &[1, 2]));
        assert!(!is_harmless("tc: not found\n", &[1]));
    }
}
