//! Rules, TAPs and what leads to the network: mended while guests run.

use super::*;

#[test]
fn a_missing_tap_restarts_its_guest_and_changed_rules_restart_none() {
    type Break = fn(&mut ObservedGuest);
    let broken: [(Break, &str); 4] = [
        (|guest| guest.tap = None, "its tap is gone"),
        (|guest| guest.tap.as_mut().unwrap().up = false, "its tap was changed"),
        (|guest| guest.tap.as_mut().unwrap().address = None, "its tap was changed"),
        (|guest| guest.tap.as_mut().unwrap().owner = None, "its tap was changed"),
    ];
    for (broken, why) in broken {
        let mut found = host(&["alice"]);
        broken(alice(&mut found));
        assert_eq!(diff(&found, &wanted(&["alice"])).stop[0].why.to_string(), why);
    }
    for others in [None, Some(ObservedRuleset::Unknown), Some(ObservedRuleset::Loaded(Sha256::of("other")))] {
        let found = ObservedHost { ruleset: others, ..host(&["alice"]) };
        assert_eq!(steps(&diff(&found, &wanted(&["alice"]))).len(), 1);
    }
}

#[test]
fn rules_are_loaded_between_the_namespace_and_the_way_out_of_it() {
    let plan = diff(&ObservedHost::default(), &wanted(&["alice"]));
    let words: Vec<_> = plan.rules.iter().map(ToString::to_string).collect();
    let begin = [
        "set up the network namespace",
        "load nft ruleset ",
        "load nft ruleset of the host ",
        "connect 10.107.0.0/16 with eth0: pair, forwarding",
    ];
    assert!(words.iter().zip(begin).all(|(step, begin)| step.starts_with(begin)), "{words:?}");
    assert_eq!(words.len(), begin.len());
}

#[test]
fn every_part_of_the_network_is_mended_without_a_restart() {
    type Break = fn(&mut ObservedNetwork);
    let parts: [(Break, &str); 7] = [
        (|network| network.namespace = Some(Found::Half), "set up the network namespace\n"),
        (|network| network.pair = None, "connect 10.107.0.0/16 with eth0: pair\n"),
        (|network| network.pair = Some(Found::Half), "connect 10.107.0.0/16 with eth0: pair\n"),
        (|network| network.forwarding.clear(), "connect 10.107.0.0/16 with eth0: forwarding\n"),
        (
            |network| *network.forwarding.values_mut().next().unwrap() = false,
            "connect 10.107.0.0/16 with eth0: forwarding\n",
        ),
        (
            |network| network.forwarding.extend([("eth1".parse().unwrap(), true)]),
            "connect 10.107.0.0/16 with eth0: forwarding\n",
        ),
        (|network| network.rules = Some(ObservedRuleset::Unknown), "load nft ruleset of the host "),
    ];
    for (break_it, step) in parts {
        let mut found = host(&["alice"]);
        break_it(&mut found.network);
        let plan = diff(&found, &wanted(&["alice"]));
        assert!(
            plan.detailed().starts_with(step) && plan.detailed().lines().count() == 1,
            "{}",
            plan.detailed()
        );
        let down = diff(&found, &WantedHost::default());
        assert_eq!(down.rules, [Step::Network(NetworkStep::RemoveNetwork)]);
    }
}

#[test]
fn settings_and_rate_of_a_tap_are_put_right_while_its_guest_runs() {
    let drifted: [fn(&mut ObservedGuest); 4] = [
        |guest| guest.tap.as_mut().unwrap().hardened = false,
        |guest| guest.tap.as_mut().unwrap().rates.down = None,
        |guest| guest.tap.as_mut().unwrap().rates.up = Some(Found::Half),
        |guest| guest.tap.as_mut().unwrap().rates.down = Some(Found::Whole(1)),
    ];
    for drifted in drifted {
        let mut found = host(&["alice"]);
        drifted(alice(&mut found));
        let plan = diff(&found, &wanted(&["alice"]));
        assert_eq!(plan.stop, []);
        let all: Vec<_> = plan.start[0].all().map(ToString::to_string).collect();
        assert!(all.len() == 1 && all[0].starts_with("create tap sis-alice"), "{all:?}");
    }
}

#[test]
fn another_resolver_is_there_before_guests_are_led_to_it_and_the_last_one_until_then() {
    let resolver = |number: u16, what: &str| Resolver {
        policy: "surf".parse().unwrap(),
        seat: Seat { number, uid: 1, proxy_uid: 2 },
        digest: Sha256::of(what),
        servers: Vec::new(),
        refused: Vec::new(),
        unreached: Vec::new(),
        deny: Vec::new(),
        allow: None,
    };
    let with = |number, what| WantedHost {
        resolvers: [(number, resolver(number, what))].into(),
        ..wanted(&["alice"])
    };
    let running = |what| ObservedResolver::Running(Sha256::of(what));
    let found = |seats: &[(u16, ObservedResolver)]| ObservedHost {
        resolvers: seats.iter().copied().collect(),
        ruleset: Some(ObservedRuleset::Unknown),
        ..host(&["alice"])
    };
    let verbs = |plan: &Plan| plan.rules.iter().map(|step| step.to_string()).collect::<Vec<_>>();
    let changed = diff(&found(&[(1, running("old"))]), &with(2, "new"));
    let verbs_of = verbs(&changed);
    assert!(verbs_of[0].starts_with("start resolver") && verbs_of[1].starts_with("load nft"), "{verbs_of:?}");
    assert_eq!(verbs_of[2..], ["stop the resolver in seat 1"]);
    for (seats, steps) in [
        (vec![(2, running("new"))], 0),
        (vec![(2, running("old"))], 1),
        (vec![(2, ObservedResolver::Broken)], 1),
        (vec![], 1),
        (vec![(2, running("new")), (3, ObservedResolver::Broken)], 1),
    ] {
        let plan = diff(&found(&seats), &with(2, "new"));
        assert_eq!(plan.rules.len(), steps + 1, "{seats:?}: {:?}", verbs(&plan));
    }
    let down = diff(&found(&[(2, running("new"))]), &WantedHost::default());
    assert_eq!(
        down.rules,
        [Step::Network(NetworkStep::StopResolver { seat: 2 }), Step::Network(NetworkStep::RemoveNetwork)]
    );
    let one = [name("alice")];
    let down =
        super::super::diff(&found(&[(2, running("new"))]), &WantedHost::default(), GuestScope::Only(&one));
    assert_eq!(down.rules, [], "others may ask it");
}

#[test]
fn guests_in_the_hosts_own_network_move_before_their_rules_go() {
    let mut found = host(&["alice"]);
    alice(&mut found).tap.as_mut().unwrap().is_in_host = true;
    found.network = ObservedNetwork { is_in_host: true, ..ObservedNetwork::default() };
    found.ruleset = None;
    let plan = diff(&found, &wanted(&["alice"]));
    assert_eq!(plan.stop[0].why.to_string(), "moves into the network namespace");
    assert_eq!(plan.rules.last(), Some(&Step::Network(NetworkStep::RemoveEarlierNetwork)));
    assert!(!plan.rules_come_first());
    assert!(plan.start[0].steps.iter().any(|step| matches!(step, Step::CreateTap { .. })));
    let down = diff(&found, &WantedHost::default());
    assert_eq!(down.rules, [Step::Network(NetworkStep::RemoveEarlierNetwork)]);
}

#[test]
fn the_tap_that_an_earlier_start_left_is_made_anew() {
    let mut found = host(&["alice"]);
    alice(&mut found).vmm = None;
    let plan = diff(&found, &wanted(&["alice"]));
    let all: Vec<_> = plan.start[0].all().map(|step| step.to_string()).collect();
    let place = |step: &str| all.iter().position(|found| found.starts_with(step)).unwrap();
    assert!(place("remove tap") < place("create tap") && place("create tap") < place("start"), "{all:?}");
}
