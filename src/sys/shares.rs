//! One way out for many, of which each has its share: what waits to leave an interface is shared between the addresses that it comes
//! from, or goes to, and not between connections (tc(8)).
//!
//! A queue stands where packets wait. Nothing waits on a veth, so its rate has to be known (tc-tbf(8)). Behind it is a class for each
//! /30 (tc-htb(8)), of which each may send at any rate, so that the kernel takes from them in turn. Classes are found by the address
//! itself (tc-u32(8)): who comes and goes changes nothing here.

use super::ip::{self, IpError};
use super::tap::{Batch, LEAST_BURST, MOST_BURST, Qdisc, TICK, parse_qdiscs};
use super::tool::Tool;

/// Which address of a packet tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareBy {
    Source,
    Destination,
}

impl ShareBy {
    /// Where it stands in the header of IPv4, in bytes.
    fn offset(self) -> u8 {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }
}

/// Classes, each of a /30: those of more addresses than so many are shared.
const CLASSES: u32 = 256;
/// Which bits of an address tell the class: those behind the two of a /30.
const CLASS_BITS: u32 = (CLASSES - 1) << 2;
/// What a class may send in its turn, in bytes: as much as the largest packet, which is one of segmentation offload.
const TURN: u32 = 1 << 16;
/// More than any rate, in bytes a second, so that no class ever waits for its own.
const UNBOUNDED: u64 = 12_500_000_000;

/// Shares what leaves an interface at a rate, in bytes a second; without one, nothing waits there.
pub fn share(name: &str, rate: Option<u64>, by: ShareBy) -> Result<(), IpError> {
    let mut batch = Batch::default();
    batch.line(false, format_args!("qdisc del dev {name} root"));
    if let Some(rate) = rate {
        classes(&mut batch, name, rate);
        let all = format!("filter add dev {name} parent 2: protocol ip prio 1");
        batch.line(true, format_args!("{all} handle 100: u32 divisor {CLASSES}"));
        for class in 0..CLASSES {
            let bucket = format!("u32 ht 100:{class:x}: match u32 0 0 flowid 2:{:x}", class + 1);
            batch.line(true, format_args!("{all} {bucket}"));
        }
        let offset = by.offset();
        batch.line(
            true,
            format_args!(
                "{all} u32 ht 800:: match u32 0 0 hashkey mask {CLASS_BITS:#010x} at {offset} link 100:"
            ),
        );
        leaves(&mut batch, name, rate);
    }
    batch.run()?;
    Ok(())
}

fn classes(batch: &mut Batch, name: &str, rate: u64) {
    let burst = (rate / TICK).clamp(LEAST_BURST, MOST_BURST);
    let limit = limit(rate);
    batch.line(
        true,
        format_args!("qdisc add dev {name} root handle 1: tbf rate {rate}bps burst {burst} limit {limit}"),
    );
    batch.line(true, format_args!("qdisc add dev {name} parent 1: handle 2: htb default 1"));
    batch.line(true, format_args!("class add dev {name} parent 2: classid 2:fff0 htb rate {UNBOUNDED}bps"));
    for class in 1..=CLASSES {
        batch.line(
            true,
            format_args!(
                "class add dev {name} parent 2:fff0 classid 2:{class:x} htb rate 8bit ceil {UNBOUNDED}bps quantum {TURN}"
            ),
        );
    }
}

/// What waits in a class. They come last, so that whoever counts them knows whether all before them is there.
fn leaves(batch: &mut Batch, name: &str, rate: u64) {
    let limit = limit(rate);
    for class in 1..=CLASSES {
        batch.line(true, format_args!("qdisc add dev {name} parent 2:{class:x} bfifo limit {limit}"));
        // Within a share, no connection waits for another.
        batch.line(
            false,
            format_args!("qdisc replace dev {name} parent 2:{class:x} fq_codel limit 1000 flows 64"),
        );
    }
}

/// Bytes that wait at most: a tenth of a second, for a kernel that has no better queue.
fn limit(rate: u64) -> u64 {
    (rate / 10).clamp(2 * LEAST_BURST, u32::MAX.into())
}

/// The rate at which what leaves an interface is shared, in bytes a second; `None` where nothing waits there, and 0 where what does is
/// not shared as it should be.
pub fn rate(name: &str) -> Result<Option<u64>, IpError> {
    let tool = Tool::new("tc").args(["-j", "qdisc", "show", "dev", name]);
    let qdiscs = parse_qdiscs(&tool.text()?)
        .map_err(|source| IpError::Output { command: tool.command_line(), source })?;
    Ok(rate_of(&qdiscs))
}

fn rate_of(qdiscs: &[Qdisc]) -> Option<u64> {
    let root = qdiscs.iter().find(|qdisc| qdisc.root && qdisc.kind != ip::NO_QUEUE)?;
    let is_shared = qdiscs.iter().any(|qdisc| qdisc.kind == "htb" && qdisc.parent.starts_with("1:"));
    let classes = qdiscs.iter().filter(|qdisc| qdisc.parent.starts_with("2:")).count();
    let is_whole = root.kind == "tbf" && is_shared && classes == CLASSES as usize;
    Some(if is_whole { root.options.rate } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_has_its_rate() {
        let leaves: Vec<String> = (1..=CLASSES)
            .map(|class| format!(r#"{{"kind":"bfifo","parent":"2:{class:x}","options":{{"limit":1}}}}"#))
            .collect();
        let tbf = r#"{"kind":"tbf","handle":"1:","root":true,"options":{"rate":2000001,"burst":65536}}"#;
        let htb = r#"{"kind":"htb","handle":"2:","parent":"1:1","options":{"r2q":10}}"#;
        let rate = |parts: &[&str]| rate_of(&parse_qdiscs(&format!("[{}]", parts.join(","))).unwrap());
        let leaves = leaves.join(",");
        assert_eq!(rate(&[tbf, htb, &leaves]), Some(2_000_001));
        assert_eq!(rate(&[tbf, htb]), Some(0));
        assert_eq!(rate(&[tbf, &leaves]), Some(0));
        assert_eq!(rate(&[r#"{"kind":"htb","root":true,"options":{}}"#]), Some(0));
        assert_eq!(rate(&[r#"{"kind":"noqueue","root":true,"options":{}}"#]), None);
        assert!(rate_of(&parse_qdiscs("").unwrap()).is_none());
    }
}
