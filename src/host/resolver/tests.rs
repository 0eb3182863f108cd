use super::*;

fn list(text: &str) -> Arc<NameList> {
    Arc::new(list::parse(text).unwrap())
}

fn policy(deny: &[&str], allow: Option<&[&str]>) -> NetworkPolicy {
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
    let names = NamePolicy { place: 0..0, deny: paths(deny), allow: allow.map(paths) };
    let dns = ["9.9.9.9", "149.112.112.112"].map(|server| server.parse().unwrap());
    NetworkPolicy { dns: dns.into(), names: Some(names), ..NetworkPolicy::default() }
}

/// The resolvers of policies with these lists, on a host whose guests have these uids.
fn all(
    policies: &[(&str, &NetworkPolicy)],
    lists: &[(&str, &str)],
    uids: RangeInclusive<u32>,
    taken: &[u32],
) -> Result<BTreeMap<Label, Resolver>, NoResolver> {
    beside(policies, lists, uids, taken, &[])
}

/// The same where these run already.
fn beside(
    policies: &[(&str, &NetworkPolicy)],
    lists: &[(&str, &str)],
    uids: RangeInclusive<u32>,
    taken: &[u32],
    running: &[&Resolver],
) -> Result<BTreeMap<Label, Resolver>, NoResolver> {
    let labels: Vec<(Label, &NetworkPolicy)> =
        policies.iter().map(|(label, policy)| (label.parse().unwrap(), *policy)).collect();
    resolvers(&ResolverInput {
        policies: &labels.iter().map(|(label, policy)| (label, *policy)).collect(),
        lists: &lists.iter().map(|(path, text)| (path.into(), list(text))).collect(),
        addresses: &[("listed".into(), vec!["149.112.112.0/24".parse().unwrap()])].into(),
        subnet: "203.0.113.0/24".parse().unwrap(),
        closed: &["192.0.2.9/32".parse().unwrap()],
        uids: &uids,
        taken: &taken.iter().copied().collect(),
        running: &running.iter().map(|it| (it.seat.number, it.digest)).collect(),
    })
}

fn one(policy: &NetworkPolicy, lists: &[(&str, &str)]) -> Resolver {
    all(&[("surf", policy)], lists, 200_000..=265_535, &[]).unwrap().into_values().next().unwrap()
}

#[test]
fn denied_names_are_answered_here_and_all_others_asked_for() {
    let config = resolver_config(&one(&policy(&["bad"], None), &[("bad", "ads.example\nzip\n")]));
    for line in [
        "server=9.9.9.9",
        "server=149.112.112.112",
        "address=/ads.example/",
        "address=/zip/",
        "bogus-nxdomain=10.0.0.0/8",
        "bogus-nxdomain=203.0.113.0/24",
        "bogus-nxdomain=192.0.2.9/32",
        "bogus-nxdomain=127.0.0.0/8",
    ] {
        assert!(config.lines().any(|found| found == line), "{line} is not in {config}");
    }
    assert!(!config.contains("address=/#/"));
}

#[test]
fn answers_may_lead_to_what_is_private_where_an_allow_names_it() {
    let allow = |to: &[&str], tcp: &[u16]| PolicyRule {
        to: to.iter().map(|net| net.parse().unwrap()).collect(),
        tcp: tcp.iter().map(|port| *port..=*port).collect(),
        ..PolicyRule::default()
    };
    let rules =
        [allow(&["10.1.0.0/16"], &[22]), allow(&["192.168.7.9/32"], &[80, 443]), allow(&["0.0.0.0/0"], &[])];
    let policy = NetworkPolicy { allow: rules.into(), ..policy(&["bad"], Some(&["good"])) };
    let resolver = one(&policy, &[("bad", "zip\n"), ("good", "work.example\n")]);
    let has = |nets: &[Ipv4Net], address: &str| {
        nets.iter().any(|net| net.contains(&address.parse::<Ipv4Addr>().unwrap()))
    };
    for (address, refused, unreached) in [
        ("10.1.2.3", false, true),
        ("10.0.255.255", true, true),
        ("10.2.0.0", true, true),
        ("192.168.7.9", false, false),
        ("192.168.7.8", true, true),
        ("192.168.7.10", true, true),
        ("172.16.0.1", true, true),
        ("169.254.169.254", true, true),
        ("192.0.2.9", true, true),
        ("198.51.100.10", false, false),
    ] {
        assert_eq!(has(&resolver.refused, address), refused, "{address} in answers");
        assert_eq!(has(&resolver.unreached, address), unreached, "{address} by the proxy");
    }
}

#[test]
fn of_allowed_names_those_that_are_denied_are_left_out() {
    let lists = [("good", "work.example\nads.example\nx.ads.example\n"), ("bad", "ads.example\n")];
    let resolver = one(&policy(&["bad"], Some(&["good"])), &lists);
    let config = resolver_config(&resolver);
    let lines = |start: &str| config.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    assert_eq!(lines("server="), ["server=/work.example/9.9.9.9", "server=/work.example/149.112.112.112"]);
    assert_eq!(lines("address="), ["address=/#/", "address=/ads.example/"]);
    assert!(proxy_config(&resolver).contains(&format!("127.0.0.1:{}", resolver.seat.dns_port())));
    assert_eq!(
        resolver.to_string().split_once(' ').unwrap().1,
        "of network surf: 3 names alone, 1 names denied"
    );
}

#[test]
fn what_is_wanted_and_what_dnsmasq_is_told_are_the_same_names() {
    let lists =
        [("good", "work.example\nads.example\nx.ads.example\nb.example\n"), ("bad", "ads.example\nzip\n")];
    for (policy, denied, allowed) in [
        (policy(&["bad"], None), vec!["ads.example", "zip"], None),
        (
            policy(&["bad", "bad"], Some(&["good"])),
            vec!["ads.example", "zip", "ads.example", "zip"],
            Some(vec!["work.example", "b.example"]),
        ),
        (policy(&[], Some(&["bad"])), vec![], Some(vec!["ads.example", "zip"])),
    ] {
        let resolver = one(&policy, &lists);
        let wanted = ConfiguredNames::wanted(&resolver);
        assert_eq!(wanted.denied().collect::<Vec<_>>(), denied);
        assert_eq!(wanted.allowed().map(Iterator::collect::<Vec<_>>), allowed);
        assert_eq!(ConfiguredNames::observed(&resolver_config(&resolver)), wanted);
    }
}

#[test]
fn a_changed_list_is_another_resolver_and_its_wording_is_not() {
    let policy = policy(&["bad"], None);
    let of = |text: &str| one(&policy, &[("bad", text)]);
    assert_eq!(of("ads.example\n"), of("# ours\nADS.example.\n"));
    let (one, other) = (of("ads.example\n"), of("ads.example\nzip\n"));
    assert_ne!(one.digest, other.digest);
    assert_ne!(one.seat, other.seat, "the next one is to run beside the last one");
}

#[test]
fn seats_are_shared_with_nobody_and_stay_when_others_come() {
    let policy = policy(&["bad"], None);
    let lists = [("bad", "zip\n")];
    let labels: Vec<String> = (0..500).map(|number| format!("n{number}")).collect();
    let policies: Vec<_> = labels.iter().map(|label| (label.as_str(), &policy)).collect();
    let uids = 200_000..=265_535;
    let found = all(&policies, &lists, uids.clone(), &[]).unwrap();
    let used: BTreeSet<u32> = found.values().flat_map(|it| [it.seat.uid, it.seat.proxy_uid]).collect();
    let ports: BTreeSet<u16> =
        found.values().flat_map(|it| [it.seat.dns_port(), it.seat.tls_port(), it.seat.http_port()]).collect();
    assert_eq!((used.len(), ports.len()), (1000, 1500));
    assert_eq!(found.values().flat_map(|it| Seat::ports_of(it.seat.number)).collect::<BTreeSet<_>>(), ports);
    assert!(Seat::ports_of(u16::MAX).is_empty());
    assert!(used.iter().all(|uid| uids.contains(uid)));
    assert!(ports.iter().all(|port| (10_000..32_768).contains(port)));
    let alone = all(&policies[..1], &lists, uids.clone(), &[]).unwrap();
    assert_eq!(alone[&"n0".parse().unwrap()], found[&"n0".parse().unwrap()]);
    // A guest comes that has the uid.
    let taken = found[&"n0".parse().unwrap()].seat.proxy_uid;
    let moved = all(&policies[..1], &lists, uids, &[taken]).unwrap();
    assert_ne!(moved[&"n0".parse().unwrap()].seat, found[&"n0".parse().unwrap()].seat);
}

#[test]
fn the_next_one_never_takes_the_seat_of_one_that_runs_while_there_is_another() {
    let (policy, other) = (policy(&["bad"], None), policy(&["worse"], None));
    let lists = [("bad", "zip\n"), ("worse", "zip\nmov\n")];
    // Two seats: by their digests alone, every second one would be put where the last one runs.
    let uids = 100..=103;
    let mut last =
        all(&[("surf", &policy)], &lists, uids.clone(), &[]).unwrap().into_values().next().unwrap();
    for number in 0..20 {
        let text = format!("zip{number}\n");
        let next = beside(&[("surf", &policy)], &[("bad", &text)], uids.clone(), &[], &[&last]).unwrap();
        let next = next.into_values().next().unwrap();
        assert_ne!(next.seat, last.seat);
        let stays = beside(&[("surf", &policy)], &[("bad", &text)], uids.clone(), &[], &[&next]).unwrap();
        assert_eq!(stays[&"surf".parse().unwrap()], next, "it stays where it runs");
        // Another policy's comes first, and moves it neither.
        let both = beside(&[("a", &other), ("surf", &policy)], &lists, uids.clone(), &[], &[&next]);
        assert_eq!(both.unwrap().len(), 2);
        last = next;
    }
    // Where there is one seat alone, it is taken in any case.
    let only = beside(&[("surf", &other)], &lists, 100..=101, &[], &[&last]).unwrap();
    assert_eq!(only[&"surf".parse().unwrap()].seat.uid, 101);
}

#[test]
fn few_uids_are_enough_and_none_are_not() {
    let policy = policy(&["bad"], None);
    let at = |uids, taken: &[u32]| all(&[("surf", &policy)], &[("bad", "zip\n")], uids, taken);
    let seat = at(100..=103, &[100, 101]).unwrap().into_values().next().unwrap().seat;
    assert_eq!((seat.uid, seat.proxy_uid), (103, 102));
    for (uids, taken) in [(100..=103, vec![101, 102]), (100..=100, vec![])] {
        assert_eq!(at(uids, &taken).unwrap_err(), NoResolver::NoSeat("surf".parse().unwrap()));
    }
}

#[test]
fn name_servers_that_are_denied_are_not_asked() {
    let deny = |rule: PolicyRule| NetworkPolicy { deny: vec![rule], ..policy(&["bad"], None) };
    let to = |net: &str| PolicyRule { to: vec![net.parse().unwrap()], ..PolicyRule::default() };
    let of = |policy: &NetworkPolicy| one(policy, &[("bad", "zip\n")]).servers;
    let both: Vec<Ipv4Addr> = ["9.9.9.9", "149.112.112.112"].map(|server| server.parse().unwrap()).into();
    assert_eq!(of(&deny(to("9.9.9.0/24"))), both[1..]);
    assert_eq!(of(&deny(PolicyRule { udp: vec![50..=60], ..to("9.9.9.9/32") })), both[1..]);
    assert_eq!(of(&deny(PolicyRule { udp: vec![443..=443], ..to("9.9.9.9/32") })), both);
    assert_eq!(of(&deny(PolicyRule { list: Some("listed".into()), ..PolicyRule::default() })), both[..1]);
    let error = all(&[("surf", &deny(to("0.0.0.0/0")))], &[("bad", "zip\n")], 0..=99, &[]).unwrap_err();
    assert_eq!(error, NoResolver::NoServer("surf".parse().unwrap()));
}
