//! Packets that rules log, as the kernel hands them to whoever asks (`linux/netfilter/nfnetlink_log.h`), and what begins and ends in
//! its table of connections. Nothing is kept while nobody asks.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use super::conntrack::FlowEvent;
use super::conntrack::{NEW_FLOWS, OLD_FLOWS, flow_event};
use super::netlink::{MessageKind, Netfilter, find, push, text};
use super::nft::NftError;

/// The group of this program's rules, in the network namespace of each fleet.
pub const GROUP: u16 = 1;
/// Bytes of each packet: headers of IP with all options, and the ports behind.
pub const SNAPLEN: u32 = 64;
/// The group of answers of name servers, and how much of each is told.
pub const ANSWERS: u16 = 2;
pub const ANSWER_SNAPLEN: u32 = 600;

const LOG: u8 = 4;
const PACKET: MessageKind = MessageKind(LOG, 0);
const CONFIG: MessageKind = MessageKind(LOG, 1);
const COMMAND: u16 = 1;
const BIND: u8 = 1;
const MODE: u16 = 2;
const COPY_PACKET: u8 = 2;
/// How many packets the kernel gathers before it tells of them.
const THRESHOLD: u16 = 5;
const INDEV: u16 = 4;
const OUTDEV: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// A packet that a rule logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedPacket {
    /// What the rule said.
    pub prefix: String,
    /// Number of the interface that it came in by, and of that which it was to leave by.
    #[serde(skip)]
    pub indev: Option<u32>,
    #[serde(skip)]
    pub outdev: Option<u32>,
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// Number of the protocol above IP.
    pub protocol: u8,
    /// Ports of source and destination, where the protocol has ports.
    pub ports: Option<(u16, u16)>,
    /// Of the whole packet.
    pub bytes: u16,
    /// What was told of it behind the header of IP.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

/// What listens.
#[derive(Debug)]
pub struct NetfilterListener(Netfilter);

fn failed(action: &str) -> impl Fn(io::Error) -> NftError {
    move |source| NftError::Kernel { action: action.to_owned(), source }
}

impl NetfilterListener {
    /// Asks for what rules of this network namespace log. `None` where somebody else does.
    pub fn to_packets() -> Result<Option<Self>, NftError> {
        Self::to_group(GROUP, SNAPLEN)
    }

    /// The same of answers of name servers.
    pub fn to_answers() -> Result<Option<Self>, NftError> {
        Self::to_group(ANSWERS, ANSWER_SNAPLEN)
    }

    fn to_group(group: u16, length: u32) -> Result<Option<Self>, NftError> {
        let failed = failed("listen to packets that are logged");
        let socket = Netfilter::open().map_err(&failed)?;
        let config = |attributes: &[u8]| socket.request_of(CONFIG, 0, group, attributes);
        let mut bind = Vec::new();
        push(&mut bind, COMMAND, &[BIND]);
        match config(&bind) {
            Ok(()) => {}
            // What the kernel says of a group that another socket has; whoever is in this namespace may ask otherwise.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PERM | Errno::BUSY)) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        }
        let mut mode = Vec::new();
        push(&mut mode, MODE, &[&length.to_be_bytes()[..], &[COPY_PACKET, 0]].concat());
        push(&mut mode, THRESHOLD, &1_u32.to_be_bytes());
        config(&mode).map_err(&failed)?;
        Ok(Some(Self(socket)))
    }

    /// Asks for connections of this network namespace that begin and end.
    pub fn to_flows() -> Result<Self, NftError> {
        let socket = Netfilter::open_for(NEW_FLOWS | OLD_FLOWS);
        Ok(Self(socket.map_err(failed("listen to connections"))?))
    }

    /// What came until now, of that which is asked for; waits up to so long for it. What was lost, because it came too fast, is told
    /// as an interruption.
    pub fn events(&self, patience: Duration) -> io::Result<Vec<NetfilterEvent>> {
        let read = |(kind, bytes): (MessageKind, Vec<u8>)| match kind {
            PACKET => packet(&bytes).map(NetfilterEvent::Packet),
            kind => flow_event(kind, &bytes).map(NetfilterEvent::Flow),
        };
        match self.0.receive_within(patience) {
            Ok(messages) => Ok(messages.into_iter().filter_map(read).collect()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                Ok(vec![NetfilterEvent::Lost])
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Waits until something came to one of them, but no longer than that.
pub fn wait(listeners: &[&NetfilterListener], patience: Duration) -> io::Result<()> {
    let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
    let mut waiting: Vec<_> =
        listeners.iter().map(|listener| PollFd::new(&listener.0, PollFlags::IN)).collect();
    match poll(&mut waiting, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Something that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetfilterEvent {
    Packet(LoggedPacket),
    Flow(FlowEvent),
    /// Some came faster than they were read.
    Lost,
}

fn packet(bytes: &[u8]) -> Option<LoggedPacket> {
    let device = |number| Some(u32::from_be_bytes(*find(bytes, number)?.first_chunk()?));
    let payload = find(bytes, PAYLOAD)?;
    let header = payload.first_chunk::<20>().filter(|header| header[0] >> 4 == 4)?;
    let length = usize::from(header[0] & 15) * 4;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let protocol = header[9];
    let has_ports = is_first && [6, 17, 33, 132, 136].contains(&protocol);
    let ports = payload.get(length..).and_then(|rest| rest.first_chunk::<4>()).filter(|_| has_ports);
    Some(LoggedPacket {
        prefix: text(bytes, PREFIX).unwrap_or_default(),
        indev: device(INDEV),
        outdev: device(OUTDEV),
        from: address(12),
        to: address(16),
        protocol,
        ports: ports.map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))),
        bytes: u16::from_be_bytes([header[2], header[3]]),
        payload: payload.get(length..).unwrap_or_default().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, INDEV, &7_u32.to_be_bytes());
        push(&mut bytes, PREFIX, b"rule-n-deny-0\0");
        push(&mut bytes, PAYLOAD, payload);
        bytes
    }

    #[test]
    fn a_packet_is_read_with_its_ports_and_a_later_fragment_without() {
        let mut header =
            [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 107, 0, 2, 198, 51, 100, 10, 0x9c, 0x40, 0, 25];
        let read = packet(&message(&header)).unwrap();
        assert_eq!(
            (read.from.to_string(), read.to.to_string()),
            ("10.107.0.2".into(), "198.51.100.10".into())
        );
        assert_eq!((read.protocol, read.ports, read.bytes, read.indev), (6, Some((40_000, 25)), 40, Some(7)));
        assert_eq!(read.prefix, "rule-n-deny-0");
        header[7] = 1;
        assert_eq!(packet(&message(&header)).unwrap().ports, None);
        for short in [&header[..19], &[0x60; 40], &[]] {
            assert_eq!(packet(&message(short)), None);
        }
    }
}
