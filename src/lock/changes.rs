//! What differs between two locks, for people.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Lock, LockedKernel, LockedPackage};

/// What differs between two locks, one line each.
pub fn changes(old: Option<&Lock>, new: &Lock) -> Vec<String> {
    let mut lines = package_changes(old.map_or(&[], |lock| &lock.package), &new.package);
    lines.extend(by_name("recipe", old.map(|lock| &lock.recipe), &new.recipe));
    lines.extend(by_name("container image", old.map(|lock| &lock.container), &new.container));
    let nothing = BTreeMap::new();
    let files = |lock: &'_ Lock| lock.file.clone().unwrap_or_default();
    lines.extend(by_name("file", Some(&old.map_or(nothing, files)), &files(new)));
    lines.extend(by_name("guest", old.map(|lock| &lock.guest), &new.guest));
    if let Some(old) = old {
        if old.repository != new.repository {
            lines.push("update repositories".into());
        }
        if old.kernel != new.kernel {
            lines.push(kernel_change(&old.kernel, &new.kernel));
        }
    }
    lines
}

/// The packages of each name: two images may have two versions of one.
fn by_package(packages: &[LockedPackage]) -> BTreeMap<&str, BTreeSet<&LockedPackage>> {
    let mut names: BTreeMap<&str, BTreeSet<&LockedPackage>> = BTreeMap::new();
    for package in packages {
        names.entry(&package.name).or_default().insert(package);
    }
    names
}

fn package_changes(old: &[LockedPackage], new: &[LockedPackage]) -> Vec<String> {
    let (old, new) = (by_package(old), by_package(new));
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let none = BTreeSet::new();
    let mut lines = Vec::new();
    for name in names {
        let (before, after) = (old.get(name).unwrap_or(&none), new.get(name).unwrap_or(&none));
        let gone: Vec<_> = before.difference(after).collect();
        let come: Vec<_> = after.difference(before).collect();
        match (gone.as_slice(), come.as_slice()) {
            ([a], [b]) if a.version != b.version => {
                lines.push(format!("update {name} {} -> {}", a.version, b.version));
            }
            ([a], [b]) if a.sha256 != b.sha256 => {
                lines.push(format!("rebuild {name} {}: another package with the same version", b.version));
            }
            ([a], [b]) => {
                lines.push(format!("move {name} {}: {} -> {}", b.version, a.repository, b.repository))
            }
            _ => {
                lines.extend(gone.iter().map(|package| format!("remove {name} {}", package.version)));
                lines.extend(come.iter().map(|package| format!("add {name} {}", package.version)));
            }
        }
    }
    lines
}

fn kernel_change(old: &LockedKernel, new: &LockedKernel) -> String {
    let changed = [
        ("source", old.source != new.source || old.sha256 != new.sha256),
        ("keyring", old.keyring != new.keyring),
        ("config", old.config != new.config),
        ("patches", old.patches != new.patches),
        ("toolchain", old.toolchain != new.toolchain),
    ];
    let mut changed: Vec<_> = changed.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    if changed.is_empty() {
        // They are part of the config, and older locks do not name them.
        changed.push("names of its files and options");
    }
    format!("update kernel: {}", changed.join(", "))
}

fn by_name<K: Ord + std::fmt::Display, V: PartialEq>(
    kind: &str,
    old: Option<&BTreeMap<K, V>>,
    new: &BTreeMap<K, V>,
) -> Vec<String> {
    let nothing = BTreeMap::new();
    let old = old.unwrap_or(&nothing);
    let added = new.iter().filter_map(|(name, value)| match old.get(name) {
        None => Some(format!("add {kind} {name}")),
        Some(before) if before != value => Some(format!("update {kind} {name}")),
        Some(_) => None,
    });
    let removed =
        old.keys().filter(|name| !new.contains_key(name)).map(|name| format!("remove {kind} {name}"));
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;

    fn package(name: &str, version: &str, bytes: &str) -> LockedPackage {
        LockedPackage {
            scripts: BTreeMap::new(),
            name: name.into(),
            version: version.into(),
            repository: "repo".into(),
            checksum: "Q1".into(),
            size: 1,
            sha256: Sha256::of(bytes),
            key: "key".into(),
        }
    }

    #[test]
    fn each_package_that_differs_has_a_line_that_says_how() {
        let old = [
            package("gone", "1", "a"),
            package("kept", "1", "b"),
            package("new", "1", "c"),
            package("same", "1", "d"),
        ];
        let new = [
            package("kept", "1", "b"),
            package("more", "1", "e"),
            package("new", "2", "f"),
            package("same", "1", "g"),
        ];
        assert_eq!(
            package_changes(&old, &new),
            [
                "remove gone 1",
                "add more 1",
                "update new 1 -> 2",
                "rebuild same 1: another package with the same version"
            ]
        );
    }

    #[test]
    fn a_second_version_for_another_image_is_an_addition() {
        let old = [package("podman", "5.0", "a")];
        let new = [package("podman", "5.0", "a"), package("podman", "5.1", "b")];
        assert_eq!(package_changes(&old, &new), ["add podman 5.1"]);
    }
}
