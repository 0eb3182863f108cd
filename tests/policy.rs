//! What sisforge says of a policy without a kernel, and what the kernel does by the rules that are rendered of it: the same.
//!
//! Each probe is a packet of a guest through the rules, traced by nft: the mechanism of `policy explain --prove`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use sisforge::apply::prove::{Scratch, Sender, Shape};
use sisforge::base::PerSecond;
use sisforge::fleet::{Budget, BuiltinList, NamePolicy, NetworkPolicy, PolicyRule, Preset};
use sisforge::host::firewall::{self, Endpoint, FirewallInput};
use sisforge::host::policy::{
    Clause, Direction, Lists, Packet, PacketVerdict, Transport, clauses, decide, lists_v4,
};
use sisforge::host::resolver::{ResolverInput, list, resolvers, servers};

use crate::common::namespaces::inside_namespaces;
use crate::common::random::Random;

use Transport::{Icmp, Other, Tcp, Udp};

const SUBNET: &str = "10.107.0.0/16";
const GUEST: &str = "10.107.0.2";
const LIST: &str = "lists/unsafe.txt";
const NAMES: &str = "lists/names.txt";
/// A neighbour, the host, and somebody beyond the uplink.
const NOT_ITS_OWN: [&str; 3] = ["10.107.0.6", "10.107.0.1", "203.0.113.7"];

/// Destinations of every class.
const DESTINATIONS: [(&str, &str); 20] = [
    ("public", "198.51.100.10"),
    ("public, denied", "198.51.100.66"),
    ("public, on a list", "203.0.113.9"),
    ("public, beside the list", "203.0.114.1"),
    ("name server", "9.9.9.9"),
    ("another resolver", "8.8.8.8"),
    ("DNS over HTTPS", "1.1.1.1"),
    ("private", "10.9.0.1"),
    ("private, named", "10.1.2.3"),
    ("private, name server", "172.16.0.53"),
    ("shared", "100.64.0.1"),
    ("metadata, link-local", "169.254.169.254"),
    ("metadata, Azure", "168.63.129.16"),
    ("metadata, Alibaba", "100.100.100.200"),
    ("the host's side", "10.107.0.1"),
    ("a neighbour", "10.107.0.6"),
    ("loopback", "127.0.0.1"),
    ("this network", "0.1.2.3"),
    ("multicast", "224.0.0.251"),
    ("reserved", "250.1.2.3"),
];

const SERVICES: [Transport; 9] =
    [Tcp(80), Tcp(443), Tcp(25), Tcp(853), Tcp(8080), Udp(53), Udp(443), Icmp, Other(47)];

fn to(nets: &[&str]) -> PolicyRule {
    PolicyRule { to: nets.iter().map(|net| net.parse().unwrap()).collect(), ..PolicyRule::default() }
}

fn tcp(nets: &[&str], ports: &[u16]) -> PolicyRule {
    PolicyRule { tcp: ports.iter().map(|port| *port..=*port).collect(), ..to(nets) }
}

fn listed() -> PolicyRule {
    PolicyRule { list: Some(LIST.into()), ..PolicyRule::default() }
}

/// Probes come faster than any guest's connections.
fn unbounded() -> Budget {
    let many = PerSecond::new(1_000_000);
    Budget { connections: 65_535, new_connections: many, dns_queries: many }
}

fn policy(preset: Option<Preset>) -> NetworkPolicy {
    NetworkPolicy {
        preset,
        default_allow: preset.is_some_and(Preset::default_allow),
        allow: preset.map(Preset::allow).unwrap_or_default(),
        deny: preset.map(Preset::deny).unwrap_or_default(),
        budget: unbounded(),
        ..NetworkPolicy::default()
    }
}

/// Of every kind that a policy can be.
fn policies() -> Vec<(&'static str, NetworkPolicy)> {
    let dns = vec!["9.9.9.9".parse().unwrap(), "172.16.0.53".parse().unwrap()];
    let icmp = PolicyRule { icmp: true, ..to(&["198.51.100.0/24", "10.1.0.0/16"]) };
    let quic = PolicyRule { udp: vec![443..=443], ..to(&["0.0.0.0/0"]) };
    let listed_https = PolicyRule { tcp: vec![443..=443], ..listed() };
    vec![
        ("closed", policy(Some(Preset::Closed))),
        ("browse", NetworkPolicy { dns: dns.clone(), ..policy(Some(Preset::Browse)) }),
        ("open", policy(Some(Preset::Open))),
        ("open but for a list", NetworkPolicy { deny: vec![listed()], ..policy(Some(Preset::Open)) }),
        (
            "some ports",
            NetworkPolicy {
                dns: dns.clone(),
                allow: vec![tcp(&["0.0.0.0/0"], &[80, 443]), icmp, quic],
                deny: vec![to(&["198.51.100.66/32"]), listed_https],
                ..policy(None)
            },
        ),
        (
            "parts of private ranges",
            NetworkPolicy {
                allow: vec![tcp(&["10.1.0.0/16", "100.64.0.0/16"], &[80, 8080]), to(&["0.0.0.0/0"])],
                deny: vec![BuiltinList::Smtp.rule()],
                ..policy(None)
            },
        ),
        ("a list alone", NetworkPolicy { allow: vec![listed()], ..policy(None) }),
        (
            "deny wins over dns",
            NetworkPolicy { deny: vec![to(&["9.9.9.9/32"])], dns: dns.clone(), ..policy(None) },
        ),
        (
            "all of dns is denied",
            NetworkPolicy {
                deny: vec![to(&["9.9.9.9/32", "172.16.0.53/32"])],
                dns: dns.clone(),
                ..policy(None)
            },
        ),
        ("names that are denied", named(&dns, None, policy(Some(Preset::Browse)))),
        ("names alone", named(&dns, Some(vec![NAMES.into()]), policy(None))),
        (
            "names alone, and addresses",
            NetworkPolicy {
                rate_up: Some("1Gbit/s".parse().unwrap()),
                deny: vec![to(&["198.51.100.66/32"]), listed()],
                ..named(&dns, Some(vec![NAMES.into()]), policy(Some(Preset::Browse)))
            },
        ),
    ]
}

/// A policy with names as `fleet.toml` would have it.
fn named(dns: &[IpAddr], allow: Option<Vec<PathBuf>>, policy: NetworkPolicy) -> NetworkPolicy {
    let names = NamePolicy { place: 0..0, deny: vec![NAMES.into()], allow };
    let deny = policy.deny.iter().cloned().chain(names.deny_rules()).collect();
    NetworkPolicy { dns: dns.into(), names: Some(names), deny, ..policy }
}

fn lists() -> BTreeMap<PathBuf, Vec<IpNet>> {
    let nets = ["203.0.113.0/24", "198.51.100.10/32", "10.9.0.0/16"].map(|net| net.parse().unwrap());
    [(LIST.into(), nets.into())].into()
}

fn render(policy: &NetworkPolicy, lists: &BTreeMap<PathBuf, Vec<IpNet>>, with_guest: bool) -> String {
    let endpoint = Endpoint {
        name: "alice".parse().unwrap(),
        tap: "sis-alice".parse().unwrap(),
        mac: "02:53:0a:6b:00:02".parse().unwrap(),
        ip: GUEST.parse().unwrap(),
        policy: "surf".parse().unwrap(),
    };
    let policies = [("surf".parse().unwrap(), policy.clone())].into();
    let names = Arc::new(list::parse("names.example\n").unwrap());
    let resolvers = resolvers(&ResolverInput {
        policies: &BTreeMap::iter(&policies).collect(),
        lists: &[(NAMES.into(), names)].into(),
        addresses: lists,
        subnet: SUBNET.parse().unwrap(),
        closed: &[],
        uids: &(200_000..=265_535),
        taken: &BTreeSet::new(),
        running: &BTreeMap::new(),
    });
    let input = FirewallInput {
        resolvers: &resolvers.unwrap(),
        fleet: &"sis".parse().unwrap(),
        uplink: &"up0".parse().unwrap(),
        subnet: SUBNET.parse().unwrap(),
        closed: &[],
        ports: 60_000,
        endpoints: if with_guest { vec![endpoint] } else { Vec::new() },
        policies: &policies,
        lists,
    };
    firewall::render(&input).text
}

/// A scratch network, in the copy of a test that has one of its own.
fn scratch(test: &str) -> Option<Scratch> {
    if !inside_namespaces(&format!("policy::{test}"), &["unshare", "ip", "nft", "mount"]) {
        return None;
    }
    let sender = Sender {
        tap: "sis-alice".parse().unwrap(),
        mac: "02:53:0a:6b:00:02".parse().unwrap(),
        ip: GUEST.parse().unwrap(),
        uplink: "up0".parse().unwrap(),
    };
    Some(Scratch::build(sender).unwrap_or_else(|error| panic!("{error:?}")))
}

/// Whether explain says that a packet of the guest passes.
fn says(clauses: &[Clause], lists: &Lists, to: Ipv4Addr, transport: Transport) -> bool {
    let packet = Packet { direction: Direction::Out, peer: to, transport };
    decide(clauses, lists, packet).verdict == PacketVerdict::Allowed
}

/// Sends all of these, and gives how many there were; panics where the kernel did otherwise than is said.
fn hold(
    scratch: &mut Scratch,
    name: &str,
    policy: &NetworkPolicy,
    lists: &BTreeMap<PathBuf, Vec<IpNet>>,
    probes: impl IntoIterator<Item = (Ipv4Addr, Transport)>,
) -> usize {
    let clauses = clauses(policy, lists, SUBNET.parse().unwrap());
    let known = lists_v4(lists);
    let mut count = 0;
    for (to, transport) in probes {
        let proof = scratch
            .send(to, transport)
            .unwrap_or_else(|error| panic!("{name}: {to} {transport:?}: {error:?}"));
        let said = says(&clauses, &known, to, transport);
        assert_eq!(said, proof.passed, "{name}: {to} {transport:?}: {proof:#?}\n{policy:#?}");
        count += 1;
    }
    count
}

fn matrix() -> impl Iterator<Item = (Ipv4Addr, Transport)> {
    let to = |(_, to): &(&str, &str)| to.parse().unwrap();
    DESTINATIONS.iter().map(to).flat_map(|to| SERVICES.map(move |service| (to, service)))
}

#[test]
fn each_probe_of_the_matrix_meets_what_is_said() {
    let Some(mut scratch) = scratch("each_probe_of_the_matrix_meets_what_is_said") else { return };
    let mut count = 0;
    let mut passed = 0;
    for (name, policy) in policies() {
        scratch.load(&render(&policy, &lists(), true)).unwrap();
        count += hold(&mut scratch, name, &policy, &lists(), matrix());
        let (clauses, known) = (clauses(&policy, &lists(), SUBNET.parse().unwrap()), lists_v4(&lists()));
        passed += matrix().filter(|(to, transport)| says(&clauses, &known, *to, *transport)).count();
    }
    assert_eq!(count, policies().len() * DESTINATIONS.len() * SERVICES.len());
    assert!(count >= 300 && passed > count / 10, "{passed} of {count} pass");
}

#[test]
fn what_is_not_the_guests_own_or_comes_in_parts_or_unasked_never_passes() {
    let Some(mut scratch) = scratch("what_is_not_the_guests_own_or_comes_in_parts_or_unasked_never_passes")
    else {
        return;
    };
    let open = policy(Some(Preset::Open));
    scratch.load(&render(&open, &lists(), true)).unwrap();
    let mut shapes: Vec<Shape> = NOT_ITS_OWN.map(|from| Shape::From(from.parse().unwrap())).into();
    shapes.extend([Shape::FirstFragment, Shape::LaterFragment, Shape::Inward]);
    let mut count = 0;
    for (_, to) in &DESTINATIONS[..10] {
        for service in [Tcp(80), Udp(53), Udp(443), Icmp] {
            for shape in &shapes {
                let proof = scratch.send_as(to.parse().unwrap(), service, *shape).unwrap();
                assert!(!proof.passed, "{shape:?} {to} {service:?}: {proof:#?}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 240);
    assert!(
        scratch.send("198.51.100.10".parse().unwrap(), Tcp(80)).unwrap().passed,
        "the guest's own still does"
    );
}

#[test]
fn before_its_rules_are_there_and_after_they_are_gone_nothing_of_a_guest_passes() {
    let Some(mut scratch) =
        scratch("before_its_rules_are_there_and_after_they_are_gone_nothing_of_a_guest_passes")
    else {
        return;
    };
    let open = policy(Some(Preset::Open));
    let (with, without) = (render(&open, &lists(), true), render(&open, &lists(), false));
    let public = || DESTINATIONS[..4].iter().map(|(_, to)| to.parse().unwrap());
    for (rules, passes) in [(&without, false), (&with, true), (&without, false)] {
        scratch.load(rules).unwrap();
        for to in public() {
            for service in SERVICES {
                let proof = scratch.send(to, service).unwrap();
                let leaves = !matches!(service, Other(_));
                assert_eq!(proof.passed, passes && leaves, "{to} {service:?}: {proof:#?}");
            }
        }
    }
}

#[test]
fn while_rules_are_swapped_each_probe_meets_what_both_say() {
    let Some(mut scratch) = scratch("while_rules_are_swapped_each_probe_meets_what_both_say") else { return };
    let base = |port| NetworkPolicy { allow: vec![tcp(&["0.0.0.0/0"], &[80, port])], ..policy(None) };
    let rules = [base(443), base(8080)].map(|policy| render(&policy, &lists(), true));
    scratch.load(&rules[1]).unwrap();
    for text in rules.iter().cycle().take(40) {
        let swapping = scratch.load_beside(text);
        let mut proofs = Vec::new();
        for (service, passes) in [(Tcp(80), true), (Tcp(25), false), (Udp(53), false)] {
            proofs.push((scratch.send("198.51.100.10".parse().unwrap(), service).unwrap(), service, passes));
        }
        swapping.join().unwrap().unwrap();
        for (proof, service, passes) in proofs {
            assert_eq!(proof.passed, passes, "{service:?}: {proof:#?}");
        }
    }
}

/// How many random policies are tried; `SISFORGE_TEST_POLICIES` says otherwise.
const POLICIES: usize = 25;

#[test]
fn what_is_said_of_random_policies_holds_for_random_packets() {
    let Some(mut scratch) = scratch("what_is_said_of_random_policies_holds_for_random_packets") else {
        return;
    };
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<usize>().ok());
    let seed = number("SISFORGE_TEST_SEED").unwrap_or(7);
    println!("SISFORGE_TEST_SEED={seed}");
    let mut random = Random(seed as u64);
    for world in 0..number("SISFORGE_TEST_POLICIES").unwrap_or(POLICIES) {
        let nets: Vec<String> = (0..6).map(|_| net(&mut random)).collect();
        let lists: BTreeMap<PathBuf, Vec<IpNet>> =
            [(LIST.into(), (0..random.below(4)).map(|_| random.one_of(&nets).parse().unwrap()).collect())]
                .into();
        let mut policy = random_policy(&mut random, &nets);
        if servers(&policy, &lists, SUBNET.parse().unwrap()).is_empty() {
            // What is refused before any rules are made of it.
            policy.names = None;
        }
        scratch.load(&render(&policy, &lists, true)).unwrap();
        let probes: Vec<_> = (0..24).map(|_| packet(&mut random, &nets)).collect();
        let name = format!("seed {seed}, world {world}");
        hold(&mut scratch, &name, &policy, &lists, probes);
        // What is not the guest's own, or was not asked for, passes by no policy.
        for _ in 0..4 {
            let ((to, transport), shape) = (packet(&mut random, &nets), shape(&mut random, &nets));
            let proof = scratch.send_as(to, transport, shape).unwrap();
            assert!(!proof.passed, "{name}: {shape:?} {to} {transport:?}: {proof:#?}\n{policy:#?}");
        }
    }
}

fn shape(random: &mut Random, nets: &[String]) -> Shape {
    let other = Some(address(random, nets)).filter(|other| other.to_string() != GUEST);
    let forged = Shape::From(other.unwrap_or(Ipv4Addr::BROADCAST));
    *random.one_of(&[Shape::FirstFragment, Shape::LaterFragment, Shape::Inward, forged])
}

/// Prefixes that overlap each other, private ranges and what is never open.
fn net(random: &mut Random) -> String {
    let first = *random.one_of(&["10", "172", "100", "169", "198", "203", "8"]);
    let second = *random.one_of(&["0", "16", "64", "51", "107", "254"]);
    let length = *random.one_of(&[0, 8, 12, 16, 24, 32]);
    let net: ipnet::Ipv4Net =
        format!("{first}.{second}.{}.{}/{length}", random.below(3), random.below(4)).parse().unwrap();
    net.trunc().to_string()
}

fn rule(random: &mut Random, nets: &[String]) -> PolicyRule {
    let nets = [random.one_of(nets).as_str(), random.one_of(nets).as_str()];
    let mut rule = to(&nets);
    if random.once_in(4) {
        rule = PolicyRule { list: Some(LIST.into()), to: Vec::new(), ..rule };
    }
    if random.once_in(2) {
        let first = *random.one_of(&[53, 80, 442]);
        rule.tcp = vec![first..=first + random.below(3) as u16, 80..=81];
    }
    if random.once_in(3) {
        rule.udp = vec![53..=53];
    }
    rule.icmp = random.once_in(4);
    rule
}

fn random_policy(random: &mut Random, nets: &[String]) -> NetworkPolicy {
    let mut rules =
        |most: usize| -> Vec<PolicyRule> { (0..random.below(most)).map(|_| rule(random, nets)).collect() };
    let (allow, deny) = (rules(4), rules(3));
    let dns = if random.once_in(2) { vec![address(random, nets).into()] } else { Vec::new() };
    let policy = NetworkPolicy { default_allow: random.once_in(3), allow, deny, dns, ..policy(None) };
    if !random.once_in(4) {
        return policy;
    }
    let only = random.once_in(2).then(|| vec![NAMES.into()]);
    named(&[address(random, nets).into()], only, policy)
}

/// One that a prefix has, or its neighbour.
fn address(random: &mut Random, nets: &[String]) -> Ipv4Addr {
    let net: ipnet::Ipv4Net = random.one_of(nets).parse().unwrap();
    let edge = *random.one_of(&[u32::from(net.network()), u32::from(net.broadcast()), 0xc633_640a]);
    // Within the ports of a class, beside its ends.
    let address = edge.wrapping_add(random.below(3) as u32).wrapping_sub(1);
    Ipv4Addr::from(address.clamp(0x0100_0000, 0xdfff_ffff))
}

fn packet(random: &mut Random, nets: &[String]) -> (Ipv4Addr, Transport) {
    let service =
        *random.one_of(&[Tcp(53), Tcp(80), Tcp(81), Tcp(443), Tcp(9), Udp(53), Udp(54), Icmp, Other(47)]);
    (address(random, nets), service)
}
