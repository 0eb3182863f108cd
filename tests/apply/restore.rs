//! Restores that stop anywhere: a snapshot gives one guest at most, and the next `up` completes the work.

use sisforge::apply::{Applied, Host, apply};
use sisforge::base::network::host_side;
use sisforge::base::{GuestName, SnapshotName};
use sisforge::host::observed::{ObservedGuest, Paused};
use sisforge::host::snapshot::{Obstacle, SnapshotManifest, SnapshotOrigin, brought_back};
use sisforge::host::state::Machine;
use sisforge::host::wanted::{Startup, WantedHost};
use sisforge::plan::{GuestScope, diff, restore};
use sisforge::sys::cpu::Cpu;
use sisforge::sys::report::Silent;

use super::model::{Fault, Inner, ModelHost};
use super::{
    ephemeral, faults, fleet, guest, is_as, is_ready, machine, name, nobody_is_half_done, running, towards,
    up, without,
};

fn snapshot() -> SnapshotName {
    "monday".parse().unwrap()
}

fn two() -> WantedHost {
    fleet(&[("alice", guest("alice", 0)), ("bob", guest("bob", 1))])
}

fn manifest_of(machine: &Machine) -> SnapshotManifest {
    SnapshotManifest {
        id: None,
        guest: name("alice"),
        created: String::new(),
        machine: machine.clone(),
        host_key: None,
        containers: Vec::new(),
        origin: SnapshotOrigin {
            vmm_version: "1.16.1".into(),
            vmm_sha256: sisforge::base::Sha256::of("vmm"),
            state_format: None,
            kernel: String::new(),
            cpu: Cpu::default(),
        },
        files: [].into(),
        given_disk_size: None,
    }
}

/// What is wanted where a guest was brought back from a snapshot: it as it is, and what it was declared
/// beside it.
fn brought(declared: &WantedHost, target: &GuestName, machine: &Machine) -> WantedHost {
    let mut wanted = declared.clone();
    let guest = wanted.guests.get_mut(target).unwrap();
    let fresh = Box::new(guest.machine().clone());
    guest.startup = Startup::Restored { machine: machine.clone(), fresh };
    guest.tap.address = host_side(machine.ip);
    wanted
}

/// The same for whatever was brought back on a host.
fn wanted_on(host: &Inner, declared: &WantedHost) -> WantedHost {
    let restored = host.state.guests.iter().find_map(|(name, guest)| {
        let machine = guest.machine().filter(|machine| machine.restored_from.is_some())?;
        Some((name.clone(), machine.clone()))
    });
    restored.map_or_else(|| declared.clone(), |(name, machine)| brought(declared, &name, &machine))
}

/// A host on which alice was frozen, and is down.
fn frozen(declared: &WantedHost) -> Inner {
    let mut host = without(&up(declared), &[name("alice")]);
    host.ready.insert(snapshot());
    host
}

/// Brings alice's snapshot back as `target`.
fn bring_back(
    before: &Inner,
    declared: &WantedHost,
    target: &str,
    fault: Fault,
) -> Result<(Applied, Inner), Vec<Obstacle>> {
    let target = name(target);
    let manifest = manifest_of(declared.guests[&name("alice")].machine());
    let machine = brought_back(&manifest, &snapshot(), declared.guests[&target].machine());
    let wanted = brought(declared, &target, &machine);
    let host = ModelHost::new(before, &wanted, fault);
    let observed = host.observe().unwrap();
    let plan = restore(&observed, &wanted, &target, &snapshot(), &manifest)?;
    let applied = apply(&plan, &host, 1, &Silent, &|_, _| {});
    let after = host.inner().clone();
    Ok((applied, after))
}

#[test]
fn all_that_can_fail_comes_before_a_snapshot_is_consumed() {
    let (applied, host) = bring_back(&frozen(&two()), &two(), "alice", Fault::None).unwrap();
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    let order = ["create cgroup", "create tap", "create jail", "start", "consume", "load", "await", "forget"];
    let asked: Vec<_> = host.asked.iter().filter(|asked| !asked.starts_with("load rules")).collect();
    assert_eq!(asked.len(), order.len(), "{asked:?}");
    assert!(asked.iter().zip(order).all(|(asked, wanted)| asked.starts_with(wanted)), "{asked:?}");
    let (applied, host) = bring_back(&frozen(&two()), &two(), "alice", Fault::Named(&["start"])).unwrap();
    assert_eq!(applied.failures.len(), 1);
    assert!(host.ready.contains(&snapshot()), "a VMM that does not start costs no snapshot");
}

#[test]
fn wherever_a_restore_stops_its_snapshot_gives_one_guest_at_most_and_the_next_up_completes_the_work() {
    let pools = fleet(&[("alice", ephemeral("alice", 0)), ("bob", ephemeral("bob", 1))]);
    for declared in [two(), pools] {
        let before = frozen(&declared);
        let whole = bring_back(&before, &declared, "alice", Fault::None).unwrap().1.asked.len();
        let mut went_on = 0;
        for fault in faults(whole) {
            let story = format!("{fault:?}");
            let (_, broken) = bring_back(&before, &declared, "alice", fault).unwrap();
            let loads = broken.loads.get(&snapshot()).copied().unwrap_or_default();
            assert!(loads <= 1 && (loads == 0 || !broken.ready.contains(&snapshot())), "{story}");

            // Another restore is refused, or is the first one that loads it.
            if broken.ready.contains(&snapshot()) {
                let (applied, again) = bring_back(&broken, &declared, "alice", Fault::None).unwrap();
                assert!(applied.failures.is_empty(), "{story}: {:?}", applied.failures);
                assert_eq!(again.loads[&snapshot()], 1, "{story}");
            }
            let wanted = wanted_on(&broken, &declared);
            went_on += usize::from(wanted != declared);
            let (applied, host) = towards(&broken, &wanted, Fault::None);
            assert!(applied.failures.is_empty(), "{story}: {:?}", applied.failures);
            assert!(host.state.guests.values().all(is_ready), "{story}");
            let paused = |guest: &ObservedGuest| guest.vmm.as_ref().is_some_and(|vmm| vmm.paused.is_some());
            assert!(!host.state.guests.values().any(paused), "{story}");
            assert!(!host.state.snapshot_leftovers, "{story}");
            assert_eq!(host.loads.get(&snapshot()).copied().unwrap_or_default(), loads, "{story}");
            let (_, gone) = towards(&host, &WantedHost::default(), Fault::None);
            is_as(&gone, &WantedHost::default(), &story);
            let (_, gone) = towards(&broken, &WantedHost::default(), Fault::None);
            is_as(&gone, &WantedHost::default(), &story);
        }
        assert!(went_on > 0, "some restore came through");
    }
}

#[test]
fn a_restore_that_is_asked_to_end_is_undone_or_brought_to_its_end() {
    let before = frozen(&two());
    let whole = bring_back(&before, &two(), "alice", Fault::None).unwrap().1.asked.len();
    for at in 0..whole {
        let (applied, left) = bring_back(&before, &two(), "alice", Fault::Asked { at }).unwrap();
        let story = format!("until {at} of {whole}: {:?}", left.asked);
        assert!(applied.failures.is_empty(), "{story}: {:?}", applied.failures);
        nobody_is_half_done(&left, &story);
        let goes_on = left.state.guests.get(&name("alice")).is_some_and(is_ready);
        assert_ne!(left.ready.contains(&snapshot()), goes_on, "{story}");
        assert_eq!(applied.is_cut_short, !goes_on, "{story}");
    }
}

#[test]
fn a_guest_that_goes_on_is_left_alone_and_another_with_its_address_stays_down() {
    let declared = two();
    let before = without(&frozen(&declared), &[name("bob")]);
    let (_, host) = bring_back(&before, &declared, "bob", Fault::None).unwrap();
    assert!(is_ready(&host.state.guests[&name("bob")]));
    let wanted = wanted_on(&host, &declared);
    let plan = diff(&host.state, &wanted, GuestScope::All);
    assert!(plan.is_empty(), "{plan}");
    let told = plan.notes.join("\n");
    assert!(told.contains("alice is not started: bob, which was restored from a snapshot"), "{told}");
    assert!(
        told.contains("bob was restored from snapshot monday: `down` and `up` would boot it from scratch"),
        "{told}"
    );
}

#[test]
fn nothing_comes_back_beside_the_guest_that_was_frozen_or_its_address() {
    let declared = two();
    let mut host = frozen(&declared);
    host = towards(&host, &declared, Fault::None).1;
    for target in ["alice", "bob"] {
        let obstacles = bring_back(&host, &declared, target, Fault::None).unwrap_err();
        assert!(obstacles.contains(&Obstacle::Running(name("alice"))), "{obstacles:?}");
        assert_eq!(obstacles.contains(&Obstacle::Running(name("bob"))), target == "bob");
    }
    let carol = guest("carol", 0);
    host = frozen(&declared);
    host.state.guests.insert(name("carol"), running(&carol));
    let obstacles = bring_back(&host, &declared, "alice", Fault::None).unwrap_err();
    assert_eq!(obstacles, [Obstacle::AddressTaken { address: [10, 107, 0, 2].into(), by: name("carol") }]);
}

#[test]
fn a_kept_disk_does_not_become_one_that_goes_with_its_guest() {
    let declared = fleet(&[("alice", guest("alice", 0)), ("kiosk-0", ephemeral("kiosk-0", 3))]);
    let host = without(&frozen(&declared), &[name("kiosk-0")]);
    let obstacles = bring_back(&host, &declared, "kiosk-0", Fault::None).unwrap_err();
    assert_eq!(obstacles[0].to_string(), "alice keeps a data disk, and kiosk-0 does not");
}

#[test]
fn what_a_snapshot_shares_must_be_in_the_store() {
    let mut host = frozen(&two());
    host.state.stored.clear();
    let obstacles = bring_back(&host, &two(), "alice", Fault::None).unwrap_err();
    assert_eq!(obstacles.len(), 2, "{obstacles:?}");
    assert!(obstacles[0].to_string().starts_with("the store has no kernel "), "{}", obstacles[0]);
    let mut with_images = two();
    machine(with_images.guests.get_mut(&name("alice")).unwrap()).images =
        Some(sisforge::base::Sha256::of("containers").into());
    let obstacles = bring_back(&frozen(&two()), &with_images, "alice", Fault::None).unwrap_err();
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert!(obstacles[0].to_string().starts_with("the store has no container images "), "{}", obstacles[0]);
}

#[test]
fn a_guest_that_a_killed_snapshot_left_paused_goes_on_unless_it_was_frozen_for_good() {
    let mut host = up(&two());
    host.state.snapshot_leftovers = true;
    let pause = |host: &mut Inner, paused| {
        host.state.guests.get_mut(&name("alice")).unwrap().vmm.as_mut().unwrap().paused = Some(paused);
    };
    pause(&mut host, Paused::Unfinished);
    let (_, after) = towards(&host, &two(), Fault::None);
    assert_eq!(after.asked, ["clear snapshots", "resume alice"]);
    is_as(&after, &two(), "resumed");

    pause(&mut host, Paused::Frozen);
    host.ready.insert(snapshot());
    let plan = diff(&host.state, &two(), GuestScope::All);
    assert_eq!(plan.stop[0].why.to_string(), "saved to a snapshot");
    let (_, after) = bring_back(&host, &two(), "alice", Fault::None).unwrap();
    assert!(after.asked[1].starts_with("stop alice"), "{:?}", after.asked);
    assert_eq!(after.loads[&snapshot()], 1);
}

#[test]
fn a_guest_that_was_saved_to_end_is_ended_before_another_goes_on_from_its_snapshot() {
    let declared = two();
    let mut host = without(&up(&declared), &[name("bob")]);
    host.ready.insert(snapshot());
    host.state.guests.get_mut(&name("alice")).unwrap().vmm.as_mut().unwrap().paused = Some(Paused::Frozen);
    let (applied, after) = bring_back(&host, &declared, "bob", Fault::None).unwrap();
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    assert!(after.state.guests.get(&name("alice")).is_none_or(|alice| alice.vmm.is_none()));
    assert!(is_ready(&after.state.guests[&name("bob")]));
    let order = ["stop alice", "consume"];
    let at = order.map(|step| after.asked.iter().position(|asked| asked.starts_with(step)));
    assert!(at[0].is_some() && at[0] < at[1], "{:?}", after.asked);
}
