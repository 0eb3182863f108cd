//! What leads from the state that a host is in to the one that it should be in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::build::digest::FileDigest;
use crate::fleet::{ByteSize, GuestName};
use crate::host::state::{DiskState, GuestState, HostState, Machine, MachineDisk, Paused, StoredKind};

use super::step::{GuestSteps, Plan, Step};

/// A data disk that would have to lose what is on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data disk of {guest} has {there}, and fleet.toml says {wanted}: no disk is made smaller")]
pub struct Shrinks {
    pub guest: GuestName,
    pub there: ByteSize,
    pub wanted: ByteSize,
}

/// The guests whose disks are larger than they should be. No plan makes them smaller.
pub fn shrinking(observed: &HostState, desired: &HostState) -> Vec<Shrinks> {
    let shrinks = |(guest, want): (&GuestName, &GuestState)| {
        let disks = [observed.guests.get(guest)?.disk?, want.disk?];
        let [there, wanted] = disks.map(|disk| ByteSize::from_bytes(disk.size));
        (there > wanted).then(|| Shrinks { guest: guest.clone(), there, wanted })
    };
    desired.guests.iter().filter_map(shrinks).collect()
}

/// The difference between two states, as steps.
pub fn diff(observed: &HostState, desired: &HostState) -> Plan {
    let mut plan =
        Plan { prepare: prepare(observed, desired), rules: rules(observed, desired), ..Plan::default() };
    let names: BTreeSet<&GuestName> = observed.guests.keys().chain(desired.guests.keys()).collect();
    let nothing = GuestState::default();
    let lodgers = lodgers(desired);
    for name in names {
        let have = observed.guests.get(name).unwrap_or(&nothing);
        match desired.guests.get(name) {
            None => plan.stop.extend(stop(name, have)),
            // Not only to save work: `up NAME` wants every other guest as it is, be it broken.
            Some(want) if want == have => {}
            Some(want) => guest(&mut plan, name, have, want, &lodgers),
        }
    }
    plan
}

/// Guests that go on from a snapshot, by the host's side of the address that they brought along: it may be another's.
fn lodgers(desired: &HostState) -> BTreeMap<Ipv4Addr, &GuestName> {
    let of_guest = |(name, guest)| -> Option<(Ipv4Addr, &GuestName)> {
        let guest: &GuestState = guest;
        guest.declared.as_ref()?;
        Some((guest.tap.as_ref()?.address, name))
    };
    desired.guests.iter().filter_map(of_guest).collect()
}

pub(super) fn prepare(observed: &HostState, desired: &HostState) -> Vec<Step> {
    let forwarding = (desired.forwarding && !observed.forwarding).then_some(Step::EnableForwarding);
    let is_missing = |(digest, kind): &(&FileDigest, &StoredKind)| {
        !observed.stored.contains_key(digest)
            && (**kind != StoredKind::Disk || is_copied(digest, observed, desired))
    };
    let missing = desired.stored.iter().filter(is_missing);
    let store = missing.map(|(digest, kind)| Step::StoreFile { digest: *digest, kind: *kind });
    let clear = observed.snapshot_leftovers.then_some(Step::ClearSnapshots);
    forwarding.into_iter().chain(clear).chain(store).collect()
}

/// Whether a guest's disk is still to be made of a stored one: a kept disk is made once.
fn is_copied(digest: &FileDigest, observed: &HostState, desired: &HostState) -> bool {
    desired.guests.iter().any(|(name, want)| {
        let has_disk = observed.guests.get(name).is_some_and(|have| have.disk.is_some());
        match want.machine.as_ref().map(|machine| machine.disk) {
            Some(MachineDisk::Ephemeral { base, .. }) => base == *digest,
            _ => !has_disk && want.disk.is_some_and(|disk| disk.base == Some(*digest)),
        }
    })
}

pub(super) fn rules(observed: &HostState, desired: &HostState) -> Vec<Step> {
    let digest = |state: &HostState| state.ruleset.as_ref().map(|ruleset| ruleset.digest);
    if digest(observed) == digest(desired) {
        return Vec::new();
    }
    vec![desired.ruleset.clone().map_or(Step::RemoveRuleset, Step::LoadRuleset)]
}

/// What is left to remove of a guest that is not wanted. Its data disk is no such thing.
fn stop(name: &GuestName, have: &GuestState) -> Option<GuestSteps> {
    let why = if have.occupied { "no longer wanted" } else { "left over" };
    let steps = removal(name, have);
    (!steps.is_empty()).then(|| GuestSteps::new(name, why, steps))
}

pub(super) fn removal(name: &GuestName, have: &GuestState) -> Vec<Step> {
    let guest = || name.clone();
    let vmm = have.occupied.then(|| Step::StopVmm { guest: guest() });
    let tap = have.tap.clone().map(|tap| Step::RemoveTap { guest: guest(), tap });
    let cgroup = have.cgroup.map(|_| Step::RemoveCgroup { guest: guest() });
    let jail = (have.jail || have.old_jails).then(|| Step::RemoveJail { guest: guest() });
    vmm.into_iter().chain(tap).chain(cgroup).chain(jail).collect()
}

fn guest(
    plan: &mut Plan,
    name: &GuestName,
    have: &GuestState,
    want: &GuestState,
    lodgers: &BTreeMap<Ipv4Addr, &GuestName>,
) {
    let Some(machine) = &want.machine else { return };
    let replaced = why_replace(have, want, machine);
    let only_disk = GuestState { disk: have.disk, ..GuestState::default() };
    let (left, why) = match &replaced {
        Some(why) => {
            plan.stop.push(GuestSteps::new(name, why, removal(name, have)));
            (&only_disk, why.as_str())
        }
        None => (have, why_start(have)),
    };
    let lodger =
        want.tap.as_ref().and_then(|tap| lodgers.get(&tap.address)).filter(|lodger| **lodger != name);
    if let (None, Some(lodger)) = (&left.machine, lodger) {
        plan.notes.push(format!(
            "{name} is not started: {lodger}, which was brought back from a snapshot, has its address"
        ));
        return;
    }
    let mut steps = GuestSteps::new(name, why, Vec::new());
    if let Some(running) = &left.machine {
        steps.steps = repair(name, left, want);
        if running != machine {
            steps.steps.insert(0, Step::AdjustVmm { guest: name.clone(), machine: machine.clone() });
        }
        // What does not come up from a snapshot does not come up later either.
        if want.declared.is_some() {
            steps.undo = removal(name, &GuestState { disk: None, ..want.clone() });
        }
    } else {
        steps.steps = start(name, left, want, machine);
        steps.undo = removal(name, &GuestState { disk: None, ..want.clone() });
    }
    steps.then.extend(clear_old_jails(name, left));
    steps.then.extend(start_containers(name, left, want));
    if !steps.steps.is_empty() || !steps.then.is_empty() {
        plan.start.push(steps);
    }
    let stays = left.machine.is_some();
    plan.notes.extend(note_on_disk(name, have, want).filter(|_| stays));
    plan.notes.extend(note_on_snapshot(name, want));
}

/// What another start would make of a guest that goes on from a snapshot.
fn note_on_snapshot(name: &GuestName, want: &GuestState) -> Option<String> {
    let (machine, declared) = (want.machine.as_ref()?, want.declared.as_ref()?);
    let snapshot = machine.restored_from.as_ref()?;
    let changed = differing(machine, declared);
    let changed =
        if changed.is_empty() { String::new() } else { format!(", with another {}", changed.join(", ")) };
    Some(format!("{name} goes on from snapshot {snapshot}: `down` and `up` would boot it anew{changed}"))
}

/// Why a guest that runs must go before it can be as it should.
fn why_replace(have: &GuestState, want: &GuestState, machine: &Machine) -> Option<String> {
    let Some(running) = &have.machine else {
        return have.occupied.then(|| "what runs is not known".to_owned());
    };
    if have.paused == Some(Paused::Frozen) {
        return Some("frozen to a snapshot".to_owned());
    }
    let whole = have.tap == want.tap && have.jail && have.cgroup.is_some();
    let same = running.adjusted_to(machine) == *machine;
    (!same || !whole).then(|| changes(running, machine, have, want))
}

fn note_on_disk(name: &GuestName, have: &GuestState, want: &GuestState) -> Option<String> {
    let [there, wanted] = [have.disk?, want.disk?].map(|disk| ByteSize::from_bytes(disk.size));
    (there < wanted)
        .then(|| format!("the data disk of {name} grows from {there} to {wanted} when {name} next starts"))
}

fn why_start(have: &GuestState) -> &'static str {
    match (
        have.machine.is_some(),
        have.jail || have.tap.is_some() || have.cgroup.is_some(),
        have.disk.is_some(),
    ) {
        (true, _, _) if have.paused.is_some() => "paused by a snapshot that was not finished",
        (true, _, _) if !have.ready => "not ready yet",
        (true, _, _) if !have.logged => "its logs are not kept",
        (true, _, _) => "drifted",
        (false, _, _) if have.oom_kills > 0 => "killed by the kernel: out of memory",
        (false, true, _) => "not running any more",
        (false, false, true) => "not running",
        (false, false, false) => "new",
    }
}

/// Puts right what can be put right while the guest runs.
fn repair(name: &GuestName, have: &GuestState, want: &GuestState) -> Vec<Step> {
    let guest = || name.clone();
    let resume = have.paused.map(|_| Step::ResumeVmm { guest: guest() });
    let cgroup = want.cgroup.filter(|_| have.cgroup != want.cgroup);
    let cgroup = cgroup.map(|limits| Step::CreateCgroup { guest: guest(), limits });
    let ready = (want.ready && !have.ready).then(|| Step::AwaitReady { guest: guest() });
    let logs = (want.logged && !have.logged).then(|| Step::KeepLogs { guest: guest() });
    resume.into_iter().chain(cgroup).chain(logs).chain(ready).collect()
}

/// What is left of earlier attempts is told where it cannot be removed, and undoes nothing.
fn clear_old_jails(name: &GuestName, have: &GuestState) -> Option<Step> {
    let left = have.old_jails || (!have.occupied && have.jail);
    left.then(|| Step::RemoveOldJails { guest: name.clone() })
}

/// Containers that have not been started since the guest's boot.
fn start_containers(name: &GuestName, have: &GuestState, want: &GuestState) -> Option<Step> {
    let missing: Vec<_> = want.containers.iter().filter(|c| !have.containers.contains(c)).cloned().collect();
    (!missing.is_empty()).then(|| Step::StartContainers { guest: name.clone(), containers: missing })
}

/// Everything that a guest needs, from its disk to its first word.
fn start(name: &GuestName, have: &GuestState, want: &GuestState, machine: &Machine) -> Vec<Step> {
    let guest = || name.clone();
    let mut steps = Vec::new();
    if let Some(disk) = want.disk {
        steps.extend(ready_disk(name, have.disk, disk));
    }
    // Before the TAP, which alone does not tell whose it is: a TAP that is left over has a cgroup beside it.
    // One in which somebody was killed is made anew, so that what it counts is this start's.
    let counts = have.cgroup.is_some() && have.oom_kills > 0;
    steps.extend(counts.then(|| Step::RemoveCgroup { guest: guest() }));
    let cgroup = want.cgroup.filter(|_| counts || have.cgroup != want.cgroup);
    steps.extend(cgroup.map(|limits| Step::CreateCgroup { guest: guest(), limits }));
    steps.extend(want.tap.clone().filter(|_| have.tap != want.tap).map(Step::CreateTap));
    steps.push(Step::CreateJail { guest: guest(), machine: machine.clone() });
    steps.push(Step::StartVmm { guest: guest(), machine: machine.clone() });
    steps.push(Step::AwaitReady { guest: guest() });
    if machine.as_started() != *machine {
        steps.push(Step::AdjustVmm { guest: guest(), machine: machine.clone() });
    }
    steps
}

/// Makes the disk of a guest that does not run, or gives it the uid and the size that it should have.
fn ready_disk(name: &GuestName, have: Option<DiskState>, want: DiskState) -> Vec<Step> {
    let guest = || name.clone();
    let Some(there) = have else {
        return want
            .base
            .map(|base| Step::CreateDisk { guest: guest(), base, uid: want.uid })
            .into_iter()
            .collect();
    };
    let given = (there.uid != want.uid).then(|| Step::ChownDisk { guest: guest(), uid: want.uid });
    let grown = (there.size < want.size).then(|| Step::GrowDisk {
        guest: guest(),
        from: there.size,
        size: want.size,
    });
    given.into_iter().chain(grown).collect()
}

/// What two machines differ in.
fn differing(running: &Machine, wanted: &Machine) -> Vec<&'static str> {
    let all = [
        ("vmm", running.vmm != wanted.vmm),
        ("uid", running.uid != wanted.uid),
        ("kernel", running.kernel != wanted.kernel),
        ("image", running.image != wanted.image),
        ("disk", running.disk != wanted.disk),
        ("container images", running.images != wanted.images),
        ("vcpus", running.vcpus != wanted.vcpus),
        ("memory", running.memory_mib != wanted.memory_mib),
        ("address", running.tap != wanted.tap || running.mac != wanted.mac),
        ("kernel command line", running.command_line != wanted.command_line),
        ("huge pages", running.spec.huge_pages != wanted.spec.huge_pages),
        ("cpu template", running.spec.cpu_template != wanted.spec.cpu_template),
        ("seccomp filter", running.spec.seccomp != wanted.spec.seccomp),
        ("log level", running.spec.log_level != wanted.spec.log_level),
        ("metrics", running.spec.metrics != wanted.spec.metrics),
        ("balloon", running.spec.balloon != wanted.spec.balloon),
        ("entropy limits", running.spec.entropy != wanted.spec.entropy),
        ("vsock", running.spec.vsock != wanted.spec.vsock),
        ("metadata", running.spec.metadata != wanted.spec.metadata),
        ("disk limits", running.spec.disk != wanted.spec.disk),
        ("network device", running.spec.network != wanted.spec.network),
    ];
    all.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect()
}

/// What makes a running guest another than the wanted one, in words.
fn changes(running: &Machine, wanted: &Machine, have: &GuestState, want: &GuestState) -> String {
    let parts = [("tap", have.tap != want.tap), ("cgroup", have.cgroup.is_none()), ("jail", !have.jail)];
    let parts = parts.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what);
    let changed: Vec<_> = differing(running, wanted).into_iter().chain(parts).collect();
    format!("{} changed", changed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Balloon, Bucket, ContainerSpec, MachineSpec, Sha256, VmmKind};
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
                mac: "02:53:0a:6b:00:02".into(),
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
            machine.spec.balloon =
                Some(Balloon { size_mib, deflate_on_oom: true, statistics, reporting: false });
            host
        };
        let (firecracker, qemu) = (VmmKind::Firecracker, VmmKind::Qemu);
        let plan = diff(&with(firecracker, 1000, 0), &with(firecracker, 2000, 64));
        assert_eq!(
            plan.detailed(),
            "start alice: drifted\n  adjust the running firecracker: rates, balloon\n"
        );
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
}
