//! What the rules of a fleet cost: the packet of an open connection, against conntrack and masquerade alone in the same run, and
//! what it takes to load rules and to change them.
//!
//! ```text
//! cargo bench --bench network         # needs root; in network namespaces of its own
//! BENCH_GUESTS=1000 BENCH_LIST=100000 BENCH_PACKETS=100000   # what they are unless given
//! ```
//!
//! A guest's veth stands for its TAP: what it sends goes the whole way through the host in the call that sends it, so the
//! processor's time in that call is what a packet costs the sender and the host together. nft is given 120 MB of address space.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sisforge::apply::rules::{self, KnownRules};
use sisforge::base::{Label, MacAddress};
use sisforge::fleet::{NetworkPolicy, PolicyRule};
use sisforge::host::firewall::swap::{self, Present};
use sisforge::host::firewall::{self, Endpoint, FirewallInput, Ruleset};
use sisforge::sys::nft;
use sisforge::sys::tool::Tool;

const INSIDE: &str = "BENCH_INSIDE";
const ROUNDS: usize = 7;
const MEMORY_KIB: u64 = 120_000;
const MASQUERADE: &str =
    "table ip nat { chain post { type nat hook postrouting priority srcnat; oifname \"up0\" masquerade; }\n}";
const TABLE: &str = "sisforge-bench";

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: network namespaces need root");
    }
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().unwrap();
        let namespaces = ["--net", "--mount", "--propagation", "private", "--"];
        let mut again = Command::new("unshare");
        let status = again.args(namespaces).arg(program).env(INSIDE, "1").status().unwrap();
        assert!(status.success());
        return;
    }
    build();
    packets(number("BENCH_GUESTS", 1000), number("BENCH_PACKETS", 100_000));
    loads(number("BENCH_GUESTS", 1000), number("BENCH_LIST", 100_000));
}

fn ip(words: &str) {
    Tool::new("ip").args(words.split_whitespace()).run().unwrap_or_else(|error| panic!("{error}"));
}

/// One guest, the host, and what is behind its uplink.
fn build() {
    Tool::new("mount").args(["-t", "tmpfs", "none", "/run"]).run().unwrap();
    for line in [
        "netns add guest",
        "netns add outside",
        "link set lo up",
        "link add up0 type veth peer name up0 netns outside",
        "addr add 203.0.113.2/24 dev up0",
        "link set up0 up",
        "-n outside addr add 203.0.113.1/24 dev up0",
        "-n outside addr add 198.51.100.10/32 dev up0",
        "-n outside link set up0 up",
        "route add default via 203.0.113.1",
        "link add sis-g0 type veth peer name eth0 netns guest",
        "addr add 10.107.0.1/30 dev sis-g0",
        "link set sis-g0 up",
        "-n guest link set eth0 address 02:53:0a:6b:00:02 up",
        "-n guest addr add 10.107.0.2/30 dev eth0",
        "-n guest route add default via 10.107.0.1",
    ] {
        ip(line);
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    thread::sleep(Duration::from_millis(500));
}

fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        let file = File::open(format!("/run/netns/{namespace}")).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap()
}

fn rule(to: &[&str], tcp: &[u16]) -> PolicyRule {
    PolicyRule {
        to: to.iter().map(|net| net.parse().unwrap()).collect(),
        tcp: tcp.iter().map(|port| *port..=*port).collect(),
        ..PolicyRule::default()
    }
}

/// Lets the bench's own port pass, behind so many other rules.
fn policy(rules: u32) -> NetworkPolicy {
    let other = |n: u32| rule(&[&format!("20.{}.{}.0/24", n / 250, n % 250)], &[80, 443, 8000 + n as u16]);
    let own = PolicyRule { udp: vec![9..=9], ..rule(&["198.51.100.0/24"], &[]) };
    NetworkPolicy { allow: (1..rules).map(other).chain([own]).collect(), ..NetworkPolicy::default() }
}

fn guests(count: u32, policies: u32) -> Vec<Endpoint> {
    let guest = |n: u32| {
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 107, 0, 2)) + 4 * n);
        Endpoint {
            name: format!("g{n}").parse().unwrap(),
            tap: format!("sis-g{n}").parse().unwrap(),
            mac: MacAddress::of_guest(ip),
            ip,
            policy: label(n % policies),
        }
    };
    (0..count).map(guest).collect()
}

fn label(n: u32) -> Label {
    format!("policy-{n}").parse().unwrap()
}

fn rendered(
    endpoints: Vec<Endpoint>,
    policies: &BTreeMap<Label, NetworkPolicy>,
    lists: &BTreeMap<PathBuf, Vec<IpNet>>,
) -> Ruleset {
    firewall::render(&FirewallInput {
        fleet: &"bench".parse().unwrap(),
        resolvers: &BTreeMap::new(),
        closed: &[],
        ports: 20_000,
        uplink: &"up0".parse().unwrap(),
        subnet: "10.107.0.0/16".parse().unwrap(),
        endpoints,
        policies,
        lists,
    })
}

/// Calls nft as `up` does, in bounded memory; gives the time of nft and the kernel alone.
fn load(ruleset: &Ruleset, before: Option<&Ruleset>) -> Duration {
    let there = nft::read_table("inet", TABLE).unwrap();
    let present = there.map(|table| Present {
        chains: table.chains,
        sets: table.sets,
        counters: table.counters,
        has_leaving: table.has_leaving,
    });
    let before = before.map(|before| swap::body_of(&before.parts)).zip(present.as_ref());
    let elements = before.and_then(|(body, there)| swap::elements_alone(&body, &ruleset.parts, there));
    if let Some(batch) = elements.and_then(|elements| nft::ElementBatch::of(TABLE, &elements)) {
        let began = Instant::now();
        batch.commit().unwrap();
        return began.elapsed();
    }
    let calls = swap::calls(&ruleset.parts, present.as_ref());
    let limited = format!("ulimit -v {MEMORY_KIB}; exec nft -f -");
    let began = Instant::now();
    for call in calls {
        Tool::new("sh").args(["-c", &limited]).stdin(call).run().unwrap_or_else(|error| panic!("{error}"));
    }
    began.elapsed()
}

/// What `up` does to load rules, with all that it reads before and after.
fn step_of(ruleset: &Ruleset, known: Option<&KnownRules>) -> KnownRules {
    let loaded = rules::load(&"bench".parse().unwrap(), ruleset, "", known).unwrap().unwrap();
    let body = Some(swap::body_of(&ruleset.parts));
    KnownRules { listing: loaded.listing, is_flat: false, held: loaded.held, body }
}

fn flush() {
    nft::load("flush ruleset").unwrap();
}

/// Nanoseconds of one small packet of a connection that was answered once.
fn packet(socket: &UdpSocket, packets: u32) -> f64 {
    let before = processor_time();
    for _ in 0..packets {
        let _ = socket.send(&[0; 18]);
    }
    (processor_time() - before) as f64 / f64::from(packets)
}

/// Nanoseconds that this thread had a processor.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

/// A connection through the rules that are loaded.
fn connection() -> UdpSocket {
    let server = within("outside", || UdpSocket::bind("198.51.100.10:9")).unwrap();
    let socket = within("guest", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect("198.51.100.10:9").unwrap();
    socket.send(b"?").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (_, peer) = server.recv_from(&mut [0; 64]).expect("the rules let it pass");
    server.send_to(b"!", peer).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.recv(&mut [0; 64]).expect("the answer comes");
    socket
}

fn packets(guests_max: u32, count: u32) {
    let none = BTreeMap::new();
    let fleet =
        |count, rules_of| rendered(guests(count, 1), &BTreeMap::from([(label(0), policy(rules_of))]), &none);
    let with_masquerade = |ruleset: &Ruleset| {
        load(ruleset, None);
        nft::load(MASQUERADE).unwrap();
    };
    let cases: [(&str, &dyn Fn()); 5] = [
        ("no rules", &|| {}),
        ("conntrack and masquerade", &|| nft::load(MASQUERADE).unwrap()),
        ("one guest, one rule", &|| with_masquerade(&fleet(1, 1))),
        ("many guests, one rule", &|| with_masquerade(&fleet(guests_max, 1))),
        ("many guests, 300 rules", &|| with_masquerade(&fleet(guests_max, 300))),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let drop_outside =
        "table inet sink { chain in { type filter hook prerouting priority -450; udp dport 9 drop; }\n}";
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            flush();
            within("outside", flush);
            case.1();
            let ip_route = "route replace 10.107.0.0/16 via 203.0.113.2";
            ip(&format!("-n outside {ip_route}"));
            let socket = connection();
            within("outside", || nft::load(drop_outside).unwrap());
            packet(&socket, count / 10);
            times.push(packet(&socket, count));
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    println!(
        "a small packet of an open connection, of {guests_max} guests where there are many; medians of {ROUNDS}"
    );
    for ((name, _), time) in cases.iter().zip(&medians) {
        println!("  {name:26} {time:6.0} ns, {:.2} of conntrack and masquerade", time / medians[1]);
    }
    println!(
        "  many guests against one: {:.2}; 300 rules against one: {:.2}",
        medians[3] / medians[2],
        medians[4] / medians[3]
    );
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn loads(count: u32, length: u32) {
    let path = PathBuf::from("list");
    // Every other address of a sequence that is spread over the unicast ones: none are neighbours.
    let address = |n: u32| Ipv4Addr::from(0x0b00_0000 + (n.wrapping_mul(0x9e37_79b1) >> 1) / 2 * 2);
    let list: Vec<IpNet> = (0..length).map(|n| IpNet::from(std::net::IpAddr::V4(address(n)))).collect();
    let lists = BTreeMap::from([(path.clone(), list)]);
    let denying = PolicyRule { list: Some(path), ..PolicyRule::default() };
    let policies = |rules: u32| {
        let one = |n| (label(n), NetworkPolicy { deny: vec![denying.clone()], ..policy(rules + n) });
        (0..5).map(one).collect::<BTreeMap<_, _>>()
    };
    let (mut whole, mut beside, mut added, mut read) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut steps, mut looked) = ([const { Vec::new() }; 3], Vec::new());
    let before = rendered(guests(count, 5), &policies(3), &lists);
    let changed = rendered(guests(count, 5), &policies(4), &lists);
    let one_more = rendered(guests(count + 1, 5), &policies(4), &lists);
    for _ in 0..ROUNDS {
        flush();
        whole.push(load(&before, None).as_secs_f64() * 1e3);
        beside.push(load(&changed, Some(&before)).as_secs_f64() * 1e3);
        added.push(load(&one_more, Some(&changed)).as_secs_f64() * 1e3);
        let began = Instant::now();
        nft::read_table("inet", TABLE).unwrap();
        read.push(began.elapsed().as_secs_f64() * 1e3);
        flush();
        let mut known = None;
        for (rules, step) in [&before, &changed, &one_more].into_iter().zip(&mut steps) {
            let began = Instant::now();
            known = Some(step_of(rules, known.as_ref()));
            step.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let began = Instant::now();
        rules::digest(&"bench".parse().unwrap(), known.as_ref()).unwrap();
        looked.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let [loads, changes, adds] = &mut steps;
    println!(
        "{count} guests and a list of {length} that five policies share, nft within {} MB; medians of {ROUNDS}",
        MEMORY_KIB / 1000
    );
    for (name, times) in [
        ("loaded", &mut whole),
        ("a rule changed beside it", &mut beside),
        ("a guest added", &mut added),
        ("read back to find drift", &mut read),
        ("the step of `up`: loaded", loads),
        ("  a rule changed", changes),
        ("  a guest added", adds),
        ("a look for drift", &mut looked),
    ] {
        println!("  {name:26} {:6.1} ms", median(times));
    }
}
