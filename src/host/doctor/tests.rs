//! Every check on a host that is as it should be, and on one that differs in one thing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::fleet::VmmKind;
use crate::sys::firecracker::FirecrackerVersion;

const GIB: u64 = 1 << 30;

fn program(name: &str) -> Option<Program> {
    let version = Some(FirecrackerVersion { major: 1, minor: 16, patch: 1 });
    Some(Program { path: PathBuf::from("/usr/bin").join(name), version, is_static: true })
}

fn place() -> Option<DirectoryFacts> {
    Some(DirectoryFacts {
        path: "/srv".into(),
        uid: 0,
        mode: 0o40_755,
        nodev: false,
        noexec: false,
        device: 1,
    })
}

fn words(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// A host on which every check passes.
fn good() -> Facts {
    let settings = [
        ("fs.file-max", "9223372036854775807"),
        ("kernel.pid_max", "4194304"),
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.default.rp_filter", "1"),
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.conf.default.accept_redirects", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.default.send_redirects", "0"),
        ("net.ipv4.conf.all.accept_source_route", "0"),
        ("net.ipv4.conf.default.accept_source_route", "0"),
        ("net.ipv4.neigh.default.gc_thresh1", "1024"),
        ("net.ipv4.neigh.default.gc_thresh2", "2048"),
        ("net.ipv4.neigh.default.gc_thresh3", "4096"),
        ("net.netfilter.nf_conntrack_max", "262144"),
        ("net.netfilter.nf_conntrack_count", "10"),
    ];
    Facts {
        kvm: Kvm::Ran,
        kernel: "6.1.0-41-amd64".into(),
        hardware_virtualization: Some(true),
        kvm_modules: vec!["kvm".into(), "kvm_intel".into()],
        firecracker: program("firecracker"),
        jailer: program("jailer"),
        qemu: Some("/usr/bin/qemu-system-x86_64".into()),
        lacking: Vec::new(),
        jails: place(),
        files: place(),
        controllers: words(&["cpu", "cpuset", "memory", "io", "pids", "hugetlb"]),
        mounts: 30,
        swaps: Vec::new(),
        ksm: Some(false),
        smt: Some(false),
        vulnerabilities: [("meltdown".into(), "Mitigation: PTI".into())].into(),
        microcode: words(&["0x1"]),
        nested: Some(false),
        huge_pages: 1024,
        memory: Some(8 * GIB),
        uplink: Some(Uplink { name: "eth0".into(), forwards: false, can_be_set: true }),
        settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        nft: Some(Ok(())),
        forward_drops: Some(Vec::new()),
        taken_uids: Vec::new(),
        clocksource: Some("tsc".into()),
    }
}

fn wants() -> FleetRequirements {
    FleetRequirements {
        vmm: VmmKind::Firecracker,
        guests: 4,
        memory: 4 * GIB,
        huge_pages: 512,
        uids: 200_000..=265_535,
        uplink: None,
        programs: Vec::new(),
    }
}

/// The one check of `id`.
fn one(id: &str, facts: &Facts, wants: &FleetRequirements) -> Check {
    let mut found: Vec<_> = checks(facts, wants).into_iter().filter(|check| check.id == id).collect();
    assert_eq!(found.len(), 1, "{id}");
    found.remove(0)
}

/// What a check comes to on a good host that differs in one thing.
#[track_caller]
fn with(id: &str, differ: impl FnOnce(&mut Facts)) -> Check {
    let mut facts = good();
    differ(&mut facts);
    let check = one(id, &facts, &wants());
    let others = checks(&facts, &wants()).into_iter().filter(|other| other.id != id);
    let failed: Vec<_> =
        others.filter(|other| matches!(other.verdict, Verdict::Fail | Verdict::Warn)).collect();
    assert!(failed.is_empty(), "{id} alone should tell: {failed:?}");
    check
}

#[track_caller]
fn fails(id: &str, says: &str, differ: impl FnOnce(&mut Facts)) {
    let check = with(id, differ);
    assert_eq!(check.verdict, Verdict::Fail, "{check:?}");
    assert!(check.found.contains(says) && !check.remedy.is_empty(), "{check:?}");
}

#[track_caller]
fn warns(id: &str, says: &str, differ: impl FnOnce(&mut Facts)) {
    let check = with(id, differ);
    assert_eq!(check.verdict, Verdict::Warn, "{check:?}");
    assert!(check.found.contains(says), "{check:?}");
}

fn set(facts: &mut Facts, key: &str, value: &str) {
    assert!(facts.settings.insert(key.into(), value.into()).is_some(), "no such key");
}

#[test]
fn a_good_host_passes_every_check_and_each_says_why_it_matters() {
    let all = checks(&good(), &wants());
    let ids: BTreeSet<_> = all.iter().map(|check| check.id).collect();
    assert_eq!((ids.len(), all.len()), (27, 27), "{ids:?}");
    assert!(is_ready(&all));
    for check in all {
        assert_eq!(check.verdict, Verdict::Pass, "{check:?}");
        assert!(!check.why.is_empty() && !check.found.is_empty() && check.fixes.is_empty(), "{check:?}");
    }
}

#[test]
fn a_kvm_that_is_there_and_runs_no_ordinary_guest_is_told_in_words() {
    fails("kvm", "there is no /dev/kvm", |facts| facts.kvm = Kvm::Absent);
    fails("kvm", "did not run: why", |facts| facts.kvm = Kvm::Failed("why".into()));
    fails("kvm", "an ordinary kernel crashes", |facts| {
        facts.kvm_modules = vec!["kvm".into(), "kvm_pvm".into()]
    });
    fails("kvm", "neither VMX nor SVM", |facts| facts.hardware_virtualization = Some(false));
    warns("kvm", "was not tested", |facts| facts.kvm = Kvm::Untried);
    warns("kvm", "this user may not open it", |facts| facts.kvm = Kvm::Closed);
    // Other architectures have no such flags.
    assert_eq!(with("kvm", |facts| facts.hardware_virtualization = None).verdict, Verdict::Pass);
}

#[test]
fn firecracker_and_jailer_are_of_one_release_static_and_not_the_broken_one() {
    let version = |facts: &mut Facts, minor, patch| {
        for program in [&mut facts.firecracker, &mut facts.jailer] {
            program.as_mut().unwrap().version = Some(FirecrackerVersion { major: 1, minor, patch });
        }
    };
    fails("firecracker", "not installed: jailer", |facts| facts.jailer = None);
    fails("firecracker", "1.16.1, but jailer an unknown", |facts| {
        facts.jailer.as_mut().unwrap().version = None
    });
    fails("firecracker", "1.4.0", |facts| version(facts, 4, 0));
    assert_eq!(with("firecracker", |facts| version(facts, 4, 1)).verdict, Verdict::Pass);
    fails("firecracker", "shared libraries", |facts| facts.firecracker.as_mut().unwrap().is_static = false);
}

#[test]
fn jails_stand_where_root_alone_writes_and_programs_and_devices_work() {
    let jails =
        |change: fn(&mut DirectoryFacts)| move |facts: &mut Facts| change(facts.jails.as_mut().unwrap());
    fails("jail-base", "mounted nodev", jails(|place| place.nodev = true));
    fails("jail-base", "mounted noexec", jails(|place| place.noexec = true));
    fails("jail-base", "uid 1000", jails(|place| place.uid = 1000));
    fails("jail-base", "mode 1777", jails(|place| place.mode = 0o41_777));
    warns("one-file-system", "/srv and /srv", jails(|place| place.device = 2));
    fails("cgroups", "missing: io", |facts| facts.controllers.retain(|name| name != "io"));
    warns("kernel", "5.15.0", |facts| facts.kernel = "5.15.0".into());
    assert_eq!(with("kernel", |facts| facts.kernel = "5.10.223".into()).verdict, Verdict::Pass);
    // 5.1 is not 5.10.
    warns("kernel", "5.1.0", |facts| facts.kernel = "5.1.0".into());
}

#[test]
fn a_fleet_finds_what_it_asks_for() {
    fails("memory", "may use 4096 MiB", |facts| facts.memory = Some(4 * GIB));
    fails("huge-pages", "511 of 2 MiB", |facts| facts.huge_pages = 511);
    warns("mounts", "100 mounts", |facts| facts.mounts = 100);
    warns("file-max", "= 1000", |facts| set(facts, "fs.file-max", "1000"));
    warns("pid-max", "= 32768", |facts| set(facts, "kernel.pid_max", "32768"));
    fails("uids", "user ann (200001)", |facts| facts.taken_uids = vec!["user ann (200001)".into()]);
    warns("clocksource", "kvm-clock", |facts| facts.clocksource = Some("kvm-clock".into()));
}

#[test]
fn guests_are_kept_apart_on_the_processor_and_in_memory() {
    fails("swap", "/dev/sda2", |facts| facts.swaps = vec!["/dev/sda2".into()]);
    fails("ksm", "on", |facts| facts.ksm = Some(true));
    fails("smt", "share cores", |facts| facts.smt = Some(true));
    warns("smt", "does not report", |facts| facts.smt = None);
    fails("vulnerabilities", "mds: Vulnerable", |facts| {
        facts.vulnerabilities.insert("mds".into(), "Vulnerable: no microcode".into());
    });
    // What is open through SMT alone, the check of SMT tells.
    let smt = with("vulnerabilities", |facts| {
        facts.vulnerabilities.insert("mds".into(), "Mitigation: Clear CPU buffers; SMT vulnerable".into());
    });
    assert_eq!(smt.verdict, Verdict::Pass);
    warns("microcode", "0x1, 0x2", |facts| facts.microcode = words(&["0x1", "0x2"]));
    warns("nested", "on", |facts| facts.nested = Some(true));
    assert_eq!(with("nested", |facts| facts.nested = None).verdict, Verdict::Pass);
}

#[test]
fn packets_take_the_ways_that_the_policy_is_about() {
    fails("ip-forward", "cannot be written", |facts| facts.uplink.as_mut().unwrap().can_be_set = false);
    fails("rp-filter", "all.rp_filter = 0", |facts| set(facts, "net.ipv4.conf.all.rp_filter", "0"));
    fails("redirects", "send_redirects = 1", |facts| set(facts, "net.ipv4.conf.default.send_redirects", "1"));
    fails("source-routes", "route = 1", |facts| set(facts, "net.ipv4.conf.all.accept_source_route", "1"));
    warns("neighbours", "gc_thresh2 = 512", |facts| set(facts, "net.ipv4.neigh.default.gc_thresh2", "512"));
    warns("conntrack", "210000 of 262144", |facts| set(facts, "net.netfilter.nf_conntrack_count", "210000"));
    warns("conntrack", "10 of 1000", |facts| set(facts, "net.netfilter.nf_conntrack_max", "1000"));
    fails("nft", "no such", |facts| facts.nft = Some(Err("no such".into())));
    warns("nft", "only root", |facts| facts.nft = None);
    fails("forward", "ip filter FORWARD", |facts| {
        facts.forward_drops = Some(vec!["ip filter FORWARD".into()])
    });
    warns("forward", "only root", |facts| facts.forward_drops = None);
    warns("redirects", "cannot be read", |facts| {
        facts.settings.remove("net.ipv4.conf.all.send_redirects");
    });
}

#[test]
fn what_is_set_to_fix_a_check_makes_it_pass() {
    let mut facts = good();
    for (key, value) in facts.settings.iter_mut() {
        // The count is what is observed, and no setting.
        if !key.ends_with("count") {
            *value = if value == "0" { "1".into() } else { "0".into() };
        }
    }
    facts.ksm = Some(true);
    let fixes: Vec<Fix> = checks(&facts, &wants()).into_iter().flat_map(|check| check.fixes).collect();
    for fix in &fixes {
        match fix {
            Fix::Sysctl { key, value } => set(&mut facts, key, value),
            Fix::File { .. } => facts.ksm = Some(false),
        }
    }
    let left: Vec<_> =
        checks(&facts, &wants()).into_iter().filter(|check| check.verdict != Verdict::Pass).collect();
    assert_eq!(left.iter().map(|check| check.id).collect::<Vec<_>>(), [""; 0]);
    let permanent: Vec<_> = fixes.iter().map(|fix| fix.permanent().1).collect();
    assert!(permanent.contains(&"net.ipv4.conf.all.rp_filter = 1".into()), "{permanent:?}");
    assert!(permanent.contains(&"w /sys/kernel/mm/ksm/run - - - - 2".into()), "{permanent:?}");
}

#[test]
fn names_need_a_resolver_and_a_proxy() {
    let wants = FleetRequirements { programs: vec!["dnsmasq", "haproxy", "bwrap"], ..wants() };
    assert_eq!(one("names", &good(), &wants).verdict, Verdict::Pass);
    let check = one("names", &Facts { lacking: vec!["dnsmasq", "bwrap"], ..good() }, &wants);
    assert_eq!(check.verdict, Verdict::Fail);
    assert!(check.remedy.contains("apt-get install dnsmasq-base bubblewrap"));
}

#[test]
fn a_fleet_on_qemu_needs_no_kvm_and_no_firecracker() {
    let facts = Facts { kvm: Kvm::Absent, firecracker: None, jailer: None, ..good() };
    let wants = FleetRequirements { vmm: VmmKind::Qemu, huge_pages: 0, ..wants() };
    assert!(is_ready(&checks(&facts, &wants)));
    for id in ["kvm", "firecracker", "huge-pages"] {
        assert_eq!(one(id, &facts, &wants).verdict, Verdict::Unneeded, "{id}");
    }
    assert_eq!(one("qemu", &facts, &wants).verdict, Verdict::Pass);
    assert_eq!(one("qemu", &Facts { qemu: None, ..facts }, &wants).verdict, Verdict::Fail);
}

#[test]
fn a_host_without_a_fleet_is_looked_at_for_any() {
    let wants = FleetRequirements::of(None);
    assert!(is_ready(&checks(&good(), &wants)));
    assert_eq!(one("memory", &good(), &wants).verdict, Verdict::Unneeded);
}

#[test]
fn the_ruleset_that_is_tried_is_of_the_kind_that_is_loaded() {
    let ruleset = sample_ruleset().unwrap();
    for word in ["flags interval", "limit rate over", "fib saddr", "ct direction reply", "fully-random"] {
        assert!(ruleset.contains(word), "{word} is not in\n{ruleset}");
    }
}
