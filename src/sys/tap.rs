//! What the kernel does with a TAP beyond passing packets: how it answers there (`Documentation/networking/ip-sysctl.rst`),
//! and how fast what goes to its guest and comes from it may be.

use std::collections::BTreeMap;

use crate::base::network::TAP_NAME_PREFIX;
use crate::base::{Found, Rates};

use super::ip::queue::{PacketQueue, QueueId, QueuesOf, TokenBucket};
use super::ip::{self, Interface, IpError, link};

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
/// What holds to a rate, and the fair queue behind it.
const BUCKET: QueueId = QueueId::of(1, 0);
const BEHIND: QueueId = QueueId::of(2, 0);
/// Bytes of a queue that a packet waits in, at the least: segmentation offload makes one packet of many.
const LEAST_BURST: u64 = 1 << 16;
/// The kernel counts a burst in 32 bits, as time.
const MOST_BURST: u64 = 1 << 26;
/// Of a second: what may leave at once where the kernel's timer ticks rarely.
const TICK: u64 = 100;

/// What holds packets to a rate in bytes a second, of which this part of a second waits at most.
pub(super) fn bucket(rate: u64, waits: u64) -> TokenBucket {
    let bytes = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    TokenBucket {
        rate,
        burst: bytes((rate / TICK).clamp(LEAST_BURST, MOST_BURST)),
        limit: bytes((rate / waits).max(2 * LEAST_BURST)),
    }
}

/// Half a second, for a kernel that has no better queue behind it.
fn bucket_of(rate: u64) -> TokenBucket {
    bucket(rate, 2)
}

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

/// Whether an interface has all of them set.
pub fn is_hardened(interface: &Interface) -> bool {
    let settings = &interface.settings;
    SETTINGS.iter().all(|(family, _, value, number)| match *family {
        "ipv6" => !settings.lacks_ipv6(*number),
        _ => settings.ipv4(*number).is_some_and(|found| found.to_string() == *value),
    })
}

/// Has what goes to a guest, and what comes from it, wait its turn, so that neither is faster than its rate. What goes to it waits on
/// its TAP; without a rate, it is only shared fairly between connections. What comes from it is led through an interface of its own
/// (ifb) before anything else sees it, and comes back to the TAP when it is its turn: so all that a guest sends counts, whoever gets
/// it. The queues are fq_codel's where the kernel has it, which keeps no connection waiting for another.
pub fn shape(name: &str, rates: Rates, alias: &str) -> Result<(), IpError> {
    let Rates { up, down } = rates.bytes_per_second();
    let tap = QueuesOf { name, index: ip::index(name)?.ok_or_else(|| link::missing(name))? };
    put_queue(tap, down)?;
    match up {
        Some(_) => {
            let ifb = queue_of(name);
            let index = link::create_ifb(&ifb, alias)?;
            put_queue(QueuesOf { name: &ifb, index }, up)?;
            tap.lead_to(index)
        }
        None => {
            tap.lead_nowhere()?;
            unshape(name)
        }
    }
}

/// The same of a TAP that was made just now, on which nothing waits yet.
pub fn shape_new(name: &str, rates: Rates, alias: &str) -> Result<(), IpError> {
    if rates != Rates::default() {
        return shape(name, rates, alias);
    }
    let index = ip::index(name)?.ok_or_else(|| link::missing(name))?;
    QueuesOf { name, index }.put_fair(QueueId::ROOT, QueueId::NONE, PACKETS, FLOWS)?;
    // Of one of that name before it.
    unshape(name)
}

/// What leaves an interface waits there, at a rate in bytes a second.
fn put_queue(interface: QueuesOf<'_>, rate: Option<u64>) -> Result<(), IpError> {
    match rate {
        Some(rate) => {
            interface.put_bucket(BUCKET, &bucket_of(rate))?;
            interface.put_fair(BUCKET, BEHIND, PACKETS, FLOWS)
        }
        None => {
            interface.remove_root()?;
            interface.put_fair(QueueId::ROOT, QueueId::NONE, PACKETS, FLOWS)
        }
    }
}

/// Removes what the packets of a guest wait in that comes from its TAP; absence is fine.
pub fn unshape(name: &str) -> Result<(), IpError> {
    let ifb = queue_of(name);
    link::index(&ifb)?.map_or(Ok(()), |index| link::delete_index(&ifb, index))
}

/// The interface that what comes from a TAP waits on. It is as long as the TAP's name.
pub fn queue_of(tap: &str) -> String {
    format!("ifb-{}", tap.strip_prefix(TAP_NAME_PREFIX).unwrap_or(tap))
}

/// How fast packets go to and come from the guests of these interfaces. What comes from a guest is held half where not all is there
/// that it is led through.
pub fn shapes(interfaces: &[Interface]) -> Result<BTreeMap<String, Rates<Found<u64>>>, IpError> {
    let mut queues: BTreeMap<u32, Vec<PacketQueue>> = BTreeMap::new();
    for queue in ip::queue::queues()? {
        queues.entry(queue.interface).or_default().push(queue);
    }
    let queues_of = |index: u32| queues.get(&index).map_or(&[][..], Vec::as_slice);
    let indices: BTreeMap<&str, u32> =
        interfaces.iter().map(|found| (found.name.as_str(), found.index)).collect();
    let up = |tap: &Interface| -> Result<Option<Found<u64>>, IpError> {
        if !queues_of(tap.index).iter().any(PacketQueue::is_ingress) {
            return Ok(None);
        }
        let own = QueuesOf { name: &tap.name, index: tap.index };
        match indices.get(queue_of(&tap.name).as_str()) {
            Some(ifb) if own.is_led_to(*ifb)? => Ok(rate_of(queues_of(*ifb)).or(Some(Found::Half))),
            _ => Ok(Some(Found::Half)),
        }
    };
    let rates = |tap: &Interface| -> Result<Rates<Found<u64>>, IpError> {
        Ok(Rates { up: up(tap)?, down: rate_of(queues_of(tap.index)) })
    };
    interfaces.iter().map(|tap| Ok((tap.name.clone(), rates(tap)?))).collect()
}

/// The rate of the queue of an interface; `None` where nothing holds it to one.
fn rate_of(queues: &[PacketQueue]) -> Option<Found<u64>> {
    let own = queues.iter().find(|queue| queue.parent == QueueId::ROOT)?;
    let rate = own.rate()?;
    Some(if own.is(&bucket_of(rate)) { Found::Whole(rate) } else { Found::Half })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_at_once_is_bounded_on_both_sides() {
        let bucket = |rate| bucket_of(rate);
        let least = TokenBucket { rate: 1000, burst: 65_536, limit: 131_072 };
        assert_eq!(bucket(1000), least);
        assert_eq!(bucket(62_500_000), TokenBucket { rate: 62_500_000, burst: 625_000, limit: 31_250_000 });
        let most = TokenBucket { rate: 12_500_000_000, burst: 1 << 26, limit: u32::MAX };
        assert_eq!(bucket(12_500_000_000), most);
    }
}
