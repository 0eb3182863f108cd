//! The network of a fleet on its host, by the program itself and real packets: what its guests reach whatever becomes of the
//! host's rules, and what the host does for others.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

mod flows;
mod frames;
mod hostile;
mod matrix;
mod names;
mod peers;
mod publish;
mod shares;
mod world;

use world::{
    HOST, MANAGEMENT, OUTSIDE, SERVER, UPLINK_ADDRESS, attach, forwards, in_a_world, ip, nft, reaches, seen,
    within,
};

/// A fleet whose policy allows all that a policy can.
fn open_fleet(users: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let text = sandbox.fleet_text(users, "").replace("uplink = \"lo\"", "uplink = \"up0\"");
    let open = "default = \"allow\"\nallow = [{ to = [\"10.0.0.0/8\", \"192.168.0.0/16\"] }]";
    sandbox.write("fleet.toml", text.replace("default = \"deny\"", open));
    sandbox
}

/// What no guest may reach: the host by each of its addresses, networks behind its other interfaces, the neighbour.
fn closed(sandbox: &Sandbox) -> Vec<String> {
    let bob = sandbox.ps(&sandbox.guest('b'))["ip"].as_str().unwrap().to_owned();
    let hosts = [UPLINK_ADDRESS, "10.20.0.1", "169.254.255.1", MANAGEMENT, &bob];
    hosts.map(|address| format!("{address}:22")).to_vec()
}

#[test]
fn what_has_taken_over_a_vmm_sends_nothing_but_by_its_tap() {
    if !in_a_world("what_has_taken_over_a_vmm_sends_nothing_but_by_its_tap") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("ab");
    sandbox.done("up");
    attach(&sandbox, 'b');
    let [alice, bob] = ['a', 'b'].map(|letter| sandbox.ps(&sandbox.guest(letter)));
    let netns = format!("--net=/run/netns/{}", sandbox.netns());
    let connects = |uid: &str, to: &str| {
        let script = format!("exec 3<>/dev/tcp/{}", to.replace(':', "/"));
        let mut command = std::process::Command::new("nsenter");
        command.args([
            &netns,
            "setpriv",
            "--reuid",
            uid,
            "--clear-groups",
            "timeout",
            "1",
            "bash",
            "-c",
            &script,
        ]);
        command.stderr(std::process::Stdio::null()).status().unwrap().success()
    };
    let uid = alice["uid"].to_string();
    let bobs = format!("{}:22", bob["ip"].as_str().unwrap());
    for to in [&format!("{SERVER}:80"), &bobs] {
        assert!(connects("0", to), "{to} does not answer root");
        assert!(!connects(&uid, to), "{to} answers the uid of a guest");
        assert!(!connects("65534", to), "{to} answers nobody");
    }
}

#[test]
fn with_the_hosts_rules_flushed_a_guest_reaches_no_more() {
    if !in_a_world("with_the_hosts_rules_flushed_a_guest_reaches_no_more") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("ab");
    sandbox.done("up");
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    assert!(
        reaches(HOST, &format!("{MANAGEMENT}:22")) && reaches("b", "127.0.0.1:22"),
        "what is closed answers"
    );
    let guest = seen("a", &format!("{SERVER}:80")).expect("the policy allows it");
    assert_eq!(guest.ip().to_string(), UPLINK_ADDRESS);
    for flushed in [false, true] {
        if flushed {
            nft("flush ruleset");
        }
        for destination in closed(&sandbox) {
            assert!(!reaches("a", &destination), "alice reaches {destination}, flushed: {flushed}");
        }
        for from in [OUTSIDE, "mg"] {
            let guest = sandbox.ps(&sandbox.guest('a'))["ip"].as_str().unwrap().to_owned();
            assert!(!reaches(from, &format!("{guest}:22")), "{from} reaches alice, flushed: {flushed}");
        }
    }
    let plan = sandbox.run("plan");
    assert!(plan.out.contains("load nft ruleset of the host"), "{plan}");
}

#[test]
fn the_host_forwards_for_its_fleet_alone_and_stops_with_it() {
    if !in_a_world("the_host_forwards_for_its_fleet_alone_and_stops_with_it") {
        return;
    }
    needs_firecracker!();
    let (sandbox, other) = (open_fleet("a"), open_fleet("a"));
    let between = || (reaches("mg", &format!("{SERVER}:80")), reaches(OUTSIDE, &format!("{MANAGEMENT}:22")));
    assert_eq!((forwards("up0"), between()), (false, (false, false)));
    sandbox.done("up");
    other.done("up");
    assert_eq!((forwards("up0"), forwards("mg0"), between()), (true, false, (false, false)));
    sandbox.done("down");
    assert!(forwards("up0"), "the other fleet needs it");
    // One that left by the end of its namespace alone, as where whoever ended it was killed, needs nothing.
    let record = "/run/sisforge/forwarding.json";
    let with_gone =
        std::fs::read_to_string(record).unwrap().replace("\"fleets\": [", "\"fleets\": [\"gone\",");
    assert!(with_gone.contains("gone"), "{with_gone}");
    std::fs::write(record, with_gone).unwrap();
    other.done("down");
    assert!(!forwards("up0"), "as it was");
    assert_eq!((sandbox.traces(), other.traces()), (vec![], vec![]));

    // A host that was a router before is one meanwhile and after.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    assert_eq!(between(), (true, true));
    sandbox.done("up");
    assert_eq!(between(), (true, true));
    sandbox.done("down");
    assert_eq!((forwards("up0"), between()), (true, (true, true)));
}

#[test]
fn what_the_host_sent_for_arrives_in_no_guest() {
    if !in_a_world("what_the_host_sent_for_arrives_in_no_guest") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("a");
    sandbox.done("up");
    attach(&sandbox, 'a');
    // A service of the host, such as a VPN, whose port a guest takes for its own.
    let service = UdpSocket::bind("0.0.0.0:1194").unwrap();
    let peer = within(OUTSIDE, || UdpSocket::bind((SERVER, 5000))).unwrap();
    let guest = within("a", || UdpSocket::bind("0.0.0.0:1194")).unwrap();
    let patience = Some(Duration::from_secs(2));
    for socket in [&service, &peer, &guest] {
        socket.set_read_timeout(patience).unwrap();
    }
    guest.send_to(b"mine", (SERVER, 5000)).unwrap();
    let (_, from) = peer.recv_from(&mut [0; 9]).unwrap();
    assert!(from.port() != 1194 && !(32_768..=60_999).contains(&from.port()), "{from}");
    peer.send_to(b"answer", from).unwrap();
    let mut buffer = [0; 9];
    assert_eq!(guest.recv(&mut buffer).unwrap(), 6, "its own answers come");
    peer.send_to(b"service", (UPLINK_ADDRESS, 1194)).unwrap();
    assert_eq!(service.recv(&mut buffer).unwrap(), 7);
    guest.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(guest.recv(&mut buffer).is_err(), "a packet for the host's service arrives in a guest");
}

#[test]
fn an_uplink_that_changes_is_followed() {
    if !in_a_world("an_uplink_that_changes_is_followed") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("a");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("\"up0\"", "\"auto\""));
    sandbox.done("up");
    let pid = sandbox.pid(&sandbox.guest('a'));
    ip("link add tun9 mtu 1400 type veth peer name tun9b");
    ip("addr add 192.168.9.1/24 dev tun9");
    ip("link set tun9 up");
    ip("link set tun9b up");
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        ip(&format!("route add {half} via 192.168.9.2 dev tun9"));
    }
    let plan = sandbox.done("plan");
    assert!(plan.contains("with tun9: pair, forwarding"), "{plan}");
    sandbox.done("up");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    assert_eq!((forwards("tun9"), forwards("up0")), (true, false));
    assert_eq!(sandbox.pid(&sandbox.guest('a')), pid, "no guest is restarted for it");
}

#[test]
fn every_part_that_goes_is_seen_and_mended_without_a_restart() {
    if !in_a_world("every_part_that_goes_is_seen_and_mended_without_a_restart") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("a");
    sandbox.done("up");
    let (a, netns) = (sandbox.guest('a'), sandbox.netns());
    let pid = sandbox.pid(&a);
    let links = ip("-o link show");
    let pair = links.split(": ").find(|word| word.starts_with("sis-_")).unwrap().split('@').next().unwrap();
    let breaks = [
        (format!("link delete {pair}"), "pair"),
        (format!("link set {pair} down"), "pair"),
        (format!("link set {pair} mtu 1300"), "pair"),
        (format!("addr flush dev {pair}"), "pair"),
        (format!("neigh flush dev {pair} nud permanent"), "pair"),
        (format!("route flush dev {pair}"), "pair"),
        (format!("-n {netns} route flush table main"), "pair"),
        (format!("-n {netns} link set uplink address 02:00:00:00:00:09"), "pair"),
    ];
    let mended = |what: &str, words: &str| {
        let plan = sandbox.run("plan --detailed-exitcode");
        assert!(plan.code == 2 && plan.out.contains(words), "{what}: {plan}");
        sandbox.done("up");
        sandbox.run("plan --detailed-exitcode").fails(0, &[]);
        assert_eq!(sandbox.pid(&a), pid, "{what}");
    };
    for (command, words) in &breaks {
        ip(command);
        mended(command, &format!("with up0: {words}"));
    }
    std::fs::write("/proc/sys/net/ipv4/conf/up0/forwarding", "0").unwrap();
    mended("forwarding", "with up0: forwarding");
    within(&netns, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
    mended("forwarding inside", "set up the network namespace");
    std::fs::remove_file("/run/sisforge/forwarding.json").unwrap();
    mended("the record", "with up0: forwarding");
    ip("addr add 10.30.0.1/24 dev mg0");
    mended("another address of the host", "load nft ruleset");
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// Makes of a fleet that runs what a sisforge without namespaces had: its TAP and its rules in the host's own network.
fn as_an_earlier_one_had_it(sandbox: &Sandbox, letter: char) {
    let (guest, netns) = (sandbox.guest(letter), sandbox.netns());
    let address = sandbox.ps(&guest)["ip"].as_str().unwrap().parse().unwrap();
    let host_side = sisforge::base::network::host_side(address);
    ip(&format!("-n {netns} link set sis-{guest} netns {}", std::process::id()));
    ip(&format!("addr add {host_side}/30 dev sis-{guest}"));
    ip(&format!("link set sis-{guest} up"));
    nft(&format!("delete table ip {netns}"));
    nft(&format!("add table inet {netns}"));
    let links = ip("-o link show");
    let pair = links.split(": ").find(|word| word.starts_with("sis-_")).unwrap().split('@').next().unwrap();
    ip(&format!("link delete {pair}"));
    ip(&format!("netns delete {netns}"));
    for record in ["host-rules.json", "ruleset.json"] {
        std::fs::remove_file(sandbox.path(&format!("store/{}/{record}", sandbox.name))).unwrap();
    }
    std::fs::remove_file("/run/sisforge/forwarding.json").unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
}

#[test]
fn a_fleet_in_the_hosts_own_network_is_taken_over() {
    if !in_a_world("a_fleet_in_the_hosts_own_network_is_taken_over") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("a");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    as_an_earlier_one_had_it(&sandbox, 'a');
    let plan = sandbox.done("plan");
    assert!(plan.contains(&format!("stop {a}: moves into the network namespace")), "{plan}");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml") + &format!("[user.{}]\n", sandbox.guest('b')));
    let b = sandbox.guest('b');
    sandbox
        .run(&format!("up {b}"))
        .fails(1, &["was started by an earlier sisforge", "`sisforge up` without names"]);
    sandbox.run("up").fails(0, &["1 started, 1 restarted"]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    assert!(!nft("list tables").contains("inet") && !ip("-o link show").contains(&format!("sis-{a}")));
    sandbox.done(&format!("down {b}"));

    as_an_earlier_one_had_it(&sandbox, 'a');
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn addresses_that_somebody_has_are_refused_by_name() {
    if !in_a_world("addresses_that_somebody_has_are_refused_by_name") {
        return;
    }
    needs_firecracker!();
    let (sandbox, other) = (open_fleet("a"), open_fleet("a"));
    other.done("up");
    let good = sandbox.read("fleet.toml");
    let with = |subnet: &str| {
        let _ = std::fs::remove_file(sandbox.path("fleet.lock"));
        sandbox.write("fleet.toml", good.replace(&sandbox.subnet(), subnet));
        sandbox.run("plan")
    };
    let fleet = format!("of sisforge fleet {}", other.name);
    for (subnet, words) in [
        ("203.0.113.0/26", "overlaps the route 203.0.113.0/24 of this host, which leads to up0"),
        ("10.16.0.0/12", "overlaps the route 10.20.0.0/24 of this host, which leads to mg0"),
        (&other.subnet(), &fleet),
        ("127.1.0.0/16", "127.1.0.0/16 overlaps 127.0.0.0/8"),
        ("224.7.0.0/16", "224.7.0.0/16 overlaps 224.0.0.0/4"),
        ("169.254.255.0/24", "169.254.255.0/24 overlaps 169.254.0.0/16"),
    ] {
        with(subnet).fails(2, &[words]);
    }
    with(&sandbox.subnet()).fails(0, &[]);
}

#[test]
fn a_forward_drop_of_another_program_is_told_until_its_remedy_was_followed() {
    if !in_a_world("a_forward_drop_of_another_program_is_told_until_its_remedy_was_followed") {
        return;
    }
    needs_firecracker!();
    let sandbox = open_fleet("a");
    sandbox.done("up");
    attach(&sandbox, 'a');
    let verdict = || {
        let checks: serde_json::Value = serde_json::from_str(&sandbox.run("doctor --json").out).unwrap();
        let found = checks["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["id"] == "forward")
            .unwrap()
            .clone();
        (found["verdict"].as_str().unwrap().to_owned(), reaches("a", &format!("{SERVER}:80")))
    };
    assert_eq!(verdict(), ("pass".into(), true));
    nft("add table ip filter");
    nft("add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }");
    assert_eq!(verdict(), ("fail".into(), false));
    for side in ["iifname", "oifname"] {
        nft(&format!("insert rule ip filter FORWARD {side} \"sis-*\" accept"));
    }
    assert_eq!(verdict(), ("pass".into(), true));
}

#[test]
fn a_fleet_puts_back_what_it_switched_on_whatever_one_in_another_network_needs() {
    needs_firecracker!();
    let ((up, is_up), (done, is_done)) = (mpsc::channel(), mpsc::channel::<()>());
    // What was moved here is dropped where this fails, so that nobody waits for it.
    std::thread::scope(move |scope| {
        // A thread with a sandbox has a network of its own.
        let other = scope.spawn(move || {
            let sandbox = Sandbox::running("b");
            up.send(()).unwrap();
            let _ = is_done.recv();
            sandbox.run("plan --detailed-exitcode").fails(0, &[]);
            sandbox.done("down");
            assert!(!forwards("lo"));
        });
        is_up.recv().unwrap();
        let sandbox = Sandbox::new();
        assert!(!forwards("lo"));
        sandbox.fleet("a");
        sandbox.done("up");
        assert!(forwards("lo"));
        sandbox.done("down");
        assert!(!forwards("lo"), "the other fleet is in another network");
        done.send(()).unwrap();
        other.join().unwrap();
    });
}
