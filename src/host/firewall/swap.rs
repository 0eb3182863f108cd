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
    /// Whether there are elements that go by themselves.
    pub has_leaving: bool,
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

/// What makes these rules of those that are there, where the two differ by elements alone: of a guest that comes or goes, nothing else
/// is touched, and of a thousand others nothing is said. `before` is the [`body_of`] that was loaded; `None` where more than elements
/// differs, and while some go by themselves: one of those that is added again leads elsewhere, or goes all the same.
pub fn elements_alone(before: &str, parts: &RulesetParts, present: &Present) -> Option<String> {
    // Before it adds one element, nft reads back those of every set of the table: with long lists that takes longer than to swap all
    // but the lists.
    let has_lists = !parts.lists.is_empty() || present.sets.iter().any(|name| name.starts_with("list-"));
    if has_lists || present.has_leaving || !parts.budgets.keys().all(|name| present.sets.contains(name)) {
        return None;
    }
    let after = body_of(parts);
    let (mut deleted, mut added, mut family) = (String::new(), String::new(), "inet");
    let mut lines = before.lines().zip(after.lines());
    if before.lines().count() != after.lines().count() {
        return None;
    }
    lines.try_for_each(|(old, new)| {
        if new.starts_with("table arp") {
            family = "arp";
        }
        if old == new {
            return Some(());
        }
        let ((declared, old), (declares, new)) = (elements_of(old)?, elements_of(new)?);
        if declared != declares || declares.contains("flags interval") {
            return None;
        }
        let set = format!("element {family} {} {}", parts.table, declares.split_whitespace().nth(1)?);
        let gone = old.difference(&new).map(|element| element.split(" : ").next().unwrap_or(element));
        change(&mut deleted, "delete", &set, gone.collect());
        change(&mut added, "add", &set, new.difference(&old).copied().collect());
        Some(())
    })?;
    let counters = |verb, names: Vec<&String>| -> String {
        let line = |name: &&String| format!("{verb} counter inet {} {name}\n", parts.table);
        names.iter().map(line).collect()
    };
    let begin = counters("add", parts.counters.difference(&present.counters).collect());
    let end = counters("delete", present.counters.difference(&parts.counters).collect());
    Some(begin + &deleted + &added + &end)
}

/// Everything but lists, counters and budgets, by which rules are compared with those of before.
pub fn body_of(parts: &RulesetParts) -> String {
    format!("{}{}", parts.rules, parts.arp)
}

fn change(text: &mut String, verb: &str, set: &str, elements: Vec<&str>) {
    if !elements.is_empty() {
        let _ = writeln!(text, "{verb} {set} {{ {} }}", elements.join(", "));
    }
}

/// How a set or a map is declared on a line, and what is in it.
fn elements_of(line: &str) -> Option<(&str, BTreeSet<&str>)> {
    let line =
        line.strip_suffix('}').filter(|_| ["  set ", "  map "].iter().any(|it| line.starts_with(it)))?;
    match line.split_once("elements = { ") {
        None => Some((line, BTreeSet::new())),
        Some((declared, elements)) => Some((declared, elements.strip_suffix(" }; ")?.split(", ").collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(taps: &[&str], rule: &str) -> RulesetParts {
        let mut rules = String::new();
        let elements: Vec<_> = taps.iter().map(|tap| format!("\"{tap}\"")).collect();
        super::super::elements(&mut rules, "set taps { type ifname", &elements);
        let goto: Vec<_> = taps.iter().map(|tap| format!("\"{tap}\" : goto from-n")).collect();
        super::super::elements(&mut rules, "map from_guest { type ifname : verdict", &goto);
        rules.push_str(rule);
        let mut arp = "table arp t {\n".to_owned();
        super::super::elements(&mut arp, "set taps { type ifname", &elements);
        let counters = taps.iter().map(|tap| format!("up-{tap}")).collect();
        RulesetParts { table: "t".into(), rules, arp, counters, ..RulesetParts::default() }
    }

    #[test]
    fn a_guest_that_comes_or_goes_is_some_elements() {
        let (one, two) = (parts(&["a"], "  rule\n"), parts(&["a", "b"], "  rule\n"));
        let present =
            |parts: &RulesetParts| Present { counters: parts.counters.clone(), ..Present::default() };
        assert_eq!(
            elements_alone(&body_of(&one), &two, &present(&one)).unwrap(),
            "add counter inet t up-b\nadd element inet t taps { \"b\" }\nadd element inet t from_guest { \"b\" : goto from-n }\n\
             add element arp t taps { \"b\" }\n"
        );
        assert_eq!(
            elements_alone(&body_of(&two), &one, &present(&two)).unwrap(),
            "delete element inet t taps { \"b\" }\ndelete element inet t from_guest { \"b\" }\ndelete element arp t taps { \"b\" }\n\
             delete counter inet t up-b\n"
        );
        let none = parts(&[], "  rule\n");
        assert!(elements_alone(&body_of(&none), &one, &present(&none)).unwrap().contains("{ \"a\" }"));
        assert_eq!(elements_alone(&body_of(&one), &one, &present(&one)).as_deref(), Some(""));
    }

    #[test]
    fn what_is_more_than_elements_is_swapped_whole() {
        let (one, other) = (parts(&["a"], "  rule\n"), parts(&["a", "b"], "  another\n"));
        let counters = || one.counters.clone();
        let nothing = || Present { counters: counters(), ..Present::default() };
        assert_eq!(elements_alone(&body_of(&one), &other, &nothing()), None);
        assert_eq!(elements_alone(&body_of(&parts(&["a"], "")), &one, &nothing()), None);
        let budget = RulesetParts { budgets: [("new-1".to_owned(), String::new())].into(), ..one.clone() };
        assert_eq!(elements_alone(&body_of(&one), &budget, &nothing()), None);
        let list = AddressSet { name: "list-1".into(), ranges: Vec::new() };
        let listed = RulesetParts { lists: vec![list], ..one.clone() };
        assert_eq!(elements_alone(&body_of(&one), &listed, &nothing()), None);
        let stale = Present { sets: ["list-1".to_owned()].into(), ..nothing() };
        assert_eq!(elements_alone(&body_of(&one), &one, &stale), None);
        let leaving = Present { has_leaving: true, ..nothing() };
        assert_eq!(elements_alone(&body_of(&one), &parts(&["a", "b"], "  rule\n"), &leaving), None);
    }
}
