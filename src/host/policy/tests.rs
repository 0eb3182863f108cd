use super::*;
use crate::fleet::{BuiltinList, PolicyRule};

fn rule(to: &[&str]) -> PolicyRule {
    PolicyRule { to: to.iter().map(|net| net.parse().unwrap()).collect(), ..PolicyRule::default() }
}

fn tcp(to: &[&str], ports: &[u16]) -> PolicyRule {
    PolicyRule { tcp: ports.iter().map(|port| *port..=*port).collect(), ..rule(to) }
}

fn compiled(policy: &NetworkPolicy) -> Vec<Clause> {
    clauses(policy, &BTreeMap::new(), "10.107.0.0/16".parse().unwrap())
}

fn out(peer: &str, transport: Transport) -> Packet {
    Packet { direction: Direction::Out, peer: peer.parse().unwrap(), transport }
}

fn policies(policy: &NetworkPolicy, lists: &BTreeMap<PathBuf, Vec<IpNet>>) -> Policies {
    let networks = [("surf".parse().unwrap(), policy.clone())].into();
    let guests = [("alice".parse().unwrap(), "surf".parse().unwrap())].into();
    let source = SourceText { path: "fleet.toml".into(), text: String::new() };
    Policies::new(guests, &networks, lists, "10.107.0.0/16".parse().unwrap(), &source)
}

fn told(old: &NetworkPolicy, new: &NetworkPolicy) -> Vec<String> {
    let lists = BTreeMap::new();
    changes(&policies(old, &lists), &policies(new, &lists)).iter().map(ToString::to_string).collect()
}

#[test]
fn what_wins_decides_and_is_told_with_its_entry() {
    let list = PathBuf::from("unsafe.txt");
    let lists: Lists = [(list.clone(), vec!["203.0.113.9/32".parse().unwrap()])].into();
    let policy = NetworkPolicy {
        dns: vec!["10.0.0.53".parse().unwrap()],
        allow: vec![tcp(&["0.0.0.0/0", "10.1.0.0/16"], &[80])],
        deny: vec![
            BuiltinList::Smtp.rule(),
            PolicyRule { list: Some(list.clone()), ..PolicyRule::default() },
        ],
        ..NetworkPolicy::default()
    };
    let clauses = compiled(&policy);
    let of = |peer: &str, transport| {
        let found = decide(&clauses, &lists, out(peer, transport));
        (found.verdict, found.clause.unwrap().kind.clone(), found.entry.unwrap().net.to_string())
    };
    use PacketVerdict::{Allowed, Dropped, Refused};
    use Transport::{Icmp, Tcp, Udp};
    let any = || "0.0.0.0/0".to_owned();
    assert_eq!(of("198.51.100.1", Tcp(80)), (Allowed, ClauseKind::Allow, any()));
    assert_eq!(of("198.51.100.1", Tcp(81)), (Refused, ClauseKind::Default, any()));
    assert_eq!(of("198.51.100.1", Icmp), (Refused, ClauseKind::Default, any()));
    assert_eq!(of("198.51.100.1", Tcp(25)), (Refused, ClauseKind::Deny, any()));
    assert_eq!(of("203.0.113.9", Tcp(80)), (Refused, ClauseKind::Deny, "203.0.113.9/32".into()));
    assert_eq!(of("10.1.2.3", Tcp(80)), (Allowed, ClauseKind::Allow, "10.1.0.0/16".into()));
    assert_eq!(of("10.2.2.3", Tcp(80)), (Refused, ClauseKind::Private, "10.0.0.0/8".into()));
    assert_eq!(of("10.0.0.53", Udp(53)), (Allowed, ClauseKind::NameServers, any()));
    assert_eq!(of("10.107.0.6", Tcp(80)), (Dropped, ClauseKind::Subnet, "10.107.0.0/16".into()));
    assert_eq!(of("169.254.169.254", Tcp(80)), (Dropped, ClauseKind::Never, "169.254.0.0/16".into()));
    let asked = Packet { direction: Direction::In, ..out("198.51.100.1", Tcp(80)) };
    assert_eq!(decide(&clauses, &lists, asked).verdict, Dropped);
}

#[test]
fn a_row_tells_all_ports_of_an_address() {
    let policy = NetworkPolicy { allow: vec![tcp(&["0.0.0.0/0"], &[80, 443])], ..NetworkPolicy::default() };
    let clauses = compiled(&policy);
    let row = row(&clauses, &Lists::new(), "198.51.100.1".parse().unwrap());
    let spans: Vec<_> =
        row.tcp.iter().map(|span| (span.first, span.last, clauses[span.clause].verdict)).collect();
    let no = PacketVerdict::Refused;
    let yes = PacketVerdict::Allowed;
    assert_eq!(spans, [(0, 79, no), (80, 80, yes), (81, 442, no), (443, 443, yes), (444, 65535, no)]);
    assert_eq!(row.udp.len(), 1);
}

#[test]
fn a_change_is_told_by_what_it_opens_and_closes() {
    let web = NetworkPolicy { allow: vec![tcp(&["0.0.0.0/0"], &[80])], ..NetworkPolicy::default() };
    assert_eq!(told(&web, &web), [""; 0]);
    let both = NetworkPolicy { allow: vec![tcp(&["0.0.0.0/0"], &[80, 443])], ..NetworkPolicy::default() };
    let opened =
        "network surf opens tcp 443 to all public addresses (allow tcp 80, 443 to 0.0.0.0/0), for alice";
    assert_eq!(told(&web, &both), [opened]);
    let closed =
        "network surf closes tcp 443 to all public addresses (refused, since no rule names it), for alice";
    assert_eq!(told(&both, &web), [closed]);
    // A rule that another shadows opens nothing, and is no change of what passes.
    let denied = NetworkPolicy { deny: vec![rule(&["198.51.100.0/24"])], ..web.clone() };
    let more = NetworkPolicy {
        allow: [web.allow.clone(), vec![rule(&["198.51.100.7/32"])]].concat(),
        ..denied.clone()
    };
    assert_eq!(told(&denied, &more), [""; 0]);
    let found = told(&web, &denied);
    assert_eq!(
        found,
        ["network surf closes tcp 80 to 198.51.100.0/24 (deny every protocol to 198.51.100.0/24), for alice"]
    );
    let open = NetworkPolicy { default_allow: true, ..NetworkPolicy::default() };
    let everything = told(&NetworkPolicy::default(), &open);
    assert_eq!(
        everything,
        [
            "network surf opens every protocol to all public addresses (allowed, since no rule names it), for alice"
        ]
    );
    let rest = "network surf opens tcp 0-79, 81-65535, udp, icmp to all public addresses (allowed, since no rule names it), for alice";
    assert_eq!(told(&web, &NetworkPolicy { default_allow: true, ..web.clone() }), [rest]);
}

#[test]
fn an_entry_of_a_list_that_comes_closes_its_address_alone() {
    let path = PathBuf::from("unsafe.txt");
    let denying = PolicyRule { list: Some(path.clone()), ..PolicyRule::default() };
    let policy = NetworkPolicy { default_allow: true, deny: vec![denying], ..NetworkPolicy::default() };
    let with = |nets: &[&str]| -> BTreeMap<PathBuf, Vec<IpNet>> {
        [(path.clone(), nets.iter().map(|net| net.parse().unwrap()).collect())].into()
    };
    let old = policies(&policy, &with(&["203.0.113.1/32"]));
    let new = policies(&policy, &with(&["203.0.113.1/32", "198.51.100.0/31"]));
    let found: Vec<_> = changes(&old, &new).iter().map(ToString::to_string).collect();
    let closed = "network surf closes every protocol to 198.51.100.0/31 (deny every protocol to list unsafe.txt), for alice";
    assert_eq!(found, [closed]);
}

#[test]
fn a_guest_that_comes_or_goes_is_no_change_of_a_policy() {
    let open = NetworkPolicy { default_allow: true, ..NetworkPolicy::default() };
    let lists = BTreeMap::new();
    assert_eq!(changes(&Policies::default(), &policies(&open, &lists)), []);
    assert_eq!(changes(&policies(&open, &lists), &Policies::default()), []);
}

#[test]
fn what_is_remembered_is_read_again() {
    let policy = NetworkPolicy { allow: vec![tcp(&["0.0.0.0/0"], &[80])], ..NetworkPolicy::default() };
    let before = policies(&policy, &BTreeMap::new());
    let text = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Policies>(&text).unwrap(), before);
}
