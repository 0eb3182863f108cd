//! A hostile guest, by frames that no driver sends: whatever it wraps, forges or cuts, nothing of it comes to its neighbour, to its
//! host, to what is closed, or to somebody whom it is not talking with. Its policy is the most open one that there is, and its
//! neighbour's too.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::frames::{Ears, ICMP, Ip, SYN, TCP, UDP, Wire, icmp, sign, tcp, udp};
use super::world::{OUTSIDE, SERVER, UPLINK_ADDRESS, attach, in_a_world_with, ip, reaches, within};
use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

const RST: u8 = 4;
const FIN: u8 = 1;
const ACK: u8 = 16;

/// What a guest knows when it begins.
struct Attacker {
    wire: Wire,
    own: Ipv4Addr,
    gateway: Ipv4Addr,
    bob: Ipv4Addr,
    bobs_mac: [u8; 6],
    server: Ipv4Addr,
    number: u16,
    /// What each number was.
    tried: Vec<(u16, &'static str)>,
    frames: Vec<Vec<u8>>,
}

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
const UPLINK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

impl Attacker {
    fn new(sandbox: &Sandbox) -> Self {
        let [own, bob] = ['a', 'b'].map(|letter| {
            let ip = sandbox.ps(&sandbox.guest(letter))["ip"].as_str().unwrap().to_owned();
            ip.parse::<Ipv4Addr>().unwrap()
        });
        Self {
            wire: Wire::of_guest(sandbox, 'a'),
            bobs_mac: Wire::of_guest(sandbox, 'b').own,
            gateway: Ipv4Addr::from(u32::from(own) - 1),
            server: SERVER.parse().unwrap(),
            own,
            bob,
            number: 0,
            tried: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// A number for the next frame.
    fn sign(&mut self, what: &'static str) -> Vec<u8> {
        self.number += 1;
        self.tried.push((self.number, what));
        sign(self.number)
    }

    fn frame(&mut self, what: &'static str, kind: u16, head: &[u8], tail: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let signed = self.sign(what);
        let frame = self.wire.frame(kind, &[head, &tail(signed)].concat());
        self.frames.push(frame);
    }

    fn packet(&mut self, what: &'static str, packet: impl FnOnce(&Self, Vec<u8>) -> Ip) {
        let signed = self.sign(what);
        let frame = self.wire.ip(&packet(self, signed));
        self.frames.push(frame);
    }

    /// Whom nobody may reach.
    fn closed(&self) -> [Ipv4Addr; 7] {
        let pair = Ipv4Addr::new(169, 254, 255, 1);
        [self.gateway, self.bob, UPLINK, MANAGEMENT, METADATA, pair, Ipv4Addr::LOCALHOST]
    }

    /// Tags and labels around a packet: those that lead nowhere even around one that is allowed.
    fn wrapped_in_frames(&mut self) {
        let (own, server, closed) = (self.own, self.server, self.closed());
        for (what, kind, head) in [
            ("VLAN", 0x8100, &[0, 5, 8, 0][..]),
            ("QinQ", 0x88a8, &[0, 5, 0x81, 0, 0, 6, 8, 0]),
            ("MPLS", 0x8847, &[0, 1, 1, 64]),
            ("PPPoE", 0x8864, &[0x11, 0, 0, 1, 0, 60, 0, 0x21]),
            ("802.2 and SNAP", 60, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
            ("EAPOL", 0x888e, &[]),
        ] {
            for to in closed.iter().chain(&[server]) {
                let inner = |signed: Vec<u8>| Ip::of(own, *to, UDP, udp(9, 80, &signed)).bytes();
                self.frame(what, kind, head, inner);
            }
        }
        // A tag without a number, which the kernel takes off: what is inside is judged as if there were none.
        for to in closed {
            let inner = |signed: Vec<u8>| Ip::of(own, to, UDP, udp(9, 80, &signed)).bytes();
            self.frame("a priority tag", 0x8100, &[0xe0, 0, 8, 0], inner);
        }
    }

    /// What talks with bridges and switches.
    fn bridges(&mut self) {
        for (what, to, kind) in [
            ("LLDP", [1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc),
            ("a BPDU", [1, 0x80, 0xc2, 0, 0, 0], 0x0026),
            ("a pause", [1, 0x80, 0xc2, 0, 0, 1], 0x8808),
            ("CDP", [1, 0, 0x0c, 0xcc, 0xcc, 0xcc], 0x0026),
        ] {
            self.frame(what, kind, &[0x42, 0x42, 3, 0, 0, 0, 0], |signed| signed);
            self.frames.last_mut().unwrap()[..6].copy_from_slice(&to);
        }
    }

    /// Tunnels, and protocols without a connection.
    fn tunnels(&mut self) {
        let (own, closed) = (self.own, self.closed());
        for (what, protocol, head) in [
            ("GRE", 47, &[0, 0, 8, 0][..]),
            ("IPIP", 4, &[]),
            ("6in4", 41, &[]),
            ("ESP", 50, &[0, 0, 0, 9, 0, 0, 0, 1]),
            ("SCTP", 132, &[0, 9, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("IGMP", 2, &[0x16, 0, 0, 0, 224, 0, 0, 251]),
            ("UDP-Lite", 136, &[0, 9, 0, 80, 0, 0, 0, 0]),
            ("DCCP", 33, &[0; 16]),
        ] {
            for to in closed.iter().copied().chain([self.server, Ipv4Addr::new(224, 0, 0, 22)]) {
                self.packet(what, |it, signed| {
                    let inner = Ip::of(own, it.bob, UDP, udp(9, 22, &signed)).bytes();
                    Ip::of(own, to, protocol, [head, &inner].concat())
                });
            }
        }
    }

    /// To everybody at once, by address and by MAC.
    fn everybody(&mut self) {
        let own = self.own;
        let all = ["224.0.0.1", "224.0.0.251", "239.1.1.1", "255.255.255.255", "0.0.0.0"];
        let all = all.map(|to| to.parse().unwrap()).into_iter().chain([Ipv4Addr::from(u32::from(own) + 1)]);
        for to in all {
            for (what, source, port) in [("a DHCP server", 67, 68), ("DHCP", 68, 67), ("mDNS", 5353, 5353)] {
                self.packet(what, |_, signed| Ip::of(own, to, UDP, udp(source, port, &signed)));
            }
        }
        for (what, mac) in [
            ("to all by MAC", [0xff; 6]),
            ("to many by MAC", [1, 0, 0x5e, 0, 0, 1]),
            ("to a neighbour by MAC", self.bobs_mac),
            ("to nobody by MAC", [2, 9, 9, 9, 9, 9]),
        ] {
            for to in self.closed().into_iter().chain([self.server]) {
                self.packet(what, |_, signed| Ip::of(own, to, UDP, udp(9, 80, &signed)));
                self.frames.last_mut().unwrap()[..6].copy_from_slice(&mac);
            }
        }
    }

    /// Parts that overlap, that are too small to be judged, and options that say which way to take.
    fn parts_and_options(&mut self) {
        let (own, server) = (self.own, self.server);
        let via = self.bob.octets();
        for to in [server, self.bob, UPLINK] {
            for (what, fragment) in [("a tiny part", 0x2000), ("a part over ports", 1), ("a last part", 3)] {
                self.packet(what, |_, signed| {
                    let segment = tcp([own, to], 9, 80, SYN, &signed);
                    Ip { fragment, ..Ip::of(own, to, TCP, segment) }
                });
            }
            for (what, kind) in [("loose source route", 131), ("strict source route", 137)] {
                self.packet(what, |_, signed| {
                    let options = [&[kind, 7, 4][..], &via, &[1]].concat();
                    Ip { options, ..Ip::of(own, to, UDP, udp(9, 80, &signed)) }
                });
            }
        }
        for to in self.closed() {
            for (what, options) in [
                ("record route", vec![7, 7, 4, 0, 0, 0, 0, 1]),
                ("timestamps", vec![68, 8, 5, 0, 0, 0, 0, 0]),
                ("router alert", vec![148, 4, 0, 0]),
                ("options cut short", vec![7, 60, 4, 0]),
            ] {
                self.packet(what, |_, signed| Ip { options, ..Ip::of(own, to, UDP, udp(9, 80, &signed)) });
            }
            for (what, ttl) in [("no time left", 0), ("one hop left", 1), ("two hops left", 2)] {
                self.packet(what, |_, signed| Ip { ttl, ..Ip::of(own, to, UDP, udp(9, 80, &signed)) });
            }
        }
    }

    /// Segments that begin nothing, and ports that others might trust.
    fn odd_segments(&mut self) {
        let own = self.own;
        for to in self.closed() {
            for (what, flags) in [
                ("RST alone", RST),
                ("FIN alone", FIN),
                ("ACK alone", ACK),
                ("SYN and ACK", SYN | ACK),
                ("SYN and FIN", SYN | FIN),
                ("no flag", 0),
                ("every flag", 0x3f),
            ] {
                self.packet(what, |_, signed| Ip::of(own, to, TCP, tcp([own, to], 443, 22, flags, &signed)));
            }
            for (what, source) in [("from port 53", 53), ("from port 67", 67), ("from port 443", 443)] {
                self.packet(what, |_, signed| Ip::of(own, to, UDP, udp(source, 5000, &signed)));
            }
            for (what, kind) in [
                ("a redirect", 5),
                ("a router's advertisement", 9),
                ("an echo that nobody asked for", 0),
                ("what time it is", 13),
                ("which mask there is", 17),
            ] {
                self.packet(what, |it, signed| {
                    let inner = Ip::of(to, it.server, UDP, udp(9, 80, &signed)).bytes();
                    let message = [&[kind, 1, 0, 0][..], &own.octets(), &inner].concat();
                    Ip::of(own, to, ICMP, message)
                });
            }
        }
        // Through its host, to what it and its neighbour publish.
        for (to, port) in [(UPLINK, 20_000), (UPLINK, 20_001), (Ipv4Addr::new(10, 20, 0, 1), 20_001)] {
            self.packet("what is published", |_, signed| {
                Ip::of(own, to, TCP, tcp([own, to], 9, port, SYN, &signed))
            });
        }
        self.packet("itself", |_, signed| Ip::of(own, own, TCP, tcp([own, own], 22, 22, SYN, &signed)));
        let server = self.server;
        self.packet("a wrong sum", |_, signed| {
            let mut segment = tcp([own, server], 9, 80, SYN, &signed);
            segment[16] ^= 1;
            Ip::of(own, server, TCP, segment)
        });
    }

    /// IPv6, which nobody has here.
    fn version_six(&mut self) {
        let all = "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let from = "fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        for (what, next, content) in [
            (
                "a router's advertisement of IPv6",
                58,
                &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
            ),
            ("a neighbour's advertisement", 58, &[136, 0, 0, 0, 0x60, 0, 0, 0]),
            ("DHCPv6", 17, &[2, 35, 2, 34, 0, 30, 0, 0]),
        ] {
            let head = [&[0x60, 0, 0, 0, 0, 40, next, 255][..], &from, &all, content].concat();
            self.frame(what, 0x86dd, &head, |signed| signed);
            self.frames.last_mut().unwrap()[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        }
        let own = self.own;
        let server = self.server;
        self.frame("IPv4 that says it is IPv6", 0x86dd, &[], |signed| {
            Ip::of(own, server, UDP, udp(9, 80, &signed)).bytes()
        });
    }

    /// What it says in the place of a router about conversations of others: `peer` talks with bob, or with the fleet's own.
    fn errors_about_others(&mut self, bobs: u16, peer: (Ipv4Addr, u16)) {
        let own = self.own;
        let (to, port) = peer;
        for (what, kind, code) in [
            ("an error about a neighbour", 3, 3),
            ("a smaller MTU for a neighbour", 3, 4),
            ("no time for a neighbour", 11, 0),
        ] {
            for (from, source, target) in [(to, port, self.bob), (self.bob, bobs, to)] {
                let target_port = if from == to { bobs } else { port };
                self.packet(what, |_, signed| {
                    let inner = Ip::of(from, target, UDP, udp(source, target_port, &signed)).bytes();
                    Ip::of(own, from, ICMP, icmp([kind, code], 576, &inner))
                });
            }
        }
    }
}

/// A fleet of two whose policy allows all that one can, and lets everybody in at one port.
fn fleet() -> Sandbox {
    let sandbox = super::open_fleet("ab");
    let more = "budget = { new-connections = \"100000/s\", connections = 60000 }\n\
                publish = [{ name = \"shell\", guest = 22, host = \"20000-20009\", from = [\"0.0.0.0/0\"] },\n\
                { name = \"datagrams\", guest = 9, host = \"21000-21009\", from = [\"0.0.0.0/0\"], proto = \"udp\" }]\n\
                default = \"allow\"";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("default = \"allow\"", more));
    sandbox
}

/// The same, up and attached.
fn attached() -> Sandbox {
    let sandbox = fleet();
    sandbox.done("up");
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    sandbox
}

#[test]
fn nothing_of_a_hostile_guest_comes_to_others() {
    if !in_a_world_with("hostile::nothing_of_a_hostile_guest_comes_to_others", &["perl"]) {
        return;
    }
    needs_firecracker!();
    let sandbox = attached();
    let ears = Ears::new(&sandbox, &["a", "b"]);
    let mut attacker = Attacker::new(&sandbox);
    // Bob asks somebody, and somebody asks bob.
    let ends = [("b", "0.0.0.0:9"), (OUTSIDE, "198.51.100.10:7777"), (OUTSIDE, "198.51.100.10:7778")];
    let [bob, server, visitor] = ends.map(|(at, to)| within(at, || UdpSocket::bind(to)).unwrap());
    bob.send_to(b"?", (SERVER, 7777)).unwrap();
    visitor.send_to(b"?", format!("{UPLINK_ADDRESS}:21001")).unwrap();
    for socket in [&bob, &server] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.recv(&mut [0; 9]).unwrap();
    }

    attacker.wrapped_in_frames();
    attacker.bridges();
    attacker.tunnels();
    attacker.everybody();
    attacker.parts_and_options();
    attacker.odd_segments();
    attacker.version_six();
    for port in [7777, 7778] {
        attacker.errors_about_others(9, (attacker.server, port));
    }
    attacker.wire.send(&attacker.frames);
    let heard = ears.heard();
    let came = attacker.tried.iter().filter_map(|(number, what)| {
        let places: Vec<_> = heard.get(number)?.iter().filter(|place| **place != "a").collect();
        (!places.is_empty()).then(|| format!("{what} ({number}) came to {places:?}"))
    });
    let came: Vec<_> = came.collect();
    assert!(came.is_empty(), "{} of {}:\n{}", came.len(), attacker.number, came.join("\n"));
    println!("{} frames", attacker.number);

    // Everybody is as before.
    assert!(reaches("a", &format!("{SERVER}:80")) && reaches("b", &format!("{SERVER}:80")));
    assert!(reaches(OUTSIDE, &format!("{UPLINK_ADDRESS}:20001")));
    bob.send_to(b"?", (SERVER, 7777)).unwrap();
    assert_eq!(server.recv(&mut [0; 9]).unwrap(), 1, "bob's conversation goes on");
}

#[test]
fn a_flood_of_macs_and_of_arp_fills_no_table_and_takes_no_address() {
    if !in_a_world_with("hostile::a_flood_of_macs_and_of_arp_fills_no_table_and_takes_no_address", &["perl"])
    {
        return;
    }
    needs_firecracker!();
    let sandbox = attached();
    let attacker = Attacker::new(&sandbox);
    let Attacker { wire, own, gateway, bob, server, .. } = &attacker;
    let mut frames = Vec::new();
    for number in 0..1500_u16 {
        let [high, low] = number.to_be_bytes();
        let mac = [2, 7, 7, 7, high, low];
        let mut frame = wire.ip(&Ip::of(*own, *server, UDP, udp(9, 80, b"")));
        frame[6..12].copy_from_slice(&mac);
        frames.push(frame);
        // It is bob, the gateway, and whoever else, as it says; and asks who they are.
        for whom in [*bob, *gateway, Ipv4Addr::from([10, 20, high, low])] {
            for (operation, sender) in [(1, mac), (2, mac), (2, wire.own)] {
                let head = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sender, &whom.octets(), &[0; 6]].concat();
                frames.push(wire.frame(0x0806, &[head, gateway.octets().to_vec()].concat()));
            }
        }
    }
    wire.send(&frames);
    let known = ip(&format!("-n {} neigh show", sandbox.netns()));
    let of_a = known.lines().filter(|line| line.contains(&format!("sis-{}", sandbox.guest('a'))));
    assert!(of_a.count() <= 1 && known.lines().count() < 10, "{known}");
    assert!(!known.contains("02:07:07") && !ip("neigh show").contains("02:07:07"), "{known}");
    for letter in ["a", "b"] {
        assert!(reaches(letter, &format!("{SERVER}:80")), "{letter}");
    }
}

/// What a helper of conntrack would open: an FTP server's `PORT`, the media of a call by SIP.
#[test]
fn no_helper_opens_a_way_in() {
    if !in_a_world_with("hostile::no_helper_opens_a_way_in", &["perl"]) {
        return;
    }
    needs_firecracker!();
    let sandbox = attached();
    let own = sandbox.ps(&sandbox.guest('a'))["ip"].as_str().unwrap().to_owned();
    let comma = own.replace('.', ",");
    let ftp = std::thread::spawn(|| {
        let listener = within(OUTSIDE, || std::net::TcpListener::bind((SERVER, 21))).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = [0; 64];
        std::io::Read::read(&mut stream, &mut line).unwrap()
    });
    let said = format!("PORT {comma},0,22\r\n");
    let to = (SERVER, 21);
    let connect = || -> std::io::Result<std::net::TcpStream> {
        let mut tries = 0;
        loop {
            match within("a", || std::net::TcpStream::connect(to)) {
                Err(_) if tries < 50 => std::thread::sleep(Duration::from_millis(20)),
                done => return done,
            }
            tries += 1;
        }
    };
    let mut stream = connect().unwrap();
    std::io::Write::write_all(&mut stream, said.as_bytes()).unwrap();
    assert!(ftp.join().unwrap() > 0);
    let call = within("a", || UdpSocket::bind("0.0.0.0:5060")).unwrap();
    let media = format!(
        "v=0\r\no=- 1 1 IN IP4 {own}\r\ns=-\r\nc=IN IP4 {own}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    );
    let invite = format!(
        "INVITE sip:x@{SERVER} SIP/2.0\r\nVia: SIP/2.0/UDP {own}:5060\r\nFrom: <sip:a@{own}>\r\nTo: <sip:x@{SERVER}>\r\n\
         Contact: <sip:a@{own}:5060>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{media}",
        media.len()
    );
    call.send_to(invite.as_bytes(), (SERVER, 5060)).unwrap();
    let heard = within("a", || UdpSocket::bind("0.0.0.0:4000")).unwrap();
    heard.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let server = within(OUTSIDE, || UdpSocket::bind((SERVER, 4000))).unwrap();
    for host in [UPLINK_ADDRESS, &own] {
        server.send_to(b"media", (host, 4000)).unwrap();
        assert!(host != own.as_str() || !reaches(OUTSIDE, &format!("{host}:22")), "FTP");
    }
    assert!(heard.recv(&mut [0; 9]).is_err(), "SIP");
}
