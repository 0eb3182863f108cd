//! Ways in to guests, by the rules inside alone.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use sisforge::fleet::{NetworkPolicy, Protocol, Publish};

use super::rules::{Rules, allow_all, deny_all};
use super::world::{ALICE, OUTSIDE, connect, unreachable, within};
use super::{HOST, in_a_world};

fn way(protocol: Protocol, from: &[&str]) -> Publish {
    Publish {
        place: 0..0,
        name: "shell".parse().unwrap(),
        protocol,
        guest: 22,
        host: 20_000..=20_009,
        from: from.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

fn publishing(policy: NetworkPolicy, publish: Vec<Publish>) -> NetworkPolicy {
    NetworkPolicy { publish, ..policy }
}

/// Whether the guest's port is closed, once what was repeated on connections that were cut has been answered with resets.
fn closed_for(from: &str) {
    thread::sleep(Duration::from_secs(1));
    unreachable(from, "alice", &["10.107.0.2:22"]);
}

#[test]
fn what_is_open_stays_while_its_way_in_does_and_is_cut_with_it() {
    if !in_a_world("publish::what_is_open_stays_while_its_way_in_does_and_is_cut_with_it") {
        return;
    }
    let load = |policy, ways: &[&[&str]]| {
        let ways = ways.iter().map(|from| way(Protocol::Tcp, from)).collect();
        Rules::of(publishing(policy, ways), deny_all()).load();
    };
    load(allow_all(), &[&["203.0.113.1/32"]]);
    let mut open = connect(OUTSIDE, "10.107.0.2:22");
    assert!(open.seen_as == "203.0.113.1" && open.echoes());
    load(deny_all(), &[&["203.0.113.1/32"]]);
    assert!(open.echoes(), "what guests may open has changed, and nothing else");
    load(deny_all(), &[&["203.0.113.0/24", "10.1.0.0/16"], &["203.0.112.0/23", "10.0.0.0/8"]]);
    assert!(open.echoes(), "it may come in still, by two ports of the host");
    load(allow_all(), &[&["10.0.0.0/8"]]);
    assert_eq!(open.is_cut_by(), Some(ErrorKind::ConnectionReset), "it may not any more");
    load(deny_all(), &[&["203.0.113.1/32"]]);
    let mut open = connect(OUTSIDE, "10.107.0.2:22");
    load(allow_all(), &[]);
    assert_eq!(open.is_cut_by(), Some(ErrorKind::ConnectionReset), "nothing is published");
    drop(open);
    closed_for(OUTSIDE);
}

#[test]
fn a_way_in_opens_nothing_else() {
    if !in_a_world("publish::a_way_in_opens_nothing_else") {
        return;
    }
    let open = publishing(allow_all(), vec![way(Protocol::Tcp, &["0.0.0.0/0"])]);
    Rules::of(open.clone(), open).load();
    connect(OUTSIDE, "10.107.0.2:22");
    connect(HOST, "10.107.0.2:22");
    unreachable(OUTSIDE, "alice", &["10.107.0.2:80", "10.107.0.2:53"]);
    // Everybody is not the neighbour, nor another interface.
    unreachable("bob", "alice", &["10.107.0.2:22"]);
    unreachable("carol", "alice", &["10.107.0.2:22"]);
    unreachable("alice", HOST, &["10.107.0.1:22"]);
}

#[test]
fn whoever_cannot_be_served_is_told_by_the_guest() {
    if !in_a_world("publish::whoever_cannot_be_served_is_told_by_the_guest") {
        return;
    }
    Rules::of(publishing(deny_all(), vec![way(Protocol::Udp, &["203.0.113.0/24"])]), deny_all()).load();
    let client = within(OUTSIDE, || UdpSocket::bind("203.0.113.1:0")).unwrap();
    client.connect(format!("{}:22", ALICE.ip)).unwrap();
    let began = Instant::now();
    while client.send(b"?").is_ok() && began.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "no ICMP error of the guest");
}

#[test]
fn a_quarantined_guest_has_no_visitors() {
    if !in_a_world("publish::a_quarantined_guest_has_no_visitors") {
        return;
    }
    Rules::of(publishing(deny_all(), vec![way(Protocol::Tcp, &["0.0.0.0/0"])]), deny_all()).load();
    let mut open = connect(OUTSIDE, "10.107.0.2:22");
    assert!(open.echoes());
    super::quarantine::change(&["sis-alice"], &[]);
    assert_eq!(open.is_cut_by(), Some(ErrorKind::ConnectionReset));
    drop(open);
    closed_for(OUTSIDE);
}
