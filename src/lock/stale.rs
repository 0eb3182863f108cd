//! Whether a lock still fits its fleet, and if not, why: what `--locked` tells.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::{Fleet, Label, Sha256};

use super::address;
use super::model::{Lock, LockedImage};
use super::wanted::{Wanted, WantedKernel};

/// Why `lock` no longer fits, one sentence for each thing that differs; none where it fits.
pub fn stale(fleet: &Fleet, wanted: &Wanted, lock: &Lock) -> Vec<String> {
    let mut reasons = Vec::new();
    if lock.fleet != fleet.name {
        reasons.push(format!("fleet.lock is of the fleet {}, fleet.toml of {}", lock.fleet, fleet.name));
    }
    reasons.extend(kernel(&wanted.kernel, lock));
    reasons.extend(repositories(wanted, lock));
    reasons.extend(images(wanted, lock));
    reasons.extend(digests("recipe", &wanted.recipes, &lock.recipe));
    reasons.extend(digests("container image", &wanted.containers, &lock.container));
    reasons.extend(guests(fleet, lock));
    reasons
}

/// A note where this machine would build another kernel from the same lock. It is no reason against the lock: the kernel is
/// right, its bytes are not those of the machine that locked.
pub fn other_toolchain(lock: &Lock, toolchain: &str) -> Option<String> {
    let locked = lock.kernel.toolchain.as_deref().filter(|locked| *locked != toolchain)?;
    Some(format!(
        "the kernel is built with other tools than fleet.lock was made with, so its bytes differ: {toolchain} here, {locked} there"
    ))
}

fn kernel(wanted: &WantedKernel, lock: &Lock) -> Vec<String> {
    let locked = &lock.kernel;
    let mut reasons = Vec::new();
    if wanted.source != locked.source {
        reasons
            .push(format!("the kernel is {} in fleet.toml, {} in fleet.lock", wanted.source, locked.source));
    } else if let Some(sha256) = wanted.sha256.filter(|sha256| *sha256 != locked.sha256) {
        let (now, then) = (sha256.short(), locked.sha256.short());
        reasons
            .push(format!("the kernel {} has the SHA-256 {now}..., {then}... in fleet.lock", wanted.source));
    }
    match (wanted.config, locked.config) {
        (Some(_), None) => {
            reasons.push("the kernel is to be built, and is a ready image in fleet.lock".into())
        }
        (None, Some(_)) => {
            reasons.push("the kernel is a ready image, and is to be built in fleet.lock".into())
        }
        (wanted, locked) if wanted != locked => {
            reasons.push("the kernel configuration changed: its base, a fragment or [kernel] options".into());
        }
        _ => {}
    }
    if wanted.patches != locked.patches {
        reasons.push("the kernel patches changed".into());
    }
    reasons
}

fn repositories(wanted: &Wanted, lock: &Lock) -> Vec<String> {
    let now: Vec<_> = wanted.repositories.iter().map(|repository| &repository.locked).collect();
    let then: Vec<_> = lock.repository.iter().collect();
    let added = now.iter().filter(|repository| !then.contains(repository));
    let mut reasons: Vec<_> =
        added.map(|repository| format!("the repository {repository} is not in fleet.lock")).collect();
    let removed = then.iter().filter(|repository| !now.contains(repository));
    reasons
        .extend(removed.map(|repository| format!("the repository {repository} is no longer in fleet.toml")));
    if reasons.is_empty() && now != then {
        reasons.push("the repositories stand in another order, which decides between equal packages".into());
    }
    let untrusted = lock.package.iter().filter(|package| !wanted.trusts(package));
    let untrusted: BTreeSet<_> = untrusted.map(|package| (&package.repository, &package.key)).collect();
    // Of a repository that is gone was told already.
    let untrusted = untrusted.into_iter().filter(|(location, _)| wanted.repository(location).is_some());
    reasons.extend(untrusted.map(|(repository, key)| {
        format!("packages of {repository} were chosen by the key {key}, which is no longer trusted for it")
    }));
    reasons
}

fn images(wanted: &Wanted, lock: &Lock) -> Vec<String> {
    let mut reasons = Vec::new();
    for (name, world) in &wanted.worlds {
        match lock.image.get(name) {
            None => reasons.push(format!("the image {name} is not in fleet.lock")),
            Some(image) => reasons.extend(image_reasons(name, world, image, lock)),
        }
    }
    let gone = lock.image.keys().filter(|name| !wanted.worlds.contains_key(name));
    reasons.extend(gone.map(|name| format!("the image {name} is no longer in fleet.toml")));
    reasons
}

fn image_reasons(name: &Label, world: &[String], image: &LockedImage, lock: &Lock) -> Vec<String> {
    let now: BTreeSet<&String> = world.iter().collect();
    let then: BTreeSet<&String> = image.world.iter().collect();
    let added =
        now.difference(&then).map(|package| format!("the image {name} now wants the package {package}"));
    let removed = then
        .difference(&now)
        .map(|package| format!("the image {name} no longer wants the package {package}"));
    let missing = lock.packages_of(image).filter_map(Result::err);
    let missing =
        missing.map(|id| format!("the image {name} has the package {id}, which fleet.lock does not pin"));
    added.chain(removed).chain(missing).collect()
}

fn digests<K: Ord + std::fmt::Display>(
    kind: &str,
    now: &BTreeMap<K, Sha256>,
    then: &BTreeMap<K, Sha256>,
) -> Vec<String> {
    let new = now.iter().filter_map(|(name, sha256)| match then.get(name) {
        None => Some(format!("the {kind} {name} is not in fleet.lock")),
        Some(locked) if locked != sha256 => Some(format!("the {kind} {name} changed")),
        Some(_) => None,
    });
    let gone = then.keys().filter(|name| !now.contains_key(name));
    new.chain(gone.map(|name| format!("the {kind} {name} is in use no longer"))).collect()
}

fn guests(fleet: &Fleet, lock: &Lock) -> Vec<String> {
    let mut reasons = Vec::new();
    // Validation gives every guest of a fleet its place, so that assigning numbers does not fail.
    let assigned = address::assign(&fleet.host, fleet.guests.keys(), &lock.guest).unwrap_or_default();
    for name in fleet.guests.keys() {
        match lock.guest.get(name) {
            None => reasons.push(format!("the guest {name} is not in fleet.lock")),
            Some(numbers) if assigned.get(name) != Some(numbers) => {
                reasons.push(format!("the numbers of the guest {name} do not fit [host] subnet and uids"));
            }
            Some(_) => {}
        }
    }
    let gone = lock.guest.keys().filter(|name| !fleet.guests.contains_key(name));
    reasons.extend(gone.map(|name| format!("the guest {name} is no longer in fleet.toml")));
    reasons
}
