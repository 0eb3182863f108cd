//! One way out for many, of which each has its share: what waits to leave an interface is shared between the addresses that it comes
//! from, or goes to, and not between connections (tc(8)).
//!
//! A queue stands where packets wait. Nothing waits on a veth, so its rate has to be known (tc-tbf(8)). Behind it is a class for each
//! /30 (tc-htb(8)), of which each may send at any rate, so that the kernel takes from them in turn. Classes are found by the address
//! itself (tc-u32(8)): who comes and goes changes nothing here.

use std::collections::BTreeSet;
use std::fmt::{Arguments, Write as _};

use serde_json::json;

use crate::base::Found;

use super::ip::queue::{PacketQueue, QueueId, TokenBucket, queues};
use super::ip::{self, Interface, IpError};
use super::tap::bucket;
use super::tool::{Tool, ToolError};

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

/// What tc is to do in one call.
#[derive(Debug, Default)]
struct Batch {
    lines: String,
    count: usize,
    /// Numbers of the lines that must succeed.
    needed: Vec<usize>,
}

impl Batch {
    fn may_fail(&mut self, line: Arguments<'_>) {
        let _ = writeln!(self.lines, "{line}");
        self.count += 1;
    }

    fn must(&mut self, line: Arguments<'_>) {
        self.may_fail(line);
        self.needed.push(self.count);
    }

    fn run(self) -> Result<(), ToolError> {
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

/// Shares what leaves an interface at a rate, in bytes a second; without one, nothing waits there.
pub fn share(name: &str, rate: Option<u64>, by: ShareBy) -> Result<(), IpError> {
    let mut batch = Batch::default();
    batch.may_fail(format_args!("qdisc del dev {name} root"));
    if let Some(rate) = rate {
        classes(&mut batch, name, rate);
        let all = format!("filter add dev {name} parent 2: protocol ip prio 1");
        batch.must(format_args!("{all} handle 100: u32 divisor {CLASSES}"));
        for class in 0..CLASSES {
            let bucket = format!("u32 ht 100:{class:x}: match u32 0 0 flowid 2:{:x}", class + 1);
            batch.must(format_args!("{all} {bucket}"));
        }
        let offset = by.offset();
        batch.must(format_args!(
            "{all} u32 ht 800:: match u32 0 0 hashkey mask {CLASS_BITS:#010x} at {offset} link 100:"
        ));
        leaves(&mut batch, name, rate);
    }
    batch.run()?;
    Ok(())
}

fn classes(batch: &mut Batch, name: &str, rate: u64) {
    let TokenBucket { burst, limit, .. } = bucket_of(rate);
    batch.must(format_args!(
        "qdisc add dev {name} root handle 1: tbf rate {rate}bps burst {burst} limit {limit}"
    ));
    batch.must(format_args!("qdisc add dev {name} parent 1: handle 2: htb default 1"));
    batch.must(format_args!("class add dev {name} parent 2: classid 2:fff0 htb rate {UNBOUNDED}bps"));
    for class in 1..=CLASSES {
        batch.must(format_args!(
                "class add dev {name} parent 2:fff0 classid 2:{class:x} htb rate 8bit ceil {UNBOUNDED}bps quantum {TURN}"
            ),
        );
    }
}

/// What waits in a class. They come last, so that whoever counts them knows whether all before them is there.
fn leaves(batch: &mut Batch, name: &str, rate: u64) {
    let limit = bucket_of(rate).limit;
    for class in 1..=CLASSES {
        batch.must(format_args!("qdisc add dev {name} parent 2:{class:x} bfifo limit {limit}"));
        // Within a share, no connection waits for another.
        batch.may_fail(format_args!(
            "qdisc replace dev {name} parent 2:{class:x} fq_codel limit 1000 flows 64"
        ));
    }
}

/// A tenth of a second waits, for a kernel that has no better queue.
fn bucket_of(rate: u64) -> TokenBucket {
    bucket(rate, 10)
}

/// The rate at which what leaves an interface is shared, and whether it is as it should be; `None` where nothing waits there.
pub fn rate(interface: &Interface, by: ShareBy) -> Result<Option<Found<u64>>, IpError> {
    let name = interface.name.as_str();
    let mut queues = queues()?;
    queues.retain(|queue| queue.interface == interface.index);
    let Some(rate) = rate_of(&queues) else { return Ok(None) };
    let show = |what: &str| Tool::new("tc").args(["-j", what, "show", "dev", name]);
    let filters = show("filter").args(["parent", "2:"]);
    let unread = |source| IpError::Output { command: filters.command_line(), source };
    let is_whole = rate != Found::Half
        && classes_are_alike(&Tool::new("tc").args(["-d", "class", "show", "dev", name]).text()?)
        && leads_to_classes(&serde_json::from_str(&filters.text()?).map_err(unread)?, by);
    Ok(Some(if is_whole { rate } else { Found::Half }))
}

fn rate_of(queues: &[PacketQueue]) -> Option<Found<u64>> {
    let is_root = |queue: &&PacketQueue| queue.parent == QueueId::ROOT && queue.kind != ip::NO_QUEUE;
    let root = queues.iter().find(is_root)?;
    let is_shared = queues.iter().any(|queue| queue.kind == "htb" && queue.parent.major() == 1);
    let mut leaves = queues.iter().filter(|queue| queue.parent.major() == 2).peekable();
    let first = leaves.peek().map(|first| (&first.kind, &first.options));
    let alike = leaves.filter(|leaf| Some((&leaf.kind, &leaf.options)) == first).count();
    let rate = root.rate().filter(|rate| root.is(&bucket_of(*rate)));
    let rate = rate.filter(|_| is_shared && alike == CLASSES as usize);
    Some(rate.map_or(Found::Half, Found::Whole))
}

/// Whether the classes of `tc class show`, which has lines alone, are those that were made. Words for rates are tc's own, so
/// that a class is compared with the others.
fn classes_are_alike(lines: &str) -> bool {
    let of_class = |line: &str| {
        let mut words = line.split_whitespace();
        let id = words.by_ref().nth(2)?;
        let leaf_begins = words.clone().position(|word| word == "leaf");
        let rest: Vec<_> = words.collect();
        // The queue behind it has a number of its own.
        let rest: Vec<_> = match leaf_begins {
            Some(at) => [&rest[..at], rest.get(at + 2..)?].concat(),
            None => rest,
        };
        Some((id.to_owned(), rest.join(" ")))
    };
    let mut classes: Vec<_> =
        lines.lines().filter(|line| line.starts_with("class htb ")).filter_map(of_class).collect();
    let is_top = |(id, rest): &(String, String)| id == "2:fff0" && rest.starts_with("root");
    let Some(top) = classes.iter().position(is_top) else { return false };
    classes.remove(top);
    let ids: BTreeSet<_> = classes.iter().map(|(id, _)| id.clone()).collect();
    let rest = classes.first().map(|(_, rest)| rest.clone()).unwrap_or_default();
    let has_words = rest.starts_with("parent 2:fff0 ") && rest.contains(" rate 8bit ");
    ids == (1..=CLASSES).map(|class| format!("2:{class:x}")).collect()
        && classes.len() == ids.len()
        && has_words
        && classes.iter().all(|class| class.1 == rest)
}

/// Whether filters lead each packet to the class of its address, and nowhere else.
fn leads_to_classes(filters: &serde_json::Value, by: ShareBy) -> bool {
    let rules: Vec<_> =
        filters.as_array().into_iter().flatten().filter(|it| !it["options"].is_null()).collect();
    let is_table = |filter: &serde_json::Value| !filter["options"]["ht_divisor"].is_null();
    let (_, rules): (Vec<&serde_json::Value>, Vec<_>) =
        rules.into_iter().partition(|filter| is_table(filter));
    let all = json!({ "value": "0", "mask": "0", "offmask": "", "off": 0 });
    let is_any = |filter: &serde_json::Value| {
        filter["kind"] == "u32" && filter["protocol"] == "ip" && filter["options"]["match"] == all
    };
    let to_class = |class: u32| {
        rules.iter().any(|filter| {
            let options = &filter["options"];
            options["key_ht"] == "100"
                && options["bkt"] == format!("{class:x}")
                && options["flowid"] == format!("2:{:x}", class + 1)
        })
    };
    let is_link = |filter: &&&serde_json::Value| {
        let options = &filter["options"];
        options["link"] == "100:"
            && options["hash_mask"] == format!("{CLASS_BITS:x}")
            && options["hash_off"] == by.offset()
    };
    rules.len() == CLASSES as usize + 1
        && rules.iter().all(|filter| is_any(filter))
        && rules.iter().filter(is_link).count() == 1
        && (0..CLASSES).all(to_class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_kernel_may_lack_is_no_error() {
        let stderr = "Error: Specified qdisc kind is unknown.\nCommand failed -:2\n";
        assert!(is_harmless(stderr, &[1, 3]));
        assert!(!is_harmless(stderr, &[1, 2]));
        assert!(!is_harmless("tc: not found\n", &[1]));
    }

    #[test]
    fn classes_are_all_there_and_alike() {
        let top = "class htb 2:fff0 root rate 100Gbit ceil 100Gbit burst 0b cburst 0b";
        let line = |class: u32, ceil: &str| {
            format!(
                "class htb 2:{class:x} parent 2:fff0 leaf 80{class:02x}: prio 0 rate 8bit ceil {ceil} burst 225b"
            )
        };
        let with = |first: String| {
            let rest = (2..=CLASSES).map(|class| line(class, "100Gbit"));
            let all: Vec<_> = ["class tbf 1:1 parent 1: leaf 2:".into(), top.into(), first]
                .into_iter()
                .chain(rest)
                .collect();
            classes_are_alike(&all.join("\n"))
        };
        assert!(with(line(1, "100Gbit")));
        assert!(!with(line(1, "1Mbit")), "one is slower");
        assert!(!with(String::new()), "one is missing");
        assert!(!with(line(257, "100Gbit")), "one is another");
        assert!(!classes_are_alike(top));
    }
}
