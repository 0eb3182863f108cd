//! What the program says of policies.

use serde_json::Value;

use crate::common::sandbox::Sandbox;

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
    for (target, why) in [("example.org", "is no address"), ("198.51.100.1:0", "is no port")] {
        explain(target).fails(2, &[why]);
    }
    sandbox
        .run(&format!("policy explain {a}x 198.51.100.1"))
        .fails(2, &["there is no guest", "did you mean"]);
}

#[test]
fn a_policy_is_shown_in_the_order_in_which_its_lines_win() {
    let sandbox = with_policy(POLICY);
    let shown = sandbox.done("policy show n");
    let order =
        ["no policy opens", "lists/unsafe.txt", "builtin:smtp", "dns 10.0.0.53", "icmp to 10.1.0.0/16"];
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
