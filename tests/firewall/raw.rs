//! IPv4 packets as they are given, from whatever address they say.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, ipproto};

use super::world::within;

/// A datagram over UDP, or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    pub id: u16,
    pub from: &'a str,
    pub to: &'a str,
    /// In bytes, of what is behind the IP header.
    pub offset: u16,
    /// Whether more comes.
    pub more: bool,
    pub payload: &'a [u8],
}

/// A raw socket of a namespace (raw(7)): the IP header is the sender's own.
pub fn socket(namespace: &str) -> OwnedFd {
    let raw: Option<Protocol> = Some(ipproto::RAW);
    within(namespace, || rustix::net::socket(AddressFamily::INET, SocketType::RAW, raw)).unwrap()
}

/// Sends one packet; whether the kernel took it does not matter.
pub fn send(socket: &OwnedFd, fragment: Fragment<'_>) {
    let [from, to]: [Ipv4Addr; 2] = [fragment.from, fragment.to].map(|address| address.parse().unwrap());
    let mut packet = vec![0x45, 0];
    packet.extend((20 + fragment.payload.len() as u16).to_be_bytes());
    packet.extend(fragment.id.to_be_bytes());
    let more = if fragment.more { 0x2000 } else { 0 };
    packet.extend((more | (fragment.offset / 8)).to_be_bytes());
    packet.extend([64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(fragment.payload);
    let _ = rustix::net::sendto(socket, &packet, SendFlags::empty(), &SocketAddrV4::new(to, 0));
}

/// Header and content of a datagram, without a checksum.
pub fn udp(from: u16, to: u16, content: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(from.to_be_bytes());
    datagram.extend(to.to_be_bytes());
    datagram.extend((8 + content.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(content);
    datagram
}
