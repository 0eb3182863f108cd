//! Network policies, and what the host gives out.

use super::*;

#[test]
fn the_host_gives_numbers_that_are_safe_to_give() {
    refused(&[
        ("", "[host]\nsubnet = \"10.0.0.1/24\"", "the network is 10.0.0.0/24"),
        ("", "[host]\nsubnet = \"fd00::/64\"", "must be an IPv4 network"),
        ("", "[host]\nsubnet = \"10.0.0.0/31\"", "/8 to /30"),
        ("", "[host]\nuids = \"999-5000\"", "must begin at 1000"),
        ("", "[host]\nuids = \"5000-4000\"", "is empty"),
        ("", "[host]\nuids = \"60000-70000\"", "65534"),
        ("", "[host]\nstore = \"store\"", "must be an absolute path"),
        ("", "[host]\nlogs = { size = \"1KiB\" }", "at least 4KiB"),
        ("", "[host]\nlogs = { keep = 100 }", "100 is not from 0 to 99"),
        ("", "[host]\nuplink = \"a name that is too long\"", "1 to 15"),
        ("\"sis\"", "\"Sis\"", "1 to 32"),
    ]);
}

#[test]
fn a_preset_stands_behind_what_is_written() {
    let fleet = at(FULL).unwrap_or_else(|invalid| panic!("{}", render(&invalid, false)));
    let strict = &fleet.networks[&"surf-strict".parse().unwrap()];
    let builtin: Vec<_> = strict.deny.iter().map(|rule| rule.builtin).collect();
    use BuiltinList::{Doh, Dot, Private, Quic, Smtp};
    // The last is for its names.
    assert_eq!(builtin, [Private, Smtp, Dot, Doh, Quic].map(Some));
    assert!(strict.deny[0].place.is_some() && strict.deny[1].place.is_none());
    assert_eq!((strict.allow[0].tcp.len(), strict.allow[0].udp.as_slice()), (2, &[443..=443][..]));
    assert_eq!((strict.default_allow, strict.budget), (false, Budget::default()));
    let preset = |word| SMALL.replace("[network.surf]", &format!("[network.surf]\npreset = \"{word}\""));
    for (word, open) in [("open", true), ("closed", false), ("browse", false)] {
        let fleet = at(&preset(word)).unwrap();
        assert_eq!(fleet.networks[&"surf".parse().unwrap()].default_allow, open, "{word}");
    }
}

#[test]
fn names_bring_what_they_would_be_got_round_by() {
    let rules = |preset: &str, names: &str| {
        let text = format!("[network.surf]\ndns = [\"9.9.9.9\"]\n{preset}names = {{ {names} }}");
        let fleet = at(&SMALL.replacen("[network.surf]", &text, 1)).unwrap();
        let policy = fleet.networks.values().next().unwrap().clone();
        let lists = policy.deny.iter().filter_map(|rule| rule.builtin.map(BuiltinList::name));
        (lists.collect::<Vec<_>>(), policy.names.unwrap().lists().cloned().collect::<Vec<_>>())
    };
    let file = |name: &str| PathBuf::from("/f").join(name);
    assert_eq!(rules("", "deny = [\"a\", \"b\"]"), (vec!["dot", "doh"], vec![file("a"), file("b")]));
    assert_eq!(rules("", "allow = [\"a\"]"), (vec!["dot", "doh", "quic"], vec![file("a")]));
    let both = rules("preset = \"browse\"\n", "allow = [\"a\"], deny = [\"b\"]");
    assert_eq!(both, (vec!["smtp", "dot", "doh", "quic"], vec![file("b"), file("a")]));
}

#[test]
fn policies_name_destinations_and_ports_exactly() {
    let allow = |rule: &str| format!("[network.surf]\nallow = [{{ {rule} }}]");
    refused(&[
        ("[network.surf]", &allow("to = [\"10.1.0.0/8\"]"), "the network is 10.0.0.0/8"),
        ("[network.surf]", &allow("to = [\"example.org\"]"), "must be an address or a prefix"),
        ("[network.surf]", &allow("to = []"), "no destination"),
        ("[network.surf]", &allow("tcp = [80]"), "neither `to` nor `list`"),
        ("[network.surf]", &allow("to = [\"1.1.1.1\"], tcp = [0]"), "1 to 65535"),
        ("[network.surf]", &allow("to = [\"1.1.1.1\"], udp = [65536]"), "1 to 65535"),
        ("[network.surf]", &allow("to = [\"1.1.1.1\"], tcp = [\"90-80\"]"), "is empty"),
        ("[network.surf]", "[network.surf]\ndns = [\"2620:fe::9\"]", "only IPv4 addresses"),
        (
            "[network.surf]",
            "[network.surf]\ndns = [\"10.107.3.4\"]",
            "in 10.107.0.0/16, the guests' own \
          subnet",
        ),
        (
            "[network.surf]",
            "[network.surf]\ndeny = [{ list = \"builtin:privat\" }]",
            "there are builtin:metadata",
        ),
        (
            "[network.surf]",
            "[network.surf]\ndeny = [{ list = \"builtin:smtp\", tcp = [1] }]",
            "already includes its ports",
        ),
        (
            "[network.surf]",
            "[network.surf]\ndeny = [{ list = \"builtin:doh\", to = [\"9.9.9.9\"] }]",
            "cannot be combined with `to`",
        ),
        ("[network.surf]", "[network.surf]\npreset = \"broswe\"", "not one of closed, browse, open"),
        (
            "[network.surf]",
            "[network.surf]\npreset = \"open\"\ndefault = \"deny\"",
            "the preset already sets",
        ),
        ("[network.surf]", "[network.surf]\nnames = { deny = [\"n\"] }", "needs name servers"),
        ("[network.surf]", "[network.surf]\ndns = [\"9.9.9.9\"]\nnames = {}", "names no names"),
        ("[network.surf]", "[network.surf]\ndns = [\"9.9.9.9\"]\nnames = { allow = [] }", "names no file"),
        (
            "[network.surf]",
            "[network.surf]\ndns = [\"9.9.9.9\"]\npreset = \"open\"\nnames = { allow = [\"n\"] }",
            "the policy opens everything",
        ),
        (
            "[network.surf]",
            "[network.surf]\ndns = [\"9.9.9.9\"]\ndefault = \"allow\"\nnames = { allow = [\"n\"] }",
            "the policy opens everything",
        ),
        (
            "[network.surf]",
            "[network.surf]\ndns = [\"9.9.9.9\"]\nallow = [{ to = [\"0.0.0.0/0\"] }]\nnames = { allow = [\"n\"] }",
            "the policy opens everything",
        ),
        ("[network.surf]", "[network.surf]\nbudget = { new-connections = \"0/s\" }", "from \"1/s\""),
        ("[network.surf]", "[network.surf]\nbudget = { connections = 0 }", "0 is not from 1 to 65535"),
        ("[network.surf]", "[network.surf]\nrate = { up = \"1MB/s\" }", "must be a rate"),
    ]);
}
