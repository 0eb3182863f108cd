//! Tests on plans, with literals.

use super::*;
use crate::base::Sha256;
use crate::fleet::{Balloon, Bucket, ContainerSpec, MachineSpec, VmmKind};
use crate::host::firewall::Ruleset;
use crate::host::state::{CgroupLimits, DiskState, MachineDisk, StoredKind, TapSpec};
use crate::sys::cgroup::IoLimits;

fn name(name: &str) -> GuestName {
    name.parse().unwrap()
}

/// A guest that is wholly up; the number sets its uid and address.
fn running(guest: &str, number: u8) -> GuestState {
    let uid = 2000 + u32::from(number);
    let tap = format!("sis-{guest}").parse().unwrap();
    GuestState {
        disk: Some(DiskState { uid, size: 512 << 20, base: Some(Sha256::of("disk").into()) }),
        tap: Some(TapSpec { name: tap, owner: uid, address: [10, 107, 0, number].into() }),
        cgroup: Some(CgroupLimits {
            memory: 1 << 30,
            pids: 33,
            cpu_quota: 100_000,
            cpu_weight: 100,
            io: IoLimits::NONE,
        }),
        jail: true,
        old_jails: false,
        oom_kills: 0,
        occupied: true,
        machine: Some(Machine {
            vmm: VmmKind::Qemu,
            uid,
            tap: format!("sis-{guest}").parse().unwrap(),
            mac: "02:53:0a:6b:00:02".parse().unwrap(),
            vcpus: 1,
            memory_mib: 512,
            kernel: Sha256::of("kernel").into(),
            image: Sha256::of("image").into(),
            disk: MachineDisk::Kept,
            images: None,
            command_line: "console=ttyS0".into(),
            spec: MachineSpec::default(),
            restored_from: None,
        }),
        logged: true,
        ready: true,
        ..GuestState::default()
    }
}

fn host(guests: &[&str]) -> HostState {
    let up = guests.iter().zip(1..).map(|(guest, number)| (name(guest), running(guest, number)));
    HostState {
        forwarding: true,
        ruleset: Some(Ruleset::new(guests.join(" "))),
        stored: [(Sha256::of("image").into(), StoredKind::Image)].into(),
        guests: up.collect(),
        snapshot_leftovers: false,
    }
}

/// A host on which only the data disk of a guest is left.
fn disk_of(guest: &str) -> HostState {
    let disk = running(guest, 1).disk;
    let left = GuestState { disk, ..GuestState::default() };
    HostState { guests: [(name(guest), left)].into(), ..HostState::default() }
}

fn steps(plan: &Plan) -> Vec<&Step> {
    let guests = plan.stop.iter().chain(&plan.start).flat_map(|guest| &guest.steps);
    plan.prepare.iter().chain(&plan.rules).chain(guests).collect()
}

#[test]
fn a_host_that_is_as_it_should_be_needs_nothing() {
    assert!(diff(&host(&["alice", "bob"]), &host(&["alice", "bob"])).is_empty());
}

#[test]
fn removing_a_user_keeps_the_data_disk() {
    let plan = diff(&host(&["alice", "bob"]), &host(&["alice"]));
    assert_eq!(
        plan.detailed(),
        "stop bob: no longer wanted\n  stop vmm\n  remove tap sis-bob\n  remove cgroup\n  remove jail\nload nft ruleset 2bd806c97f0e\n"
    );
    assert!(diff(&disk_of("bob"), &HostState::default()).is_empty());
}

#[test]
fn a_new_guest_has_its_rules_before_its_tap() {
    let plan = diff(&HostState::default(), &host(&["alice"]));
    let all = steps(&plan);
    let place = |wanted: fn(&Step) -> bool| all.iter().position(|step| wanted(step)).unwrap();
    let rules = place(|step| matches!(step, Step::LoadRuleset(_)));
    let tap = place(|step| matches!(step, Step::CreateTap(_)));
    let vmm = place(|step| matches!(step, Step::StartVmm { .. }));
    assert!(rules < tap && tap < vmm, "{}", plan.detailed());
    assert!(plan.to_string().ends_with("start alice: new\n"), "{plan}");
}

/// A wish for alice's disk to have another size and owner.
fn wanting(size: u64, uid: u32) -> HostState {
    let mut wanted = host(&["alice"]);
    let disk = &mut wanted.guests.get_mut(&name("alice")).unwrap().disk;
    *disk = disk.map(|disk| DiskState { size, uid, ..disk });
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
    let alice = other_image.guests.get_mut(&name("alice")).unwrap();
    alice.machine.as_mut().unwrap().image = Sha256::of("new image").into();
    let plan = diff(&host(&["alice"]), &other_image);
    assert_eq!(disk_steps(&plan), ["grow data disk from 512MiB to 1GiB"]);
    assert_eq!(plan.notes, [""; 0]);
}

#[test]
fn a_stored_disk_is_needed_while_a_guest_has_none() {
    let mut wanted = host(&["alice"]);
    wanted.stored.insert(Sha256::of("disk").into(), StoredKind::Disk);
    let stores = |found: &HostState| diff(found, &wanted).detailed().contains("store disk");
    assert!(stores(&HostState::default()));
    assert!(!stores(&disk_of("alice")) && !stores(&host(&["alice"])));
    let base = Sha256::of("disk").into();
    let disk = MachineDisk::Ephemeral { base, size: 1, in_memory: true };
    wanted.guests.get_mut(&name("alice")).unwrap().machine.as_mut().unwrap().disk = disk;
    assert!(diff(&host(&["alice"]), &wanted).detailed().contains("store disk"));
}

#[test]
fn no_disk_is_made_smaller() {
    for there in [disk_of("alice"), host(&["alice"])] {
        let wanted = wanting(256 << 20, 2001);
        let told: Vec<_> = shrinking(&there, &wanted).iter().map(ToString::to_string).collect();
        let expected =
            "the data disk of alice has 512MiB, and fleet.toml says 256MiB: no disk is made smaller";
        assert_eq!(told, [expected]);
        assert_eq!(disk_steps(&diff(&there, &wanted)), [""; 0]);
    }
    assert_eq!(shrinking(&disk_of("alice"), &wanting(1 << 30, 2001)), []);
    assert_eq!(shrinking(&host(&["alice", "bob"]), &host(&["alice"])), []);
}

#[test]
fn a_changed_image_restarts_its_guests_alone_and_says_why() {
    let mut wanted = host(&["alice", "bob"]);
    let bob = wanted.guests.get_mut(&name("bob")).unwrap();
    bob.machine.as_mut().unwrap().image = Sha256::of("new image").into();
    assert_eq!(
        diff(&host(&["alice", "bob"]), &wanted).to_string(),
        "stop bob: image changed\nstart bob: image changed\n"
    );
}

#[test]
fn a_guest_that_died_is_cleared_away_and_started() {
    let mut found = host(&["alice"]);
    let alice = found.guests.get_mut(&name("alice")).unwrap();
    (alice.machine, alice.occupied, alice.ready) = (None, false, false);
    let plan = diff(&found, &host(&["alice"]));
    assert_eq!(
        plan.detailed(),
        "start alice: not running any more\n  create jail with kernel 6923dd1bc046 image 6105d6cc76af\n  start qemu with 1 vcpu, 512 MiB\n  wait until ready\n  remove jails of earlier attempts\n"
    );
}

#[test]
fn a_guest_that_does_not_come_up_is_cleared_away_but_for_its_disk() {
    let plan = diff(&HostState::default(), &host(&["alice"]));
    let undo: Vec<_> = plan.start[0].undo.iter().map(ToString::to_string).collect();
    assert_eq!(undo, ["stop vmm", "remove tap sis-alice", "remove cgroup", "remove jail"]);
}

#[test]
fn a_process_that_no_record_describes_is_stopped_first() {
    let mut found = host(&["alice"]);
    found.guests.get_mut(&name("alice")).unwrap().machine = None;
    let plan = diff(&found, &host(&["alice"]));
    assert_eq!(plan.stop[0].why, "what runs is not known");
    assert_eq!(plan.stop[0].steps[0], Step::StopVmm { guest: name("alice") });
}

#[test]
fn what_an_interrupted_down_left_is_removed() {
    let mut found = host(&["alice"]);
    let alice = found.guests.get_mut(&name("alice")).unwrap();
    *alice = GuestState { jail: true, disk: alice.disk, ..GuestState::default() };
    let plan = diff(&found, &HostState::default());
    assert_eq!(plan.detailed(), "stop alice: left over\n  remove jail\nremove nft ruleset\n");
}

#[test]
fn a_guest_that_ran_out_of_memory_is_started_in_a_new_cgroup() {
    let mut found = host(&["alice"]);
    let alice = found.guests.get_mut(&name("alice")).unwrap();
    (alice.machine, alice.occupied, alice.ready, alice.oom_kills) = (None, false, false, 1);
    let plan = diff(&found, &host(&["alice"]));
    assert_eq!(plan.start[0].why, "killed by the kernel: out of memory");
    let begin: Vec<_> = plan.start[0].steps.iter().take(2).map(ToString::to_string).collect();
    assert_eq!(begin, ["remove cgroup", "set cgroup limits: 1024 MiB, 33 pids, 100000 us of cpu"]);
    found.guests.get_mut(&name("alice")).unwrap().machine =
        host(&["alice"]).guests[&name("alice")].machine.clone();
    let alice = found.guests.get_mut(&name("alice")).unwrap();
    (alice.occupied, alice.ready) = (true, true);
    assert!(diff(&found, &host(&["alice"])).is_empty(), "one that runs goes on");
}

#[test]
fn old_jails_are_cleared_away_beside_the_one_in_use() {
    let mut found = host(&["alice"]);
    found.guests.get_mut(&name("alice")).unwrap().old_jails = true;
    let plan = diff(&found, &host(&["alice"]));
    assert_eq!(plan.detailed(), "start alice: drifted\n  remove jails of earlier attempts\n");
    let gone = diff(&found, &HostState::default());
    assert!(gone.detailed().contains("  remove jail\n"), "{}", gone.detailed());
}

#[test]
fn a_missing_tap_restarts_its_guest_and_changed_rules_restart_none() {
    let mut found = host(&["alice"]);
    found.guests.get_mut(&name("alice")).unwrap().tap = None;
    found.ruleset = Some(Ruleset::new("someone's".into()));
    let plan = diff(&found, &host(&["alice"]));
    assert_eq!(plan.stop[0].why, "tap changed");
    let mut found = host(&["alice"]);
    found.ruleset = Some(Ruleset::new("someone's".into()));
    assert_eq!(steps(&diff(&found, &host(&["alice"]))).len(), 1);
}

#[test]
fn logs_that_nobody_keeps_are_kept_again_without_a_restart() {
    let mut found = host(&["alice"]);
    found.guests.get_mut(&name("alice")).unwrap().logged = false;
    assert_eq!(
        diff(&found, &host(&["alice"])).detailed(),
        "start alice: its logs are not kept\n  keep logs again\n"
    );
}

#[test]
fn a_container_that_was_not_started_yet_is_started_without_a_restart() {
    let mut wanted = host(&["alice"]);
    let browser = ContainerSpec { name: "browser".parse().unwrap(), image: "localhost/browser".into() };
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![browser];
    assert_eq!(
        diff(&host(&["alice"]), &wanted).detailed(),
        "start alice: drifted\n  start containers browser\n"
    );
}

#[test]
fn what_a_vmm_can_change_restarts_nobody() {
    let with = |vmm, per_second, size_mib| {
        let mut host = host(&["alice"]);
        let machine = host.guests.get_mut(&name("alice")).unwrap().machine.as_mut().unwrap();
        machine.vmm = vmm;
        machine.spec.network.up.bandwidth = Some(Bucket::steady(per_second));
        let statistics = 0;
        machine.spec.balloon = Some(Balloon { size_mib, deflate_on_oom: true, statistics, reporting: false });
        host
    };
    let (firecracker, qemu) = (VmmKind::Firecracker, VmmKind::Qemu);
    let plan = diff(&with(firecracker, 1000, 0), &with(firecracker, 2000, 64));
    assert_eq!(plan.detailed(), "start alice: drifted\n  adjust the running firecracker: rates, balloon\n");
    let plan = diff(&with(qemu, 1000, 0), &with(qemu, 1000, 64));
    assert_eq!(plan.detailed(), "start alice: drifted\n  adjust the running qemu: rates, balloon\n");
    assert_eq!(diff(&with(qemu, 1000, 0), &with(qemu, 2000, 0)).stop[0].why, "network device changed");
    let plan = diff(&HostState::default(), &with(qemu, 1000, 64));
    let last = plan.start[0].steps.last().unwrap().to_string();
    assert_eq!(last, "adjust the running qemu: rates, balloon", "QEMU starts with an empty balloon");
}

#[test]
fn up_of_one_guest_leaves_the_others_as_they_are() {
    let found = host(&["alice"]);
    let wanted = found.clone().with_guests_of(&[name("bob")], &host(&["alice", "bob"]));
    assert_eq!(diff(&found, &wanted).to_string(), "start bob: new\n");
}
