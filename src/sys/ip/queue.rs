//! Queues that packets wait in which leave an interface, and what leads those that arrive elsewhere: asked of the kernel and put there
//! (rtnetlink(7), tc(8)), since that is done for each guest. Structures are those of `linux/pkt_sched.h`, `pkt_cls.h` and
//! `tc_act/tc_mirred.h`.

use std::io;

use rustix::io::Errno;

use crate::sys::netlink::{MessageKind, NESTED, Rtnetlink, RtnetlinkItem, attributes, find, push, text};

use super::IpError;
use super::link::{NLM_F_CREATE, failed, unanswered};

/// `RTM_*` of `linux/rtnetlink.h`.
const NEW_QUEUE: MessageKind = MessageKind(0, 36);
const DELETE_QUEUE: MessageKind = MessageKind(0, 37);
const GET_QUEUE: MessageKind = MessageKind(0, 38);
const NEW_FILTER: MessageKind = MessageKind(0, 44);
const GET_FILTER: MessageKind = MessageKind(0, 46);
const NLM_F_REPLACE: u16 = 0x100;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const FQ_CODEL_LIMIT: u16 = 2;
const FQ_CODEL_FLOWS: u16 = 5;
const TBF_PARAMETERS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// `struct tc_tbf_qopt`: two of `tc_ratespec`, and three numbers.
const TBF_LENGTH: usize = 36;
/// `TC_LINKLAYER_ETHERNET`: the kernel needs no table of times then.
const ETHERNET: u8 = 1;
/// The kernel counts time in 64 ns here (`PSCHED_SHIFT`).
const NANOSECONDS_A_TICK: u64 = 64;
const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
/// `TC_U32_TERMINAL`.
const TERMINAL: u8 = 1;
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED_PARAMETERS: u16 = 2;
/// `TC_ACT_STOLEN` and `TCA_EGRESS_REDIR`.
const STOLEN: u32 = 4;
const EGRESS_REDIRECT: u32 = 1;
/// `ETH_P_ALL`.
const ALL_PROTOCOLS: u16 = 3;
/// The one filter that leads all elsewhere: `800::1`, which comes first.
const LEADING: u32 = 0x8000_0001;
const FIRST: u32 = 1 << 16;

/// The number of a queue, or of a class of one, such as `1:` or `2:3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueId(u32);

impl QueueId {
    /// What an interface's own queue stands below.
    pub const ROOT: Self = Self(0xffff_ffff);
    const INGRESS: Self = Self(0xffff_fff1);
    const INGRESS_ITSELF: Self = Self(0xffff_0000);
    /// One that the kernel numbers.
    pub const NONE: Self = Self(0);

    /// By the two numbers of it.
    pub const fn of(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    /// The first of the two.
    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// What holds packets to a rate (tc-tbf(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// In bytes a second.
    pub rate: u64,
    /// What may leave at once, in bytes.
    pub burst: u32,
    /// What waits at most, in bytes.
    pub limit: u32,
}

/// A queue of an interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketQueue {
    /// The index of its interface.
    pub interface: u32,
    /// Such as `fq_codel`.
    pub kind: String,
    pub id: QueueId,
    pub parent: QueueId,
    /// As the kernel tells them.
    pub options: Vec<u8>,
}

impl PacketQueue {
    /// The rate in bytes a second of one that holds packets to a rate, and to that alone; `None` of another.
    pub fn rate(&self) -> Option<u64> {
        let parameters = find(&self.options, TBF_PARAMETERS).filter(|_| self.kind == "tbf")?;
        let rate = word(parameters, 8)?;
        let long = find(&self.options, TBF_RATE64).and_then(|bytes| bytes.first_chunk());
        Some(long.map_or(rate.into(), |bytes| u64::from_ne_bytes(*bytes)))
    }

    /// Whether it is what this makes. The kernel keeps a burst as time, and rounds.
    pub fn is(&self, wanted: &TokenBucket) -> bool {
        let parameters = find(&self.options, TBF_PARAMETERS).unwrap_or_default();
        let (peak, limit) = (word(parameters, 20), word(parameters, 24));
        let ticks = |bytes: u32| u64::from(bytes) * 1_000_000_000 / wanted.rate.max(1) / NANOSECONDS_A_TICK;
        let (kept, meant) = (word(parameters, 28).unwrap_or_default(), ticks(wanted.burst));
        self.rate() == Some(wanted.rate)
            && peak == Some(0)
            && limit == Some(wanted.limit)
            && meant.abs_diff(kept.into()) <= 1 + meant / 1000
    }

    /// Whether what arrives at its interface passes it (the kind `ingress`).
    pub fn is_ingress(&self) -> bool {
        self.kind == "ingress" && self.parent == QueueId::INGRESS
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// `struct tcmsg`.
fn header(interface: u32, id: QueueId, parent: QueueId, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (at, value) in [(4, interface), (8, id.0), (12, parent.0), (16, info)] {
        header[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

/// The queues of all interfaces of this network namespace.
pub fn queues() -> Result<Vec<PacketQueue>, IpError> {
    let dump = |socket: Rtnetlink| socket.dump(GET_QUEUE, &header(0, QueueId::NONE, QueueId::NONE, 0), &[]);
    let all = Rtnetlink::open().and_then(dump).map_err(unanswered("queues"))?;
    let queue = |item: &RtnetlinkItem| {
        Some(PacketQueue {
            interface: item.word(4),
            kind: text(item.attributes(), TCA_KIND)?,
            id: QueueId(item.word(8)),
            parent: QueueId(item.word(12)),
            options: find(item.attributes(), TCA_OPTIONS).unwrap_or_default().to_vec(),
        })
    };
    Ok(all.iter().filter_map(queue).collect())
}

/// Changes one interface, whose name is told where that fails.
#[derive(Clone, Copy, Debug)]
pub struct QueuesOf<'a> {
    pub name: &'a str,
    pub index: u32,
}

impl QueuesOf<'_> {
    /// Has what leaves it wait in a queue that is fair to all connections (tc-fq_codel(8)), of this many packets and flows, where the
    /// kernel has one.
    pub fn put_fair(self, parent: QueueId, id: QueueId, limit: u32, flows: u32) -> Result<(), IpError> {
        let mut options = Vec::new();
        push(&mut options, FQ_CODEL_LIMIT, &limit.to_ne_bytes());
        push(&mut options, FQ_CODEL_FLOWS, &flows.to_ne_bytes());
        match self.put(parent, id, "fq_codel", &options) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
            done => done.map_err(failed("give a queue to", self.name)),
        }
    }

    /// Holds what leaves it to a rate; what stands behind that stays.
    pub fn put_bucket(self, id: QueueId, bucket: &TokenBucket) -> Result<(), IpError> {
        let mut parameters = [0; TBF_LENGTH];
        parameters[1] = ETHERNET;
        let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
        parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
        parameters[24..28].copy_from_slice(&bucket.limit.to_ne_bytes());
        let mut options = Vec::new();
        push(&mut options, TBF_PARAMETERS, &parameters);
        push(&mut options, TBF_BURST, &bucket.burst.to_ne_bytes());
        if rate == u32::MAX {
            push(&mut options, TBF_RATE64, &bucket.rate.to_ne_bytes());
        }
        self.put(QueueId::ROOT, id, "tbf", &options).map_err(failed("hold to a rate", self.name))
    }

    /// Leads all that arrives there out of another interface, before anything else sees it (tc-mirred(8)).
    pub fn lead_to(self, other: u32) -> Result<(), IpError> {
        let put = || -> io::Result<()> {
            self.put(QueueId::INGRESS, QueueId::INGRESS_ITSELF, "ingress", &[])?;
            let info = FIRST | u32::from(ALL_PROTOCOLS.to_be());
            let header = header(self.index, QueueId(LEADING), QueueId::INGRESS_ITSELF, info);
            Rtnetlink::open()?.request(NEW_FILTER, NLM_F_CREATE, &header, &leading_filter(other))
        };
        put().map_err(failed("lead elsewhere what arrives at", self.name))
    }

    /// Has what arrives there be taken in as it comes; nothing to do is fine.
    pub fn lead_nowhere(self) -> Result<(), IpError> {
        self.remove(QueueId::INGRESS)
    }

    /// Removes what is between it and its own queue; nothing to do is fine.
    pub fn remove_root(self) -> Result<(), IpError> {
        self.remove(QueueId::ROOT)
    }

    /// Whether all that arrives there is led out of another interface.
    pub fn is_led_to(self, other: u32) -> Result<bool, IpError> {
        let header = header(self.index, QueueId::NONE, QueueId::INGRESS_ITSELF, 0);
        let dump = |socket: Rtnetlink| socket.dump(GET_FILTER, &header, &[]);
        let filters = Rtnetlink::open().and_then(dump).map_err(failed("look for filters of", self.name))?;
        let all = FIRST | u32::from(ALL_PROTOCOLS.to_be());
        Ok(filters.iter().any(|filter| filter.word(16) == all && leads_to(filter.attributes(), other)))
    }

    fn put(self, parent: QueueId, id: QueueId, kind: &str, options: &[u8]) -> io::Result<()> {
        let mut attributes = Vec::new();
        push(&mut attributes, TCA_KIND, format!("{kind}\0").as_bytes());
        // Some kinds have none, and none may be told to them.
        if !options.is_empty() {
            push(&mut attributes, TCA_OPTIONS | NESTED, options);
        }
        let header = header(self.index, id, parent, 0);
        Rtnetlink::open()?.request(NEW_QUEUE, NLM_F_CREATE | NLM_F_REPLACE, &header, &attributes)
    }

    fn remove(self, parent: QueueId) -> Result<(), IpError> {
        let header = header(self.index, QueueId::NONE, parent, 0);
        match Rtnetlink::open().and_then(|socket| socket.request(DELETE_QUEUE, 0, &header, &[])) {
            // There is none, or only the kernel's own.
            Err(error)
                if [Some(Errno::NOENT), Some(Errno::INVAL)].contains(&Errno::from_io_error(&error)) =>
            {
                Ok(())
            }
            done => done.map_err(failed("take a queue from", self.name)),
        }
    }
}

/// Every packet (tc-u32(8)), led out of an interface.
fn leading_filter(to: u32) -> Vec<u8> {
    // `struct tc_mirred`: index, capabilities, what becomes of the packet, two counts, what is done, and where.
    let mirred: Vec<u8> =
        [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to].iter().flat_map(|field| field.to_ne_bytes()).collect();
    let nested = |number: u16, content: &[u8]| {
        let mut attribute = Vec::new();
        push(&mut attribute, number | NESTED, content);
        attribute
    };
    let mut parameters = Vec::new();
    push(&mut parameters, MIRRED_PARAMETERS, &mirred);
    let mut action = Vec::new();
    push(&mut action, ACTION_KIND, b"mirred\0");
    action.extend(nested(ACTION_OPTIONS, &parameters));
    // `struct tc_u32_sel` with one `tc_u32_key`, whose mask is empty.
    let mut selector = [0; 32];
    (selector[0], selector[2]) = (TERMINAL, 1);
    let mut options = Vec::new();
    push(&mut options, U32_SELECTOR, &selector);
    options.extend(nested(U32_ACTIONS, &nested(1, &action)));
    let mut attributes = Vec::new();
    push(&mut attributes, TCA_KIND, b"u32\0");
    attributes.extend(nested(TCA_OPTIONS, &options));
    attributes
}

/// Whether a filter leads every packet out of this interface.
fn leads_to(filter: &[u8], to: u32) -> bool {
    let options = find(filter, TCA_OPTIONS).unwrap_or_default();
    let selector = find(options, U32_SELECTOR).unwrap_or_default();
    let is_any = selector.get(2) == Some(&1) && word(selector, 16) == Some(0);
    let mut actions = attributes(find(options, U32_ACTIONS).unwrap_or_default());
    let redirects = actions.next().is_some_and(|(_, action)| {
        let parameters = find(find(action, ACTION_OPTIONS).unwrap_or_default(), MIRRED_PARAMETERS);
        let parameters = parameters.unwrap_or_default();
        text(action, ACTION_KIND).as_deref() == Some("mirred")
            && (word(parameters, 8), word(parameters, 20)) == (Some(STOLEN), Some(EGRESS_REDIRECT))
            && word(parameters, 24) == Some(to)
    });
    text(filter, TCA_KIND).as_deref() == Some("u32") && is_any && redirects
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel tells it of `tbf rate 2500000bps burst 65536 limit 1250000`.
    fn bucket(rate: u32, ticks: u32, limit: u32) -> PacketQueue {
        let mut parameters = vec![0; TBF_LENGTH];
        parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
        parameters[24..28].copy_from_slice(&limit.to_ne_bytes());
        parameters[28..32].copy_from_slice(&ticks.to_ne_bytes());
        let mut options = Vec::new();
        push(&mut options, TBF_PARAMETERS, &parameters);
        let (id, parent) = (QueueId::of(1, 0), QueueId::ROOT);
        PacketQueue { interface: 2, kind: "tbf".to_owned(), id, parent, options }
    }

    #[test]
    fn a_bucket_is_the_same_with_its_burst_and_limit_alone() {
        let wanted = TokenBucket { rate: 2_500_000, burst: 65_536, limit: 1_250_000 };
        // 65,536 bytes take 26,214,400 ns.
        let ticks = 409_600;
        assert!(bucket(2_500_000, ticks, 1_250_000).is(&wanted));
        assert!(bucket(2_500_000, ticks + 1, 1_250_000).is(&wanted), "rounded");
        for other in [
            bucket(2_500_001, ticks, 1_250_000),
            bucket(2_500_000, ticks * 2, 1_250_000),
            bucket(2_500_000, ticks, 1_250_001),
            PacketQueue { kind: "fq_codel".to_owned(), ..bucket(2_500_000, ticks, 1_250_000) },
        ] {
            assert!(!other.is(&wanted), "{other:?}");
        }
    }

    #[test]
    fn a_filter_leads_to_one_interface_alone() {
        let filter = leading_filter(7);
        assert!(leads_to(&filter, 7));
        assert!(!leads_to(&filter, 8));
        assert!(!leads_to(&[], 7));
    }
}
