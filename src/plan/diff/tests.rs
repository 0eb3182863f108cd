//! Tests on plans, with literals.

use super::super::losses;
use super::*;
use crate::base::{Rates, Sha256};
use crate::fleet::{
    Balloon, Bucket, CpuTemplate, HealthCheck, LogLevel, Metadata, NetworkLimits, RateLimiter,
    StaticTemplate, VmmKind,
};
use crate::host::container::{GuestContainer, StartedContainer};
use crate::host::firewall::Ruleset;
use crate::host::network::{NetworkSpec, PairSpec};
use crate::host::observed::{ObservedCgroup, ObservedDisk, ObservedNetwork, ObservedTap};
use crate::host::resolver::Seat;
use crate::host::state::{CgroupLimits, TapSpec};
use crate::host::wanted::{HostRules, WantedNetwork};
use crate::sys::cgroup::IoLimits;

fn name(name: &str) -> GuestName {
    name.parse().unwrap()
}

/// A guest with a disk; the number sets its uid and address.
fn declared(guest: &str, number: u8) -> WantedGuest {
    let uid = 2000 + u32::from(number);
    let tap = TapSpec {
        name: format!("sis-{guest}").parse().unwrap(),
        owner: uid,
        address: [10, 107, 0, number].into(),
        rates: Rates { up: None, down: Some("8Mbit/s".parse().unwrap()) },
    };
    WantedGuest {
        disk: Some(WantedDisk { uid, size: 512 << 20, base: Sha256::of("disk").into() }),
        cgroup: CgroupLimits {
            memory: 1 << 30,
            pids: 33,
            cpu_quota: 100_000,
            cpu_weight: 100,
            io: IoLimits::NONE,
        },
        startup: Startup::Boot(Machine {
            uid,
            tap: tap.name.clone(),
            ip: crate::base::network::guest_side(tap.address),
            ..Machine::example(VmmKind::Qemu)
        }),
        tap,
        containers: Vec::new(),
        spare: None,
    }
}

/// The guest once it is wholly up.
fn running(want: &WantedGuest) -> ObservedGuest {
    ObservedGuest {
        disk: want.disk.map(|disk| ObservedDisk { uid: disk.uid, private: true, size: disk.size }),
        tap: Some(ObservedTap {
            name: want.tap.name.clone(),
            owner: Some(want.tap.owner),
            address: Some(want.tap.address),
            up: true,
            is_in_host: false,
            hardened: true,
            rates: want.tap.rates.bytes_per_second(),
        }),
        cgroup: Some(ObservedCgroup { limits: Found::Whole(want.cgroup), oom_kills: 0 }),
        vmm: Some(ObservedVmm {
            machine: Some(want.machine().clone()),
            jailed: true,
            logged: true,
            ready: true,
            ..ObservedVmm::default()
        }),
        ..ObservedGuest::default()
    }
}

fn wanted(guests: &[&str]) -> WantedHost {
    let declared = guests.iter().zip(1..).map(|(guest, number)| (name(guest), declared(guest, number)));
    let uplink = "eth0".parse().unwrap();
    let pair = PairSpec { mtu: 1500, subnet: "10.107.0.0/16".parse().unwrap(), rates: Rates::default() };
    let network = WantedNetwork {
        spec: NetworkSpec { uplink, pair },
        rules: HostRules { ruleset: Ruleset::new("host".into()), published: Vec::new() },
    };
    WantedHost {
        network: Some(network),
        ruleset: Some(Ruleset::new(guests.join(" "))),
        stored: [(Sha256::of("image").into(), StoredKind::Image)].into(),
        guests: declared.collect(),
        ..WantedHost::default()
    }
}

/// A host on which all of that is as it should be.
fn up(wanted: &WantedHost) -> ObservedHost {
    let connected = |network: &WantedNetwork| ObservedNetwork {
        namespace: Some(Found::Whole(())),
        pair: Some(Found::Whole(network.spec.pair)),
        forwarding: [(network.spec.uplink.clone(), true)].into(),
        rules: Some(ObservedRuleset::Loaded(network.rules.ruleset.digest)),
        ..ObservedNetwork::default()
    };
    ObservedHost {
        network: wanted.network.as_ref().map(connected).unwrap_or_default(),
        ruleset: wanted.ruleset.as_ref().map(|ruleset| ObservedRuleset::Loaded(ruleset.digest)),
        stored: wanted.stored.keys().copied().collect(),
        guests: wanted.guests.iter().map(|(name, want)| (name.clone(), running(want))).collect(),
        ..ObservedHost::default()
    }
}

fn host(guests: &[&str]) -> ObservedHost {
    up(&wanted(guests))
}

fn diff(observed: &ObservedHost, wanted: &WantedHost) -> Plan {
    super::diff(observed, wanted, GuestScope::All)
}

fn alice(host: &mut ObservedHost) -> &mut ObservedGuest {
    host.guests.get_mut(&name("alice")).unwrap()
}

fn alices_vmm(host: &mut ObservedHost) -> &mut ObservedVmm {
    alice(host).vmm.as_mut().unwrap()
}

/// The machine that a guest is to boot.
fn machine<'a>(host: &'a mut WantedHost, guest: &str) -> &'a mut Machine {
    match &mut host.guests.get_mut(&name(guest)).unwrap().startup {
        Startup::Boot(machine) | Startup::Restored { machine, .. } | Startup::InUse(machine) => machine,
    }
}

/// A host on which only the data disk of a guest is left.
fn disk_of(guest: &str) -> ObservedHost {
    let disk = running(&declared(guest, 1)).disk;
    let left = ObservedGuest { disk, ..ObservedGuest::default() };
    ObservedHost { guests: [(name(guest), left)].into(), ..ObservedHost::default() }
}

fn steps(plan: &Plan) -> Vec<&Step> {
    let guests = plan.stop.iter().chain(&plan.start).flat_map(|guest| &guest.steps);
    plan.prepare.iter().chain(&plan.rules).chain(guests).collect()
}

#[test]
fn a_host_that_is_as_it_should_be_needs_nothing() {
    assert!(diff(&host(&["alice", "bob"]), &wanted(&["alice", "bob"])).is_empty());
}

#[test]
fn removing_a_user_keeps_the_data_disk() {
    let plan = diff(&host(&["alice", "bob"]), &wanted(&["alice"]));
    assert_eq!(
        plan.detailed(),
        "stop bob: no longer wanted\n  stop vmm\n  remove tap sis-bob\n  remove cgroup\n  remove jail\nload \
         nft ruleset 2bd806c97f0e\n"
    );
    assert!(diff(&disk_of("bob"), &WantedHost::default()).is_empty());
}

#[test]
fn memory_is_refused_where_a_guest_can_never_have_it_and_told_where_it_may_not_suffice() {
    use super::super::check::{HostMemory, memory};
    const MIB: u64 = 1 << 20;
    let mut plan = diff(&ObservedHost::default(), &wanted(&["alice", "bob"]));
    let each = wanted(&["alice"]).guests[&name("alice")].machine().memory_mib * MIB;
    let verdict = |plan: &Plan, total, available, freed| {
        memory(plan, HostMemory { total, available, freed }).map(|said| (said.is_certain(), said.to_string()))
    };
    assert_eq!(verdict(&plan, each, 2 * each, 0), None);
    assert_eq!(verdict(&plan, each, each, each), None, "what stops gives its memory back");
    let (certain, words) = verdict(&plan, each, 2 * each - MIB, 0).unwrap();
    assert!(!certain && words.starts_with("the guests that start may use"), "{words}");
    let (certain, words) = verdict(&plan, each - MIB, u64::MAX, u64::MAX).unwrap();
    assert!(certain && words.starts_with("alice needs"), "{words}");
    plan.start.clear();
    assert_eq!(verdict(&plan, 0, 0, 0), None, "who runs already is not counted");
}

#[test]
fn a_new_guest_has_its_rules_before_its_tap() {
    let plan = diff(&ObservedHost::default(), &wanted(&["alice"]));
    let all = steps(&plan);
    let place = |wanted: fn(&Step) -> bool| all.iter().position(|step| wanted(step)).unwrap();
    let rules = place(|step| matches!(step, Step::LoadRuleset(_)));
    let tap = place(|step| matches!(step, Step::CreateTap { .. }));
    let vmm = place(|step| matches!(step, Step::StartVmm { .. }));
    assert!(rules < tap && tap < vmm, "{}", plan.detailed());
    assert!(plan.to_string().ends_with("start alice: new\n"), "{plan}");
}

/// A request for alice's disk to have another size and owner.
fn wanting(size: u64, uid: u32) -> WantedHost {
    let mut wanted = wanted(&["alice"]);
    let disk = &mut wanted.guests.get_mut(&name("alice")).unwrap().disk;
    *disk = disk.map(|disk| WantedDisk { size, uid, ..disk });
    wanted
}

fn disk_steps(plan: &Plan) -> Vec<String> {
    let all = steps(plan).into_iter().map(ToString::to_string);
    all.filter(|step| step.contains("data disk")).collect()
}

#[test]
fn a_data_disk_that_is_there_is_not_made_and_grows_before_its_guest_starts() {
    let plan = diff(&disk_of("alice"), &wanting(1 << 30, 3000));
    let expected = ["give data disk to uid 3000", "grow data disk from 512MiB to 1GiB"];
    assert_eq!(disk_steps(&plan), expected);
    assert_eq!(plan.notes, [""; 0]);
    assert_eq!(disk_steps(&diff(&disk_of("alice"), &wanting(512 << 20, 2001))), [""; 0]);
}

#[test]
fn the_disk_of_a_running_guest_grows_when_it_next_starts() {
    let plan = diff(&host(&["alice"]), &wanting(1 << 30, 2001));
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.notes, ["the data disk of alice grows from 512MiB to 1GiB when alice next starts"]);
    let mut other_image = wanting(1 << 30, 2001);
    machine(&mut other_image, "alice").image = Sha256::of("new image").into();
    let plan = diff(&host(&["alice"]), &other_image);
    assert_eq!(disk_steps(&plan), ["grow data disk from 512MiB to 1GiB"]);
    assert_eq!(plan.notes, [""; 0]);
}

#[test]
fn a_stored_disk_is_needed_while_a_guest_has_none() {
    let mut wanted = wanted(&["alice"]);
    wanted.stored.insert(Sha256::of("disk").into(), StoredKind::Disk);
    let stores = |found: &ObservedHost| diff(found, &wanted).detailed().contains("store disk");
    assert!(stores(&ObservedHost::default()));
    assert!(!stores(&disk_of("alice")) && !stores(&host(&["alice"])));
    let nobody = super::diff(&ObservedHost::default(), &wanted, GuestScope::Only(&[]));
    assert!(!nobody.detailed().contains("store disk"), "nobody of the plan has it");
    let base = Sha256::of("disk").into();
    machine(&mut wanted, "alice").disk = MachineDisk::Ephemeral { base, size: 1, in_memory: true };
    assert!(diff(&host(&["alice"]), &wanted).detailed().contains("store disk"));
}

#[test]
fn no_disk_is_made_smaller() {
    for there in [disk_of("alice"), host(&["alice"])] {
        let wanted = wanting(256 << 20, 2001);
        let told: Vec<_> =
            shrinking(&there, &wanted, GuestScope::All).iter().map(ToString::to_string).collect();
        let expected =
            "the data disk of alice has 512MiB, but fleet.toml says 256MiB: a disk cannot be made smaller";
        assert_eq!(told, [expected]);
        assert_eq!(disk_steps(&diff(&there, &wanted)), [""; 0]);
    }
    let all = GuestScope::All;
    assert_eq!(shrinking(&disk_of("alice"), &wanting(1 << 30, 2001), all), []);
    assert_eq!(shrinking(&host(&["alice", "bob"]), &wanted(&["alice"]), all), []);
    let bob = [name("bob")];
    assert_eq!(shrinking(&disk_of("alice"), &wanting(256 << 20, 2001), GuestScope::Only(&bob)), []);
}

#[test]
fn a_changed_image_restarts_its_guests_alone_and_says_why() {
    let mut wanted = wanted(&["alice", "bob"]);
    machine(&mut wanted, "bob").image = Sha256::of("new image").into();
    let [old, new] = ["image", "new image"].map(|image| Sha256::of(image).short());
    let why = format!("image {old} -> {new}");
    let plan = diff(&host(&["alice", "bob"]), &wanted);
    assert_eq!(plan.to_string(), format!("stop bob: {why}\nstart bob: {why}\n"));
    assert_eq!(plan.counts().to_string(), "1 to restart");
}

#[test]
fn a_guest_that_died_is_cleared_away_and_started() {
    let mut found = host(&["alice"]);
    (alice(&mut found).vmm, alice(&mut found).idle_jails) = (None, true);
    let plan = diff(&found, &wanted(&["alice"]));
    assert_eq!(
        plan.detailed(),
        "start alice: no longer running
  remove tap sis-alice
  create tap sis-alice 10.107.0.1 for uid 2001
  create jail \
         with kernel 6923dd1bc046 image 6105d6cc76af
  start qemu with 1 vcpu, 512 MiB
  wait until ready
  remove jails of \
         earlier attempts
"
    );
}

#[test]
fn a_guest_that_does_not_come_up_is_cleared_away_but_for_its_disk() {
    let plan = diff(&ObservedHost::default(), &wanted(&["alice"]));
    let undo: Vec<_> = plan.start[0].undo.iter().map(ToString::to_string).collect();
    assert_eq!(undo, ["stop vmm", "remove tap sis-alice", "remove cgroup", "remove jail"]);
}

#[test]
fn a_process_that_no_record_describes_is_stopped_first() {
    let mut found = host(&["alice"]);
    alices_vmm(&mut found).machine = None;
    let plan = diff(&found, &wanted(&["alice"]));
    assert_eq!(plan.stop[0].why.to_string(), "what is running is not known");
    assert_eq!(plan.stop[0].steps[0], Step::StopVmm { guest: name("alice") });
    assert_eq!(plan.notes, [""; 0]);
}

#[test]
fn a_record_that_cannot_be_read_is_noted_and_its_guest_alone_is_started_anew() {
    let mut found = host(&["alice", "bob"]);
    let vmm = alices_vmm(&mut found);
    (vmm.machine, vmm.unreadable) = (None, vec!["cannot read the record machine.json".to_owned()]);
    let plan = diff(&found, &wanted(&["alice", "bob"]));
    let (stopped, started) = (&plan.stop[0], &plan.start[0]);
    assert_eq!((&stopped.guest, &started.guest), (&name("alice"), &name("alice")));
    assert_eq!((plan.stop.len(), plan.start.len()), (1, 1));
    assert_eq!(plan.notes, ["alice: cannot read the record machine.json"]);
    let down = super::diff(&found, &WantedHost::default(), GuestScope::Only(&[name("alice")]));
    assert_eq!(down.stop[0].steps.len(), 4, "{}", down.detailed());
    assert_eq!(down.notes, plan.notes);
}

#[test]
fn what_an_interrupted_down_left_is_removed() {
    let mut found = host(&["alice"]);
    let disk = alice(&mut found).disk;
    *alice(&mut found) = ObservedGuest { idle_jails: true, disk, ..ObservedGuest::default() };
    let plan = diff(&found, &WantedHost::default());
    assert_eq!(plan.detailed(), "stop alice: left over\n  remove jail\nremove the network namespace\n");
}

#[test]
fn a_guest_that_ran_out_of_memory_is_started_in_a_new_cgroup() {
    let mut found = host(&["alice"]);
    alice(&mut found).cgroup.as_mut().unwrap().oom_kills = 1;
    let runs = found.clone();
    (alice(&mut found).vmm, alice(&mut found).idle_jails) = (None, true);
    let plan = diff(&found, &wanted(&["alice"]));
    assert_eq!(plan.start[0].why.to_string(), "killed by the kernel: out of memory");
    let begin: Vec<_> = plan.start[0].steps.iter().take(2).map(ToString::to_string).collect();
    assert_eq!(begin, ["remove cgroup", "set cgroup limits: 1024 MiB, 33 pids, 100000 us of cpu"]);
    assert!(diff(&runs, &wanted(&["alice"])).is_empty(), "one that runs goes on");
}

#[test]
fn old_jails_are_cleared_away_beside_the_one_in_use() {
    let mut found = host(&["alice"]);
    alice(&mut found).idle_jails = true;
    let plan = diff(&found, &wanted(&["alice"]));
    assert_eq!(
        plan.detailed(),
        "change alice: jails of earlier attempts are left\n  remove jails of earlier attempts\n"
    );
    let gone = diff(&found, &WantedHost::default());
    assert!(gone.detailed().contains("  remove jail\n"), "{}", gone.detailed());
}

#[test]
fn a_missing_tap_restarts_its_guest_and_changed_rules_restart_none() {
    type Break = fn(&mut ObservedGuest);
    let broken: [(Break, &str); 4] = [
        (|guest| guest.tap = None, "its tap is gone"),
        (|guest| guest.tap.as_mut().unwrap().up = false, "its tap was changed"),
        (|guest| guest.tap.as_mut().unwrap().address = None, "its tap was changed"),
        (|guest| guest.tap.as_mut().unwrap().owner = None, "its tap was changed"),
    ];
    for (broken, why) in broken {
        let mut found = host(&["alice"]);
        broken(alice(&mut found));
        assert_eq!(diff(&found, &wanted(&["alice"])).stop[0].why.to_string(), why);
    }
    for others in [None, Some(ObservedRuleset::Unknown), Some(ObservedRuleset::Loaded(Sha256::of("other")))] {
        let found = ObservedHost { ruleset: others, ..host(&["alice"]) };
        assert_eq!(steps(&diff(&found, &wanted(&["alice"]))).len(), 1);
    }
}

#[test]
fn rules_are_loaded_between_the_namespace_and_the_way_out_of_it() {
    let plan = diff(&ObservedHost::default(), &wanted(&["alice"]));
    let words: Vec<_> = plan.rules.iter().map(ToString::to_string).collect();
    let begin = [
        "set up the network namespace",
        "load nft ruleset ",
        "load nft ruleset of the host ",
        "connect 10.107.0.0/16 with eth0: pair, forwarding",
    ];
    assert!(words.iter().zip(begin).all(|(step, begin)| step.starts_with(begin)), "{words:?}");
    assert_eq!(words.len(), begin.len());
}

#[test]
fn every_part_of_the_network_is_mended_without_a_restart() {
    type Break = fn(&mut ObservedNetwork);
    let parts: [(Break, &str); 7] = [
        (|network| network.namespace = Some(Found::Half), "set up the network namespace\n"),
        (|network| network.pair = None, "connect 10.107.0.0/16 with eth0: pair\n"),
        (|network| network.pair = Some(Found::Half), "connect 10.107.0.0/16 with eth0: pair\n"),
        (|network| network.forwarding.clear(), "connect 10.107.0.0/16 with eth0: forwarding\n"),
        (
            |network| *network.forwarding.values_mut().next().unwrap() = false,
            "connect 10.107.0.0/16 with eth0: forwarding\n",
        ),
        (
            |network| network.forwarding.extend([("eth1".parse().unwrap(), true)]),
            "connect 10.107.0.0/16 with eth0: forwarding\n",
        ),
        (|network| network.rules = Some(ObservedRuleset::Unknown), "load nft ruleset of the host "),
    ];
    for (break_it, step) in parts {
        let mut found = host(&["alice"]);
        break_it(&mut found.network);
        let plan = diff(&found, &wanted(&["alice"]));
        assert!(
            plan.detailed().starts_with(step) && plan.detailed().lines().count() == 1,
            "{}",
            plan.detailed()
        );
        let down = diff(&found, &WantedHost::default());
        assert_eq!(down.rules, [Step::RemoveNetwork]);
    }
}

#[test]
fn settings_and_rate_of_a_tap_are_put_right_while_its_guest_runs() {
    let drifted: [fn(&mut ObservedGuest); 4] = [
        |guest| guest.tap.as_mut().unwrap().hardened = false,
        |guest| guest.tap.as_mut().unwrap().rates.down = None,
        |guest| guest.tap.as_mut().unwrap().rates.up = Some(0),
        |guest| guest.tap.as_mut().unwrap().rates.down = Some(1),
    ];
    for drifted in drifted {
        let mut found = host(&["alice"]);
        drifted(alice(&mut found));
        let plan = diff(&found, &wanted(&["alice"]));
        assert_eq!(plan.stop, []);
        let all: Vec<_> = plan.start[0].all().map(ToString::to_string).collect();
        assert!(all.len() == 1 && all[0].starts_with("create tap sis-alice"), "{all:?}");
    }
}

#[test]
fn another_resolver_is_there_before_guests_are_led_to_it_and_the_last_one_until_then() {
    let resolver = |number: u16, what: &str| Resolver {
        policy: "surf".parse().unwrap(),
        seat: Seat { number, uid: 1, proxy_uid: 2 },
        digest: Sha256::of(what),
        servers: Vec::new(),
        refused: Vec::new(),
        unreached: Vec::new(),
        deny: Vec::new(),
        allow: None,
    };
    let with = |number, what| WantedHost {
        resolvers: [(number, resolver(number, what))].into(),
        ..wanted(&["alice"])
    };
    let running = |what| ObservedResolver::Running(Sha256::of(what));
    let found = |seats: &[(u16, ObservedResolver)]| ObservedHost {
        resolvers: seats.iter().copied().collect(),
        ruleset: Some(ObservedRuleset::Unknown),
        ..host(&["alice"])
    };
    let verbs = |plan: &Plan| plan.rules.iter().map(|step| step.to_string()).collect::<Vec<_>>();
    let changed = diff(&found(&[(1, running("old"))]), &with(2, "new"));
    let verbs_of = verbs(&changed);
    assert!(verbs_of[0].starts_with("start resolver") && verbs_of[1].starts_with("load nft"), "{verbs_of:?}");
    assert_eq!(verbs_of[2..], ["stop the resolver in seat 1"]);
    for (seats, steps) in [
        (vec![(2, running("new"))], 0),
        (vec![(2, running("old"))], 1),
        (vec![(2, ObservedResolver::Broken)], 1),
        (vec![], 1),
        (vec![(2, running("new")), (3, ObservedResolver::Broken)], 1),
    ] {
        let plan = diff(&found(&seats), &with(2, "new"));
        assert_eq!(plan.rules.len(), steps + 1, "{seats:?}: {:?}", verbs(&plan));
    }
    let down = diff(&found(&[(2, running("new"))]), &WantedHost::default());
    assert_eq!(down.rules, [Step::StopResolver { seat: 2 }, Step::RemoveNetwork]);
    let one = [name("alice")];
    let down = super::diff(&found(&[(2, running("new"))]), &WantedHost::default(), GuestScope::Only(&one));
    assert_eq!(down.rules, [], "others may ask it");
}

#[test]
fn guests_in_the_hosts_own_network_move_before_their_rules_go() {
    let mut found = host(&["alice"]);
    alice(&mut found).tap.as_mut().unwrap().is_in_host = true;
    found.network = ObservedNetwork { is_in_host: true, ..ObservedNetwork::default() };
    found.ruleset = None;
    let plan = diff(&found, &wanted(&["alice"]));
    assert_eq!(plan.stop[0].why.to_string(), "moves into the network namespace");
    assert_eq!(plan.rules.last(), Some(&Step::RemoveEarlierNetwork));
    assert!(!plan.rules_come_first());
    assert!(plan.start[0].steps.iter().any(|step| matches!(step, Step::CreateTap { .. })));
    let down = diff(&found, &WantedHost::default());
    assert_eq!(down.rules, [Step::RemoveEarlierNetwork]);
}

#[test]
fn the_tap_that_an_earlier_start_left_is_made_anew() {
    let mut found = host(&["alice"]);
    alice(&mut found).vmm = None;
    let plan = diff(&found, &wanted(&["alice"]));
    let all: Vec<_> = plan.start[0].all().map(|step| step.to_string()).collect();
    let place = |step: &str| all.iter().position(|found| found.starts_with(step)).unwrap();
    assert!(place("remove tap") < place("create tap") && place("create tap") < place("start"), "{all:?}");
}

#[test]
fn half_a_cgroup_is_made_whole_while_its_guest_runs() {
    let mut found = host(&["alice"]);
    alice(&mut found).cgroup.as_mut().unwrap().limits = Found::Half;
    let plan = diff(&found, &wanted(&["alice"]));
    assert!(plan.stop.is_empty() && plan.detailed().contains("set cgroup limits"), "{}", plan.detailed());
}

#[test]
fn logs_that_nobody_keeps_are_kept_again_without_a_restart() {
    let mut found = host(&["alice"]);
    alices_vmm(&mut found).logged = false;
    assert_eq!(
        diff(&found, &wanted(&["alice"])).detailed(),
        "change alice: its logs are not kept\n  keep logs again\n"
    );
}

#[test]
fn a_container_that_was_not_started_yet_is_started_without_a_restart() {
    let mut wanted = wanted(&["alice"]);
    let browser = GuestContainer::of_image("browser".parse().unwrap(), "localhost/browser");
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![browser];
    assert_eq!(
        diff(&host(&["alice"]), &wanted).detailed(),
        "change alice: container browser was not started\n  start containers browser\n"
    );
}

#[test]
fn a_container_with_a_health_check_is_waited_for_until_it_was_healthy_once() {
    let command = vec!["true".to_owned()];
    let health = HealthCheck { command, interval: 30, timeout: 30, retries: 3, start_period: 0 };
    let plain = GuestContainer::of_image("web".parse().unwrap(), "localhost/web");
    let web = GuestContainer { health: Some(health), ..plain.clone() };
    let mut wanted = wanted(&["alice"]);
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![web.clone()];
    assert_eq!(
        diff(&host(&["alice"]), &wanted).detailed(),
        "change alice: container web was not started\n  start containers web\n  wait until healthy: containers web\n"
    );
    let mut found = host(&["alice"]);
    alices_vmm(&mut found).containers = vec![StartedContainer::new(web.clone())];
    assert_eq!(
        diff(&found, &wanted).detailed(),
        "change alice: container web has not been healthy yet\n  wait until healthy: containers web\n"
    );
    alices_vmm(&mut found).containers =
        vec![StartedContainer { healthy: true, ..StartedContainer::new(web) }];
    assert!(diff(&found, &wanted).is_empty());
    // Whoever gives up the check waits for nothing.
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![plain];
    assert!(!diff(&found, &wanted).detailed().contains("wait"));
}

#[test]
fn a_container_that_is_not_declared_any_more_goes_and_another_image_takes_the_place() {
    let container = |name: &str, image: &str| GuestContainer::of_image(name.parse().unwrap(), image);
    let mut wanted = wanted(&["alice"]);
    let mut found = host(&["alice"]);
    alices_vmm(&mut found).containers =
        [container("browser", "localhost/a"), container("mail", "localhost/m")]
            .map(StartedContainer::new)
            .to_vec();
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![container("browser", "localhost/b")];
    assert_eq!(
        diff(&found, &wanted).detailed(),
        "change alice: container mail is not declared any more, container browser: image localhost/a -> localhost/b\n  \
         remove containers mail\n  start containers browser\n"
    );
    // Those of a snapshot are its own.
    let guest = wanted.guests.get_mut(&name("alice")).unwrap();
    let fresh = Box::new(guest.machine().clone());
    guest.containers.clear();
    guest.startup = Startup::Restored { machine: guest.machine().clone(), fresh };
    assert!(!diff(&found, &wanted).detailed().contains("remove containers"));
}

#[test]
fn what_a_vmm_can_change_restarts_nobody() {
    let with = |vmm, per_second, size_mib| {
        let mut host = wanted(&["alice"]);
        let machine = machine(&mut host, "alice");
        machine.vmm = vmm;
        machine.spec.network.up.bandwidth = Some(Bucket::steady(per_second));
        let statistics = 0;
        machine.spec.balloon = Some(Balloon { size_mib, deflate_on_oom: true, statistics, reporting: false });
        host
    };
    let (firecracker, qemu) = (VmmKind::Firecracker, VmmKind::Qemu);
    let plan = diff(&up(&with(firecracker, 1000, 0)), &with(firecracker, 2000, 64));
    assert_eq!(
        plan.detailed(),
        "change alice: balloon 0B -> 64MiB, network device changed\n  adjust the running firecracker: rates, balloon\n"
    );
    let plan = diff(&up(&with(qemu, 1000, 0)), &with(qemu, 1000, 64));
    assert_eq!(
        plan.detailed(),
        "change alice: balloon 0B -> 64MiB\n  adjust the running qemu: rates, balloon\n"
    );
    assert_eq!(
        diff(&up(&with(qemu, 1000, 0)), &with(qemu, 2000, 0)).stop[0].why.to_string(),
        "network device changed"
    );
    let plan = diff(&ObservedHost::default(), &with(qemu, 1000, 64));
    let last = plan.start[0].steps.last().unwrap().to_string();
    assert_eq!(last, "adjust the running qemu: rates, balloon", "QEMU starts with an empty balloon");
}

type Change = fn(&mut Machine);

/// Each field of a machine, changed, and the word that says so.
fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("vmm", |m| m.vmm = VmmKind::Firecracker),
        ("KVM", |m| m.kvm = true),
        ("uid", |m| m.uid += 1),
        ("address", |m| m.tap = "sis-other".parse().unwrap()),
        ("address", |m| m.mac = "02:53:0a:6b:00:03".parse().unwrap()),
        ("address", |m| m.ip = [10, 107, 0, 99].into()),
        ("vcpus", |m| m.vcpus += 1),
        ("memory", |m| m.memory_mib += 1),
        ("kernel", |m| m.kernel = Sha256::of("other").into()),
        ("image", |m| m.image = Sha256::of("other").into()),
        ("disk", |m| {
            m.disk = MachineDisk::Ephemeral { base: Sha256::of("disk").into(), size: 1, in_memory: false };
        }),
        ("container images", |m| m.images = Some(Sha256::of("other").into())),
        ("kernel command line", |m| m.command_line.push_str(" quiet")),
        ("snapshot", |m| m.restored_from = Some("monday".parse().unwrap())),
        ("huge pages", |m| m.spec.huge_pages = true),
        ("cpu template", |m| m.spec.cpu_template = Some(CpuTemplate::Static(StaticTemplate::T2))),
        ("seccomp filter", |m| m.spec.seccomp = Some(Sha256::of("other").into())),
        ("log level", |m| m.spec.log_level = Some(LogLevel::Debug)),
        ("metrics", |m| m.spec.metrics = true),
        ("balloon", |m| {
            m.spec.balloon =
                Some(Balloon { size_mib: 0, deflate_on_oom: true, statistics: 0, reporting: false });
        }),
        ("entropy limits", |m| m.spec.entropy.operations = Some(Bucket::steady(1))),
        ("vsock", |m| m.spec.vsock = true),
        ("metadata", |m| {
            m.spec.metadata = Some(Metadata { file: Sha256::of("other").into(), imds: false });
        }),
        ("disk limits", |m| {
            m.spec.disk = RateLimiter { bandwidth: Some(Bucket::steady(1)), operations: None }
        }),
        ("network device", |m| m.spec.network = NetworkLimits { mtu: Some(1400), ..Default::default() }),
    ]
}

#[test]
fn each_field_of_a_machine_restarts_its_guest_and_is_named() {
    let mut all = wanted(&["alice"]);
    for (what, change) in changes() {
        let mut changed = wanted(&["alice"]);
        change(machine(&mut changed, "alice"));
        let plan = diff(&host(&["alice"]), &changed);
        let why = plan.stop.first().map(|stop| stop.why.clone()).unwrap_or_default();
        assert_eq!(why.changes.iter().map(|change| change.what).collect::<Vec<_>>(), [what]);
        change(machine(&mut all, "alice"));
    }
    let value = serde_json::to_value(machine(&mut all, "alice")).unwrap();
    let (fields, spec) = (value.as_object().unwrap(), value["spec"].as_object().unwrap());
    assert_eq!(changes().len(), fields.len() - 1 + spec.len(), "a field is not changed by this test");
}

/// A change of the fleet, and how its plan tells it.
type Told = (fn(&mut WantedHost), &'static str);

#[test]
fn a_change_is_told_with_both_values() {
    let stories: [Told; 5] = [
        (|host| machine(host, "alice").memory_mib = 1024, "stop alice: memory 512MiB -> 1GiB\n"),
        (|host| machine(host, "alice").vcpus = 4, "stop alice: vcpus 1 -> 4\n"),
        (|host| machine(host, "alice").kvm = true, "stop alice: KVM off -> on\n"),
        (
            |host| machine(host, "alice").command_line.push_str(" quiet"),
            "stop alice: kernel command line none -> quiet\n",
        ),
        (
            |host| host.guests.get_mut(&name("alice")).unwrap().tap.rates = Rates::default(),
            "change alice: rate down 8000 kbit/s -> none\n",
        ),
    ];
    for (change, told) in stories {
        let mut wanted = wanted(&["alice"]);
        change(&mut wanted);
        let plan = diff(&host(&["alice"]), &wanted).to_string();
        assert!(plan.starts_with(told), "{plan}");
    }
}

#[test]
fn what_a_change_of_the_file_alters_is_never_called_drift() {
    let mut wanted = wanted(&["alice"]);
    let alice = wanted.guests.get_mut(&name("alice")).unwrap();
    (alice.cgroup.cpu_weight, alice.cgroup.pids) = (200, 50);
    let plan = diff(&host(&["alice"]), &wanted);
    assert!(plan.to_string().starts_with("change alice: pids limit "), "{plan}");
    assert!(plan.to_string().contains("cpu weight 100 -> 200"), "{plan}");
    assert_eq!(plan.counts().to_string(), "1 to change in place");
}

#[test]
fn what_guests_wrote_and_lose_is_told() {
    let found = host(&["alice", "bob", "carl"]);
    let mut wanted = wanted(&["alice", "bob", "dave"]);
    wanted.guests.get_mut(&name("dave")).unwrap().tap.address = [10, 107, 0, 99].into();
    let mut found = found;
    let base = Sha256::of("disk").into();
    let vmm = found.guests.get_mut(&name("bob")).unwrap().vmm.as_mut().unwrap();
    vmm.machine.as_mut().unwrap().disk = MachineDisk::Ephemeral { base, size: 1 << 20, in_memory: true };
    let plan = diff(&found, &wanted);
    let told = losses(&plan, &found, &wanted);
    assert_eq!(told[0], "what bob wrote is lost: its data disk goes with its jail");
    assert!(
        told[1].starts_with("the data disk of carl (512MiB) stays in the store, and dave starts"),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
    assert_eq!(plan.counts().to_string(), "1 to start, 1 to restart, 1 to stop, 1 step on the host");
    assert_eq!(losses(&diff(&host(&["alice"]), &wanted), &host(&["alice"]), &wanted), [""; 0]);
}

#[test]
fn a_plan_for_one_guest_leaves_the_others_as_they_are() {
    let mut found = host(&["alice"]);
    alice(&mut found).tap = None;
    let bob = [name("bob")];
    let plan = super::diff(&found, &wanted(&["alice", "bob"]), GuestScope::Only(&bob));
    assert_eq!(plan.to_string(), "load nft ruleset eb038e8bacc8\nstart bob: new\n");
    let down = super::diff(&host(&["alice", "bob"]), &WantedHost::default(), GuestScope::Only(&bob));
    assert_eq!(down.to_string(), "stop bob: no longer wanted\n", "the rules stay");
}

#[test]
fn a_guest_whose_address_was_brought_along_by_another_is_not_started() {
    let mut wanted = wanted(&["alice", "bob"]);
    let tap = wanted.guests[&name("alice")].tap.clone();
    let bob = wanted.guests.get_mut(&name("bob")).unwrap();
    bob.tap.address = tap.address;
    let fresh = bob.machine().clone();
    let machine = Machine { restored_from: Some("monday".parse().unwrap()), vcpus: 2, ..fresh.clone() };
    bob.startup = Startup::Restored { machine, fresh: Box::new(fresh) };
    let mut found = up(&wanted);
    found.guests.remove(&name("alice"));
    for guests in [GuestScope::All, GuestScope::Only(&[name("alice")])] {
        let plan = super::diff(&found, &wanted, guests);
        assert!(plan.is_empty(), "{plan}");
        assert!(plan.notes[0].starts_with("alice is not started: bob,"), "{:?}", plan.notes);
    }
    let told = &diff(&found, &wanted).notes[1];
    assert!(told.ends_with("`down` and `up` would boot it from scratch, with another vcpus"), "{told}");
}

#[test]
fn what_somebody_did_to_a_running_vmm_is_put_right_while_it_runs() {
    type Change = fn(&mut ObservedGuest);
    fn vmm(guest: &mut ObservedGuest) -> &mut ObservedVmm {
        guest.vmm.as_mut().unwrap()
    }
    let stories: [(Change, &str, &[&str]); 5] = [
        (|guest| vmm(guest).halted = true, "its vmm is stopped", &["let the stopped vmm run"]),
        (
            |guest| vmm(guest).outside_cgroup = true,
            "its vmm is not in its cgroup",
            &["take the vmm back into its cgroup"],
        ),
        (
            |guest| guest.disk.as_mut().unwrap().private = false,
            "its data disk is open to others",
            &["give data disk to uid 2001"],
        ),
        (
            |guest| guest.disk.as_mut().unwrap().uid = 7,
            "its data disk is open to others",
            &["give data disk to uid 2001"],
        ),
        (
            |guest| (guest.disk, guest.lost_disk) = (None, true),
            "its data disk was removed from the store",
            &["give the data disk its name in the store again"],
        ),
    ];
    for (change, why, steps) in stories {
        let mut found = host(&["alice", "bob"]);
        change(alice(&mut found));
        let plan = diff(&found, &wanted(&["alice", "bob"]));
        assert_eq!(plan.to_string(), format!("change alice: {why}\n"));
        let told: Vec<_> = plan.start[0].steps.iter().map(ToString::to_string).collect();
        assert_eq!(told, steps);
    }
}

#[test]
fn a_disk_that_only_its_jail_has_outlives_the_jail() {
    let lost = |guest: &mut ObservedGuest| (guest.disk, guest.lost_disk) = (None, true);
    let mut found = host(&["alice"]);
    lost(alice(&mut found));
    let down = diff(&found, &WantedHost::default());
    assert_eq!(down.stop[0].steps[0], Step::RelinkDisk { guest: name("alice") });
    // Its VMM is gone as well.
    (alice(&mut found).vmm, alice(&mut found).idle_jails) = (None, true);
    let up = diff(&found, &wanted(&["alice"]));
    let creates = |step: &Step| matches!(step, Step::CreateDisk { .. });
    assert!(!up.start[0].steps.iter().any(creates), "{}", up.detailed());
    assert_eq!(up.start[0].steps[0], Step::RelinkDisk { guest: name("alice") });
}

#[test]
fn a_guest_that_runs_from_a_changed_file_is_replaced_and_the_file_stored_anew() {
    let wanted = wanted(&["alice", "bob"]);
    let mut found = up(&wanted);
    let image = wanted.guests[&name("alice")].machine().image;
    found.stored.remove(&image);
    found.damaged.insert(image);
    alices_vmm(&mut found).damaged = vec![StoredKind::Image];
    let plan = diff(&found, &wanted);
    assert!(plan.to_string().contains("stop alice: its image was changed in the store\n"), "{plan}");
    assert!(
        plan.prepare.iter().any(|step| matches!(step, Step::StoreFile { digest, .. } if *digest == image))
    );
    assert!(plan.notes.iter().any(|note| note.contains("in the store was changed")), "{:?}", plan.notes);
    assert!(!plan.to_string().contains("bob"), "{plan}");
}

#[test]
fn records_of_a_vmm_whose_jail_is_gone_go_too() {
    let mut found = disk_of("alice");
    assert!(diff(&found, &WantedHost::default()).is_empty());
    alice(&mut found).idle_records = true;
    let plan = diff(&found, &WantedHost::default());
    assert_eq!(plan.detailed(), "stop alice: left over\n  remove jail\n");
}

#[test]
fn a_restart_stops_and_starts_what_it_names_and_nothing_else() {
    let wanted = wanted(&["a", "b"]);
    let observed = up(&wanted);
    let plan = restart(&observed, &wanted, &[name("a")]);
    assert_eq!(plan.to_string(), "stop a: restart\nstart a: restart\n");
    assert!(plan.detailed().contains("stop vmm"), "{}", plan.detailed());
    let mut down = observed;
    down.guests.remove(&name("a"));
    assert_eq!(restart(&down, &wanted, &[name("a")]).to_string(), "start a: new\n");
}
