//! What somebody asks about: `DEST[:PORT[/PROTO]]`, or `DEST/PROTO` for a protocol without ports. A destination is an address or
//! a domain name. Protocols whose number could be the length of a prefix are written `proto-NUMBER`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::base::InvalidValue;

use super::Transport;
use crate::host::resolver::list;

/// Stands before the number of a protocol.
const BY_NUMBER: &str = "proto-";

/// The longest prefix of IPv4, in bits.
const LONGEST_PREFIX: u8 = 32;

/// A destination, and perhaps what is sent there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub to: QuestionTarget,
    /// `None` asks about all of it.
    pub transport: Option<Transport>,
}

/// Where somebody wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuestionTarget {
    Address(IpAddr),
    /// In lower case, without a dot at its end.
    Name(String),
}

impl fmt::Display for QuestionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(to) => to.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Question {
    /// The address, where it is one that guests can send to at all.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        match self.to {
            QuestionTarget::Address(IpAddr::V4(to)) => Some(to),
            QuestionTarget::Address(IpAddr::V6(_)) | QuestionTarget::Name(_) => None,
        }
    }
}

impl FromStr for Question {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Some(network) = network(text) {
            return Err(InvalidValue(format!(
                "{text:?} is a network, and a packet goes to one address: write one of it, such as {network}"
            )));
        }
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, protocol)) => (rest, Some(protocol.to_ascii_lowercase())),
            None => (text, None),
        };
        let (to, port) = match (rest.parse(), rest.rsplit_once(':')) {
            (Ok(to), _) => (QuestionTarget::Address(to), None),
            (Err(_), None) => (target(rest)?, None),
            (Err(_), Some((to, port))) => {
                let bare = to.strip_prefix('[').and_then(|to| to.strip_suffix(']')).unwrap_or(to);
                (target(bare)?, Some(port))
            }
        };
        Ok(Self { to, transport: transport(port, protocol.as_deref())? })
    }
}

/// An address of a network, where this is one: that which stands there, unless it is the network's own.
fn network(text: &str) -> Option<IpAddr> {
    let net = text.parse::<IpNet>().ok()?;
    let first = || net.hosts().next().unwrap_or(net.addr());
    Some(if net.addr() == net.network() { first() } else { net.addr() })
}

/// Whether it has the form of an IPv4 address, whatever its numbers.
fn has_four_numbers(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split('.').count() == 4 && text.split('.').all(is_number)
}

fn target(text: &str) -> Result<QuestionTarget, InvalidValue> {
    if text.parse::<IpAddr>().is_err() && has_four_numbers(text) {
        return Err(InvalidValue(format!(
            "{text:?} is no IPv4 address: its four numbers are from 0 to 255, without zeros before them"
        )));
    }
    let address = text.parse().map(QuestionTarget::Address);
    address.or_else(|_| list::name(text).map(QuestionTarget::Name)).map_err(|why| {
        InvalidValue(format!(
            "{text:?} is neither an address nor a domain name ({why}): write one such as 198.51.100.1, \
             198.51.100.1:443, 198.51.100.1:53/udp or www.example.org"
        ))
    })
}

fn transport(port: Option<&str>, protocol: Option<&str>) -> Result<Option<Transport>, InvalidValue> {
    let wrong = |what: String| Err(InvalidValue(what));
    let number = |port: &str| match port.parse::<u16>() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(InvalidValue(format!("{port:?} is no port: they are from 1 to 65535"))),
    };
    match (protocol.unwrap_or("tcp"), port, protocol) {
        (_, None, None) => Ok(None),
        ("tcp", Some(port), _) => Ok(Some(Transport::Tcp(number(port)?))),
        ("udp", Some(port), _) => Ok(Some(Transport::Udp(number(port)?))),
        ("icmp", None, _) => Ok(Some(Transport::Icmp)),
        ("tcp" | "udp", None, _) => {
            wrong("a port belongs before /tcp and /udp, as in 198.51.100.1:53/udp".into())
        }
        ("icmp", Some(_), _) => wrong("ICMP has no ports: write 198.51.100.1/icmp".into()),
        (other, None, _) => match other.strip_prefix(BY_NUMBER).unwrap_or(other).parse::<u8>() {
            Ok(number) if ![1, 6, 17].contains(&number) => Ok(Some(Transport::Other(number))),
            _ => wrong(format!(
                "{other:?} is no protocol: there are tcp, udp, icmp, and others by their number, as in 198.51.100.1/proto-47"
            )),
        },
        (other, Some(_), _) => wrong(format!("{other:?} has no ports: there are tcp and udp")),
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        match self.transport {
            None => Ok(()),
            Some(Transport::Tcp(port)) => write!(f, ":{port}/tcp"),
            Some(Transport::Udp(port)) => write!(f, ":{port}/udp"),
            Some(Transport::Icmp) => f.write_str("/icmp"),
            Some(Transport::Other(number @ 0..=LONGEST_PREFIX)) => write!(f, "/{BY_NUMBER}{number}"),
            Some(Transport::Other(number)) => write!(f, "/{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_and_perhaps_a_port_and_a_protocol() {
        for (text, shown) in [
            ("198.51.100.1", "198.51.100.1"),
            ("198.51.100.1:443", "198.51.100.1:443/tcp"),
            ("198.51.100.1:53/udp", "198.51.100.1:53/udp"),
            ("198.51.100.1:53/UDP", "198.51.100.1:53/udp"),
            ("198.51.100.1/icmp", "198.51.100.1/icmp"),
            ("198.51.100.1/47", "198.51.100.1/47"),
            ("198.51.100.1/proto-47", "198.51.100.1/47"),
            ("198.51.100.1/proto-4", "198.51.100.1/proto-4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1:443/tcp"),
            ("Example.org.", "example.org"),
            ("example.org:443", "example.org:443/tcp"),
            ("zip", "zip"),
        ] {
            assert_eq!(text.parse::<Question>().unwrap().to_string(), shown);
        }
        for (text, why) in [
            ("*.example.org", "neither an address nor a domain name"),
            ("bücher.de:443", "Punycode"),
            ("198.51.100.999", "no IPv4 address"),
            ("300.1.1.1:80", "no IPv4 address"),
            (
                "198.51.100.0/24",
                "is a network, and a packet goes to one address: write one of it, such as 198.51.100.1",
            ),
            ("2001:db8::/32", "is a network"),
            ("198.51.100.1/32", "is a network"),
            (
                "198.51.100.1/24",
                "is a network, and a packet goes to one address: write one of it, such as 198.51.100.1",
            ),
            ("198.51.100.1:0", "is no port"),
            ("198.51.100.1:65536", "is no port"),
            ("198.51.100.1:", "is no port"),
            ("198.51.100.1/tcp", "a port belongs before"),
            ("198.51.100.1:1/icmp", "ICMP has no ports"),
            ("198.51.100.1:1/sctp", "has no ports"),
            ("198.51.100.0/24/tcp", "neither an address"),
            ("198.51.100.1/proto-6", "is no protocol"),
            ("198.51.100.1/256", "is no protocol"),
            ("", "neither an address"),
        ] {
            let InvalidValue(told) = text.parse::<Question>().unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
