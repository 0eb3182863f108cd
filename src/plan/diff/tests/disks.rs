//! Data disks: made, grown, kept.

use super::*;

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
    let nobody = super::super::diff(&ObservedHost::default(), &wanted, GuestScope::Only(&[]));
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
fn a_disk_that_only_its_jail_has_outlives_the_jail() {
    let lost = |guest: &mut ObservedGuest| (guest.disk, guest.lost_disk) = (None, true);
    let mut found = host(&["alice"]);
    lost(alice(&mut found));
    let down = diff(&found, &WantedHost::default());
    assert_eq!(down.stop[0].steps[0], Step::Disk(DiskStep::RelinkDisk { guest: name("alice") }));
    // Its VMM is gone as well.
    (alice(&mut found).vmm, alice(&mut found).idle_jails) = (None, true);
    let up = diff(&found, &wanted(&["alice"]));
    let creates = |step: &Step| matches!(step, Step::Disk(DiskStep::CreateDisk { .. }));
    assert!(!up.start[0].steps.iter().any(creates), "{}", up.detailed());
    assert_eq!(up.start[0].steps[0], Step::Disk(DiskStep::RelinkDisk { guest: name("alice") }));
}
