//! Which names a change opens and closes, by the configurations of the resolvers of before and of those to come.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::base::{GuestName, Label};
use crate::host::policy::{Clause, ClauseKind, Policies, PolicyChange};
use crate::host::resolver::ConfiguredNames;

/// What guests may ask for by one set of rules.
#[derive(Clone, Copy, Debug)]
pub struct PolicyNames<'a> {
    pub policies: &'a Policies,
    /// By policy; those without names have none.
    pub names: &'a BTreeMap<Label, ConfiguredNames>,
}

/// What guests that stay may ask for, and could not, and the other way round.
pub fn name_changes(old: PolicyNames<'_>, new: PolicyNames<'_>) -> Vec<PolicyChange> {
    let mut pairs: BTreeMap<(&Label, &Label), Vec<GuestName>> = BTreeMap::new();
    for (guest, now) in &new.policies.guests {
        if let Some(before) = old.policies.guests.get(guest) {
            pairs.entry((before, now)).or_default().push(guest.clone());
        }
    }
    let everything = ConfiguredNames::default();
    let mut all = Vec::new();
    for ((before, now), guests) in pairs {
        let of = |side: PolicyNames<'_>, label: &Label| side.names.contains_key(label);
        if !of(old, before) && !of(new, now) {
            continue;
        }
        let by = new.policies.policies.get(now).and_then(|clauses| asked_by(clauses));
        let before = old.names.get(before).unwrap_or(&everything);
        let after = new.names.get(now).unwrap_or(&everything);
        all.extend(between(before, after).into_iter().map(|change| {
            let (opens, to) = match change {
                NameChange::Opens(names) => (true, names),
                NameChange::Closes(names) => (false, names),
            };
            PolicyChange {
                guests: guests.clone(),
                policy: now.clone(),
                opens,
                what: None,
                to,
                by: by.map_or_else(|| "no `names`".to_owned(), |_| "names".to_owned()),
                line: by.and_then(|clause| clause.line),
            }
        }));
    }
    all
}

fn asked_by(clauses: &[Clause]) -> Option<&Clause> {
    clauses.iter().find(|clause| clause.kind == ClauseKind::Resolver)
}

/// Names that a policy opens or closes, in words.
#[derive(Debug, PartialEq, Eq)]
enum NameChange {
    Opens(String),
    Closes(String),
}

fn between(before: &ConfiguredNames, after: &ConfiguredNames) -> Vec<NameChange> {
    use NameChange::{Closes, Opens};
    let (then, now): (HashSet<_>, HashSet<_>) = (before.denied().collect(), after.denied().collect());
    let mut changes: Vec<_> = lacking(&then, now.iter().copied()).map(Closes).into_iter().collect();
    changes.extend(lacking(&now, then.iter().copied()).map(Opens));
    match (before.allowed(), after.allowed()) {
        (None, None) => {}
        (None, Some(now)) => changes.push(Closes(format!("every name but {}", counted(now.collect())))),
        (Some(_), None) => changes.push(Opens("every name that is not denied".to_owned())),
        (Some(then), Some(now)) => {
            let (then, now): (HashSet<_>, HashSet<_>) = (then.collect(), now.collect());
            changes.extend(lacking(&then, now.iter().copied()).map(Opens));
            changes.extend(lacking(&now, then.iter().copied()).map(Closes));
        }
    }
    changes
}

/// Which of these names are not known, in words.
fn lacking<'a>(known: &HashSet<&str>, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let more: BTreeSet<&str> = names.filter(|name| !known.contains(name)).collect();
    (!more.is_empty()).then(|| counted(more))
}

/// So many names are told one by one.
const SHOWN: usize = 4;

fn counted(names: BTreeSet<&str>) -> String {
    let count = names.len();
    let noun = if count == 1 { "name" } else { "names" };
    let shown: Vec<&str> = names.into_iter().take(SHOWN).collect();
    let more = count.saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{count} {noun}: {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(denied: &[&str], allowed: Option<&[&str]>) -> ConfiguredNames {
        let allow = allowed.map(|allowed| {
            let servers = |name: &&str| format!("server=/{name}/9.9.9.9\nserver=/{name}/1.1.1.1\n");
            format!("address=/#/\n{}", allowed.iter().map(servers).collect::<String>())
        });
        let deny: String = denied.iter().map(|name| format!("address=/{name}/\n")).collect();
        ConfiguredNames::observed(&format!("port=10000\nserver=9.9.9.9\n{}{deny}", allow.unwrap_or_default()))
    }

    #[test]
    fn names_that_come_and_go_are_told_by_number_and_by_name() {
        let none = ConfiguredNames::default();
        let closes = |to: &str| NameChange::Closes(to.to_owned());
        let opens = |to: &str| NameChange::Opens(to.to_owned());
        for (before, after, told) in [
            (&none, &names(&["b.test", "a.test"], None), vec![closes("2 names: a.test, b.test")]),
            (
                &names(&["a.test"], None),
                &names(&["b.test"], None),
                vec![closes("1 name: b.test"), opens("1 name: a.test")],
            ),
            (&names(&["a.test"], None), &names(&["a.test"], None), vec![]),
            (&none, &names(&[], Some(&["a.test"])), vec![closes("every name but 1 name: a.test")]),
            (&names(&[], Some(&["a.test"])), &none, vec![opens("every name that is not denied")]),
            (
                &names(&[], Some(&["a.test"])),
                &names(&["x.a.test"], Some(&["a.test", "1", "2", "3", "4", "5"])),
                vec![closes("1 name: x.a.test"), opens("5 names: 1, 2, 3, 4 and 1 more")],
            ),
        ] {
            assert_eq!(between(before, after), told);
        }
    }
}
