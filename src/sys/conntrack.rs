//! The kernel's table of connections, over ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`).

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::netlink::{self, MessageKind, NESTED, Netfilter, find};
use super::nft::NftError;

/// A connection, as whoever opened it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedConnection {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// Number of the protocol above IP.
    pub protocol: u8,
    /// Port of the destination, where the protocol has ports.
    pub port: Option<u16>,
    /// Port of the source.
    pub from_port: Option<u16>,
    /// The mark that rules gave it; 0 where none did.
    pub mark: u32,
    /// Bytes of packets that whoever opened it sent, and of those that answered, where the kernel counts them
    /// (`net.netfilter.nf_conntrack_acct`).
    pub sent: Option<u64>,
    pub answered: Option<u64>,
    /// Port of whoever answers, wherever rules led it.
    #[serde(skip)]
    pub answering_port: Option<u16>,
    /// Whether an answer may be on its way: over TCP while both hold the connection open, else as long as none came.
    #[serde(skip)]
    pub awaits_answer: bool,
    /// By which the kernel finds it.
    #[serde(skip)]
    key: Vec<u8>,
}

const CONNTRACK: u8 = 1;
const GET: MessageKind = MessageKind(CONNTRACK, 1);
const DELETE: MessageKind = MessageKind(CONNTRACK, 2);
const IPV4: u8 = 2;
const TUPLE: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
/// In the status (`IPS_SEEN_REPLY`, `linux/netfilter/nf_conntrack_common.h`).
const SEEN_REPLY: u32 = 2;
const PROTOCOL_INFO: u16 = 4;
/// State of TCP (`TCP_CONNTRACK_ESTABLISHED`, `linux/netfilter/nf_conntrack_tcp.h`).
const ESTABLISHED: u8 = 3;
const MARK: u16 = 8;
const COUNTERS: u16 = 9;
const COUNTERS_REPLY: u16 = 10;
const ID: u16 = 12;
const ZONE: u16 = 18;

fn failed(action: &str) -> impl Fn(io::Error) -> NftError {
    move |source| NftError::Kernel { action: action.to_owned(), source }
}

/// All connections over IPv4 of this network namespace that a test lets pass.
pub fn list(keep: impl Fn(&TrackedConnection) -> bool) -> Result<Vec<TrackedConnection>, NftError> {
    let failed = failed("list the connections of conntrack");
    let all = Netfilter::open().and_then(|socket| socket.dump(GET, IPV4, &[])).map_err(failed)?;
    Ok(all.iter().filter_map(|bytes| connection(bytes)).filter(keep).collect())
}

/// Ends connections: the kernel forgets them. One that has ended already is no error. Gives how many there were.
pub fn end(connections: &[TrackedConnection]) -> Result<usize, NftError> {
    let failed = failed("end connections of conntrack");
    let socket = Netfilter::open().map_err(&failed)?;
    let mut ended = 0;
    for connection in connections {
        match socket.request(DELETE, IPV4, &connection.key) {
            Ok(()) => ended += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(ended)
}

impl TrackedConnection {
    /// Whether both are about the same connection, whatever became of it meanwhile.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// Ends every connection that an address has opened, or that was opened to it.
pub fn end_of(address: Ipv4Addr) -> Result<usize, NftError> {
    end(&list(|connection| connection.from == address || connection.to == address)?)
}

/// Groups of messages, for [`Netfilter::open_for`]: of connections that begin, and of those that end.
pub const NEW_FLOWS: u32 = 1;
pub const OLD_FLOWS: u32 = 1 << 2;

/// A connection that began, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEvent {
    pub began: bool,
    pub connection: TrackedConnection,
}

/// Reads a message of these groups; `None` of any other.
pub fn flow_event(kind: MessageKind, bytes: &[u8]) -> Option<FlowEvent> {
    const NEW: MessageKind = MessageKind(CONNTRACK, 0);
    let began = match kind {
        NEW => true,
        DELETE => false,
        _ => return None,
    };
    Some(FlowEvent { began, connection: connection(bytes)? })
}

fn answering_port(bytes: &[u8]) -> Option<u16> {
    let protocol = find(find(bytes, TUPLE_REPLY)?, 2)?;
    Some(u16::from_be_bytes(*find(protocol, 2)?.first_chunk()?))
}

fn tcp_state(bytes: &[u8]) -> Option<u8> {
    find(find(find(bytes, PROTOCOL_INFO)?, 1)?, 1)?.first().copied()
}

fn connection(bytes: &[u8]) -> Option<TrackedConnection> {
    let tuple = find(bytes, TUPLE)?;
    let (ip, protocol) = (find(tuple, 1)?, find(tuple, 2)?);
    let address = |number| Some(Ipv4Addr::from(*find(ip, number)?.first_chunk::<4>()?));
    let mut key = Vec::new();
    netlink::push(&mut key, TUPLE | NESTED, tuple);
    for number in [ID, ZONE] {
        if let Some(content) = find(bytes, number) {
            netlink::push(&mut key, number, content);
        }
    }
    let number = |content: &[u8]| content.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let port = |number| Some(u16::from_be_bytes(*find(protocol, number)?.first_chunk()?));
    let bytes_in = |counters| Some(u64::from_be_bytes(*find(find(bytes, counters)?, 2)?.first_chunk()?));
    Some(TrackedConnection {
        from: address(1)?,
        to: address(2)?,
        protocol: *find(protocol, 1)?.first()?,
        port: port(3),
        from_port: port(2),
        sent: bytes_in(COUNTERS),
        answered: bytes_in(COUNTERS_REPLY),
        mark: find(bytes, MARK).and_then(number).unwrap_or(0),
        answering_port: answering_port(bytes),
        awaits_answer: match tcp_state(bytes) {
            Some(state) => state == ESTABLISHED,
            None => find(bytes, STATUS).and_then(number).unwrap_or(0) & SEEN_REPLY == 0,
        },
        key,
    })
}
