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

/// A socket that waits for whoever comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    pub is_tcp: bool,
    pub port: u16,
    inode: u64,
}

impl BoundSocket {
    /// The program that has it, as `sshd (pid 712)`, where one is found.
    pub fn program(&self) -> Option<String> {
        let link = format!("socket:[{}]", self.inode);
        let pids = fs::read_dir("/proc").ok()?.flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let has = |pid: &u32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|to| to.as_os_str() == link.as_str())
        };
        let pid = pids.into_iter().find(has)?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("{} (pid {pid})", crate::base::text::printable(name.trim())))
    }
}

/// Sockets of this process's network namespace that wait for whoever comes, but for those on a loopback address.
pub fn listeners() -> Result<Vec<BoundSocket>, FileError> {
    let mut all = Vec::new();
    for path in LISTS {
        let is_tcp = path.contains("tcp");
        match fs::read_to_string(path) {
            Ok(text) => all.extend(parse_listeners(&text, is_tcp)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::when("read", path)(error)),
        }
    }
    Ok(all)
}

/// Those that are in the state of one that waits (`TCP_LISTEN`, or for UDP `TCP_CLOSE`: connected to nobody).
fn parse_listeners(text: &str, is_tcp: bool) -> Vec<BoundSocket> {
    let state = if is_tcp { "0A" } else { "07" };
    let waits = |line: &&str| line.split_whitespace().nth(3) == Some(state);
    let listener = |line: &str| {
        let port = port(line)?;
        Some(BoundSocket { is_tcp, port, inode: line.split_whitespace().nth(9)?.parse().ok()? })
    };
    text.lines().skip(1).filter(waits).filter_map(listener).collect()
}

/// Reads one of the lists: the second field is address and port in hexadecimal digits, an address of IPv4 as the machine
/// holds it in memory.
fn parse(text: &str) -> impl Iterator<Item = u16> {
    text.lines().skip(1).filter_map(port)
}

fn port(line: &str) -> Option<u16> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let loopback =
        (address.len() == 8 && address.ends_with("7F")) || address == "00000000000000000000000001000000";
    u16::from_str_radix(port, 16).ok().filter(|port| *port != 0 && !loopback)
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
    fn a_socket_that_waits_is_found_with_its_program() {
        let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let client = std::net::TcpStream::connect(("127.0.0.1", tcp.local_addr().unwrap().port())).unwrap();
        let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let all = listeners().unwrap();
        let has = |is_tcp, port| all.iter().find(|found| (found.is_tcp, found.port) == (is_tcp, port));
        for found in
            [has(true, tcp.local_addr().unwrap().port()), has(false, udp.local_addr().unwrap().port())]
        {
            assert!(found.unwrap().program().unwrap().contains(&std::process::id().to_string()));
        }
        assert_eq!(has(true, client.local_addr().unwrap().port()), None);
    }

    #[test]
    fn a_port_that_is_bound_is_found() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        assert!(bound().unwrap().contains(&socket.local_addr().unwrap().port()));
    }
}
