//! Ports of the host that lead to guests: who comes in, and who does not.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

use super::world::{HOST, OUTSIDE, UPLINK_ADDRESS, attach, in_a_world, ip, nft, reaches, seen, within};

const SHELL: &str = r#"{ name = "shell", guest = 22, host = "20000-20009", from = ["203.0.113.1"] }"#;

/// A fleet whose guests may open everything, and publish this.
fn publishing(users: &str, publish: &str) -> Sandbox {
    let sandbox = super::open_fleet(users);
    let policy = format!("publish = [{publish}]\ndefault = \"allow\"");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("default = \"allow\"", &policy));
    sandbox
}

fn at(port: u16) -> String {
    format!("{UPLINK_ADDRESS}:{port}")
}

#[test]
fn who_is_named_comes_in_where_it_is_published_and_nobody_else() {
    if !in_a_world("publish::who_is_named_comes_in_where_it_is_published_and_nobody_else") {
        return;
    }
    needs_firecracker!();
    let sandbox = publishing("ab", SHELL);
    sandbox.done("up");
    let [a, b] = ['a', 'b'].map(|letter| sandbox.ps(&sandbox.guest(letter)));
    assert_eq!((&a["published"][0]["port"], &b["published"][0]["port"]), (&20_000.into(), &20_001.into()));
    assert!(sandbox.done("status").contains("shell 20000->22/tcp"));
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    let direct = format!("{}:22", a["ip"].as_str().unwrap());
    for port in [20_000, 20_001] {
        let client = seen(OUTSIDE, &at(port)).expect("it is published");
        assert_eq!(client.ip().to_string(), "203.0.113.1", "the guest sees who asks");
    }
    assert!(reaches(HOST, &direct), "a proxy on the host");
    let others = |from: &str| -> Vec<String> {
        let all = [at(20_002), direct.clone(), direct.replace(":22", ":80"), at(22)];
        all.into_iter().filter(|to| reaches(from, to)).collect()
    };
    assert_eq!(others(OUTSIDE), [at(22)], "that of the host itself");
    assert_eq!(others("b"), [""; 0], "a neighbour");
    assert!(!reaches("mg", "10.20.0.1:20000") && !reaches("b", &at(20_000)), "not by the uplink");
    // An address that is not named.
    ip("-n outside addr add 203.0.113.9/24 dev up0");
    ip("-n outside route replace 203.0.113.2/32 dev up0 src 203.0.113.9");
    assert!(!reaches(OUTSIDE, &at(20_000)));
    // Whatever becomes of the host's rules.
    ip(&format!("-n outside route replace 10.0.0.0/8 via {UPLINK_ADDRESS} src 203.0.113.9"));
    nft("flush ruleset");
    assert!(!reaches(OUTSIDE, &direct) && !reaches("b", &direct));
}

#[test]
fn a_plan_tells_which_ports_of_the_host_open_and_close() {
    if !in_a_world("publish::a_plan_tells_which_ports_of_the_host_open_and_close") {
        return;
    }
    needs_firecracker!();
    let sandbox = publishing("a", SHELL);
    let a = sandbox.guest('a');
    let told = |what: &str, from: &str| {
        format!("{what} the port 20000/tcp of the host, from {from}, to 22 of {a} (shell)")
    };
    let plan = sandbox.done("plan");
    assert!(plan.contains(&told("opens", "203.0.113.1/32")), "{plan}");
    sandbox.done("up");
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("[\"203.0.113.1\"]", "[\"10.0.0.0/8\"]"));
    let plan = sandbox.done("plan");
    assert!(plan.contains(&told("closes", "203.0.113.1/32")), "{plan}");
    assert!(plan.contains(&told("opens", "10.0.0.0/8")), "{plan}");
    let json: serde_json::Value = serde_json::from_str(&sandbox.done("plan --json")).unwrap();
    assert_eq!(
        (&json["published_changes"][1]["opens"], &json["published_changes"][1]["port"]),
        (&true.into(), &20_000.into())
    );
    sandbox.done("up");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn visitors_use_up_neither_what_the_guest_may_open_nor_more_than_their_own() {
    if !in_a_world("publish::visitors_use_up_neither_what_the_guest_may_open_nor_more_than_their_own") {
        return;
    }
    needs_firecracker!();
    let sandbox = publishing("ab", SHELL);
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("publish = ", "budget = { connections = 8 }\npublish = "));
    sandbox.done("up");
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    let visitors: Vec<_> = (0..20)
        .filter_map(|_| {
            let to = at(20_000).parse().unwrap();
            within(OUTSIDE, || TcpStream::connect_timeout(&to, Duration::from_millis(300))).ok()
        })
        .collect();
    assert_eq!(visitors.len(), 8);
    assert!(reaches("a", &format!("{}:80", super::SERVER)), "the guest itself");
    assert!(reaches(OUTSIDE, &at(20_001)), "the visitors of its neighbour");
}

#[test]
fn datagrams_come_in_and_are_answered_from_the_port_they_came_to() {
    if !in_a_world("publish::datagrams_come_in_and_are_answered_from_the_port_they_came_to") {
        return;
    }
    needs_firecracker!();
    let sandbox = publishing("a", &SHELL.replace("from", "proto = \"udp\", from"));
    sandbox.done("up");
    attach(&sandbox, 'a');
    let guest = within("a", || UdpSocket::bind("0.0.0.0:22")).unwrap();
    let client = within(OUTSIDE, || UdpSocket::bind("203.0.113.1:0")).unwrap();
    for socket in [&guest, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    client.send_to(b"?", at(20_000)).unwrap();
    let (_, peer) = guest.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    guest.send_to(b"!", peer).unwrap();
    assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1.to_string(), at(20_000));
    assert!(!reaches(OUTSIDE, &at(20_000)), "by the other protocol");
    // Whoever cannot be served is told so.
    drop(guest);
    client.connect(at(20_000)).unwrap();
    client.send(b"?").unwrap();
    assert_eq!(client.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_that_somebody_has_is_refused_with_its_name() {
    if !in_a_world("publish::a_port_that_somebody_has_is_refused_with_its_name") {
        return;
    }
    needs_firecracker!();
    let (one, other) = (publishing("a", SHELL), publishing("a", SHELL));
    let service = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 20_000)).unwrap();
    let named = format!("(pid {})", std::process::id());
    for command in ["plan", "up"] {
        one.run(command).fails(2, &["20000 is that of ", &named, "cannot be published for", &one.guest('a')]);
    }
    drop(service);
    one.done("up");
    for command in ["plan", "up"] {
        other.run(command).fails(2, &[&format!("20000 is published by the fleet {}", one.name)]);
    }
    assert_eq!(other.traces(), [""; 0]);
    // What is open already stays, whoever comes then.
    let _service = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 20_000)).unwrap();
    one.run("plan --detailed-exitcode").fails(0, &[]);
    other.write("fleet.toml", other.read("fleet.toml").replace("20000-20009", "20001"));
    other.done("up");
    let shown = |sandbox: &Sandbox| sandbox.ps(&sandbox.guest('a'))["published"][0]["port"].clone();
    assert_eq!((shown(&one), shown(&other)), (20_000.into(), 20_001.into()));
}
