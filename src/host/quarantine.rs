//! Guests that are cut off, whatever their policy says: a table of its own, which is asked before the fleet's rules and which no
//! swap of those touches.
//!
//! A guest that is cut off reaches nothing and nobody, and is told so; what it has open ends with the next packet, on both sides.
//! Its host still logs in to it, since that is how one looks into such a guest.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::base::network::ElementChange;
use crate::base::{FleetName, InterfaceName};
use crate::sys::nflog::{GROUP, SNAPLEN};

/// Name of the table, of the family `inet`. No fleet is called so that its rules would have the same: names have no dot.
pub fn quarantine_table(fleet: &FleetName) -> String {
    format!("sisforge-{fleet}.quarantine")
}

/// The set of TAPs in it.
pub const QUARANTINED: &str = "cut_off";

/// What makes the table whole, with these TAPs cut off and those no longer. It can be loaded again at any time: the set keeps what
/// else is in it.
pub fn table(
    fleet: &FleetName,
    cut_off: &BTreeSet<InterfaceName>,
    released: &BTreeSet<InterfaceName>,
) -> String {
    let table = quarantine_table(fleet);
    let mut text = format!("add table inet {table}\nadd set inet {table} {QUARANTINED} {{ type ifname; }}\n");
    for (chain, hook) in [("through", "forward"), ("to_host", "input")] {
        let _ = writeln!(
            text,
            "add chain inet {table} {chain} {{ type filter hook {hook} priority filter - 10; policy accept; }}\n\
             flush chain inet {table} {chain}"
        );
    }
    let noted = format!(
        "limit rate 10/second burst 50 packets log prefix \"quarantined\" group {GROUP} snaplen {SNAPLEN}"
    );
    for (chain, rule) in [
        ("through", format!("iifname @cut_off {noted}").as_str()),
        ("through", format!("oifname @cut_off {noted}").as_str()),
        ("through", "iifname @cut_off meta l4proto tcp counter reject with tcp reset"),
        ("through", "iifname @cut_off counter reject with icmpx admin-prohibited"),
        ("through", "oifname @cut_off meta l4proto tcp counter reject with tcp reset"),
        ("through", "oifname @cut_off counter drop"),
        ("to_host", "iifname @cut_off ct direction original counter drop"),
    ] {
        let _ = writeln!(text, "add rule inet {table} {chain} {rule}");
    }
    for tap in cut_off {
        let _ = writeln!(text, "add element inet {table} {QUARANTINED} {{ \"{tap}\" }}");
    }
    for tap in released {
        // Added first: what is not there cannot be deleted.
        let _ = writeln!(text, "add element inet {table} {QUARANTINED} {{ \"{tap}\" }}");
        let _ = writeln!(text, "delete element inet {table} {QUARANTINED} {{ \"{tap}\" }}");
    }
    text
}

/// The same where the table is whole. What is released is added first: what is not there cannot be deleted.
pub fn changes(cut_off: &BTreeSet<InterfaceName>, released: &BTreeSet<InterfaceName>) -> [ElementChange; 2] {
    let change = |taps: Vec<&InterfaceName>, comes| ElementChange::Elements {
        family: "inet",
        set: QUARANTINED.to_owned(),
        kind: "ifname".to_owned(),
        elements: taps.into_iter().map(InterfaceName::to_string).collect(),
        comes,
    };
    [change(cut_off.union(released).collect(), true), change(released.iter().collect(), false)]
}
