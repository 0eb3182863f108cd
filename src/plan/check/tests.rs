use super::*;
use crate::base::{Rates, Sha256};
use crate::fleet::{MachineSpec, VmmKind};
use crate::host::state::{StoredKind, TapSpec};
use crate::plan::StepReason;

fn name(name: &str) -> GuestName {
    name.parse().unwrap()
}

/// A machine of so many MiB.
fn machine(uid: u32, memory_mib: u64, huge_pages: bool) -> Machine {
    let spec = MachineSpec { huge_pages, ..MachineSpec::default() };
    Machine { uid, memory_mib, spec, ..Machine::example(VmmKind::Firecracker) }
}

fn steps(guest: &str, steps: Vec<Step>) -> GuestSteps {
    GuestSteps::new(&name(guest), StepReason::found("new"), steps)
}

fn start(guest: &str, machine: Machine) -> GuestSteps {
    let guest_name = name(guest);
    let tap = TapSpec {
        name: format!("sis-{guest}").parse().unwrap(),
        owner: machine.uid,
        address: [10, 107, 0, 1].into(),
        rates: Rates::default(),
    };
    let tap = Step::CreateTap { guest: guest_name.clone(), tap };
    steps(guest, vec![tap, Step::StartVmm { guest: guest_name, machine }])
}

fn stop(guest: &str) -> GuestSteps {
    steps(guest, vec![Step::StopVmm { guest: name(guest) }])
}

const MIB: u64 = 1 << 20;

#[test]
fn memory_that_one_guest_can_never_have_is_told_apart_from_promises() {
    let plan = Plan {
        start: vec![start("a", machine(1, 512, false)), start("b", machine(2, 512, false))],
        ..Plan::default()
    };
    let host = |total, available, freed| HostMemory {
        total: total * MIB,
        available: available * MIB,
        freed: freed * MIB,
    };
    assert_eq!(memory(&plan, host(2048, 1024, 0)), None);
    assert_eq!(memory(&plan, host(2048, 600, 424)), None, "what stops makes room");
    let short = memory(&plan, host(2048, 1000, 0)).unwrap();
    assert_eq!(short, MemoryShortage::Overcommitted { needed: 1024 * MIB, free: 1000 * MIB });
    assert!(!short.is_certain());
    assert!(memory(&plan, host(511, 511, 0)).unwrap().is_certain());
}

#[test]
fn a_disk_that_two_guests_have_stands_against_a_start_of_either() {
    let plan = Plan { start: vec![start("b", machine(2, 512, false))], ..Plan::default() };
    let disks = |inodes: [u64; 3]| {
        ["a", "b", "c"].map(name).into_iter().zip(inodes.map(|inode| FileId { device: 1, inode }))
    };
    let shared = |inodes| shared_disk(&plan, &disks(inodes).collect::<Vec<_>>());
    assert_eq!(shared([1, 2, 3]), None);
    assert_eq!(shared([1, 1, 3]), Some((name("b"), name("a"))));
    assert_eq!(shared([1, 2, 2]), Some((name("c"), name("b"))));
    assert_eq!(shared([1, 2, 1]), None, "neither of them is started");
}

#[test]
fn a_tap_of_a_guest_that_restarts_must_be_nobody_elses() {
    let machine = machine(1, 512, false);
    let new = Plan { start: vec![start("a", machine)], ..Plan::default() };
    assert_eq!(restarted_taps(&new), [], "a guest that does not run yet fails alone");
    let plan = Plan { stop: vec![stop("a")], ..new };
    let taps = restarted_taps(&plan);
    assert_eq!(tap_names(&taps, &["lo".to_owned(), "sis-b".to_owned()].into()), Ok(()));
    let taken = tap_names(&taps, &["sis-a".to_owned()].into());
    assert_eq!(taken, Err(HostLacks::TapTaken { guest: name("a"), tap: "sis-a".parse().unwrap() }));
}

#[test]
fn huge_pages_that_a_running_guest_may_still_touch_are_not_free() {
    let plan = Plan { start: vec![start("a", machine(1, 512, true))], ..Plan::default() };
    assert!(takes_huge_pages(&plan));
    let host = |total, free, taken: &[(&str, u64)]| HostHugePages {
        total: total * MIB,
        free: free * MIB,
        taken: taken.iter().map(|(guest, taken)| (name(guest), taken * MIB)).collect(),
    };
    let lacks = |free| Err(HostLacks::NoHugePages { needed: 512 * MIB, free: free * MIB });
    assert_eq!(huge_pages(&plan, &host(512, 512, &[])), Ok(()));
    assert_eq!(huge_pages(&plan, &host(1024, 511, &[])), lacks(511));
    assert_eq!(huge_pages(&plan, &host(1024, 1024, &[("b", 768)])), lacks(256), "b has not touched its own");
    assert_eq!(huge_pages(&plan, &host(512, 512, &[("a", 512)])), Ok(()), "its own from before");
    let restart = Plan { stop: vec![stop("b")], ..plan };
    assert_eq!(huge_pages(&restart, &host(768, 0, &[("b", 768)])), Ok(()), "what stops makes room");
    let small = Plan { start: vec![start("a", machine(1, 512, false))], ..Plan::default() };
    assert!(!takes_huge_pages(&small));
    assert_eq!(huge_pages(&small, &HostHugePages::default()), Ok(()));
}

#[test]
fn a_uid_is_one_guests_alone() {
    let plan = Plan {
        start: vec![start("a", machine(200_001, 512, false)), start("b", machine(200_002, 512, false))],
        ..Plan::default()
    };
    let guests = started_uids(&plan);
    assert_eq!(guests, BTreeMap::from([(200_001, name("a")), (200_002, name("b"))]));
    let process = |uid, is_guests| UidProcess { uid, pid: 7, program: "sleep".to_owned(), is_guests };
    assert_eq!(uids(&guests, &BTreeMap::new(), &[process(200_001, true)]), Ok(()));
    let taken = |guest, uid, holder: &str| {
        Err(HostLacks::UidTaken { guest: name(guest), uid, holder: holder.to_owned() })
    };
    let processes = [process(200_001, true), process(200_002, false)];
    assert_eq!(uids(&guests, &BTreeMap::new(), &processes), taken("b", 200_002, "process 7 (sleep)"));
    let accounts = BTreeMap::from([(200_001, "user alice".to_owned())]);
    assert_eq!(uids(&guests, &accounts, &processes), taken("a", 200_001, "user alice"));
}

#[test]
fn what_is_copied_leaves_room_for_logs() {
    let store = Path::new("/var/lib/sisforge");
    assert_eq!(room(store, 164 * MIB, 100 * MIB), Ok(()));
    let full = room(store, 164 * MIB - 1, 100 * MIB);
    assert!(matches!(full, Err(HostLacks::NoRoom { needed, .. }) if needed == 164 * MIB), "{full:?}");

    let (digest, guest) = (FileDigest::from(Sha256::of("disk")), name("a"));
    let jail = |disk| {
        let machine = Machine { disk, ..machine(1, 512, false) };
        Step::CreateJail { guest: guest.clone(), machine }
    };
    let own = |in_memory| MachineDisk::Ephemeral { base: digest, size: 1 << 30, in_memory };
    let stored = Step::StoreFile { digest, kind: StoredKind::Image };
    assert_eq!(
        [&stored, &jail(own(false)), &jail(own(true)), &jail(MachineDisk::Kept)].map(copied),
        [Some(&digest), Some(&digest), None, None]
    );
    assert!(writes(&stored) && writes(&jail(MachineDisk::Kept)));
    assert!(!writes(&Step::StopVmm { guest: guest.clone() }));
}

#[test]
fn jails_hold_programs_and_device_nodes() {
    let store = Path::new("/var/lib/sisforge");
    assert_eq!(jails(store, false, false), Ok(()));
    for (noexec, nodev, told) in [(true, false, "noexec"), (false, true, "nodev"), (true, true, "noexec")] {
        let refused = jails(store, noexec, nodev);
        assert_eq!(refused, Err(HostLacks::MountedWithout { store: store.to_owned(), flag: told }));
    }
}
