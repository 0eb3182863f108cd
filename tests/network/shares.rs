//! What guests share on their way out: none takes it from another, and no two do together.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sisforge::host::host_rules::ports_in;
use sisforge::sys::tool::Tool;

use super::names::with_taps_of;
use super::open_fleet;
use super::world::{HOST, OUTSIDE, SERVER, attach, in_a_world, within};
use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

/// The port of the server in these tests.
const PORT: u16 = 5000;
/// What must not come is waited for this long.
const SHORT: Duration = Duration::from_millis(400);
/// Of a measurement, and until it begins: by then each connection has its pace.
const MEASURED: Duration = Duration::from_secs(4);
const BEFORE: Duration = Duration::from_secs(5);

/// How many of so many datagrams to one port of one server arrive, each of a connection of its own.
fn arriving(from: &str, server: &UdpSocket, count: u16) -> usize {
    let send = || {
        for port in 0..count {
            let socket = UdpSocket::bind(("0.0.0.0", 20_000 + port)).unwrap();
            socket.send_to(b"?", (SERVER, PORT)).unwrap();
            // No queue on the way is so long.
            if port % 50 == 49 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    };
    thread::scope(|scope| {
        let sending = scope.spawn(|| within(from, send));
        let mut peers = BTreeSet::new();
        loop {
            match server.recv_from(&mut [0; 8]) {
                Ok((_, peer)) => drop(peers.insert(peer)),
                Err(_) if sending.is_finished() => return peers.len(),
                Err(_) => {}
            }
        }
    })
}

#[test]
fn two_guests_leave_others_ports_to_one_destination() {
    if !in_a_world("shares::two_guests_leave_others_ports_to_one_destination") {
        return;
    }
    needs_firecracker!();
    // Few are left for guests.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 63999").unwrap();
    let sandbox = open_fleet("abc");
    let budget = "budget = { connections = 65535, new-connections = \"65535/s\" }\ndefault = \"allow\"";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("default = \"allow\"", budget));
    sandbox.done("up");
    let server = within(OUTSIDE, || UdpSocket::bind((SERVER, PORT))).unwrap();
    server.set_read_timeout(Some(SHORT)).unwrap();
    for letter in ['a', 'b', 'c'] {
        attach(&sandbox, letter);
    }
    let rules = super::nft(&format!("list table ip sisforge-{}", sandbox.name));
    let ports = ports_in(&rules).unwrap().len();
    assert!((1024..2000).contains(&ports), "{ports} ports");
    let found = ["a", "b", "c"].map(|letter| arriving(letter, &server, 2000));
    assert_eq!(found, [ports / 4; 3], "a quarter of {ports} for each");
    assert!(super::reaches("a", &format!("{SERVER}:80")), "another port is another destination");
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Up,
    Down,
}

/// Whoever connects says who he is, and sends or gets as much as goes through.
struct Transfer {
    bytes: Arc<[AtomicU64; 2]>,
    goes_on: Arc<AtomicBool>,
}

impl Transfer {
    fn begin(way: Way, port: u16) -> Self {
        let bytes = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let goes_on = Arc::new(AtomicBool::new(true));
        let listener = within(OUTSIDE, || TcpListener::bind((SERVER, port))).unwrap();
        let (counted, going) = (bytes.clone(), goes_on.clone());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (counted, going) = (counted.clone(), going.clone());
                thread::spawn(move || {
                    let mut who = [0];
                    stream.read_exact(&mut who).unwrap();
                    match way {
                        Way::Up => drain(stream, &counted[usize::from(who[0])]),
                        Way::Down => fill(stream, &going),
                    }
                });
            }
        });
        Self { bytes, goes_on }
    }

    fn connect(&self, way: Way, from: &str, who: u8, port: u16) {
        let to: SocketAddr = (SERVER.parse::<std::net::IpAddr>().unwrap(), port).into();
        let mut stream = within(from, || TcpStream::connect(to)).unwrap();
        stream.write_all(&[who]).unwrap();
        let (bytes, goes_on) = (self.bytes.clone(), self.goes_on.clone());
        thread::spawn(move || match way {
            Way::Up => fill(stream, &goes_on),
            Way::Down => drain(stream, &bytes[usize::from(who)]),
        });
    }
}

fn fill(mut stream: TcpStream, goes_on: &AtomicBool) {
    while goes_on.load(Ordering::Relaxed) && stream.write_all(&[0; 16 << 10]).is_ok() {}
}

fn drain(mut stream: TcpStream, count: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// The part of all bytes that bob gets with one connection beside alice with twenty; and how many bits a second both get.
fn part_of_bob(way: Way, port: u16) -> (f64, f64) {
    let transfer = Transfer::begin(way, port);
    for _ in 0..20 {
        transfer.connect(way, "a", 0, port);
    }
    transfer.connect(way, "b", 1, port);
    let counts = || [0, 1].map(|who: usize| transfer.bytes[who].load(Ordering::Relaxed) as f64);
    thread::sleep(BEFORE);
    let before = counts();
    thread::sleep(MEASURED);
    let after = counts();
    transfer.goes_on.store(false, Ordering::Relaxed);
    let [alice, bob] = [0, 1].map(|who| after[who] - before[who]);
    (bob / (alice + bob), (alice + bob) * 8.0 / MEASURED.as_secs_f64())
}

/// About half, and about as much as the line carries.
fn is_fair(&(part, both): &(f64, f64)) -> bool {
    (0.4..=0.6).contains(&part) && (11e6..=21e6).contains(&both)
}

fn apply(sandbox: &Sandbox) {
    with_taps_of(sandbox, &['a', 'b'], || sandbox.done("up"));
}

#[test]
fn a_full_uplink_is_shared_between_guests_and_not_between_connections() {
    if !in_a_world("shares::a_full_uplink_is_shared_between_guests_and_not_between_connections") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("ab");
    sandbox.done("up");
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    // The line carries 24 Mbit/s, both ways. What comes waits beyond it too, unless it is held well below that.
    let limit = |namespace: &str| {
        let limit = "qdisc replace dev up0 root tbf rate 24mbit burst 64k limit 300k";
        within(namespace, || Tool::new("tc").args(limit.split(' ')).run()).unwrap();
    };
    [HOST, OUTSIDE].iter().for_each(|namespace| limit(namespace));
    let without = [(Way::Up, 5001), (Way::Down, 5002)].map(|(way, port)| part_of_bob(way, port).0);
    assert!(without.iter().all(|part| *part < 0.25), "by connections: {without:?}");
    let rate = "uplink = \"up0\"\nuplink-rate = { up = \"20Mbit/s\", down = \"16Mbit/s\" }";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("uplink = \"up0\"", rate));
    apply(&sandbox);
    for (way, port) in [(Way::Up, 5100), (Way::Down, 5200)] {
        // A machine that is busy with others carries less, and not evenly; once is enough to tell it from shares by connections.
        let mut measured = Vec::new();
        while measured.len() < 5 && !measured.last().is_some_and(is_fair) {
            measured.push(part_of_bob(way, port + measured.len() as u16));
        }
        assert!(measured.last().is_some_and(is_fair), "{way:?}: {measured:?} for bob, {without:?} before");
    }
    // Somebody else's hand is seen, and mended.
    let pair = within(HOST, || super::ip("-o link show type veth"));
    let name = pair
        .lines()
        .find_map(|line| line.split(": ").nth(1)?.split('@').next().filter(|it| it.starts_with("sis-_")));
    let name = name.unwrap();
    let (inner, outer) = (sandbox.netns(), HOST.to_owned());
    for (namespace, hand, told) in [
        (&outer, format!("qdisc del dev {name} root"), "rate down none -> 16000 kbit/s"),
        (
            &outer,
            format!("qdisc change dev {name} root handle 1: tbf rate 16mbit burst 10mb limit 200000"),
            "rate down not whole -> 16000 kbit/s",
        ),
        (
            &inner,
            "qdisc change dev uplink root handle 1: tbf rate 20mbit burst 65536 limit 100mb".to_owned(),
            "rate up not whole -> 20000 kbit/s",
        ),
        (
            &outer,
            format!(
                "class change dev {name} parent 2:fff0 classid 2:2 htb rate 8bit ceil 1mbit quantum 65536"
            ),
            "rate down not whole -> 16000 kbit/s",
        ),
        (
            &outer,
            format!("filter del dev {name} parent 2: protocol ip prio 1 handle 100:1:800 u32"),
            "rate down not whole",
        ),
        (
            &inner,
            "filter add dev uplink parent 2: protocol ip prio 1 u32 match u32 0 0 flowid 2:9".to_owned(),
            "rate up not whole -> 20000 kbit/s",
        ),
        (&inner, "qdisc replace dev uplink parent 2:3 pfifo limit 1".to_owned(), "rate up not whole"),
    ] {
        within(namespace, || Tool::new("tc").args(hand.split(' ')).run()).unwrap();
        with_taps_of(&sandbox, &['a', 'b'], || {
            let plan = sandbox.run("plan --detailed-exitcode");
            assert!(plan.code == 2 && plan.out.contains(told), "{hand}: {plan}");
            sandbox.done("up");
            sandbox.run("plan --detailed-exitcode").fails(0, &[]);
        });
    }
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("uplink-rate", "#"));
    with_taps_of(&sandbox, &['a', 'b'], || {
        sandbox.done("up");
        sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    });
    let queues = within(&sandbox.netns(), || super::ip("link show dev uplink"));
    assert!(queues.contains("noqueue"), "{queues}");
}
