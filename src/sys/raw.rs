//! IPv4 packets as they are given, over a raw socket (raw(7), `IPPROTO_RAW`): header and content are the sender's own.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

/// What packets are sent through.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct RawPacket<'a> {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// Identification of the IP header.
    pub id: u16,
    /// Flags and offset of a fragment; 0 for a whole packet.
    pub fragment: u16,
    pub protocol: u8,
    /// What is behind the IP header.
    pub content: &'a [u8],
}

/// Opens a socket in this thread's network namespace.
pub fn open() -> io::Result<RawSocket> {
    Ok(RawSocket(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?))
}

/// Sends a packet by the way to `via`, whatever its own destination is.
pub fn send(socket: &RawSocket, packet: &RawPacket<'_>, via: Ipv4Addr) -> io::Result<()> {
    let RawPacket { from, to, id, fragment, protocol, content } = packet;
    let length =
        u16::try_from(20 + content.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, *protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(*content);
    sendto(&socket.0, &bytes, SendFlags::empty(), &SocketAddrV4::new(via, 0))?;
    Ok(())
}

/// A datagram without content and without a checksum (RFC 768).
pub fn udp(source: u16, port: u16) -> Vec<u8> {
    [source, port, 8, 0].iter().flat_map(|field| field.to_be_bytes()).collect()
}

/// What begins a connection between these (RFC 9293).
pub fn tcp_syn(from: Ipv4Addr, to: Ipv4Addr, source: u16, port: u16) -> Vec<u8> {
    const DATA_OFFSET: u8 = 5 << 4;
    const SYN: u8 = 2;
    const LENGTH: u8 = 20;
    let mut segment: Vec<u8> = [source, port].iter().flat_map(|field| field.to_be_bytes()).collect();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, DATA_OFFSET, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    let [from, to] = [from, to].map(|address| address.octets().to_vec());
    let sum = checksum(&[from, to, vec![0, 6, 0, LENGTH], segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// An echo request (RFC 792).
pub fn echo_request(id: u16) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// Of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_zero() {
        let message = echo_request(0x1234);
        assert_eq!(checksum(&message), [0, 0]);
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), [0x22, 0x0d], "RFC 1071");
    }
}
