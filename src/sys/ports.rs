//! Ports that programs of this host have bound (`/proc/net`, proc(5)).

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use super::fs::FileError;

/// Where the kernel lists sockets; a kernel without IPv6 has half of them.
const LISTS: [&str; 4] = ["/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"];

/// Ports of TCP and UDP that a socket of this process's network namespace has, but for those on a loopback address.
pub fn bound() -> Result<BTreeSet<u16>, FileError> {
    let mut ports = BTreeSet::new();
    for path in LISTS {
        match fs::read_to_string(path) {
            Ok(text) => ports.extend(parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::when("read", path)(error)),
        }
    }
    Ok(ports)
}

/// Reads one of the lists: the second field is address and port in hexadecimal digits, an address of IPv4 as the machine
/// holds it in memory.
fn parse(text: &str) -> impl Iterator<Item = u16> {
    let port = |line: &str| {
        let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
        let loopback =
            (address.len() == 8 && address.ends_with("7F")) || address == "00000000000000000000000001000000";
        u16::from_str_radix(port, 16).ok().filter(|port| *port != 0 && !loopback)
    };
    text.lines().skip(1).filter_map(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_but_for_those_of_loopback() {
        let text = "  sl  local_address rem_address   st
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A
   3: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A\n";
        assert_eq!(parse(text).collect::<Vec<_>>(), [22, 8080]);
    }

    #[test]
    fn a_port_that_is_bound_is_found() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        assert!(bound().unwrap().contains(&socket.local_addr().unwrap().port()));
    }
}
