//! The text that puts rules in the place of those that are there: in one transaction, in which lists that stay are not touched,
//! and what was counted and used stays too.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::ranges;
use super::{AddressSet, RulesetParts};

/// What a table holds, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    pub chains: BTreeSet<String>,
    /// Sets and maps that nft names; not those that it makes for a rule.
    pub sets: BTreeSet<String>,
    pub counters: BTreeSet<String>,
}

/// Elements of one call of nft: it takes a kilobyte of memory for each.
const ELEMENTS_AT_ONCE: usize = 20_000;

/// What makes the rules where nothing is there.
pub fn from_nothing(parts: &RulesetParts) -> String {
    let table = &parts.table;
    let mut text = String::new();
    for family in ["inet", "arp"] {
        let _ = writeln!(text, "add table {family} {table}\ndelete table {family} {table}");
    }
    let _ = writeln!(text, "table inet {table} {{");
    for list in &parts.lists {
        declare(&mut text, list, &list.ranges);
    }
    body(&mut text, parts, &Present::default());
    text
}

fn declare(text: &mut String, list: &AddressSet, ranges: &[ranges::Range]) {
    let ranges: Vec<_> = ranges.iter().copied().map(ranges::addresses).collect();
    super::elements(text, &format!("set {} {{ type ipv4_addr; flags interval", list.name), &ranges);
}

/// Everything but lists, up to the end.
fn body(text: &mut String, parts: &RulesetParts, present: &Present) {
    for (name, declaration) in parts.budgets.iter().filter(|(name, _)| !present.sets.contains(*name)) {
        let _ = writeln!(text, "  set {name} {{ {declaration} }}");
    }
    for name in parts.counters.difference(&present.counters) {
        let _ = writeln!(text, "  counter {name} {{ }}");
    }
    text.push_str(&parts.rules);
    text.push_str("}\n");
    text.push_str(&parts.arp);
}

/// What nft is given, call by call, to put the rules in the place of those that are there: first the lists that are missing, which no
/// rule looks at before all are whole, and then the rest in one transaction.
pub fn calls(parts: &RulesetParts, present: Option<&Present>) -> Vec<String> {
    let nothing = Present::default();
    let present = present.unwrap_or(&nothing);
    let mut calls = missing_lists(parts, present);
    calls.push(swap(parts, present));
    calls
}

fn missing_lists(parts: &RulesetParts, present: &Present) -> Vec<String> {
    let mut calls = Vec::new();
    for list in parts.lists.iter().filter(|list| !present.sets.contains(&list.name)) {
        for ranges in list.ranges.chunks(ELEMENTS_AT_ONCE) {
            let mut text = format!("table inet {} {{\n", parts.table);
            declare(&mut text, list, ranges);
            text.push_str("}\n");
            calls.push(text);
        }
    }
    calls
}

fn swap(parts: &RulesetParts, present: &Present) -> String {
    let table = &parts.table;
    let mut text = format!("add table inet {table}\nflush table inet {table}\n");
    let stays =
        |name: &String| parts.budgets.contains_key(name) || parts.lists.iter().any(|list| list.name == *name);
    let (stale, swapped): (Vec<_>, Vec<_>) =
        present.sets.iter().filter(|name| !stays(name)).partition(|name| name.starts_with("list-"));
    for name in swapped {
        let _ = writeln!(text, "delete set inet {table} {name}");
    }
    for name in &present.chains {
        let _ = writeln!(text, "delete chain inet {table} {name}");
    }
    for name in stale {
        let _ = writeln!(text, "delete set inet {table} {name}");
    }
    for name in present.counters.difference(&parts.counters) {
        let _ = writeln!(text, "delete counter inet {table} {name}");
    }
    let _ = writeln!(text, "add table arp {table}\ndelete table arp {table}");
    let _ = writeln!(text, "table inet {table} {{");
    body(&mut text, parts, present);
    text
}
