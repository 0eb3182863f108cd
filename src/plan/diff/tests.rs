//! Tests on plans, with literals.

mod containers;
mod disks;
mod network;
mod words;

use super::super::losses;
use super::*;
use crate::base::{Found, Rates, Sha256};
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
            rates: want.tap.rates.bytes_per_second().whole(),
        }),
        cgroup: Some(ObservedCgroup { limits: Found::Whole(want.cgroup.into()), oom_kills: 0 }),
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
        pair: Some(Found::Whole(network.spec.pair.whole())),
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
    let rules = place(|step| matches!(step, Step::Network(NetworkStep::LoadRuleset(_))));
    let tap = place(|step| matches!(step, Step::CreateTap { .. }));
    let vmm = place(|step| matches!(step, Step::StartVmm { .. }));
    assert!(rules < tap && tap < vmm, "{}", plan.detailed());
    assert!(plan.to_string().ends_with("start alice: new\n"), "{plan}");
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
fn what_a_vmm_left_is_ended_before_its_guest_is_started_again() {
    let mut found = host(&["alice"]);
    (alice(&mut found).vmm, alice(&mut found).strays) = (None, true);
    let plan = diff(&found, &wanted(&["alice"]));
    let (stopped, started) = (&plan.stop[0], &plan.start[0]);
    assert_eq!(stopped.why.to_string(), "its vmm has ended, and left processes");
    assert_eq!((&stopped.steps[..], started.starts()), (&[Step::StopVmm { guest: name("alice") }][..], true));
    // One that is not to be started again is not left to them.
    let mut left = plan.clone();
    left.leave_out(&[name("alice")].into());
    assert_eq!((left.stop, left.start.len()), (plan.stop, 0));
    let down = diff(&found, &WantedHost::default());
    assert_eq!(down.stop[0].steps[0], Step::StopVmm { guest: name("alice") });
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

/// A change of the fleet, and how its plan tells it.
type Told = (fn(&mut WantedHost), &'static str);

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
