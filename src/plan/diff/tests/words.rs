//! What a plan says: changes, and what is lost.

use super::*;

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
        assert_eq!(why.changes.iter().map(|change| change.what.clone()).collect::<Vec<_>>(), [what]);
        change(machine(&mut all, "alice"));
    }
    let value = serde_json::to_value(machine(&mut all, "alice")).unwrap();
    let (fields, spec) = (value.as_object().unwrap(), value["spec"].as_object().unwrap());
    assert_eq!(changes().len(), fields.len() - 1 + spec.len(), "a field is not changed by this test");
}

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
fn a_limit_that_somebody_lifted_is_told_as_none() {
    let mut found = host(&["alice"]);
    let cgroup = alice(&mut found).cgroup.as_mut().unwrap();
    let Found::Whole(limits) = &mut cgroup.limits else { panic!("it is whole") };
    (limits.memory, limits.pids, limits.cpu_quota) = (None, None, None);
    let plan = diff(&found, &wanted(&["alice"])).to_string();
    for told in ["memory limit none -> ", "pids limit none -> ", "cpu limit none -> "] {
        assert!(plan.contains(told), "{plan}");
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
    let told = losses(&plan, &found, &wanted, |_| false);
    assert_eq!(told[0], "what bob wrote is lost: its data disk goes with its jail");
    assert!(
        told[1].starts_with("the data disk of carl (512MiB) stays in the store, and dave starts"),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
    // Who is in fleet.lock already is nobody's new name, and who keeps no disk can take none over.
    let locked = losses(&plan, &found, &wanted, |guest| guest.as_str() == "dave");
    assert!(
        locked[1].contains("`sisforge disk export carl FILE`") && !locked[1].contains("dave"),
        "{locked:?}"
    );
    let mut ephemeral = wanted.clone();
    ephemeral.guests.get_mut(&name("dave")).unwrap().disk = None;
    assert!(!losses(&plan, &found, &ephemeral, |_| false)[1].contains("dave"));
    assert_eq!(plan.counts().to_string(), "1 to start, 1 to restart, 1 to stop, 1 step on the host");
    assert_eq!(losses(&diff(&host(&["alice"]), &wanted), &host(&["alice"]), &wanted, |_| false), [""; 0]);
}

#[test]
fn a_store_that_was_changed_beneath_running_guests_is_told() {
    let mut found = host(&["alice", "bob"]);
    let vmm = alices_vmm(&mut found);
    (vmm.machine, vmm.jailed) = (None, false);
    let wanted = wanted(&["alice", "bob"]);
    let plan = diff(&found, &wanted);
    assert_eq!(
        plan.stop[0].why.to_string(),
        "what is running is not known, and its jail is in another store"
    );
    let told = losses(&plan, &found, &wanted, |_| false);
    assert!(told[0].starts_with("what alice wrote stays behind in another store"), "{told:?}");
    assert_eq!(told.len(), 1);
    found.network.cut_off_unrecorded.insert(name("alice"));
    let told = losses(&plan, &found, &wanted, |_| false);
    assert!(told[1].starts_with("alice is quarantined"), "{told:?}");
}
