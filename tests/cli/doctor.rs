//! `doctor` on the host that the tests run on, whatever it is like.

use serde_json::Value;
use sisforge::fleet::VmmKind;
use sisforge::host::doctor::{FleetRequirements, Kvm};
use sisforge::host::layout::Layout;

use crate::common::namespaces::inside_namespaces;
use crate::common::sandbox::Sandbox;

fn looked_at(sandbox: &Sandbox, args: &str) -> (i32, Vec<Value>) {
    let (code, documents) = sandbox.documents(&format!("doctor {args}"), "doctor");
    let [document] = documents.as_slice() else { panic!("{documents:?}") };
    assert_eq!(document["ready"] == true, code == 0, "{document}");
    (code, document["checks"].as_array().unwrap().clone())
}

fn check<'a>(checks: &'a [Value], id: &str) -> &'a Value {
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id}"))
}

#[test]
fn every_check_says_what_it_read_and_what_to_do() {
    let sandbox = Sandbox::new();
    let (_, checks) = looked_at(&sandbox, "");
    assert!(checks.len() >= 27);
    for check in &checks {
        assert!(
            !check["found"].as_str().unwrap().is_empty() && !check["why"].as_str().unwrap().is_empty(),
            "{check}"
        );
        if check["verdict"] == "fail" {
            assert!(!check["remedy"].as_str().unwrap().is_empty(), "{check}");
        }
    }
    let words = sandbox.run("doctor");
    for check in &checks {
        assert!(words.out.contains(check["id"].as_str().unwrap()), "{check}\n{words}");
    }
    assert!(words.out.contains(" passed, "), "{words}");
    assert!(words.err.contains("there is no fleet.toml"), "{words}");
}

#[test]
fn a_fleet_decides_what_is_needed() {
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let (_, checks) = looked_at(&sandbox, "");
    assert!(
        check(&checks, "memory")["found"].as_str().unwrap().contains("2 guests may use 128 MiB"),
        "{checks:?}"
    );
    let text = sandbox.read("fleet.toml");
    sandbox
        .write("fleet.toml", text.replace("[kernel]", "vmm = \"qemu\"\n[kernel]").replace("64MiB", "4TiB"));
    let (code, checks) = looked_at(&sandbox, "");
    assert_eq!(check(&checks, "kvm")["verdict"], "unneeded");
    assert_eq!((check(&checks, "memory")["verdict"].as_str(), code), (Some("fail"), 1));
    sandbox.write("fleet.toml", "[fleet]\n");
    sandbox.run("doctor").fails(2, &["fleet.toml"]);
}

#[test]
fn kvm_is_proved_by_a_guest_and_not_by_its_device() {
    let wants = FleetRequirements { vmm: VmmKind::Firecracker, ..FleetRequirements::of(None) };
    let layout = Layout::new(&sisforge::fleet::HostSpec::default(), &"none".parse().unwrap());
    let facts = sisforge::apply::facts::read(&wants, &layout);
    let tiny_guests_run = crate::common::sandbox::missing().is_none();
    if !tiny_guests_run {
        return eprintln!("SKIPPED: no tiny guest runs here");
    }
    assert_eq!(facts.kvm, Kvm::Ran);
    let broken = tempfile::tempdir().unwrap();
    let program = broken.path().join("firecracker");
    std::fs::copy("/bin/true", &program).unwrap();
    let silent = sisforge::sys::kvm::probe(&program).unwrap_err();
    assert_eq!(silent.to_string(), "it exited without output");
}

#[test]
fn what_can_be_set_is_set_after_asking() {
    if !inside_namespaces("cli::doctor::what_can_be_set_is_set_after_asking", &["unshare", "ip"]) {
        return;
    }
    let value = |key: &str| sisforge::sys::ip::get_sysctl(key).unwrap().unwrap();
    // A network of its own, but the rest is the host's, and stays as it is.
    let sandbox = Sandbox::new();
    let (_, checks) = looked_at(&sandbox, "");
    let foreign = checks
        .iter()
        .flat_map(|check| check["fixes"].as_array().unwrap())
        .find(|fix| !fix["sysctl"]["key"].as_str().is_some_and(|key| key.starts_with("net.ipv4.conf.")));
    if let Some(foreign) = foreign {
        return eprintln!("SKIPPED: {foreign} would be the whole host's");
    }
    let filter = "net.ipv4.conf.all.rp_filter";
    sisforge::sys::ip::set_sysctl(filter, "0").unwrap();
    sandbox
        .run("doctor --fix")
        .fails(2, &["would set net.ipv4.conf.all.rp_filter = 1", "there is no terminal", "help: add --yes"]);
    assert_eq!(value(filter), "0");
    sandbox.run("doctor --yes").fails(2, &["--fix"]);
    let run = sandbox.run("doctor --fix --yes");
    assert!(
        run.err.contains("/etc/sysctl.d/60-sisforge.conf")
            && run.err.contains("net.ipv4.conf.all.rp_filter = 1"),
        "{run}"
    );
    for (key, wanted) in [("conf.all.rp_filter", "1"), ("conf.all.send_redirects", "0")] {
        assert_eq!(value(&format!("net.ipv4.{key}")), wanted, "{key}");
    }
    let (_, checks) = looked_at(&sandbox, "");
    for id in ["rp-filter", "redirects", "source-routes"] {
        assert_eq!(check(&checks, id)["verdict"], "pass", "{id}");
    }
}
