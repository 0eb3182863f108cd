//! Frames of every kind, byte by byte as a hostile guest sends them, and where what they carry comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, RawProtocol, RecvFlags, SocketType, recv, socket, sockopt};
use serde_json::Value;
use sisforge::host::policy::Transport;
use sisforge::sys::tool::Tool;

use super::world::{HOST, OUTSIDE, ip, within};
use crate::common::sandbox::Sandbox;

/// What is in each frame, before its number.
const SIGN: &[u8] = b"sisforge-probe";
/// After so long without anything more, nothing more comes.
const QUIET: Duration = Duration::from_millis(250);

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const SYN: u8 = 2;

/// By which a frame is known, whatever it is wrapped in.
pub fn sign(number: u16) -> Vec<u8> {
    [SIGN, &number.to_be_bytes()].concat()
}

/// A packet of IPv4.
#[derive(Clone, Debug)]
pub struct Ip {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// Flags and offset of a fragment; 0 for a whole packet.
    pub fragment: u16,
    pub ttl: u8,
    /// Of words of four bytes.
    pub options: Vec<u8>,
    pub protocol: u8,
    pub content: Vec<u8>,
}

impl Ip {
    pub fn of(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, content: Vec<u8>) -> Self {
        Self { from, to, fragment: 0, ttl: 64, options: Vec::new(), protocol, content }
    }

    /// With what begins a conversation, and a number.
    pub fn begins(from: Ipv4Addr, to: Ipv4Addr, transport: Transport, number: u16) -> Self {
        let source = 20_000 + number;
        match transport {
            Transport::Tcp(port) => {
                Self::of(from, to, TCP, tcp([from, to], source, port, SYN, &sign(number)))
            }
            Transport::Udp(port) => Self::of(from, to, UDP, udp(source, port, &sign(number))),
            Transport::Icmp => Self::of(from, to, ICMP, icmp([8, 0], source.into(), &sign(number))),
            Transport::Other(protocol) => Self::of(from, to, protocol, sign(number)),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + self.content.len()) as u16).to_be_bytes());
        bytes.extend([0, 7]);
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend([self.from.octets(), self.to.octets()].concat());
        bytes.extend(&self.options);
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum);
        bytes.extend(&self.content);
        bytes
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A segment, with the flags of RFC 9293.
pub fn tcp(ends: [Ipv4Addr; 2], source: u16, port: u16, flags: u8, content: &[u8]) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), port.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(content);
    let pseudo = [ends.map(|end| end.octets()).concat(), vec![0, TCP, 0, segment.len() as u8]].concat();
    let sum = checksum(&[pseudo, segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// A datagram without a checksum.
pub fn udp(source: u16, port: u16, content: &[u8]) -> Vec<u8> {
    let fields = [source, port, 8 + content.len() as u16, 0];
    [fields.map(u16::to_be_bytes).concat(), content.to_vec()].concat()
}

/// A message of this type and code, with what stands in its second word.
pub fn icmp([kind, code]: [u8; 2], word: u32, content: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &(word << 16).to_be_bytes(), content].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// An end of a link, at which frames are sent.
#[derive(Clone, Debug)]
pub struct Wire {
    namespace: String,
    index: u64,
    /// Its own MAC, and that of the other end.
    pub own: [u8; 6],
    pub peer: [u8; 6],
}

fn link(namespace: &str, device: &str) -> Value {
    let within = if namespace == HOST { String::new() } else { format!("-n {namespace} ") };
    let all: Value = serde_json::from_str(&ip(&format!("{within}-j link show dev {device}"))).unwrap();
    all[0].clone()
}

fn mac(link: &Value) -> [u8; 6] {
    let bytes =
        link["address"].as_str().unwrap().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

impl Wire {
    fn new(namespace: &str, device: &str, [peers, peer]: [&str; 2]) -> Self {
        let own = link(namespace, device);
        let (namespace, index) = (namespace.to_owned(), own["ifindex"].as_u64().unwrap());
        Self { namespace, index, own: mac(&own), peer: mac(&link(peers, peer)) }
    }

    /// From a guest that is attached into its TAP.
    pub fn of_guest(sandbox: &Sandbox, letter: char) -> Self {
        let tap = format!("sis-{}", sandbox.guest(letter));
        Self::new(&letter.to_string(), "eth0", [&sandbox.netns(), &tap])
    }

    /// From beyond the uplink.
    pub fn of_outside() -> Self {
        Self::new(OUTSIDE, "up0", [HOST, "up0"])
    }

    /// A frame from this end to the other.
    pub fn frame(&self, kind: u16, content: &[u8]) -> Vec<u8> {
        [&self.peer[..], &self.own, &kind.to_be_bytes(), content].concat()
    }

    pub fn ip(&self, packet: &Ip) -> Vec<u8> {
        self.frame(0x0800, &packet.bytes())
    }

    /// Sends frames (packet(7)); whether the kernel took them does not matter.
    pub fn send<'a>(&self, frames: impl IntoIterator<Item = &'a Vec<u8>>) {
        let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        let lines: String = frames.into_iter().map(hex).collect();
        let sender = r#"socket(my $s, 17, 3, 0) or die $!; my $to = pack("SnlSCCa8", 17, 0, $ARGV[0], 0, 0, 6, "");
            while (<STDIN>) { chomp; send($s, pack("H*", $_), 0, $to) }"#;
        let perl = Tool::new("perl").args(["-e", sender, &self.index.to_string()]).stdin(lines);
        within(&self.namespace, || perl.run()).unwrap();
    }
}

/// Hears what comes to namespaces.
#[derive(Debug)]
pub struct Ears(Vec<(&'static str, OwnedFd)>);

/// What hears what the fleet's namespace, and the host, take for their own.
pub const FLEET: &str = "fleet";
/// Where numbers came to.
pub type Heard = BTreeMap<u16, BTreeSet<&'static str>>;

impl Ears {
    /// In guests that are attached, outside, in the network of the administrators, in the fleet's namespace, and on the host.
    pub fn new(sandbox: &Sandbox, guests: &[&'static str]) -> Self {
        let open = |namespace: &str, family, protocol: u32| {
            let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
            let socket = within(namespace, || socket(family, SocketType::RAW, protocol)).unwrap();
            let _ = sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 24);
            socket
        };
        let everything = u32::from(0x0003_u16.to_be());
        let wires = guests.iter().chain(&[OUTSIDE, "mg"]);
        let mut all: Vec<_> =
            wires.map(|name| (*name, open(name, AddressFamily::PACKET, everything))).collect();
        for (name, namespace) in [(FLEET, sandbox.netns()), ("host", HOST.to_owned())] {
            let protocols = [1, 2, 4, 6, 17, 41, 47, 50, 132];
            all.extend(protocols.map(|number| (name, open(&namespace, AddressFamily::INET, number))));
        }
        Self(all)
    }

    /// All that was heard since this was asked last.
    pub fn heard(&self) -> Heard {
        let (mut heard, mut last, mut buffer) = (Heard::new(), Instant::now(), [0; 2048]);
        while last.elapsed() < QUIET {
            for (name, socket) in &self.0 {
                while let Ok((length, _)) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                    last = Instant::now();
                    let found = buffer[..length].windows(SIGN.len() + 2).find(|part| part.starts_with(SIGN));
                    let Some(found) = found else { continue };
                    let number = u16::from_be_bytes([found[SIGN.len()], found[SIGN.len() + 1]]);
                    heard.entry(number).or_default().insert(name);
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        heard
    }
}
