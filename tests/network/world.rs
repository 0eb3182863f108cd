//! A host of the test's own, between an outside with a server and a network of its administrators:
//!
//! ```text
//! outside: 198.51.100.10 --- up0 host mg0 --- mg: 10.20.0.2
//! ```
//!
//! The test's own namespaces are the host's. Guests are namespaces too, each at the end of a link that stands in the place of
//! the TAP that `up` made.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sisforge::base::MacAddress;
use sisforge::base::network::host_side;
use sisforge::sys::netns::{self, Netns};
use sisforge::sys::tool::Tool;

use crate::common::namespaces::inside_namespaces;
use crate::common::sandbox::Sandbox;

/// The host's own namespace.
pub const HOST: &str = "";
/// What stands for everything behind the uplink.
pub const OUTSIDE: &str = "outside";
/// A server there.
pub const SERVER: &str = "198.51.100.10";
/// The host's address on its uplink.
pub const UPLINK_ADDRESS: &str = "203.0.113.2";
/// A server of the administrators, in the namespace `mg`.
pub const MANAGEMENT: &str = "10.20.0.2";

/// What must come is waited for this long, even where the machine is busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// What must not come is waited for this long.
const SHORT: Duration = Duration::from_millis(400);

/// Whether this is the copy of a test that has a world of its own, which is then laid out.
pub fn in_a_world(test: &str) -> bool {
    in_a_world_with(test, &[])
}

/// The same where these programs are needed too.
pub fn in_a_world_with(test: &str, programs: &[&str]) -> bool {
    let all = [&["unshare", "ip", "nft", "mount"], programs].concat();
    let inside = inside_namespaces(&format!("network::{test}"), &all);
    if inside {
        build();
    }
    inside
}

/// Runs `ip` with these words; gives what it printed.
pub fn ip(words: &str) -> String {
    Tool::new("ip").args(words.split_whitespace()).text().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `nft` on the host with this command; gives what it printed.
pub fn nft(command: &str) -> String {
    Tool::new("nft").arg(command).text().unwrap_or_else(|error| panic!("{error}"))
}

/// Does work in a namespace; the empty name is the host's.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    if namespace == HOST { work() } else { netns::within(&Netns::named(namespace), work).unwrap() }
}

fn build() {
    Tool::new("mount").args(["-t", "tmpfs", "none", "/run"]).run().unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    ip("link set lo up");
    for name in [OUTSIDE, "mg"] {
        netns::create(&Netns::named(name)).unwrap();
    }
    ip("link add up0 type veth peer name up0 netns outside");
    ip("link add mg0 type veth peer name eth0 netns mg");
    for (device, address) in [("up0", UPLINK_ADDRESS), ("mg0", "10.20.0.1")] {
        ip(&format!("addr add {address}/24 dev {device}"));
        ip(&format!("link set {device} up"));
    }
    ip("route add default via 203.0.113.1");
    ip("-n outside addr add 203.0.113.1/24 dev up0");
    ip(&format!("-n outside addr add {SERVER}/32 dev lo"));
    ip("-n outside link set up0 up");
    // A neighbour on the uplink that takes the host for a router, to wherever.
    ip(&format!("-n outside route add 10.0.0.0/8 via {UPLINK_ADDRESS}"));
    ip(&format!("-n mg addr add {MANAGEMENT}/24 dev eth0"));
    ip("-n mg link set eth0 up");
    ip("-n mg route add default via 10.20.0.1");
    within(OUTSIDE, || serve(SERVER, 80));
    for namespace in [HOST, "mg"] {
        within(namespace, || serve("0.0.0.0", 22));
    }
}

/// Tells each client its own address.
pub fn serve(at: &str, port: u16) {
    let listener = TcpListener::bind((at, port)).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = writeln!(stream, "{peer}");
        }
    });
}

/// Puts a namespace of the guest's letter in the place of its VMM: with the guest's addresses, and a server.
pub fn attach(sandbox: &Sandbox, letter: char) {
    let (guest, netns) = (sandbox.guest(letter), sandbox.netns());
    let own: Ipv4Addr = sandbox.ps(&guest)["ip"].as_str().unwrap().parse().unwrap();
    let (host, mac) = (host_side(own), MacAddress::of_guest(own));
    netns::create(&Netns::named(&letter.to_string())).unwrap();
    ip(&format!("-n {netns} link delete sis-{guest}"));
    ip(&format!("-n {netns} link add sis-{guest} type veth peer name eth0 netns {letter}"));
    ip(&format!("-n {netns} addr add {host}/30 dev sis-{guest}"));
    ip(&format!("-n {netns} link set sis-{guest} up"));
    ip(&format!("-n {letter} link set eth0 address {mac} up"));
    ip(&format!("-n {letter} addr add {own}/30 dev eth0"));
    ip(&format!("-n {letter} route add default via {host}"));
    let began = Instant::now();
    while !ip(&format!("-n {letter} link show dev eth0")).contains("state UP") {
        assert!(began.elapsed() < PATIENCE, "no carrier");
        thread::sleep(Duration::from_millis(20));
    }
    within(&letter.to_string(), || serve("0.0.0.0", 22));
}

/// As whom a server sees who connects to it; `None` where there is no connection.
pub fn seen(from: &str, to: &str) -> Option<SocketAddr> {
    let to = to.parse().unwrap();
    let stream = within(from, || TcpStream::connect_timeout(&to, SHORT)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// Whether a connection comes about.
pub fn reaches(from: &str, to: &str) -> bool {
    seen(from, to).is_some()
}

/// Whether the host forwards what comes in by an interface.
pub fn forwards(interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
    std::fs::read_to_string(path).unwrap().trim() == "1"
}
