//! A matrix of probes by a hostile guest through all that `up` sets up, on its host too: each comes where `policy explain` says, and
//! nowhere else, whatever becomes of the host's own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use sisforge::host::policy::{Question, QuestionTarget, Transport};
use sisforge::run::{Workspace, WorkspaceSettings, policy};
use sisforge::sys::http::Network;
use sisforge::sys::report::Silent;

use super::frames::{Ears, Heard, Ip, Wire, icmp, sign, udp};
use super::names::with_taps_of;
use super::world::{OUTSIDE, attach, in_a_world_with, nft};
use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

use Transport::{Icmp, Other, Tcp, Udp};

/// Destinations of every class, but for those that differ from guest to guest.
const DESTINATIONS: [&str; 24] = [
    "198.51.100.10",   // allowed
    "198.51.100.66",   // denied
    "198.51.100.77",   // on a list
    "9.9.9.9",         // the name server
    "8.8.8.8",         // another
    "1.1.1.1",         // a resolver over HTTPS
    "10.9.0.1",        // private
    "10.30.1.1",       // private, and named
    "192.168.7.1",     // private
    "100.64.0.1",      // shared
    "169.254.169.254", // metadata
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "203.0.113.1", // on the link of the uplink
    "203.0.113.2", // the host: on its uplink, elsewhere, on the pair
    "10.20.0.1",
    "169.254.255.1",
    "10.20.0.2", // behind another interface of the host
    "127.0.0.1",
    "0.1.2.3",
    "224.0.0.251",
    "255.255.255.255",
    "250.1.2.3",
];
const SERVICES: [Transport; 11] = [
    Tcp(80),
    Tcp(443),
    Tcp(22),
    Tcp(25),
    Tcp(853),
    Tcp(20_001), // published, for bob
    Udp(53),
    Udp(443),
    Icmp,
    Other(47),
    Other(132),
];

/// Alice and bob have one policy, carol the most open one that there is.
fn fleet() -> Sandbox {
    let sandbox = Sandbox::new();
    let text = sandbox.fleet_text("ab", "").replace("uplink = \"lo\"", "uplink = \"up0\"");
    let budget =
        "budget = { connections = 60000, new-connections = \"100000/s\", dns-queries = \"100000/s\" }\n";
    let some = format!(
        r#"{budget}dns = ["9.9.9.9"]
allow = [{{ to = ["0.0.0.0/0"], tcp = [80, 443], icmp = true }}, {{ to = ["10.30.0.0/16"], tcp = [22] }}]
deny = [{{ to = ["198.51.100.66"] }}, {{ list = "bad.txt" }}]
publish = [{{ name = "shell", guest = 22, host = "20000-20009", from = ["203.0.113.1"] }}]
"#
    );
    let open = format!(
        "[network.open]\n{budget}default = \"allow\"\nallow = [{{ to = [\"10.0.0.0/8\", \"192.168.0.0/16\"] }}]\n\
         [user.{}]\nnetwork = \"open\"\n",
        sandbox.guest('c')
    );
    sandbox.write("bad.txt", "198.51.100.77\n");
    sandbox.write("fleet.toml", text.replace("default = \"deny\"\n", &some) + &open);
    sandbox
}

struct Probe {
    what: String,
    frame: Vec<u8>,
    expected: BTreeSet<&'static str>,
}

/// All that is needed to send and to hear.
struct Matrix<'a> {
    sandbox: &'a Sandbox,
    ears: Ears,
    addresses: BTreeMap<char, Ipv4Addr>,
    /// Numbers that were given.
    count: u16,
    /// What `explain` said, by the fleet's text and the question: one answer takes as long as hundreds of probes.
    said: BTreeMap<(String, String), bool>,
}

fn nowhere() -> BTreeSet<&'static str> {
    BTreeSet::new()
}

impl<'a> Matrix<'a> {
    fn of(sandbox: &'a Sandbox) -> Self {
        let address = |letter| sandbox.ps(&sandbox.guest(letter))["ip"].as_str().unwrap().parse().unwrap();
        let addresses = ['a', 'b', 'c'].map(|letter| (letter, address(letter))).into();
        Self {
            sandbox,
            ears: Ears::new(sandbox, &["a", "b", "c"]),
            addresses,
            count: 0,
            said: BTreeMap::new(),
        }
    }

    fn address(&self, letter: char) -> Ipv4Addr {
        self.addresses[&letter]
    }

    fn number(&mut self) -> u16 {
        self.count += 1;
        self.count
    }

    /// Sends all of them by one wire; fails where one came elsewhere than is expected. `own` is whoever sends, who hears itself.
    fn hold(&self, when: &str, wire: &Wire, own: &str, first: u16, probes: &[Probe]) {
        wire.send(probes.iter().map(|probe| &probe.frame));
        let heard = self.ears.heard();
        let wrong = probes.iter().zip(first..).filter_map(|(Probe { what, expected, .. }, number)| {
            let places = places(&heard, number, own);
            (places != *expected).then(|| format!("{when}: {what}: came to {places:?}, not {expected:?}"))
        });
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
    }

    /// What a guest sends as itself, with what `explain` says of it.
    fn plain(&mut self, letter: char) -> Vec<Probe> {
        let (wire, own) = (Wire::of_guest(self.sandbox, letter), self.address(letter));
        let neighbour = self.address('b').to_string();
        let gateway = Ipv4Addr::from(u32::from(own) - 1).to_string();
        let broadcast = Ipv4Addr::from(u32::from(own) + 1).to_string();
        let others = [neighbour.as_str(), &gateway, &broadcast];
        let mut probes = Vec::new();
        for to in DESTINATIONS.iter().chain(&others) {
            for service in SERVICES {
                let to: Ipv4Addr = to.parse().unwrap();
                let frame = wire.ip(&Ip::begins(own, to, service, self.number()));
                let expected = if self.says(letter, to, service) { [OUTSIDE].into() } else { nowhere() };
                probes.push(Probe { what: format!("{letter} to {to} {service:?}"), frame, expected });
            }
        }
        probes
    }

    /// Whether `policy explain` says that it passes.
    fn says(&mut self, letter: char, to: Ipv4Addr, transport: Transport) -> bool {
        let question = (self.sandbox.read("fleet.toml"), format!("{letter} {to} {transport:?}"));
        if let Some(said) = self.said.get(&question) {
            return *said;
        }
        let said = self.explain(letter, to, transport);
        self.said.insert(question, said);
        said
    }

    fn explain(&self, letter: char, to: Ipv4Addr, transport: Transport) -> bool {
        let path = |name| self.sandbox.path(name);
        let settings = WorkspaceSettings {
            file: path("fleet.toml"),
            confinement: None,
            out: path("out"),
            cache: path("cache"),
            vendor: path("vendor"),
            network: Network::default(),
            jobs: 1,
            offline: true,
            artifacts: sisforge::run::ArtifactSettings::default(),
        };
        let question = Question { to: QuestionTarget::Address(to.into()), transport: Some(transport) };
        let workspace = Workspace { settings, report: &Silent };
        policy::explain(&workspace, &self.sandbox.guest(letter), question).unwrap().passes()
    }

    /// What is not the guest's own, or comes in parts: all of it to where the guest itself may send.
    fn forged(&mut self, letter: char) -> Vec<Probe> {
        let (wire, own) = (Wire::of_guest(self.sandbox, letter), self.address(letter));
        let bob = self.address('b');
        let mut probes = Vec::new();
        let mut add = |what: String, frame| probes.push(Probe { what, frame, expected: nowhere() });
        for to in ["198.51.100.10", "203.0.113.2", "10.20.0.2", "169.254.169.254", &bob.to_string()] {
            let to: Ipv4Addr = to.parse().unwrap();
            for service in [Tcp(80), Udp(443), Udp(53), Icmp] {
                let gateway = Ipv4Addr::from(u32::from(own) - 1);
                for from in
                    ["203.0.113.7", "203.0.113.2", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]
                {
                    let packet = Ip::begins(from.parse().unwrap(), to, service, self.number());
                    add(format!("{letter} as {from} to {to} {service:?}"), wire.ip(&packet));
                }
                for from in [bob, gateway] {
                    let packet = Ip::begins(from, to, service, self.number());
                    add(format!("{letter} as {from} to {to} {service:?}"), wire.ip(&packet));
                }
                for fragment in [0x2000, 2, 0x2002, 0x3fff] {
                    let packet = Ip::begins(own, to, service, self.number());
                    let packet = Ip { fragment, ..packet };
                    add(format!("a part {fragment:#x} to {to} {service:?}"), wire.ip(&packet));
                }
                let mut frame = wire.ip(&Ip::begins(own, to, service, self.number()));
                frame[11] ^= 1;
                add(format!("with another MAC to {to} {service:?}"), frame);
            }
        }
        probes
    }

    /// What begins outside.
    fn inward(&mut self, wire: &Wire, from: &str, flushed: bool) -> Vec<Probe> {
        let [alice, bob] = ['a', 'b'].map(|letter| self.address(letter));
        let (uplink, from) = ("203.0.113.2".parse().unwrap(), from.parse().unwrap());
        let named = from == Ipv4Addr::new(203, 0, 113, 1);
        // Who is not led to a guest has come to the host.
        let led = |guest| if named && !flushed { [guest].into() } else { ["host"].into() };
        let mut probes = Vec::new();
        let mut add = |frame: Vec<u8>, what: String, expected| probes.push(Probe { what, frame, expected });
        for (port, expected) in
            [(20_000, led("a")), (20_001, led("b")), (20_003, ["host"].into()), (22, ["host"].into())]
        {
            let packet = Ip::begins(from, uplink, Tcp(port), self.number());
            add(wire.ip(&packet), format!("{from} to the host's port {port}"), expected);
        }
        for to in [alice, bob] {
            for service in [Tcp(80), Tcp(443), Udp(53), Udp(22), Icmp, Other(47)] {
                let packet = Ip::begins(from, to, service, self.number());
                add(wire.ip(&packet), format!("{from} to {to} {service:?}"), nowhere());
            }
            for as_whom in [alice, bob, Ipv4Addr::LOCALHOST, Ipv4Addr::from(u32::from(to) - 1)] {
                let packet = Ip::begins(as_whom, to, Tcp(22), self.number());
                add(wire.ip(&packet), format!("{as_whom} from outside to {to}"), nowhere());
            }
            let inner = Ip::of(to, from, 17, udp(9, 9, b"")).bytes();
            let told = Ip::of(from, to, 1, icmp([3, 3], 0, &[inner, sign(self.number())].concat()));
            add(wire.ip(&told), format!("{from} tells {to} of what it never sent"), nowhere());
        }
        probes
    }

    fn of_guest(&mut self, when: &str, letter: char, probes: &dyn Fn(&mut Self) -> Vec<Probe>) {
        let first = self.count + 1;
        let probes = probes(self);
        let wire = Wire::of_guest(self.sandbox, letter);
        self.hold(when, &wire, &letter.to_string(), first, &probes);
    }

    fn outside(&mut self, when: &str, flushed: bool) {
        let wire = Wire::of_outside();
        for from in ["203.0.113.1", "203.0.113.9"] {
            let first = self.count + 1;
            let probes = self.inward(&wire, from, flushed);
            self.hold(when, &wire, OUTSIDE, first, &probes);
        }
    }
}

/// Where a number came to, but for whoever sent it.
fn places(heard: &Heard, number: u16, own: &str) -> BTreeSet<&'static str> {
    heard.get(&number).into_iter().flatten().copied().filter(|place| *place != own).collect()
}

#[test]
fn each_probe_comes_where_it_is_said_and_nowhere_else() {
    if !in_a_world_with("matrix::each_probe_comes_where_it_is_said_and_nowhere_else", &["perl"]) {
        return;
    }
    needs_firecracker!();
    let (began, sandbox) = (Instant::now(), fleet());
    sandbox.done("up");
    for letter in ['a', 'b', 'c'] {
        attach(&sandbox, letter);
    }
    let mut matrix = Matrix::of(&sandbox);
    for (when, flushed) in [("as it is", false), ("with the host's rules flushed", true)] {
        if flushed {
            nft("flush ruleset");
        }
        for letter in ['a', 'c'] {
            matrix.of_guest(when, letter, &|matrix| matrix.plain(letter));
            matrix.of_guest(when, letter, &|matrix| matrix.forged(letter));
        }
        matrix.outside(when, flushed);
    }

    // While others are loaded: what is allowed by both comes through, at the latest when it is sent again.
    with_taps_of(&sandbox, &['a'], || while_rules_are_swapped(&mut matrix));
    matrix.of_guest("after the swap", 'b', &|matrix| matrix.plain('b'));
    matrix.outside("after the swap", false);

    // The link that stands in the place of its TAP stays: one that ended reaches no more by it, and one that is gone nothing.
    let carol = sandbox.guest('c');
    sandbox.done(&format!("down {carol}"));
    matrix.of_guest("after its end", 'c', &|matrix| matrix.plain('c'));
    matrix.of_guest("after it is gone", 'c', &|matrix| {
        let probes = matrix.plain('c');
        let user = format!("[user.{carol}]\nnetwork = \"open\"\n");
        sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace(&user, ""));
        with_taps_of(&sandbox, &['a', 'b'], || sandbox.done("up"));
        probes.into_iter().map(|probe| Probe { expected: nowhere(), ..probe }).collect()
    });
    println!("{} probes in {:?}", matrix.count, began.elapsed());
    assert!(matrix.count >= 300);
}

/// Sends again and again while `up` loads other rules.
fn while_rules_are_swapped(matrix: &mut Matrix<'_>) {
    let text = matrix.sandbox.read("fleet.toml");
    matrix.sandbox.write("fleet.toml", text.replace("tcp = [80, 443]", "tcp = [80, 443, 8443]"));
    let first = matrix.count + 1;
    let probes = matrix.plain('b');
    let wire = Wire::of_guest(matrix.sandbox, 'b');
    let mut heard = Heard::new();
    std::thread::scope(|scope| {
        let up = scope.spawn(|| matrix.sandbox.done(&format!("up {}", matrix.sandbox.guest('a'))));
        while !up.is_finished() {
            wire.send(probes.iter().map(|probe| &probe.frame));
            for (number, places) in matrix.ears.heard() {
                heard.entry(number).or_default().extend(places);
            }
        }
    });
    for (Probe { what, expected, .. }, number) in probes.iter().zip(first..) {
        assert_eq!(places(&heard, number, "b"), *expected, "while rules are swapped: {what}");
    }
}
