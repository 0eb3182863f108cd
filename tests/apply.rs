//! Plans carried out on a host that fails or stops at any point: nothing is left behind, nobody else is disturbed.

use sisforge::apply::{Applied, Host, apply};
use sisforge::base::network::guest_side;
use sisforge::base::{Found, GuestName, Rates, Sha256};
use sisforge::fleet::{MachineSpec, VmmKind};
use sisforge::host::container::{GuestContainer, StartedContainer};
use sisforge::host::firewall::Ruleset;
use sisforge::host::network::{NetworkSpec, PairSpec};
use sisforge::host::observed::{
    ObservedCgroup, ObservedDisk, ObservedGuest, ObservedNetwork, ObservedRuleset, ObservedTap, ObservedVmm,
};
use sisforge::host::resolver::{Resolver, Seat};
use sisforge::host::state::{CgroupLimits, Machine, MachineDisk, StoredKind, TapSpec};
use sisforge::host::wanted::{HostRules, Startup, WantedDisk, WantedGuest, WantedHost, WantedNetwork};
use sisforge::plan::{GuestScope, diff};
use sisforge::sys::cgroup::IoLimits;
use sisforge::sys::report::Silent;

mod model;
mod records;
mod restore;

use model::{Fault, Inner, ModelHost};

fn name(name: &str) -> GuestName {
    name.parse().unwrap()
}

fn container(name: &str) -> GuestContainer {
    GuestContainer::of_image(name.parse().unwrap(), format!("localhost/{name}"))
}

const LIMITS: CgroupLimits =
    CgroupLimits { memory: 1 << 30, pids: 33, cpu_quota: 100_000, cpu_weight: 100, io: IoLimits::NONE };

/// A guest with a disk; the number sets its uid and address.
fn guest(guest: &str, number: u8) -> WantedGuest {
    let uid = 200_000 + u32::from(number);
    let tap = TapSpec {
        name: format!("sis-{guest}").parse().unwrap(),
        owner: uid,
        address: [10, 107, 0, 4 * number + 1].into(),
        rates: Rates { up: None, down: Some("8Mbit/s".parse().unwrap()) },
    };
    WantedGuest {
        disk: Some(WantedDisk { uid, size: 1 << 30, base: Sha256::of("disk").into() }),
        cgroup: LIMITS,
        startup: Startup::Boot(machine_of(&tap, number)),
        tap,
        containers: Vec::new(),
        spare: None,
    }
}

/// The machine of a guest that has this TAP.
fn machine_of(tap: &TapSpec, number: u8) -> Machine {
    Machine {
        vmm: VmmKind::Firecracker,
        uid: tap.owner,
        tap: tap.name.clone(),
        mac: format!("02:53:0a:6b:00:{number:02x}").parse().unwrap(),
        ip: guest_side(tap.address),
        vcpus: 1,
        memory_mib: 512,
        kernel: Sha256::of("kernel").into(),
        image: Sha256::of("image").into(),
        disk: MachineDisk::Kept,
        images: None,
        command_line: "console=ttyS0".into(),
        spec: MachineSpec::default(),
        kvm: false,
        session_disk: None,
        restored_from: None,
    }
}

/// The machine that a guest is to run.
fn machine(guest: &mut WantedGuest) -> &mut Machine {
    match &mut guest.startup {
        Startup::Boot(machine) | Startup::Restored { machine, .. } | Startup::InUse(machine) => machine,
    }
}

/// A guest that is wholly up.
fn running(want: &WantedGuest) -> ObservedGuest {
    let TapSpec { name, owner, address, rates } = want.tap.clone();
    ObservedGuest {
        disk: want.disk.map(|disk| ObservedDisk { uid: disk.uid, private: true, size: disk.size }),
        tap: Some(ObservedTap {
            name,
            owner: Some(owner),
            address: Some(address),
            up: true,
            is_in_host: false,
            hardened: true,
            rates: rates.bytes_per_second().whole(),
        }),
        cgroup: Some(ObservedCgroup { limits: Found::Whole(want.cgroup.into()), oom_kills: 0 }),
        vmm: Some(ObservedVmm {
            machine: Some(want.machine().clone()),
            jailed: true,
            logged: true,
            ready: true,
            containers: want.containers.iter().cloned().map(StartedContainer::new).collect(),
            ..ObservedVmm::default()
        }),
        ..ObservedGuest::default()
    }
}

fn is_ready(guest: &ObservedGuest) -> bool {
    guest.vmm.as_ref().is_some_and(|vmm| vmm.ready)
}

/// A guest whose disk goes with it.
fn ephemeral(name: &str, number: u8) -> WantedGuest {
    let mut guest = guest(name, number);
    guest.disk = None;
    machine(&mut guest).disk =
        MachineDisk::Ephemeral { base: Sha256::of("disk").into(), size: 1 << 20, in_memory: true };
    guest
}

fn fleet(guests: &[(&str, WantedGuest)]) -> WantedHost {
    let stored = ["kernel", "image", "disk"].map(|file| (Sha256::of(file).into(), StoredKind::Image));
    let images = guests.iter().map(|(_, guest)| (guest.machine().image, StoredKind::Image));
    // Where the first guest stands decides what is around: fleets differ in that too.
    let uplink = format!("eth{}", guests.first().map_or(0, |(_, guest)| guest.tap.owner % 2));
    let pair = PairSpec { mtu: 1500, subnet: "10.107.0.0/16".parse().unwrap(), rates: Rates::default() };
    let spec = NetworkSpec { uplink: uplink.parse().unwrap(), pair };
    WantedHost {
        network: Some(WantedNetwork {
            rules: HostRules { ruleset: Ruleset::new(format!("host {uplink}")), published: Vec::new() },
            spec,
        }),
        ruleset: Some(Ruleset::new(format!("{guests:?}"))),
        stored: stored.into_iter().chain(images).collect(),
        guests: guests.iter().map(|(guest, state)| (name(guest), state.clone())).collect(),
        resolvers: [resolver(&uplink)].into(),
    }
}

/// That of a policy which changes with the host's uplink.
fn resolver(what: &str) -> (u16, Resolver) {
    let digest = Sha256::of(what);
    let number = u16::from(digest.0[0]);
    let resolver = Resolver {
        policy: "surf".parse().unwrap(),
        seat: Seat { number, uid: 9000, proxy_uid: 9001 },
        digest,
        servers: Vec::new(),
        refused: Vec::new(),
        unreached: Vec::new(),
        deny: Vec::new(),
        allow: None,
    };
    (number, resolver)
}

fn two() -> WantedHost {
    fleet(&[("alice", guest("alice", 0)), ("bob", guest("bob", 1))])
}

/// Brings a host towards what is wanted; gives what became of it, and the host.
fn towards(before: &Inner, desired: &WantedHost, fault: Fault) -> (Applied, Inner) {
    plan_for(GuestScope::All, before, desired, fault)
}

/// The same with these guests alone.
fn plan_for(guests: GuestScope<'_>, before: &Inner, desired: &WantedHost, fault: Fault) -> (Applied, Inner) {
    let host = ModelHost::new(before, desired, fault);
    let observed = host.observe().unwrap();
    let applied = apply(&diff(&observed, desired, guests), &host, 1, &Silent, &|_, _| {});
    let after = host.inner().clone();
    (applied, after)
}

/// The host without these guests.
fn without(before: &Inner, guests: &[GuestName]) -> Inner {
    plan_for(GuestScope::Only(guests), before, &WantedHost::default(), Fault::None).1
}

fn up(desired: &WantedHost) -> Inner {
    let (applied, host) = towards(&Inner::default(), desired, Fault::None);
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    host
}

/// Holds that a host is as desired, with nothing else on it but data disks of guests that left.
fn is_as(host: &Inner, desired: &WantedHost, story: &str) {
    let rules = desired.ruleset.as_ref().map(|rules| ObservedRuleset::Loaded(rules.digest));
    assert_eq!(host.state.ruleset, rules, "{story}");
    let network = desired.network.as_ref().map(|network| ObservedNetwork {
        namespace: Some(Found::Whole(())),
        pair: Some(Found::Whole(network.spec.pair.whole())),
        forwarding: [(network.spec.uplink.clone(), true)].into(),
        rules: Some(ObservedRuleset::Loaded(network.rules.ruleset.digest)),
        ..ObservedNetwork::default()
    });
    assert_eq!(host.state.network, network.unwrap_or_default(), "{story}");
    for (name, found) in &host.state.guests {
        // A disk that was kept once is kept, even where the guest has no use for it any more.
        let mut wanted = desired.guests.get(name).map(running).unwrap_or_default();
        wanted.disk = found.disk;
        assert_eq!(*found, wanted, "{story}");
    }
    for (name, wanted) in &desired.guests {
        let found = host.state.guests.get(name);
        let uid = found.and_then(|found| Some(found.disk?.uid));
        assert!(wanted.disk.is_none_or(|disk| uid == Some(disk.uid)), "{story}: disk of {name}");
        assert!(found.is_some_and(is_ready), "{story}: {name} is up");
    }
    assert!(desired.stored.keys().all(|file| host.state.stored.contains(file)), "{story}");
}

/// Fleets that differ in all that a plan tells apart.
fn fleets() -> Vec<(&'static str, WantedHost)> {
    let mut changed = guest("alice", 0);
    machine(&mut changed).image = Sha256::of("new image").into();
    changed.cgroup = CgroupLimits { memory: 2 << 30, ..LIMITS };
    let with_containers =
        WantedGuest { containers: vec![container("one"), container("two")], ..guest("bob", 1) };
    let mut only_limits = guest("alice", 0);
    only_limits.cgroup = CgroupLimits { pids: 64, cpu_quota: 200_000, ..LIMITS };
    let mut larger_disk = guest("alice", 0);
    machine(&mut larger_disk).image = Sha256::of("new image").into();
    larger_disk.disk = larger_disk.disk.map(|disk| WantedDisk { size: 2 << 30, ..disk });
    vec![
        ("none", WantedHost::default()),
        ("alice", fleet(&[("alice", guest("alice", 0))])),
        ("both", two()),
        ("changed", fleet(&[("alice", changed), ("bob", with_containers)])),
        ("moved", fleet(&[("alice", guest("alice", 7)), ("kiosk-0", ephemeral("kiosk-0", 3))])),
        ("limits", fleet(&[("alice", only_limits), ("kiosk-0", ephemeral("kiosk-0", 4))])),
        ("alice without a disk", fleet(&[("alice", ephemeral("alice", 0))])),
        ("larger disk", fleet(&[("alice", larger_disk), ("bob", guest("bob", 1))])),
    ]
}

/// Every fault that an operation of a plan can meet, from its first to its last operation.
fn faults(operations: usize) -> impl Iterator<Item = Fault> {
    (0..operations).flat_map(|at| {
        [Fault::Crash { at, torn: false }, Fault::Crash { at, torn: true }, Fault::Once { at }]
    })
}

#[test]
fn whatever_stops_a_plan_anywhere_the_next_one_completes_the_work() {
    let mut stories = 0;
    for (from_name, from) in &fleets() {
        let start = up(from);
        for (via_name, via) in &fleets() {
            let whole = towards(&start, via, Fault::None).1.asked.len();
            for fault in faults(whole) {
                let (_, broken) = towards(&start, via, fault.clone());
                for (to_name, to) in &fleets() {
                    let story = format!("{from_name}, {via_name} with {fault:?}, {to_name}");
                    let (applied, host) = towards(&broken, to, Fault::None);
                    assert!(applied.failures.is_empty(), "{story}: {:?}", applied.failures);
                    is_as(&host, to, &story);
                    let again = towards(&host, to, Fault::None).1;
                    assert!(again.asked.is_empty(), "{story}: a second up is not empty: {:?}", again.asked);
                    stories += 1;
                }
            }
        }
    }
    assert!(stories > 5_000, "{stories}");
}

/// Holds that each guest is whole, or is not there but for its disk.
fn nobody_is_half_done(host: &Inner, story: &str) {
    for (name, guest) in &host.state.guests {
        let only_disk = ObservedGuest { disk: guest.disk, ..ObservedGuest::default() };
        let runs = guest.vmm.as_ref().is_some_and(|vmm| vmm.ready && vmm.jailed && vmm.paused.is_none());
        let is_whole = runs && guest.tap.is_some() && guest.cgroup.is_some();
        assert!(is_whole || *guest == only_disk, "{story}: {name} is half done: {guest:?}");
    }
}

#[test]
fn whoever_is_asked_to_end_leaves_no_guest_half_done() {
    for (from_name, from) in &fleets() {
        let start = up(from);
        for (to_name, to) in &fleets() {
            let whole = towards(&start, to, Fault::None).1.asked.len();
            for at in 0..=whole {
                let story = format!("{from_name}, {to_name} until {at} of {whole}");
                let (applied, left) = towards(&start, to, Fault::Asked { at });
                assert!(applied.failures.is_empty(), "{story}: {:?}", applied.failures);
                nobody_is_half_done(&left, &story);
                assert!(at > 0 || left.asked.is_empty(), "{story}: {:?}", left.asked);
                let (_, host) = towards(&left, to, Fault::None);
                assert_eq!(applied.is_cut_short, !host.asked.is_empty(), "{story}: {:?}", host.asked);
                is_as(&host, to, &story);
            }
        }
    }
}

#[test]
fn a_guest_that_dies_on_its_own_is_brought_back_alone() {
    let mut host = up(&two());
    let bob = host.state.guests.get_mut(&name("bob")).unwrap();
    (bob.vmm, bob.idle_jails) = (None, true);
    let (applied, host) = towards(&host, &two(), Fault::None);
    assert_eq!(applied.started, [name("bob")]);
    assert_eq!(
        host.asked,
        [
            "remove tap bob",
            "create tap bob",
            "create jail bob",
            "start bob",
            "await bob",
            "remove old jails bob"
        ]
    );
    is_as(&host, &two(), "after bob's death");
}

#[test]
fn a_guest_that_does_not_start_is_cleared_away_and_the_others_start() {
    let (applied, host) = towards(&Inner::default(), &two(), Fault::Named(&["await alice"]));
    assert_eq!((applied.started.as_slice(), applied.failures.len()), (&[name("bob")][..], 1));
    assert_eq!(applied.failures[0].guest, Some(name("alice")));
    assert_eq!(applied.failures[0].step, "wait until ready");
    let left = &host.state.guests[&name("alice")];
    assert_eq!(*left, ObservedGuest { disk: left.disk, ..ObservedGuest::default() });
    assert!(left.disk.is_some() && is_ready(&host.state.guests[&name("bob")]));
    let undone: Vec<_> =
        host.asked.iter().filter(|asked| asked.contains("stop") || asked.contains("remove")).collect();
    assert_eq!(undone, ["stop alice", "remove tap alice", "remove cgroup alice", "remove jail alice"]);
}

#[test]
fn without_its_rules_no_guest_starts_but_those_that_go_are_stopped() {
    let wanted = fleet(&[("bob", guest("bob", 1)), ("carol", guest("carol", 2))]);
    for broken in [&["load rules"][..], &["store"]] {
        let mut wanted = wanted.clone();
        wanted.stored.insert(Sha256::of("more").into(), StoredKind::Image);
        let (applied, host) = towards(
            &up(&two()),
            &wanted,
            Fault::Named(match broken {
                ["store"] => &["store"],
                _ => &["load rules"],
            }),
        );
        assert_eq!(applied.stopped, [name("alice")]);
        assert!(applied.started.is_empty() && applied.failures[0].guest.is_none());
        assert!(!host.state.guests.contains_key(&name("carol")));
        assert!(is_ready(&host.state.guests[&name("bob")]), "who stays is left alone");
    }
}

#[test]
fn where_the_store_cannot_be_filled_no_guest_is_stopped_that_should_run() {
    let mut wanted = fleet(&[("alice", guest("alice", 0))]);
    machine(wanted.guests.get_mut(&name("alice")).unwrap()).image = Sha256::of("other").into();
    wanted.stored.insert(Sha256::of("other").into(), StoredKind::Image);
    let (applied, host) = towards(&up(&two()), &wanted, Fault::Named(&["store"]));
    assert_eq!((applied.stopped.as_slice(), applied.failures.len()), (&[name("bob")][..], 1));
    assert!(is_ready(&host.state.guests[&name("alice")]), "{:?}", host.asked);
}

#[test]
fn new_rules_wait_neither_for_a_guest_that_comes_back_nor_for_the_store() {
    let before = two();
    let mut wanted = two();
    machine(wanted.guests.get_mut(&name("alice")).unwrap()).image = Sha256::of("other").into();
    wanted.stored.insert(Sha256::of("other").into(), StoredKind::Image);
    wanted.ruleset = Some(Ruleset::new("stricter".into()));
    let (_, host) = towards(&up(&before), &wanted, Fault::None);
    assert_eq!(host.asked[0], "load rules");
    let (_, host) = towards(&up(&before), &wanted, Fault::Named(&["store"]));
    assert_eq!(host.state.ruleset, wanted.ruleset.map(|rules| ObservedRuleset::Loaded(rules.digest)));
    assert!(is_ready(&host.state.guests[&name("alice")]));
    let (_, host) = towards(&up(&two()), &fleet(&[("alice", guest("alice", 0))]), Fault::None);
    let at = |what: &str| host.asked.iter().position(|asked| asked == what).unwrap();
    assert!(at("stop bob") < at("load rules"), "who goes is dead before: {:?}", host.asked);
}

#[test]
fn a_guest_that_cannot_be_stopped_is_not_started_again_and_loses_its_network() {
    let (_, changed) = fleets().swap_remove(3);
    let (applied, host) = towards(&up(&two()), &changed, Fault::Named(&["stop alice"]));
    assert!(applied.started == [name("bob")] && applied.stopped.is_empty());
    assert!(host.asked.contains(&"remove tap alice".to_owned()));
    assert!(host.asked.contains(&"remove jail alice".to_owned()));
    assert!(!host.asked.contains(&"start alice".to_owned()));
}

#[test]
fn rules_stay_while_a_guest_could_not_be_removed() {
    let stuck = Fault::Named(&["stop alice", "remove tap alice"]);
    let (applied, host) = towards(&up(&two()), &WantedHost::default(), stuck);
    assert_eq!(applied.stopped, [name("bob")]);
    assert!(host.state.ruleset.is_some(), "a guest that lives on has no rules");
    let (_, host) = towards(&host, &WantedHost::default(), Fault::None);
    is_as(&host, &WantedHost::default(), "down once more");
}

#[test]
fn a_container_that_does_not_start_takes_nothing_from_its_guest() {
    let bob = WantedGuest { containers: vec![container("one")], ..guest("bob", 1) };
    let wanted = fleet(&[("bob", bob)]);
    let (applied, host) = towards(&Inner::default(), &wanted, Fault::Named(&["containers"]));
    assert!(applied.started.is_empty() && applied.failures[0].step == "start containers one");
    assert!(is_ready(&host.state.guests[&name("bob")]));
    let (_, host) = towards(&host, &wanted, Fault::None);
    assert_eq!(host.asked, ["containers bob"]);
}

#[test]
fn a_plan_for_one_guest_does_nothing_to_others_however_broken_they_are() {
    let mut host = up(&two());
    let bob = host.state.guests.get_mut(&name("bob")).unwrap();
    (bob.cgroup, bob.tap) = (None, None);
    bob.vmm.as_mut().unwrap().jailed = false;
    let after = without(&host, &[name("alice")]);
    assert_eq!(after.asked, ["stop alice", "remove tap alice", "remove cgroup alice", "remove jail alice"]);
    let (_, back) = plan_for(GuestScope::Only(&[name("alice")]), &after, &two(), Fault::None);
    assert!(back.asked.iter().all(|asked| asked.ends_with("alice")), "{:?}", back.asked);
    assert_eq!(back.state.guests[&name("bob")], host.state.guests[&name("bob")]);
}
