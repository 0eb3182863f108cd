//! A small network of namespaces: two guests on a host, and an outside with servers behind its uplink.
//!
//! ```text
//! alice eth0 --- sis-alice \
//!                            host up0 --- up0 outside: 198.51.100.10, 10.1.2.3, 169.254.169.254, ...
//! bob   eth0 --- sis-bob   /
//! ```
//!
//! The test's own namespace is the host. All of it ends with the test's process, however that ends: the names of
//! namespaces stand in a tmpfs of its mount namespace.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sisforge::sys::nft;
use sisforge::sys::tool::Tool;

use crate::common::nft::{Counter, counters};

/// Name of the namespace that stands for everything behind the uplink.
pub const OUTSIDE: &str = "outside";
/// The host's address on its uplink.
pub const UPLINK_ADDRESS: &str = "203.0.113.2";
/// Servers outside answer on all of these.
const SERVERS: [&str; 10] = [
    "198.51.100.10",
    "198.51.100.11",
    "198.51.100.66",
    "192.0.2.7",
    "9.9.9.9",
    "10.1.2.3",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
];
/// Ports on which a server outside tells who asks, and then echoes.
const PORTS: [u16; 3] = [80, 443, 8080];
/// From here a server sends without end, once it was asked.
pub const PUMP: u16 = 5000;

/// What must come is waited for this long, even where the machine is busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// What must not come is waited for this long; what did come is counted besides.
const SHORT: Duration = Duration::from_millis(300);

/// A guest of the network: name, MAC, and the last bytes of the host's and its own address.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    pub name: &'static str,
    pub mac: &'static str,
    pub host: &'static str,
    pub ip: &'static str,
}

pub const ALICE: Guest =
    Guest { name: "alice", mac: "02:53:0a:6b:00:02", host: "10.107.0.1", ip: "10.107.0.2" };
pub const BOB: Guest = Guest { name: "bob", mac: "02:53:0a:6b:00:06", host: "10.107.0.5", ip: "10.107.0.6" };
/// Of another fleet.
pub const CAROL: Guest =
    Guest { name: "carol", mac: "02:53:0a:6c:00:02", host: "10.108.0.1", ip: "10.108.0.2" };

/// Runs `ip` with these words.
pub fn ip(words: &str) {
    Tool::new("ip").args(words.split_whitespace()).run().unwrap_or_else(|error| panic!("{error}"));
}

/// Lays out the network and starts its servers. Without rules, everything reaches everything.
pub fn build() {
    Tool::new("mount").args(["-t", "tmpfs", "none", "/run"]).run().unwrap();
    for name in [ALICE.name, BOB.name, CAROL.name, OUTSIDE] {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
    }
    ip("link set lo up");
    // Addresses of links are of use at once.
    for namespace in ["", ALICE.name, BOB.name, CAROL.name, OUTSIDE] {
        let path = "/proc/sys/net/ipv6/conf/default/accept_dad";
        within(namespace, || std::fs::write(path, "0")).unwrap();
    }
    uplink();
    for guest in [ALICE, BOB, CAROL] {
        attach(guest);
    }
    for (namespace, device) in
        [(ALICE.name, "eth0"), (BOB.name, "eth0"), (CAROL.name, "eth0"), (OUTSIDE, "up0")]
    {
        await_carrier(namespace, device);
    }
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{path}"), "1").unwrap();
    }
    within(OUTSIDE, serve);
    serve_tcp(22);
    for guest in [ALICE, BOB] {
        within(guest.name, || serve_tcp(22));
    }
    count();
}

fn uplink() {
    ip("link add up0 type veth peer name up0 netns outside");
    ip(&format!("addr add {UPLINK_ADDRESS}/24 dev up0"));
    ip("addr add 2001:db8::2/64 dev up0 nodad");
    ip("link set up0 up");
    ip("-n outside addr add 203.0.113.1/24 dev up0");
    ip("-n outside addr add 2001:db8::1/64 dev up0 nodad");
    ip("-n outside link set up0 up");
    for server in SERVERS {
        ip(&format!("-n outside addr add {server}/32 dev lo"));
    }
    ip("route add default via 203.0.113.1");
    ip(&format!("-n outside route add 10.104.0.0/13 via {UPLINK_ADDRESS}"));
    ip("-n outside route add fd00::/16 via 2001:db8::2");
}

fn attach(Guest { name, mac, host, ip: own }: Guest) {
    ip(&format!("link add sis-{name} type veth peer name eth0 netns {name}"));
    ip(&format!("addr add {host}/30 dev sis-{name}"));
    ip(&format!("addr add fd00:{name:.1}::1/64 dev sis-{name} nodad"));
    ip(&format!("link set sis-{name} up"));
    ip(&format!("-n {name} link set eth0 address {mac} up"));
    ip(&format!("-n {name} addr add {own}/30 dev eth0"));
    ip(&format!("-n {name} addr add fd00:{name:.1}::2/64 dev eth0 nodad"));
    ip(&format!("-n {name} route add default via {host}"));
    ip(&format!("-n {name} route add default via fd00:{name:.1}::1"));
}

/// A link that is told of its carrier late speaks no IPv6 until then.
fn await_carrier(namespace: &str, device: &str) {
    let link = Tool::new("ip").args(["-n", namespace, "link", "show", "dev", device]);
    let began = Instant::now();
    while !link.text().unwrap().contains("state UP") {
        assert!(began.elapsed() < PATIENCE, "{device} of {namespace} has no carrier");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Counts what arrives. On the host it is what comes from guests and survives every other chain.
fn count() {
    let table = |hook: &str, from: &str| {
        format!(
            "table inet seen {{\n counter arrived {{ }}\n counter forbidden {{ }}\n counter resets {{ }}\n chain seen {{\n type filter hook {hook}\n \
             iifname \"{from}\" tcp flags & rst == rst counter name resets\n \
             iifname \"{from}\" udp dport 9 counter name forbidden\n iifname \"{from}\" meta nfproto ipv4 counter name arrived\n \
             iifname \"{from}\" meta nfproto ipv6 meta l4proto udp counter name arrived\n }}\n}}\n"
        )
    };
    nft::load(&table("input priority 100", "sis-*")).unwrap();
    within(OUTSIDE, || nft::load(&table("prerouting priority -400", "up0")).unwrap());
    for guest in [ALICE, BOB, CAROL] {
        within(guest.name, || nft::load(&table("prerouting priority -400", "eth0")).unwrap());
    }
}

/// Runs `work` on a thread in a namespace; the empty name is the host's.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        if !namespace.is_empty() {
            let file = File::open(format!("/run/netns/{namespace}")).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        }
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn serve() {
    for port in PORTS {
        serve_tcp(port);
    }
    for server in SERVERS {
        let socket = UdpSocket::bind((server, 53)).unwrap();
        thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
    }
    let pump = UdpSocket::bind(("198.51.100.10", PUMP)).unwrap();
    thread::spawn(move || {
        let (_, peer) = pump.recv_from(&mut [0; 64]).unwrap();
        while pump.send_to(&[1; 1000], peer).is_ok() {
            thread::sleep(Duration::from_millis(2));
        }
    });
}

/// Tells each client its address as the server sees it, then echoes.
fn serve_tcp(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let _ = writeln!(stream, "{}", peer.ip());
                let mut buffer = [0; 2048];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// An open connection to a server of this network.
pub struct Connection {
    stream: TcpStream,
    /// The client's address as the server sees it.
    pub seen_as: String,
}

impl Connection {
    fn open(from: &str, to: SocketAddr, patience: Duration) -> Option<Self> {
        let mut stream = within(from, || TcpStream::connect_timeout(&to, patience)).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut greeting = Vec::new();
        while greeting.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            greeting.push(byte[0]);
        }
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { stream, seen_as: String::from_utf8(greeting).unwrap().trim_end().to_owned() })
    }

    /// Whether a byte that is sent comes back within that time.
    pub fn echoes_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        self.stream.write_all(b"x").is_ok() && self.stream.read_exact(&mut [0]).is_ok()
    }

    /// Sends so many bytes, and waits until all have come back.
    pub fn echoes_all(&mut self, bytes: usize) {
        let mut writer = self.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&vec![0; bytes]).unwrap());
            self.stream.read_exact(&mut vec![0; bytes]).unwrap();
        });
    }

    /// How a connection ends of which a packet is sent; `None` where it does not.
    pub fn is_cut_by(&mut self) -> Option<ErrorKind> {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let read = self.stream.write_all(b"x").and_then(|()| self.stream.read_exact(&mut [0]));
        read.err().map(|error| error.kind())
    }

    /// Whether a byte that is sent comes back.
    pub fn echoes(&mut self) -> bool {
        self.echoes_within(PATIENCE)
    }
}

/// Opens a connection that must come about.
pub fn connect(from: &str, to: &str) -> Connection {
    Connection::open(from, to.parse().unwrap(), PATIENCE)
        .unwrap_or_else(|| panic!("{from} cannot reach {to}"))
}

/// The address that a UDP server sees, of one that must answer.
pub fn ask(from: &str, to: &str) -> Option<String> {
    ask_within(from, to, PATIENCE)
}

fn ask_within(from: &str, to: &str, patience: Duration) -> Option<String> {
    let socket = within(from, || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(b"?").ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Sends one datagram from an address; whether the kernel took it does not matter.
pub fn throw(from: &str, bind: &str, to: &str) {
    let socket = within(from, || UdpSocket::bind((bind, 0))).unwrap();
    let _ = socket.send_to(b"?", to);
}

/// Segments of TCP that a namespace has sent, and those of them that it has sent again (`/proc/net/snmp`).
pub fn segments(namespace: &str) -> (u64, u64) {
    let text = within(namespace, || std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let lines: Vec<Vec<&str>> =
        text.lines().filter_map(|line| Some(line.strip_prefix("Tcp: ")?.split(' ').collect())).collect();
    let number = |name| lines[1][lines[0].iter().position(|found| *found == name).unwrap()].parse().unwrap();
    (number("OutSegs"), number("RetransSegs"))
}

/// What has arrived in a namespace, once nothing more comes.
pub fn arrived(namespace: &str) -> u64 {
    let mut last = u64::MAX;
    loop {
        let now = counter(namespace, "arrived").packets;
        if now == last {
            return now;
        }
        last = now;
        thread::sleep(Duration::from_millis(60));
    }
}

/// A counter of a namespace.
pub fn counter(namespace: &str, name: &str) -> Counter {
    within(namespace, || counters("inet", "seen")[name])
}

/// Holds that a guest gets no answer over TCP and over UDP, and that nothing of it arrives at `target`.
pub fn unreachable(from: &str, target: &str, destinations: &[&str]) {
    for destination in destinations {
        let before = arrived(target);
        assert!(
            Connection::open(from, destination.parse().unwrap(), SHORT).is_none(),
            "{from} reaches {destination} over TCP"
        );
        assert_eq!(ask_within(from, destination, SHORT), None, "{from} reaches {destination} over UDP");
        assert_eq!(arrived(target) - before, 0, "packets of {from} to {destination} arrive");
    }
}

/// Holds that nothing of what `send` sends arrives at any of these.
pub fn nothing_arrives(at: &[&str], what: &str, send: impl FnOnce()) {
    let before: Vec<_> = at.iter().map(|namespace| arrived(namespace)).collect();
    send();
    let after: Vec<_> = at.iter().map(|namespace| arrived(namespace)).collect();
    assert_eq!(before, after, "{what} arrives at one of {at:?}");
}
