//! Real packets through the rules: what a policy lets pass, and that nothing else does.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sisforge::apply::record::KernelRules;
use sisforge::apply::rules::{self as up, KnownRules};
use sisforge::base::{Found, PerSecond, Rates, Sha256};
use sisforge::fleet::{Budget, NetworkPolicy, PolicyRule};
use sisforge::host::firewall::{Ruleset, swap, table_name};
use sisforge::sys::tool::Tool;
use sisforge::sys::{conntrack, ip as links, nft, tap};

use crate::common::namespaces::inside_namespaces;
use crate::common::nft::{Counter, counters};

mod publish;
mod quarantine;
mod raw;
mod rules;
mod world;

use rules::{Rules, allow_all, deny_all, tcp, to, udp};
use world::{ALICE, BOB, CAROL, OUTSIDE, PUMP, UPLINK_ADDRESS};
use world::{arrived, ask, connect, counter, ip, nothing_arrives, throw, unreachable, within};

/// Namespace of the host itself.
const HOST: &str = "";

/// Whether this is the copy of a test that has a network of its own, which is then laid out.
fn in_a_world(test: &str) -> bool {
    let inside = inside_namespaces(&format!("firewall::{test}"), &["unshare", "ip", "nft", "mount"]);
    if inside {
        world::build();
    }
    inside
}

/// Holds for the network itself, so that what the other tests find unreachable is so because of the rules.
#[test]
fn without_rules_everything_is_reached() {
    if !in_a_world("without_rules_everything_is_reached") {
        return;
    }
    for target in
        ["198.51.100.10:80", "10.1.2.3:443", "169.254.169.254:8080", "10.107.0.1:22", "10.107.0.6:22"]
    {
        assert_eq!(connect("alice", target).seen_as, ALICE.ip, "{target}");
    }
    connect("alice", "203.0.113.2:22");
    connect(OUTSIDE, "10.107.0.2:22");
    assert_eq!(ask("alice", "9.9.9.9:53").as_deref(), Some(ALICE.ip));
    let (host, outside) = (arrived(HOST), arrived(OUTSIDE));
    throw("alice", "::", "[fd00:a::1]:99");
    throw("alice", "::", "[2001:db8::1]:99");
    assert_eq!((arrived(HOST) - host, arrived(OUTSIDE) - outside), (1, 1));
}

#[test]
fn a_policy_lets_pass_what_it_allows_and_nothing_else() {
    if !in_a_world("a_policy_lets_pass_what_it_allows_and_nothing_else") {
        return;
    }
    let list = "blocklists/unsafe.txt";
    let alice = NetworkPolicy {
        dns: vec!["9.9.9.9".parse().unwrap()],
        allow: vec![tcp(&["198.51.100.0/24"], &[80, 443]), udp(&["192.0.2.0/24"], &[53])],
        deny: vec![
            to(&["198.51.100.66/32", "10.0.0.0/8"]),
            PolicyRule { list: Some(list.into()), ..PolicyRule::default() },
        ],
        ..deny_all()
    };
    let mut rules = Rules::of(alice, deny_all());
    rules
        .lists
        .insert(list.into(), vec!["198.51.100.11/32".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
    rules.load();

    for target in ["198.51.100.10:80", "198.51.100.10:443"] {
        assert_eq!(
            connect("alice", target).seen_as,
            ALICE.ip,
            "{target}: the host hides guests, not the policy"
        );
    }
    // Its name server answers, whoever is asked.
    for target in ["9.9.9.9:53", "192.0.2.7:53", "198.51.100.10:53", "10.1.2.3:53"] {
        assert_eq!(ask("alice", target).as_deref(), Some(ALICE.ip), "{target}");
    }
    unreachable(
        "alice",
        OUTSIDE,
        &[
            "198.51.100.10:8080", // another port
            "192.0.2.7:80",       // another protocol
            "9.9.9.9:443",        // its name server, for something else
            "198.51.100.66:80",   // allowed and denied
            "198.51.100.11:80",   // allowed and denied by a list
            "10.1.2.3:80",
        ],
    );
    unreachable("bob", OUTSIDE, &["198.51.100.10:80", "9.9.9.9:53"]);
}

#[test]
fn no_policy_opens_the_host_other_guests_or_metadata() {
    if !in_a_world("no_policy_opens_the_host_other_guests_or_metadata") {
        return;
    }
    let wide = NetworkPolicy { allow: vec![to(&["0.0.0.0/0", "10.0.0.0/8"])], ..allow_all() };
    Rules::of(allow_all(), wide).load();
    connect("alice", "198.51.100.10:8080");
    connect("bob", "10.1.2.3:80");
    for metadata in ["169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192"] {
        for guest in ["alice", "bob"] {
            unreachable(guest, OUTSIDE, &[&format!("{metadata}:80"), &format!("{metadata}:53")]);
        }
    }
    unreachable("alice", "bob", &["10.107.0.6:22"]);
    // Another network of the host, not behind its uplink.
    unreachable("alice", "carol", &["10.108.0.2:22"]);
    unreachable("alice", HOST, &["10.107.0.1:22", "10.107.0.5:22", "203.0.113.2:22", "203.0.113.2:53"]);
    nothing_arrives(&[HOST, "bob", OUTSIDE], "a broadcast", || {
        let socket = within("alice", || UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.set_broadcast(true).unwrap();
        for target in ["255.255.255.255:67", "10.107.0.3:67", "224.0.0.251:5353"] {
            let _ = socket.send_to(b"?", target);
        }
    });
}

#[test]
fn a_guest_sends_from_its_own_mac_and_address_alone() {
    if !in_a_world("a_guest_sends_from_its_own_mac_and_address_alone") {
        return;
    }
    Rules::of(allow_all(), allow_all()).load();
    // Without it the kernel's own filter might do the rules' work.
    for interface in ["all", "sis-alice"] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "0").unwrap();
    }
    let everywhere = [HOST, "bob", OUTSIDE];
    for source in ["10.107.0.6", "192.168.7.7", "203.0.113.2"] {
        ip(&format!("-n alice addr add {source}/32 dev eth0"));
        nothing_arrives(&everywhere, source, || {
            throw("alice", source, "198.51.100.10:53");
            throw("alice", source, "10.107.0.1:99");
        });
    }
    nothing_arrives(&everywhere, "IPv6", || {
        throw("alice", "::", "[fd00:a::1]:99");
        throw("alice", "::", "[fd00:b::2]:99");
        throw("alice", "::", "[2001:db8::1]:99");
        throw("alice", "::", "[ff02::1%2]:99");
    });
    ip("-n alice link set eth0 address 02:53:0a:6b:00:99");
    nothing_arrives(&everywhere, "another MAC", || throw("alice", ALICE.ip, "198.51.100.10:53"));
    ip(&format!("-n alice link set eth0 address {}", ALICE.mac));
    connect("alice", "198.51.100.10:80");
}

#[test]
fn a_guest_is_reached_by_its_host_alone() {
    if !in_a_world("a_guest_is_reached_by_its_host_alone") {
        return;
    }
    Rules::of(allow_all(), deny_all()).load();
    unreachable(OUTSIDE, "alice", &["10.107.0.2:22"]);
    unreachable("carol", "alice", &["10.107.0.2:22"]);
    for guest in [ALICE, BOB] {
        assert_eq!(connect(HOST, &format!("{}:22", guest.ip)).seen_as, guest.host);
    }
}

#[test]
fn a_guest_whose_rules_are_gone_reaches_nothing() {
    if !in_a_world("a_guest_whose_rules_are_gone_reaches_nothing") {
        return;
    }
    let mut rules = Rules::of(allow_all(), allow_all());
    rules.load();
    let mut open = connect("bob", "198.51.100.10:80");
    rules.guests.pop();
    rules.load();
    assert!(!open.echoes_within(Duration::from_millis(300)));
    unreachable("bob", OUTSIDE, &["198.51.100.10:80", "9.9.9.9:53"]);
    unreachable("bob", HOST, &["10.107.0.5:22", "203.0.113.2:22"]);
    unreachable("bob", "alice", &["10.107.0.2:22"]);
    // Its /30 is routed to it still, but no other address is.
    ip("-n bob addr add 192.168.7.7/32 dev eth0");
    nothing_arrives(&[HOST, "alice", OUTSIDE], "an address that no guest has", || {
        throw("bob", "192.168.7.7", "198.51.100.10:53");
        throw("bob", "192.168.7.7", "203.0.113.2:53");
        throw("bob", "::", "[fd00:b::1]:99");
        throw("bob", "::", "[2001:db8::1]:99");
    });
    connect("alice", "198.51.100.10:80");
}

#[test]
fn a_swapped_policy_holds_for_what_is_open_already() {
    if !in_a_world("a_swapped_policy_holds_for_what_is_open_already") {
        return;
    }
    Rules::of(allow_all(), deny_all()).load();
    let mut web = connect("alice", "198.51.100.10:80");
    assert!(web.echoes());
    let pump = within("alice", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    pump.send_to(b"?", ("198.51.100.10", PUMP)).unwrap();
    pump.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    pump.recv(&mut [0; 2000]).unwrap();

    Rules::of(NetworkPolicy { allow: vec![tcp(&["192.0.2.7/32"], &[80])], ..deny_all() }, deny_all()).load();
    // The server may be told too.
    let but_resets = || loop {
        let (before, all) = (counter(OUTSIDE, "resets"), arrived(OUTSIDE));
        if counter(OUTSIDE, "resets") == before {
            break all - before.packets;
        }
    };
    let before = but_resets();
    assert_eq!(web.is_cut_by(), Some(ErrorKind::ConnectionReset));
    assert_eq!(but_resets(), before);
    // What the server goes on sending does not come in either.
    pump.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    while pump.recv(&mut [0; 2000]).is_ok() {
        assert!(Instant::now() < end, "a server that was once asked sends on");
    }
    connect("alice", "192.0.2.7:80");
}

#[test]
fn private_ranges_are_open_where_an_entry_lies_within_one_alone() {
    if !in_a_world("private_ranges_are_open_where_an_entry_lies_within_one_alone") {
        return;
    }
    let named = NetworkPolicy { allow: vec![tcp(&["10.1.0.0/16"], &[80]), to(&["0.0.0.0/0"])], ..deny_all() };
    Rules::of(named, allow_all()).load();
    connect("alice", "10.1.2.3:80");
    connect("bob", "198.51.100.10:80");
    unreachable("alice", OUTSIDE, &["10.1.2.3:443"]);
    unreachable("bob", OUTSIDE, &["10.1.2.3:80", "10.1.2.3:53"]);
    let asking = NetworkPolicy { dns: vec!["10.1.2.3".parse().unwrap()], ..deny_all() };
    let denying = NetworkPolicy { deny: vec![to(&["10.1.2.3/32"])], ..asking.clone() };
    Rules::of(asking, denying).load();
    assert!(ask("alice", "10.1.2.3:53").is_some(), "a name server is named");
    unreachable("bob", OUTSIDE, &["10.1.2.3:53"]);
}

/// Datagrams of a guest that leave within what this takes, each of a socket of its own where `sockets` is many.
fn flood_dns(sockets: usize, each: usize) -> u64 {
    let before = arrived(OUTSIDE);
    within("alice", || {
        for _ in 0..sockets {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..each {
                let _ = socket.send_to(b"?", "9.9.9.9:53");
            }
        }
    });
    arrived(OUTSIDE) - before
}

#[test]
fn a_guest_that_asks_without_end_leaves_name_servers_to_its_neighbour() {
    if !in_a_world("a_guest_that_asks_without_end_leaves_name_servers_to_its_neighbour") {
        return;
    }
    let policy = NetworkPolicy { dns: vec!["9.9.9.9".parse().unwrap()], ..deny_all() };
    Rules::of(policy.clone(), policy).load();
    for (sockets, each) in [(1, 20_000), (20_000, 1)] {
        let began = Instant::now();
        let left = flood_dns(sockets, each);
        let allowed = 50.0 + 50.0 * began.elapsed().as_secs_f64();
        assert!(left as f64 <= 1.1 * allowed && left > 0, "{left} queries of {allowed}");
        assert!(ask("bob", "9.9.9.9:53").is_some());
    }
}

#[test]
fn a_guest_has_a_share_of_connections() {
    if !in_a_world("a_guest_has_a_share_of_connections") {
        return;
    }
    let budget = Budget { connections: 8, new_connections: PerSecond::new(1000), ..Budget::default() };
    Rules::of(NetworkPolicy { budget, ..allow_all() }, allow_all()).load();
    let mut open: Vec<_> = (0..8).map(|_| connect("alice", "198.51.100.10:80")).collect();
    unreachable("alice", OUTSIDE, &["198.51.100.10:443"]);
    assert!(open.iter_mut().all(world::Connection::echoes), "what is open stays so");
    connect("bob", "198.51.100.10:80");

    let slow = Budget { new_connections: PerSecond::new(5), ..Budget::default() };
    Rules::of(allow_all(), NetworkPolicy { budget: slow, ..allow_all() }).load();
    let (began, before) = (Instant::now(), arrived(OUTSIDE));
    for _ in 0..500 {
        throw("bob", "0.0.0.0", "198.51.100.10:9");
    }
    let (left, allowed) = (arrived(OUTSIDE) - before, 5.0 + 5.0 * began.elapsed().as_secs_f64());
    assert!(left as f64 <= allowed + 1.0 && left >= 5, "{left} connections of {allowed}");
}

#[test]
fn no_guest_completes_what_is_sent_to_its_neighbour() {
    if !in_a_world("no_guest_completes_what_is_sent_to_its_neighbour") {
        return;
    }
    Rules::of(allow_all(), allow_all()).load();
    let server = within(OUTSIDE, || UdpSocket::bind("192.0.2.7:7")).unwrap();
    let bob = within("bob", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    bob.send_to(b"?", "192.0.2.7:7").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (_, peer) = server.recv_from(&mut [0; 64]).unwrap();
    let answer = raw::udp(7, peer.port(), &[b'a'; 1000]);
    let (head, tail) = answer.split_at(504);
    let part = |from, offset, more, payload| raw::Fragment { id: 7, from, to: BOB.ip, offset, more, payload };
    raw::send(&raw::socket(OUTSIDE), part("192.0.2.7", 0, true, head));
    let alice = raw::socket("alice");
    let evil = vec![b'e'; tail.len()];
    for from in ["192.0.2.7", ALICE.ip] {
        raw::send(&alice, part(from, 504, false, &evil));
    }
    bob.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(bob.recv(&mut [0; 2000]).is_err(), "a neighbour completed what a server sent");
    // The server itself may.
    raw::send(&raw::socket(OUTSIDE), part("192.0.2.7", 504, false, tail));
    let mut buffer = [0; 2000];
    assert_eq!(bob.recv(&mut buffer).unwrap(), 1000);
    assert_eq!(buffer[..1000], [b'a'; 1000]);
}

#[test]
fn fragments_of_a_guest_leave_room_for_those_that_its_neighbour_is_sent() {
    if !in_a_world("fragments_of_a_guest_leave_room_for_those_that_its_neighbour_is_sent") {
        return;
    }
    Rules::of(allow_all(), allow_all()).load();
    let alice = raw::socket("alice");
    let head = raw::udp(9, 9, &[0; 1392]);
    for id in 0..8000 {
        raw::send(
            &alice,
            raw::Fragment { id, from: ALICE.ip, to: "198.51.100.10", offset: 0, more: true, payload: &head },
        );
    }
    let server = within(OUTSIDE, || UdpSocket::bind("192.0.2.7:7")).unwrap();
    let bob = within("bob", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    bob.send_to(b"?", "192.0.2.7:7").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (_, peer) = server.recv_from(&mut [0; 64]).unwrap();
    server.send_to(&[1; 3000], peer).unwrap();
    bob.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert_eq!(bob.recv(&mut [0; 4000]).ok(), Some(3000));
    assert!(own_counter("fragments").packets >= 8000);
}

/// Neighbours that the host knows on the TAP of a guest.
fn neighbours(guest: &str) -> usize {
    let shown = Tool::new("ip").args(["neigh", "show", "dev", &format!("sis-{guest}")]).text().unwrap();
    shown.lines().filter(|line| line.contains("lladdr")).count()
}

#[test]
fn invented_neighbours_are_not_remembered_and_other_addresses_not_told() {
    if !in_a_world("invented_neighbours_are_not_remembered_and_other_addresses_not_told") {
        return;
    }
    Rules::of(allow_all(), allow_all()).load();
    tap::harden("sis-alice").unwrap();
    let is_hardened = |name: &str| {
        let interfaces = links::interfaces().unwrap();
        tap::is_hardened(interfaces.iter().find(|found| found.name == name).unwrap())
    };
    assert!(is_hardened("sis-alice") && !is_hardened("sis-bob"));
    // Without it the kernel's own filter might do the rules' work.
    std::fs::write("/proc/sys/net/ipv4/conf/sis-alice/rp_filter", "0").unwrap();
    assert!(!is_hardened("sis-alice"));
    connect("alice", "198.51.100.10:80");
    for invented in 0..20 {
        let address = format!("10.107.9.{invented}");
        ip(&format!("-n alice addr add {address}/32 dev eth0"));
        ip("-n alice neigh flush dev eth0");
        throw("alice", &address, "10.107.0.1:99");
        ip(&format!("-n alice addr del {address}/32 dev eth0"));
    }
    thread::sleep(Duration::from_millis(200));
    assert_eq!(neighbours("alice"), 1);
    // Whom a guest asks for that is not its host on its own TAP.
    for other in ["10.107.0.5", UPLINK_ADDRESS] {
        ip(&format!("-n alice route replace {other}/32 dev eth0"));
        throw("alice", ALICE.ip, &format!("{other}:99"));
        thread::sleep(Duration::from_millis(200));
        let known = Tool::new("ip").args(["-n", "alice", "neigh", "show", other]).text().unwrap();
        assert!(!known.contains("lladdr"), "{known}");
    }
    ip("-n alice neigh flush dev eth0");
    connect("alice", "198.51.100.10:80");
}

/// A counter of the fleet's table.
fn own_counter(name: &str) -> Counter {
    counters("inet", &table_name(&"sis".parse().unwrap()))[name]
}

#[test]
fn counters_lists_and_what_is_used_outlive_a_swap() {
    if !in_a_world("counters_lists_and_what_is_used_outlive_a_swap") {
        return;
    }
    let budget = Budget { connections: 4, new_connections: PerSecond::new(1000), ..Budget::default() };
    let list = "blocklists/unsafe.txt";
    let denying = PolicyRule { list: Some(list.into()), ..PolicyRule::default() };
    let policy = |more: &[PolicyRule]| NetworkPolicy {
        budget,
        deny: [std::slice::from_ref(&denying), more].concat(),
        ..allow_all()
    };
    let mut rules = Rules::of(policy(&[]), policy(&[]));
    let prefixes = (0..30_000_u32).map(|n| format!("20.{}.{}.{}/32", n / 8192, n / 32 % 256, n % 32 * 8));
    rules.lists.insert(list.into(), prefixes.map(|prefix| prefix.parse().unwrap()).collect());
    rules.load();
    let mut open: Vec<_> = (0..4).map(|_| connect("alice", "198.51.100.10:80")).collect();
    unreachable("alice", OUTSIDE, &["198.51.100.10:443"]);
    let counted = ["up-alice", "down-alice", "refused-alice", "over-budget"].map(own_counter);
    assert!(counted.iter().all(|counter| counter.packets > 0), "{counted:?}");
    let before = nft::read_table("inet", "sisforge-sis").unwrap().unwrap();

    rules.guests[0].1 = policy(&[to(&["192.0.2.7/32"])]);
    let calls = rules.calls();
    assert!(calls.len() == 1 && !calls[0].contains(" 20.3."), "a list that stays is loaded again");
    rules.load();
    let after = nft::read_table("inet", "sisforge-sis").unwrap().unwrap();
    let lists = |table: &nft::TableContent| {
        table.sets.iter().filter(|name| name.starts_with("list-")).cloned().collect::<Vec<_>>()
    };
    assert!(lists(&before).len() == 1 && lists(&before) == lists(&after));
    assert_ne!(before.digest, after.digest);
    for (name, counter) in ["up-alice", "down-alice", "refused-alice", "over-budget"].iter().zip(counted) {
        assert!(own_counter(name).packets >= counter.packets, "{name} begins anew");
    }
    assert!(open.iter_mut().all(world::Connection::echoes));
    unreachable("alice", OUTSIDE, &["198.51.100.10:443", "192.0.2.7:80"]);

    // A list that nobody names any more goes.
    rules.guests.iter_mut().for_each(|(_, policy)| *policy = allow_all());
    rules.load();
    assert_eq!(lists(&nft::read_table("inet", "sisforge-sis").unwrap().unwrap()), [""; 0]);
}

#[test]
fn what_others_change_in_a_table_shows() {
    if !in_a_world("what_others_change_in_a_table_shows") {
        return;
    }
    let list = "l.txt";
    let denying = PolicyRule { list: Some(list.into()), ..PolicyRule::default() };
    let mut rules = Rules::of(NetworkPolicy { deny: vec![denying], ..allow_all() }, allow_all());
    rules.lists.insert(list.into(), vec!["20.0.0.0/8".parse().unwrap()]);
    let digest = || nft::read_table("inet", "sisforge-sis").unwrap().unwrap().digest;
    rules.load();
    let loaded = digest();
    connect("alice", "198.51.100.10:80");
    assert_eq!(digest(), loaded, "packets change nothing");
    nft::load("insert rule inet sisforge-sis through counter").unwrap();
    let counting = digest();
    connect("alice", "198.51.100.10:80");
    assert_eq!(digest(), counting, "what a rule counts is no change");
    let name = nft::read_table("inet", "sisforge-sis").unwrap().unwrap().sets;
    let name = name.iter().find(|name| name.starts_with("list-")).unwrap();
    for change in [
        format!("flush set inet sisforge-sis {name}"),
        "insert rule inet sisforge-sis through accept".to_owned(),
        "add element inet sisforge-sis identity { \"sis-bob\" . 02:53:0a:6b:00:06 . 10.107.0.2 }".to_owned(),
        "add chain inet sisforge-sis x { type filter hook forward priority -10; }".to_owned(),
        "delete element inet sisforge-sis taps { \"sis-bob\" }".to_owned(),
        "add table inet sisforge-sis { flags dormant; }".to_owned(),
    ] {
        nft::delete_table("inet", "sisforge-sis").unwrap();
        rules.load();
        assert_eq!(digest(), loaded);
        nft::load(&change).unwrap();
        assert_ne!(digest(), loaded, "{change}");
    }
    assert_eq!(nft::read_table("inet", "sisforge-none").unwrap(), None);

    nft::delete_table("inet", "sisforge-sis").unwrap();
    rules.load();
    let has_leaving = || nft::read_table("inet", "sisforge-sis").unwrap().unwrap().has_leaving;
    assert!(!has_leaving());
    nft::load("add element inet sisforge-sis senders { 4711 timeout 60s : drop }").unwrap();
    assert!(has_leaving(), "an element that goes by itself");
    assert_eq!(digest(), loaded, "it is no drift");
}

/// Rules as `up` loads them, and what is then known of them.
fn loaded(ruleset: &Ruleset, known: Option<&KnownRules>) -> KnownRules {
    let loaded = up::load(&"sis".parse().unwrap(), ruleset, "", known).unwrap().unwrap();
    let body = Some(swap::body_of(&ruleset.parts));
    KnownRules { listing: loaded.listing, is_flat: false, held: loaded.held, body }
}

/// Rules of alice, and of alice and bob, of one policy that denies a list.
fn one_and_both() -> [Ruleset; 2] {
    let list = "l.txt";
    let denying = PolicyRule { list: Some(list.into()), ..PolicyRule::default() };
    let policy = NetworkPolicy { deny: vec![denying], ..allow_all() };
    let mut rules = Rules::of(policy.clone(), policy);
    rules.lists.insert(list.into(), vec!["20.0.0.0/8".parse().unwrap()]);
    let both = rules.render_alike();
    rules.guests.truncate(1);
    [rules.render_alike(), both]
}

#[test]
fn a_guest_that_comes_or_goes_beside_a_list_is_one_change_of_its_elements() {
    if !in_a_world("a_guest_that_comes_or_goes_beside_a_list_is_one_change_of_its_elements") {
        return;
    }
    let [one, both] = one_and_both();
    let whole = [&one, &both].map(|ruleset| {
        nft::load("flush ruleset").unwrap();
        loaded(ruleset, None)
    });
    let generation = nft::generation().unwrap();
    let goes = loaded(&one, Some(&whole[1]));
    assert_eq!(goes.listing, whole[0].listing, "what nft itself would have loaded");
    let mut open = connect("alice", "198.51.100.10:80");
    unreachable("bob", OUTSIDE, &["198.51.100.10:80"]);
    let comes = loaded(&both, Some(&goes));
    assert_eq!(comes.listing, whole[1].listing);
    connect("bob", "198.51.100.10:80");
    assert!(open.echoes());
    unreachable("bob", OUTSIDE, &["20.0.0.1:80"]);
    let same = loaded(&both, Some(&comes));
    assert_eq!((same.listing, nft::generation().unwrap()), (comes.listing, generation + 2));
}

#[test]
fn what_others_change_shows_though_nothing_is_read_for_as_long_as_nobody_does() {
    if !in_a_world("what_others_change_shows_though_nothing_is_read_for_as_long_as_nobody_does") {
        return;
    }
    let [_, both] = one_and_both();
    let known = loaded(&both, None);
    let listing = |known: &KnownRules| up::digest(&"sis".parse().unwrap(), Some(known)).unwrap().unwrap();
    let trusted = Sha256::of("what is not read");
    let held = known.held.clone().map(|held| KernelRules { listing: trusted, ..held }).unwrap();
    let unread = |held: KernelRules| listing(&KnownRules { held: Some(held), ..known.clone() });
    assert_eq!(unread(held.clone()), trusted);
    for other in [
        KernelRules { boot: Some("another".into()), ..held.clone() },
        KernelRules { namespace: held.namespace + 1, ..held.clone() },
        KernelRules { generation: held.generation + 1, ..held.clone() },
    ] {
        assert_eq!(unread(other), known.listing, "it is read");
    }
    let flat = KnownRules { is_flat: true, held: None, ..known.clone() };
    assert_ne!(listing(&flat), known.listing);
    let again = KnownRules { listing: listing(&flat), ..flat };
    assert_eq!(
        loaded(&both, Some(&again)).listing,
        known.listing,
        "what an earlier version recorded is taken over"
    );

    nft::load("add table inet other").unwrap();
    assert_eq!(unread(held.clone()), known.listing, "it is read, and is no other");
    nft::load("add element inet sisforge-sis identity { \"sis-bob\" . 02:53:0a:6b:00:06 . 10.107.0.2 }")
        .unwrap();
    assert!(![trusted, known.listing].contains(&unread(held)));
    let mended = loaded(&both, Some(&known));
    assert_eq!(mended.listing, known.listing, "what is not known is loaded whole");
}

#[test]
fn connections_of_an_address_end_with_its_guest() {
    if !in_a_world("connections_of_an_address_end_with_its_guest") {
        return;
    }
    Rules::of(allow_all(), allow_all()).load();
    let pump = within("alice", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    pump.send_to(b"?", ("198.51.100.10", PUMP)).unwrap();
    pump.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    pump.recv(&mut [0; 2000]).unwrap();
    let mut kept = connect("bob", "198.51.100.10:80");
    // Whoever has the address now is sent nothing that was asked for before.
    assert!(conntrack::end_of(ALICE.ip.parse().unwrap()).unwrap() >= 1);
    assert_eq!(conntrack::list(|found| found.from.to_string() == ALICE.ip).unwrap().len(), 0);
    while pump.set_nonblocking(true).is_ok() && pump.recv(&mut [0; 2000]).is_ok() {}
    let before = arrived("alice");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(arrived("alice"), before);
    assert!(kept.echoes());
}

#[test]
fn a_shaper_keeps_what_comes_too_fast_until_its_turn() {
    if !in_a_world("a_shaper_keeps_what_comes_too_fast_until_its_turn") {
        return;
    }
    let rate = "8Mbit/s".parse().unwrap();
    Rules::of(allow_all(), allow_all()).load();
    let rates = Rates { up: None, down: Some(rate) };
    tap::shape("sis-alice", rates, "").unwrap();
    tap::shape("sis-alice", rates, "").unwrap();
    assert_eq!(shape_of_alice(), Rates { up: None, down: Some(Found::Whole(1_000_000)) });
    // What may leave at once, and what waits, is no other hand's either.
    for other in [
        "burst 1mb limit 500000",
        "burst 65536 limit 5mb",
        "burst 65536 limit 500000 peakrate 9mbit mtu 2000",
    ] {
        let change = format!("qdisc change dev sis-alice root handle 1: tbf rate 8mbit {other}");
        Tool::new("tc").args(change.split(' ')).run().unwrap();
        assert_eq!(shape_of_alice(), Rates { up: None, down: Some(Found::Half) }, "{other}");
        tap::shape("sis-alice", rates, "").unwrap();
        assert_eq!(shape_of_alice(), Rates { up: None, down: Some(Found::Whole(1_000_000)) });
    }
    let queues = Tool::new("tc").args(["qdisc", "show", "dev", "sis-alice"]).text().unwrap();
    assert!(queues.contains("qdisc tbf 1: root") && queues.contains("rate 8Mbit burst 64Kb"), "{queues}");
    let server = within(OUTSIDE, || UdpSocket::bind("192.0.2.7:7")).unwrap();
    let socket = within("alice", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.send_to(b"?", "192.0.2.7:7").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (_, guest) = server.recv_from(&mut [0; 64]).unwrap();
    let (began, before) = (Instant::now(), counter("alice", "arrived"));
    for _ in 0..300 {
        let _ = server.send_to(&[0; 1000], guest);
    }
    while counter("alice", "arrived").packets < before.packets + 300 {
        assert!(began.elapsed() < Duration::from_secs(10), "some are lost");
        thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed().as_secs_f64();
    assert!((0.15..0.6).contains(&took), "300 kB at 1 MB/s, 64 kB of them at once, took {took} s");
    tap::shape("sis-alice", Rates::default(), "").unwrap();
    assert_eq!(shape_of_alice(), Rates::default());
}

fn shape_of_alice() -> Rates<Found<u64>> {
    tap::shapes(&links::interfaces().unwrap()).unwrap()["sis-alice"]
}

#[test]
fn what_a_guest_sends_too_fast_waits_and_is_not_lost() {
    if !in_a_world("what_a_guest_sends_too_fast_waits_and_is_not_lost") {
        return;
    }
    let rates = Rates { up: Some("8Mbit/s".parse().unwrap()), down: None };
    Rules::of(allow_all(), allow_all()).load();
    for _ in 0..2 {
        tap::shape("sis-alice", rates, "").unwrap();
        assert_eq!(shape_of_alice(), Rates { up: Some(Found::Whole(1_000_000)), down: None });
    }
    let (mut alice, before) = (connect("alice", "198.51.100.10:80"), world::segments("alice"));
    let began = Instant::now();
    alice.echoes_all(2_000_000);
    let took = began.elapsed().as_secs_f64();
    assert!((1.5..6.0).contains(&took), "2 MB at 1 MB/s took {took} s");
    let after = world::segments("alice");
    let (sent, again) = (after.0 - before.0, after.1 - before.1);
    assert!(sent > 100 && again * 50 < sent, "{again} of {sent} segments were sent again");
    // Whatever is missing is told, and put right.
    let taken = [
        &["ip", "link", "delete", "ifb-alice"][..],
        &["tc", "qdisc", "del", "dev", "ifb-alice", "root"],
        &["tc", "filter", "del", "dev", "sis-alice", "parent", "ffff:"],
    ];
    for command in taken {
        Tool::new(command[0]).args(&command[1..]).run().unwrap();
        assert_eq!(shape_of_alice(), Rates { up: Some(Found::Half), down: None }, "{command:?}");
        tap::shape("sis-alice", rates, "").unwrap();
        assert_eq!(shape_of_alice(), rates.bytes_per_second().whole());
        assert!(connect("alice", "198.51.100.10:80").echoes());
    }
    tap::shape("sis-alice", Rates::default(), "").unwrap();
    assert_eq!(shape_of_alice(), Rates::default());
    assert!(connect("alice", "198.51.100.10:80").echoes());
}

/// Sends to a port that nothing listens on, as fast as it can; gives how often.
fn flood(stop: &AtomicBool, target: &str) -> u64 {
    let socket = within("alice", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        sent += u64::from(socket.send_to(b"?", target).is_ok());
    }
    sent
}

#[test]
fn no_forbidden_packet_passes_while_rules_are_swapped() {
    // What is given costs 25 ms each.
    let swaps =
        std::env::var("SISFORGE_TEST_RELOADS").ok().and_then(|value| value.parse().ok()).unwrap_or(1000);
    if !in_a_world("no_forbidden_packet_passes_while_rules_are_swapped") {
        return;
    }
    let policy = |port| NetworkPolicy { allow: vec![tcp(&["198.51.100.10/32"], &[80, port])], ..deny_all() };
    let rules = [Rules::of(policy(443), deny_all()), Rules::of(policy(8080), deny_all())];
    rules[0].load();
    let mut open = connect("alice", "198.51.100.10:80");
    let (stop, echoes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let floods = ["198.51.100.10:9", "10.107.0.1:9"].map(|target| scope.spawn(|| flood(&stop, target)));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert!(open.echoes(), "an allowed connection is cut");
                echoes.fetch_add(1, Ordering::Relaxed);
            }
        });
        (0..swaps).for_each(|swap| rules[swap % 2].load());
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            assert!(flood.join().unwrap() > 1000);
        }
    });
    assert!(echoes.into_inner() > 100);
    let passed = [OUTSIDE, HOST].map(|namespace| counter(namespace, "forbidden").packets);
    assert_eq!(passed, [0, 0], "forbidden packets that passed");
}

#[test]
fn rates_bound_both_directions() {
    if !in_a_world("rates_bound_both_directions") {
        return;
    }
    let rate = Some("4Mbit/s".parse().unwrap());
    Rules::of(allow_all(), deny_all()).load();
    tap::shape("sis-alice", Rates { up: rate, down: rate }, "").unwrap();
    let bytes = |namespace| counter(namespace, "arrived").bytes;
    let (per_second, once) = (500_000.0, 65_536.0);
    let bounds = |began: Instant, came: u64, burst: f64| {
        let allowed = burst + per_second * began.elapsed().as_secs_f64();
        assert!((came as f64) < 1.3 * allowed && came as f64 > burst / 2.0, "{came} bytes of {allowed}");
    };
    let socket = within("alice", || UdpSocket::bind("0.0.0.0:0")).unwrap();
    let (began, before) = (Instant::now(), bytes(OUTSIDE));
    for _ in 0..2000 {
        let _ = socket.send_to(&[0; 1000], "198.51.100.10:9");
    }
    arrived(OUTSIDE);
    bounds(began, bytes(OUTSIDE) - before, once);

    // The other side sends two megabytes to a guest that asked.
    let server = within(OUTSIDE, || UdpSocket::bind("192.0.2.7:7")).unwrap();
    thread::sleep(Duration::from_millis(200));
    socket.send_to(b"?", "192.0.2.7:7").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (_, guest) = server.recv_from(&mut [0; 64]).unwrap();
    let (began, before) = (Instant::now(), bytes("alice"));
    for _ in 0..2000 {
        let _ = server.send_to(&[0; 1000], guest);
    }
    arrived("alice");
    bounds(began, bytes("alice") - before, once);
}

#[test]
fn two_fleets_on_one_host_do_not_disturb_each_other() {
    if !in_a_world("two_fleets_on_one_host_do_not_disturb_each_other") {
        return;
    }
    let other = Rules {
        fleet: "two-of-two",
        subnet: "10.108.0.0/16",
        guests: vec![(CAROL, allow_all())],
        lists: Default::default(),
    };
    Rules::of(allow_all(), deny_all()).load();
    other.load();
    let both_work = || {
        for guest in [ALICE, CAROL] {
            assert_eq!(connect(guest.name, "198.51.100.10:80").seen_as, guest.ip);
        }
        connect(HOST, "10.107.0.2:22");
    };
    both_work();
    unreachable("alice", "carol", &["10.108.0.2:22"]);
    unreachable("carol", "alice", &["10.107.0.2:22"]);
    unreachable("carol", HOST, &["10.107.0.1:22"]);
    let mut open = connect("alice", "198.51.100.10:80");
    other.load();
    both_work();
    nft::delete_table("inet", &table_name(&other.fleet.parse().unwrap())).unwrap();
    assert!(open.echoes());
    connect("alice", "198.51.100.10:80");
    unreachable("alice", HOST, &["10.107.0.1:22"]);
}

#[test]
fn nft_takes_rulesets_of_every_size() {
    let test = "firewall::nft_takes_rulesets_of_every_size";
    if !inside_namespaces(test, &["unshare", "nft"]) {
        return;
    }
    let mut rules = Rules::of(deny_all(), deny_all());
    rules.guests.clear();
    nft::check(&rules.render().text).unwrap();

    let list = std::path::PathBuf::from("long.txt");
    let prefixes = (0..20_000_u32).map(|n| format!("{}.{}.{}.0/25", 11 + n / 6000, n / 250 % 256, n % 250));
    rules.lists.insert(list.clone(), prefixes.map(|prefix| prefix.parse().unwrap()).collect());
    let denying = PolicyRule { list: Some(list), ..PolicyRule::default() };
    let policy =
        NetworkPolicy { deny: vec![denying], rate_up: Some("1Gbit/s".parse().unwrap()), ..allow_all() };
    rules.guests = vec![(ALICE, policy)];
    nft::check(&rules.render().text).unwrap();

    rules.guests = (0..300_u32)
        .map(|n| {
            let leak = |text: String| -> &'static str { text.leak() };
            let mac = leak(format!("02:53:0a:6b:{:02x}:{:02x}", n / 64, n % 64 * 4 + 2));
            let ip = leak(format!("10.107.{}.{}", n / 64, n % 64 * 4 + 2));
            (world::Guest { name: leak(format!("kiosk-{n}")), mac, host: "", ip }, allow_all())
        })
        .collect();
    nft::check(&rules.render().text).unwrap();
    nft::load(&rules.render().text).unwrap();
}
