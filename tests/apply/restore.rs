//! Restores that stop anywhere: a snapshot gives one guest at most, and the next `up` completes the work.

use sisforge::apply::{Applied, Host, apply};
use sisforge::base::{GuestName, SnapshotName};
use sisforge::host::snapshot::{FORMAT, Manifest, Obstacle, Origin, brought_back};
use sisforge::host::state::{HostState, Machine, Paused};
use sisforge::plan::{diff, restore};
use sisforge::sys::cpu::Cpu;
use sisforge::sys::report::Silent;

use super::model::{Fault, Inner, ModelHost};
use super::{ephemeral, faults, fleet, guest, is_as, name, towards, up};

fn snapshot() -> SnapshotName {
    "monday".parse().unwrap()
}

/// A machine with an address, as every real one has.
fn with_address(mut state: HostState) -> HostState {
    for (number, guest) in state.guests.values_mut().enumerate() {
        let machine = guest.machine.as_mut().unwrap();
        machine.command_line = format!("quiet ip=10.107.0.{}::", 4 * number + 2);
    }
    state
}

fn two() -> HostState {
    with_address(fleet(&[("alice", guest("alice", 0)), ("bob", guest("bob", 1))]))
}

fn manifest_of(machine: &Machine) -> Manifest {
    Manifest {
        format: FORMAT,
        guest: name("alice"),
        created: String::new(),
        machine: machine.clone(),
        host_key: String::new(),
        containers: Vec::new(),
        origin: Origin {
            vmm_version: "1.16.1".into(),
            vmm_sha256: sisforge::base::Sha256::of("vmm"),
            state_format: String::new(),
            kernel: String::new(),
            cpu: Cpu::default(),
        },
        files: [].into(),
    }
}

/// What is wanted where a guest goes on from a snapshot: it as it is, and what it was declared beside it.
fn going_on(declared: &HostState, target: &GuestName, machine: &Machine) -> HostState {
    let mut wanted = declared.clone();
    let state = wanted.guests.get_mut(target).unwrap();
    state.declared = state.machine.take().map(Box::new);
    state.machine = Some(machine.clone());
    if let (Some(tap), Some(ip)) = (&mut state.tap, sisforge::host::vmm::guest_address(&machine.command_line))
    {
        tap.address = (u32::from(ip) - 1).into();
    }
    wanted
}

/// The same for whatever goes on from a snapshot on a host.
fn wanted_on(host: &Inner, declared: &HostState) -> HostState {
    let restored = host.state.guests.iter().find_map(|(name, guest)| {
        let machine = guest.machine.as_ref().filter(|machine| machine.restored_from.is_some())?;
        Some((name.clone(), machine.clone()))
    });
    restored.map_or_else(|| declared.clone(), |(name, machine)| going_on(declared, &name, &machine))
}

/// A host on which alice was frozen, and is down.
fn frozen(declared: &HostState) -> Inner {
    let mut host = towards(
        &up(declared),
        &declared.clone().with_guests_of(&[name("alice")], &HostState::default()),
        Fault::None,
    )
    .1;
    host.ready.insert(snapshot());
    host
}

/// Brings alice's snapshot back as `target`.
fn bring_back(
    before: &Inner,
    declared: &HostState,
    target: &str,
    fault: Fault,
) -> Result<(Applied, Inner), Vec<Obstacle>> {
    let target = name(target);
    let manifest = manifest_of(declared.guests[&name("alice")].machine.as_ref().unwrap());
    let machine = brought_back(&manifest, &snapshot(), declared.guests[&target].machine.as_ref().unwrap());
    let wanted = going_on(declared, &target, &machine);
    let host = ModelHost::new(before, &wanted, fault);
    let observed = host.observe().unwrap();
    let plan = restore(&observed, &wanted, &target, &snapshot(), &manifest)?;
    let applied = apply(&plan, &host, 1, &Silent);
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
    let pools = with_address(fleet(&[("alice", ephemeral("alice", 0)), ("bob", ephemeral("bob", 1))]));
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
            assert!(host.state.guests.values().all(|guest| guest.ready && guest.paused.is_none()), "{story}");
            assert!(!host.state.snapshot_leftovers, "{story}");
            assert_eq!(host.loads.get(&snapshot()).copied().unwrap_or_default(), loads, "{story}");
            let (_, gone) = towards(&host, &HostState::default(), Fault::None);
            is_as(&gone, &HostState::default(), &story);
            let (_, gone) = towards(&broken, &HostState::default(), Fault::None);
            is_as(&gone, &HostState::default(), &story);
        }
        assert!(went_on > 0, "some restore came through");
    }
}

#[test]
fn a_guest_that_goes_on_is_left_alone_and_another_with_its_address_stays_down() {
    let declared = two();
    let mut before = frozen(&declared);
    before = towards(
        &before,
        &declared.clone().with_guests_of(&[name("alice"), name("bob")], &HostState::default()),
        Fault::None,
    )
    .1;
    let (_, host) = bring_back(&before, &declared, "bob", Fault::None).unwrap();
    assert!(host.state.guests[&name("bob")].ready);
    let wanted = wanted_on(&host, &declared);
    let plan = diff(&host.state, &wanted);
    assert!(plan.is_empty(), "{plan}");
    let told = plan.notes.join("\n");
    assert!(told.contains("alice is not started: bob, which was brought back from a snapshot"), "{told}");
    assert!(told.contains("bob goes on from snapshot monday: `down` and `up` would boot it anew"), "{told}");
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
    let mut carol = guest("carol", 0);
    carol.machine.as_mut().unwrap().command_line = "quiet ip=10.107.0.2::".into();
    host = frozen(&declared);
    host.state.guests.insert(name("carol"), carol);
    let obstacles = bring_back(&host, &declared, "alice", Fault::None).unwrap_err();
    assert_eq!(obstacles, [Obstacle::AddressTaken { address: [10, 107, 0, 2].into(), by: name("carol") }]);
}

#[test]
fn a_kept_disk_does_not_become_one_that_goes_with_its_guest() {
    let declared = with_address(fleet(&[("alice", guest("alice", 0)), ("kiosk-0", ephemeral("kiosk-0", 3))]));
    let down = HostState::default();
    let host = towards(
        &frozen(&declared),
        &declared.clone().with_guests_of(&[name("alice"), name("kiosk-0")], &down),
        Fault::None,
    )
    .1;
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
}

#[test]
fn a_guest_that_a_killed_snapshot_left_paused_goes_on_unless_it_was_frozen_for_good() {
    let mut host = up(&two());
    host.state.snapshot_leftovers = true;
    host.state.guests.get_mut(&name("alice")).unwrap().paused = Some(Paused::Unfinished);
    let (_, after) = towards(&host, &two(), Fault::None);
    assert_eq!(after.asked, ["clear snapshots", "resume alice"]);
    is_as(&after, &two(), "resumed");

    host.state.guests.get_mut(&name("alice")).unwrap().paused = Some(Paused::Frozen);
    host.ready.insert(snapshot());
    let plan = diff(&host.state, &two());
    assert_eq!(plan.stop[0].why, "frozen to a snapshot");
    let (_, after) = bring_back(&host, &two(), "alice", Fault::None).unwrap();
    assert!(after.asked[1].starts_with("stop alice"), "{:?}", after.asked);
    assert_eq!(after.loads[&snapshot()], 1);
}
