//! What the program says of policies.

use std::time::{Duration, Instant};

use serde_json::Value;

use sisforge::sys::netns::{self, Netns};
use sisforge::sys::nft;

use crate::common::namespaces::skip;
use crate::common::sandbox::Sandbox;
use crate::needs_firecracker;

/// A fleet of one guest with this policy, and a list.
fn with_policy(policy: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("lists/unsafe.txt", "# ours\n203.0.113.0/24\n198.51.100.7 # one\n");
    let text = sandbox.fleet_text("a", "").replace("default = \"deny\"", policy);
    sandbox.write("fleet.toml", text);
    sandbox
}

const POLICY: &str = r#"dns = ["10.0.0.53"]
allow = [
  { to = ["0.0.0.0/0"], tcp = [80, "8000-8100"] },
  { to = ["10.1.0.0/16"], icmp = true },
]
deny = [
  { list = "lists/unsafe.txt" },
  { list = "builtin:smtp" },
]"#;

/// Line of `fleet.toml` on which `needle` stands.
fn line(sandbox: &Sandbox, needle: &str) -> usize {
    sandbox.read("fleet.toml").lines().position(|line| line.contains(needle)).unwrap() + 1
}

#[test]
fn a_packet_is_explained_by_a_line_and_an_entry() {
    let sandbox = with_policy(POLICY);
    let a = sandbox.guest('a');
    let explain = |target: &str| sandbox.run(&format!("policy explain {a} {target}"));
    let says = |target: &str, code: i32, words: &[&str]| {
        let run = explain(target);
        assert_eq!((run.code, run.err.as_str()), (code, ""), "{run}");
        for word in words {
            assert!(run.out.contains(word), "not said: {word:?}\n{run}");
        }
    };
    let at = |needle: &str| format!("fleet.toml:{}:", line(&sandbox, needle));
    says("198.51.100.1:80", 0, &[":80/tcp: allowed", &at("\"8000-8100\"")]);
    says("198.51.100.1:81", 3, &[": refused", "no rule names it", &at("[network.n]")]);
    says("198.51.100.7:80", 3, &[": refused", &at("lists/unsafe.txt"), "198.51.100.7/32", "unsafe.txt:3:"]);
    says("203.0.113.9:80", 3, &["203.0.113.0/24 of", "unsafe.txt:2:"]);
    says("198.51.100.1:25", 3, &[&at("builtin:smtp"), "deny tcp 25, 465, 587 to builtin:smtp"]);
    says("10.0.0.53:53/udp", 0, &[&at("dns ="), "allowed"]);
    says("10.0.0.53:53", 0, &["allowed"]);
    says("10.0.0.53:80", 3, &["private ranges are closed"]);
    says("10.1.2.3/icmp", 0, &["allowed", &at("10.1.0.0/16")]);
    says("10.1.2.3:80", 3, &["private ranges are closed"]);
    says("169.254.169.254:80", 3, &["dropped", "no policy opens", "169.254.0.0/16"]);
    says("2001:db8::1", 3, &["dropped", "guests have no IPv6"]);
    says("198.51.100.1", 0, &["tcp 80, 8000-8100: allowed", "everything else: refused"]);
    for (target, why) in
        [("*.example.org", "neither an address nor a domain name"), ("198.51.100.1:0", "is no port")]
    {
        explain(target).fails(2, &[why]);
    }
    let guest = format!("{a} is a guest");
    explain(&a).fails(2, &[&guest, "`sisforge lock` gives it"]);
    sandbox.done("lock");
    let address = sandbox.subnet().replace(".0/24", ".");
    explain(&a).fails(2, &[&guest, &format!("ask about its address: {address}")]);
    sandbox
        .run(&format!("policy explain {a}x 198.51.100.1"))
        .fails(2, &["there is no guest", "did you mean"]);
}

#[test]
fn a_policy_is_shown_in_the_order_in_which_its_lines_win() {
    let sandbox = with_policy(POLICY);
    let shown = sandbox.done("policy show n");
    let order = ["no policy opens", "lists/unsafe.txt", "builtin:smtp", "icmp to 10.1.0.0/16"];
    let places: Vec<_> =
        order.map(|words| shown.find(words).unwrap_or_else(|| panic!("{words}\n{shown}"))).into();
    assert!(places.is_sorted(), "{shown}");
    assert!(shown.contains("unsafe.txt: 2 entries"), "{shown}");
    let a = sandbox.guest('a');
    assert_eq!(sandbox.done(&format!("policy show {a}")), shown, "a guest's is its network's");
    assert_eq!(sandbox.done("policy show"), shown);
    sandbox.run("policy show m").fails(2, &["there is no network policy and no guest \"m\""]);
    let json: Value = serde_json::from_str(&sandbox.done("policy show --json")).unwrap();
    let clauses = json[0]["clauses"].as_array().unwrap();
    assert_eq!(clauses.last().unwrap()["verdict"], "refused", "{json}");
}

#[test]
fn what_does_nothing_is_an_error_of_check_at_its_place() {
    for (policy, needle, why) in [
        ("allow = [{ to = [\"2001:db8::/32\"] }]", "2001:db8", "guests have no IPv6"),
        (
            "allow = [{ to = [\"198.51.100.1\", \"169.254.169.254\"] }]",
            "169.254",
            "no policy opens 169.254.169.254",
        ),
        ("allow = [{ list = \"builtin:metadata\" }]", "builtin", "no policy opens builtin:metadata"),
        ("allow = [{ to = [\"198.51.100.1\"], tcp = [] }]", "tcp = []", "the list of ports is empty"),
        ("deny = [{ to = [\"198.51.100.1\"], icmp = false }]", "icmp", "`icmp = false` changes nothing"),
        ("deny = [{ list = \"lists/none.txt\" }]", "lists/none.txt", "the list has no address"),
        (
            "deny = [{ to = [\"198.51.100.0/24\"] }]\nallow = [{ to = [\"198.51.100.1\"], tcp = [80] }]",
            "tcp = [80]",
            "this rule does nothing",
        ),
        (
            "preset = \"browse\"\nallow = [{ to = [\"198.51.100.1\"], tcp = [25] }]",
            "tcp = [25]",
            "this wins over all of it: deny tcp 25, 465, 587 to builtin:smtp",
        ),
    ] {
        let sandbox = with_policy(policy);
        sandbox.write("lists/none.txt", "# nothing\n2001:db8::/32\n");
        let place = format!("fleet.toml:{}:", line(&sandbox, needle));
        sandbox.run("check").fails(2, &[why, &place]);
    }
}

#[test]
fn what_another_line_says_too_is_a_note_of_check() {
    let sandbox = with_policy(
        "allow = [{ to = [\"198.51.100.0/24\"] }, { to = [\"198.51.100.1\"], tcp = [80] }]\n\
         deny = [{ to = [\"169.254.0.0/16\"] }]",
    );
    sandbox.run("check").fails(
        0,
        &[
            "`allow tcp 80 to 198.51.100.1/32` decides nothing",
            "`deny every protocol to 169.254.0.0/16` decides nothing",
        ],
    );
}

#[test]
fn a_name_is_explained_by_a_line_of_a_list() {
    let text = |names: &str| format!("dns = [\"10.0.0.53\"]\n{names}");
    let sandbox = with_policy(&text("names = { deny = [\"bad.txt\"] }"));
    sandbox.write("bad.txt", "# ours\nAds.Example\nzip\n");
    sandbox.write("good.txt", "example\n");
    let a = sandbox.guest('a');
    let says = |target: &str, code: i32, words: &[&str]| {
        let run = sandbox.run(&format!("policy explain {a} {target}"));
        assert_eq!((run.code, run.err.as_str()), (code, ""), "{run}");
        for word in words {
            assert!(run.out.contains(word), "not said: {word:?}\n{run}");
        }
    };
    let at = format!("fleet.toml:{}:", line(&sandbox, "names ="));
    says(
        "x.ADS.example.",
        3,
        &["x.ads.example: no such name", &at, "names.deny has it", "by ads.example of", "bad.txt:2:1"],
    );
    says("badads.example:443", 0, &["badads.example:443/tcp: answered", "judged by themselves"]);
    // An address is judged as ever; port 53 leads elsewhere before that.
    says("8.8.8.8:53/udp", 0, &["port 53 leads to this network's resolver", "it asks 10.0.0.53"]);
    says("8.8.8.8:443", 3, &["builtin:doh"]);
    let document = sandbox.document(&format!("policy explain {a} ads.example"), "policy-explain");
    assert_eq!(document["name"]["verdict"], "denied");
    assert_eq!(document["name"]["entry_place"]["line"], 2);

    let only = text("names = { deny = [\"bad.txt\"], allow = [\"good.txt\"] }");
    sandbox.write(
        "fleet.toml",
        sandbox.read("fleet.toml").replace(&text("names = { deny = [\"bad.txt\"] }"), &only),
    );
    says("www.example", 0, &["www.example: allowed", "through the proxy", "by example of", "good.txt:1:1"]);
    says("www.example:443/udp", 3, &["refused", "QUIC"]);
    says("ads.example", 3, &["no such name", "names.deny has it"]);
    says("other.test", 3, &["no such name", "names.allow does not have it"]);
    says("198.51.100.1:443", 0, &["the web is reached by allowed names alone"]);
    says("198.51.100.1:444", 3, &["refused, since no rule names it"]);
    let shown = sandbox.done("policy show");
    assert!(shown.contains("bad.txt: 2, names that are denied"), "{shown}");
    assert!(shown.contains("good.txt: 1, the only names that are allowed"), "{shown}");
    // Their lines never decide, since the proxy takes all of it.
    let useless = "allow = [{ to = [\"198.51.100.0/24\"], tcp = [443] }]\nnames =";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("names =", useless));
    sandbox.run("check").fails(0, &["decides nothing, since this wins: names: the web is reached"]);
}

#[test]
fn the_kernel_proves_what_is_explained() {
    if !rustix::process::geteuid().is_root() {
        return skip("the_kernel_proves_what_is_explained", "rules are root's");
    }
    let sandbox = with_policy(POLICY);
    let a = sandbox.guest('a');
    let prove = |question: &str| sandbox.run(&format!("policy explain {a} {question} --prove"));
    for (question, code) in [
        ("198.51.100.1:80", 0),
        ("198.51.100.1:25", 3),
        ("198.51.100.7:80", 3),
        ("10.0.0.53:53/udp", 0),
        ("10.1.2.3/icmp", 0),
        ("169.254.169.254:80", 3),
        ("127.0.0.1:80", 3),
    ] {
        let run = prove(question);
        assert_eq!((run.code, run.err.as_str()), (code, ""), "{run}");
        assert!(run.out.contains("proved by the kernel") && !run.out.contains("unknown rule"), "{run}");
    }
    prove("198.51.100.1").fails(2, &["nothing to prove"]);
    prove("www.example.org").fails(2, &["nothing to prove"]);
    prove("2001:db8::1").fails(2, &["nothing to prove"]);
    sandbox.run("policy show --nft").fails(2, &["there is no ", "sisforge lock"]);
    sandbox.done("lock");
    let rules = sandbox.done(&format!("policy show {a} --nft"));
    assert!(rules.contains(&format!("table inet sisforge-{}", sandbox.name)), "{rules}");
}

#[test]
fn a_plan_tells_what_a_policy_opens_and_closes() {
    needs_firecracker!();
    let sandbox = with_policy("allow = [{ to = [\"198.51.100.0/24\"], tcp = [80] }]");
    sandbox.done("up");
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("tcp = [80]", "tcp = [443]"));
    let plan = sandbox.done("plan");
    let a = sandbox.guest('a');
    let line = line(&sandbox, "tcp = [443]");
    for words in [
        format!(
            "network n opens tcp 443 to 198.51.100.0/24 (line {line}: allow tcp 443 to 198.51.100.0/24), for {a}"
        ),
        "network n closes tcp 80 to 198.51.100.0/24 (".to_owned(),
    ] {
        assert!(plan.contains(&words), "not said: {words}\n{plan}");
    }
    let json: Value = serde_json::from_str(&sandbox.done("plan --json")).unwrap();
    assert_eq!(json["policy_changes"].as_array().unwrap().len(), 2, "{json}");
    sandbox.done("up");
    let json: Value = serde_json::from_str(&sandbox.done("plan --json")).unwrap();
    assert_eq!((&json["empty"], json["policy_changes"].as_array().unwrap().len()), (&true.into(), 0));
}

/// Whether the next look need not read the rules back: nobody changed a table since they were read.
fn rules_are_known(sandbox: &Sandbox) -> bool {
    let held: Value =
        serde_json::from_str(&sandbox.read(&format!("store/{}/ruleset-held.json", sandbox.name))).unwrap();
    let netns = Netns::named(&sandbox.netns());
    held["generation"] == netns::within(&netns, nft::generation).unwrap().unwrap()
}

#[test]
fn rules_are_read_back_once_after_a_change_that_is_not_theirs() {
    needs_firecracker!();
    let sandbox = with_policy(POLICY);
    let a = sandbox.guest('a');
    sandbox.done("up");
    assert!(rules_are_known(&sandbox));
    for command in ["quarantine", "quarantine", "release", "release"] {
        sandbox.done(&format!("{command} {a}"));
        assert!(rules_are_known(&sandbox), "{command}");
    }
    let other = Netns::named(&sandbox.netns());
    netns::within(&other, || nft::load("add table inet other")).unwrap().unwrap();
    assert!(!rules_are_known(&sandbox));
    // Whoever looks alone keeps nothing.
    assert!(sandbox.done("plan").contains("nothing to do") && !rules_are_known(&sandbox));
    sandbox.done("up");
    assert!(rules_are_known(&sandbox));
    netns::within(&other, || nft::load(&format!("flush table inet sisforge-{}", sandbox.name)))
        .unwrap()
        .unwrap();
    assert!(sandbox.done("plan").contains("load nft ruleset"), "what is theirs still shows");
    sandbox.done("down");
}

#[test]
fn a_change_of_the_store_brings_nobody_back() {
    needs_firecracker!();
    let sandbox = with_policy(POLICY);
    let (a, fleet) = (sandbox.guest('a'), sandbox.read("fleet.toml"));
    sandbox.done("up");
    sandbox.done(&format!("quarantine {a}"));
    let at = |store: &str| {
        let old = sandbox.path("store").display().to_string();
        sandbox.write("fleet.toml", fleet.replace(&old, &sandbox.path(store).display().to_string()));
    };
    let is_cut_off = || sandbox.ps(&a)["quarantined"].is_string();
    at("second");
    assert!(is_cut_off(), "before anything is done");
    let stays = format!("{a} is quarantined, which this store does not know, and stays so");
    sandbox.run("plan").fails(0, &[&stays]);
    sandbox.done("up");
    assert!(is_cut_off() && sandbox.done("plan").contains("nothing to do"));
    assert!(
        sandbox.path(&format!("second/{}/quarantine/{a}.json", sandbox.name)).exists(),
        "it has a record"
    );

    // Who runs by another store is cut off as well, and brought back.
    at("third");
    assert!(!sandbox.done(&format!("--json release {a}")).is_empty() && !is_cut_off());
    sandbox.done(&format!("quarantine {a}"));
    assert!(is_cut_off());
    sandbox.done("up");
    assert!(is_cut_off());
    sandbox.done(&format!("release {a}"));
    sandbox.done("up");
    assert!(!is_cut_off() && sandbox.done("plan").contains("nothing to do"));
    sandbox.done("down");
    let mut traces = sandbox.traces();
    // Of the first store, which nobody asked to be cleared.
    traces.retain(|trace| !trace.starts_with("jails: "));
    assert_eq!(traces, [""; 0]);
    at("store");
}

#[test]
fn a_guest_is_cut_off_until_it_is_released() {
    needs_firecracker!();
    let sandbox = with_policy(POLICY);
    let a = sandbox.guest('a');
    sandbox.run(&format!("quarantine {a}")).fails(1, &["was never started on this host"]);
    sandbox.done("up");
    let is_cut_off = || sandbox.ps(&a)["quarantined"].is_string();
    assert!(!is_cut_off());
    sandbox.run(&format!("quarantine {a}x")).fails(2, &["there is no guest", "did you mean"]);
    // Nothing else in the file is looked at, and nobody who changes the host is waited for.
    let fleet = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", format!("{fleet}\n[network.broken]\nalow = 7\n"));
    let lock =
        sisforge::sys::fs::FileLock::wait(&sandbox.path(&format!("store/{}/lock", sandbox.name))).unwrap();
    let began = Instant::now();
    sandbox.done(&format!("quarantine {a}"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(lock);
    sandbox.write("fleet.toml", fleet.clone());
    assert!(is_cut_off());
    let explained = sandbox.run(&format!("policy explain {a} 198.51.100.1:80"));
    assert!(explained.code == 3 && explained.out.contains("is quarantined"), "{explained}");
    let proved = sandbox.run(&format!("policy explain {a} 198.51.100.1:8000 --prove"));
    let (said, kernel) = proved.out.split_once("proved by the kernel:").unwrap();
    assert!(proved.code == 3 && said.contains("allowed"), "{proved}");
    assert!(kernel.trim_end().ends_with("reject with tcp reset (verdict drop)"), "{proved}");
    let ps = sandbox.done("ps");
    assert!(ps.contains("ready, quarantined"), "{ps}");
    assert!(sandbox.done("plan").contains("nothing to do"), "the host is as it should be");
    // Other rules, and another start, leave it so.
    sandbox.write("fleet.toml", fleet.replace("8000-8100", "8000-8200"));
    sandbox.done("up");
    assert!(sandbox.done("plan").contains("nothing to do"));
    sandbox.done("down");
    sandbox.done(&format!("quarantine {a}"));
    sandbox.done("up");
    assert!(is_cut_off() && sandbox.done("plan").contains("nothing to do"));
    assert!(sandbox.done(&format!("--json release {a}")).contains("\"quarantined\":false"));
    assert!(!is_cut_off());
    assert!(sandbox.done("plan").contains("nothing to do"));
    sandbox.run(&format!("release {a}")).fails(0, &["was not quarantined"]);
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn rules_alone_are_loaded_where_that_is_all_that_is_asked_for() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = sandbox.guest('a');
    let (good, pid) = (sandbox.read("fleet.toml"), sandbox.pid(&a));
    sandbox.run("policy reload").fails(0, &["nothing to do"]);
    // One line of the policy, and one that would restart her.
    let open = good.replace(
        "default = \"deny\"",
        "default = \"deny\"\nallow = [{ to = [\"198.51.100.1\"], tcp = [80] }]",
    );
    sandbox.write("fleet.toml", open.replace("memory = \"64MiB\"", "memory = \"72MiB\""));
    let reload = sandbox.run("policy reload");
    assert_eq!(reload.code, 0, "{reload}");
    assert_eq!(sandbox.pid(&a), pid);
    let plan = sandbox.run("plan");
    assert!(plan.out.contains("1 to restart") && !plan.out.contains("ruleset"), "{plan}");
    sandbox.write("fleet.toml", &open);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    sandbox.write("fleet.toml", open.replace("198.51.100.1", "198.51.100"));
    sandbox.run("policy reload").fails(2, &["fleet.toml:"]);
}

#[test]
fn a_policy_that_denies_all_its_name_servers_is_a_mistake() {
    for more in ["", "\nnames = { deny = [\"lists/names.txt\"] }"] {
        let policy = |denied: &str| {
            format!(
                "dns = [\"9.9.9.9\", \"149.112.112.112\"]\ndeny = [{{ to = [{denied}] }}]\ndefault = \"allow\"{more}"
            )
        };
        let all = with_policy(&policy("\"9.9.9.9\", \"149.112.112.0/24\""));
        all.write("lists/names.txt", "example.org\n");
        all.run("check").fails(2, &["denies every name server", "fleet.toml:", "help: "]);
        let one = with_policy(&policy("\"9.9.9.9\""));
        one.write("lists/names.txt", "example.org\n");
        one.run("check").fails(0, &[]);
    }
}
