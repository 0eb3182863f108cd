//! A guest that is cut off, whatever its policy says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sisforge::base::InterfaceName;
use sisforge::host::quarantine::{quarantine_table, table};
use sisforge::sys::nft;

use sisforge::apply::record::quarantine::{cut_off, release};
use sisforge::fleet::HostSpec;
use sisforge::host::layout::Layout;

use super::rules::{Rules, allow_all};
use super::world::{ALICE, OUTSIDE, connect, ip, unreachable, within};
use super::{HOST, in_a_world};

fn taps(names: &[&str]) -> BTreeSet<InterfaceName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

pub fn change(cut_off: &[&str], released: &[&str]) {
    nft::load(&table(&"sis".parse().unwrap(), &taps(cut_off), &taps(released))).unwrap();
}

#[test]
fn what_a_guest_has_open_ends_at_once_when_it_is_cut_off() {
    if !in_a_world("quarantine::what_a_guest_has_open_ends_at_once_when_it_is_cut_off") {
        return;
    }
    let rules = Rules::of(allow_all(), allow_all());
    rules.load();
    change(&[], &[]);
    let mut web = connect("alice", "198.51.100.10:80");
    assert!(web.echoes());

    change(&["sis-alice"], &[]);
    let began = Instant::now();
    assert!(!web.echoes(), "a connection goes on");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it is reset, not left to time out: {:?}",
        began.elapsed()
    );
    // What the server repeats, because it was not acknowledged, is answered with a reset: no packet of alice.
    std::thread::sleep(Duration::from_secs(1));
    unreachable("alice", OUTSIDE, &["198.51.100.10:443", "9.9.9.9:53"]);
    unreachable("alice", HOST, &["10.107.0.1:22"]);
    connect("bob", "198.51.100.10:80");
    // Whoever looks into it still can.
    assert_eq!(connect(HOST, "10.107.0.2:22").seen_as, ALICE.host);

    rules.load();
    unreachable("alice", OUTSIDE, &["198.51.100.10:443"]);
    change(&["sis-alice"], &["sis-bob"]);
    unreachable("alice", OUTSIDE, &["198.51.100.10:443"]);

    change(&[], &["sis-alice"]);
    connect("alice", "198.51.100.10:80");
    nft::delete_table("inet", &quarantine_table(&"sis".parse().unwrap())).unwrap();
}

/// Where the fleet's network is a namespace, that is where its guests are cut off.
#[test]
fn a_guest_is_cut_off_where_its_fleet_is() {
    if !in_a_world("quarantine::a_guest_is_cut_off_where_its_fleet_is") {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let fleet = "sis".parse().unwrap();
    let layout = Layout::new(&HostSpec { store: store.path().to_owned(), ..HostSpec::default() }, &fleet);
    let elements = |namespace| {
        within(namespace, || nft::interfaces_in("inet", &quarantine_table(&fleet), "cut_off")).unwrap()
    };
    let alice = "alice".parse().unwrap();
    cut_off(&layout, &alice).unwrap();
    assert_eq!(elements(HOST), None, "no rules are there, and no guest");
    Rules::of(allow_all(), allow_all()).load();
    cut_off(&layout, &alice).unwrap();
    assert_eq!(elements(HOST).unwrap(), ["sis-alice"]);
    assert!(release(&layout, &alice).unwrap());
    assert_eq!(elements(HOST).unwrap(), [""; 0]);

    ip("netns add sisforge-sis");
    within("sisforge-sis", || Rules::of(allow_all(), allow_all()).load());
    cut_off(&layout, &alice).unwrap();
    assert_eq!(elements("sisforge-sis").unwrap(), ["sis-alice"]);
    assert_eq!(elements(HOST).unwrap(), [""; 0]);
    assert!(release(&layout, &alice).unwrap() && !release(&layout, &alice).unwrap());
    assert_eq!(elements("sisforge-sis").unwrap(), [""; 0]);
}
