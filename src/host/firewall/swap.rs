//! The text that puts rules in the place of those that are there: in one transaction, in which lists that stay are not touched,
//! and what was counted and used stays too.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::base::network::ElementChange;

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

/// Whether a set holds addresses of a list. Nothing changes one: another list is another set.
pub fn is_list(set: &str) -> bool {
    set.starts_with("list-")
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
        present.sets.iter().filter(|name| !stays(name)).partition(|name| is_list(name));
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
pub fn elements_alone(before: &str, parts: &RulesetParts, present: &Present) -> Option<Vec<ElementChange>> {
    let are_lists_alike = || {
        let lists: BTreeSet<&str> = parts.lists.iter().map(|list| list.name.as_str()).collect();
        lists == present.sets.iter().map(String::as_str).filter(|name| is_list(name)).collect()
    };
    if present.has_leaving
        || !parts.budgets.keys().all(|name| present.sets.contains(name))
        || !are_lists_alike()
    {
        return None;
    }
    let after = body_of(parts);
    let (mut gone, mut come, mut family) = (Vec::new(), Vec::new(), "inet");
    let mut lines = before.lines().zip(after.lines());
    if before.lines().count() != after.lines().count() {
        return None;
    }
    lines.try_for_each(|(old, new)| {
        if new.starts_with("table arp") {
            family = "arp";
        }
        if old != new {
            let [leave, enter] = of_a_line(family, old, new)?;
            gone.extend(leave);
            come.extend(enter);
        }
        Some(())
    })?;
    let counter = |name: &String, comes| ElementChange::Counter { name: name.clone(), comes };
    let begin = parts.counters.difference(&present.counters).map(|name| counter(name, true));
    let end = present.counters.difference(&parts.counters).map(|name| counter(name, false));
    Some(begin.chain(gone).chain(come).chain(end).collect())
}

/// The elements that go and those that come, where two lines declare the same set.
fn of_a_line(family: &'static str, old: &str, new: &str) -> Option<[Option<ElementChange>; 2]> {
    let ((declared, old), (declares, new)) = (elements_of(old)?, elements_of(new)?);
    if declared != declares || declares.contains("flags interval") {
        return None;
    }
    let set = declares.split_whitespace().nth(1)?;
    let kind = declares.split_once("type ")?.1.split(';').next()?;
    let key = |element: &&str| element.split(" : ").next().unwrap_or(element).to_owned();
    let change = |elements: Vec<String>, comes: bool| {
        let (set, kind) = (set.to_owned(), kind.to_owned());
        (!elements.is_empty()).then_some(ElementChange::Elements { family, set, kind, elements, comes })
    };
    let gone = change(old.difference(&new).map(key).collect(), false);
    Some([gone, change(new.difference(&old).map(|element| (*element).to_owned()).collect(), true)])
}

/// Everything but lists, counters and budgets, by which rules are compared with those of before.
pub fn body_of(parts: &RulesetParts) -> String {
    format!("{}{}", parts.rules, parts.arp)
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
        let elements = |family, set: &str, kind: &str, element: &str, comes| ElementChange::Elements {
            family,
            set: set.to_owned(),
            kind: kind.to_owned(),
            elements: vec![element.to_owned()],
            comes,
        };
        let counter = |comes| ElementChange::Counter { name: "up-b".to_owned(), comes };
        assert_eq!(
            elements_alone(&body_of(&one), &two, &present(&one)).unwrap(),
            [
                counter(true),
                elements("inet", "taps", "ifname", "\"b\"", true),
                elements("inet", "from_guest", "ifname : verdict", "\"b\" : goto from-n", true),
                elements("arp", "taps", "ifname", "\"b\"", true),
            ]
        );
        assert_eq!(
            elements_alone(&body_of(&two), &one, &present(&two)).unwrap(),
            [
                elements("inet", "taps", "ifname", "\"b\"", false),
                elements("inet", "from_guest", "ifname : verdict", "\"b\"", false),
                elements("arp", "taps", "ifname", "\"b\"", false),
                counter(false),
            ]
        );
        let none = parts(&[], "  rule\n");
        assert_eq!(elements_alone(&body_of(&none), &one, &present(&none)).unwrap().len(), 4);
        assert_eq!(elements_alone(&body_of(&one), &one, &present(&one)).unwrap(), []);
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
        assert!(elements_alone(&body_of(&one), &listed, &stale).is_some(), "beside a list that stays");
        let leaving = Present { has_leaving: true, ..nothing() };
        assert_eq!(elements_alone(&body_of(&one), &parts(&["a", "b"], "  rule\n"), &leaving), None);
    }
}
