//! Whether a lock still fits its fleet, and if not, why: what `--locked` tells.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{GuestName, Label, Sha256};
use crate::fleet::{Fleet, KernelSpec};

use super::address;
use super::model::{ARCH, Lock, LockedGuest, LockedImage, LockedKernel, LockedRepository};
use super::wanted::{Wanted, WantedKernel, spelled_path};

/// Why `lock` no longer fits, one sentence for each thing that differs; none where it fits.
pub fn stale(fleet: &Fleet, wanted: &Wanted, lock: &Lock) -> Vec<String> {
    let mut reasons = Vec::new();
    if lock.fleet != fleet.name {
        reasons.push(format!(
            "fleet.lock is for the fleet {}, but fleet.toml is for {}",
            lock.fleet, fleet.name
        ));
    }
    reasons.extend(kernel(fleet, &wanted.kernel, lock));
    reasons.extend(repositories(wanted, lock));
    reasons.extend(images(wanted, lock));
    reasons.extend(digests("recipe", &wanted.recipes, &lock.recipe));
    // A tag is what the lock says it is.
    let told = |(spelled, sha256): (&String, &Option<Sha256>)| {
        let sha256 = sha256.or_else(|| lock.container.get(spelled).copied())?;
        Some((spelled.clone(), sha256))
    };
    let containers = wanted.containers.iter().filter_map(told).collect();
    reasons.extend(digests("container image", &containers, &lock.container));
    let unknown = wanted.containers.keys().filter(|spelled| !containers.contains_key(*spelled));
    reasons.extend(unknown.map(|spelled| format!("the container image {spelled} is not in fleet.lock")));
    if let Some(files) = &lock.file {
        reasons.extend(digests("file", &wanted.files, files));
    }
    reasons.extend(guests(fleet, lock));
    reasons
}

/// A note where this machine would build another kernel from the same lock. It is no reason against the lock: the kernel is
/// right, its bytes are not those of the machine that locked.
pub fn other_toolchain(lock: &Lock, toolchain: &str) -> Option<String> {
    let locked = lock.kernel.toolchain.as_deref().filter(|locked| *locked != toolchain)?;
    Some(format!(
        "the kernel would be built with a different toolchain than fleet.lock has, and differ: {toolchain} \
         here, {locked} in fleet.lock"
    ))
}

fn kernel(fleet: &Fleet, wanted: &WantedKernel, lock: &Lock) -> Vec<String> {
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
    if wanted.source == locked.source && wanted.keyring.is_some() && wanted.keyring != locked.keyring {
        reasons.push("the kernel's keyring is not the one that verified its source in fleet.lock".into());
    }
    match (wanted.config, locked.config) {
        (Some(_), None) => {
            reasons.push("fleet.toml has a kernel `source`, but fleet.lock has a prebuilt kernel".into())
        }
        (None, Some(_)) => {
            reasons.push("fleet.toml has a prebuilt kernel, but fleet.lock has a kernel `source`".into())
        }
        (Some(now), Some(then)) if now != then => reasons.extend(config(wanted, locked)),
        _ => {}
    }
    reasons.extend(patches(fleet, &wanted.patches, &locked.patches));
    reasons
}

/// What differs between two configurations, of which it is known that they differ.
fn config(wanted: &WantedKernel, locked: &LockedKernel) -> Vec<String> {
    let mut reasons = digests("kernel config", &wanted.parts.files, &locked.files);
    let (now, then) = (&wanted.parts.options, &locked.options);
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    for name in names.into_iter().filter(|name| now.get(*name) != then.get(*name)) {
        let value = |options: &BTreeMap<String, String>| options.get(name).cloned();
        let (now, then) = (value(now), value(then));
        let told = |value: Option<String>| value.unwrap_or_else(|| "not set".into());
        reasons.push(format!(
            "the kernel option {name} is {} in fleet.toml, {} in fleet.lock",
            told(now),
            told(then)
        ));
    }
    if reasons.is_empty() {
        reasons.push(
            "the kernel fragments are in a different order, and the last one that sets an option wins".into(),
        );
    }
    reasons
}

fn patches(fleet: &Fleet, now: &[Sha256], then: &[Sha256]) -> Vec<String> {
    let KernelSpec::Build(build) = &fleet.kernel else { return Vec::new() };
    let name = |index: usize| {
        build.patches.get(index).map(|path| spelled_path(&fleet.root, path)).unwrap_or_default()
    };
    let short = |digests: &[Sha256], index: usize| digests.get(index).map(Sha256::short);
    let reason = |index| match (short(now, index), short(then, index)) {
        (Some(now), Some(then)) if now != then => Some(format!(
            "the kernel patch {} is {} with the SHA-256 {now}..., {then}... in fleet.lock",
            index + 1,
            name(index)
        )),
        (Some(_), None) => Some(format!("the kernel patch {} is not in fleet.lock", name(index))),
        (None, Some(then)) => Some(format!(
            "the kernel patch {} of fleet.lock, with the SHA-256 {then}..., is no longer in fleet.toml",
            index + 1
        )),
        _ => None,
    };
    (0..now.len().max(then.len())).filter_map(reason).collect()
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
        let list = |repositories: &[&LockedRepository]| {
            repositories.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        reasons.push(format!(
            "the repositories are in a different order, which decides between equal packages: {} in \
             fleet.toml, {} in fleet.lock",
            list(&now),
            list(&then)
        ));
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
        now.difference(&then).map(|package| format!("the image {name} now needs the package {package}"));
    let removed = then
        .difference(&now)
        .map(|package| format!("the image {name} no longer needs the package {package}"));
    let arch = (image.arch != ARCH)
        .then(|| format!("the image {name} is for {} in fleet.lock, but guests are {ARCH}", image.arch));
    let missing = lock.packages_of(image).filter_map(Result::err);
    let missing =
        missing.map(|id| format!("the image {name} has the package {id}, which fleet.lock does not pin"));
    added.chain(removed).chain(arch).chain(missing).collect()
}

fn digests<K: Ord + std::fmt::Display>(
    kind: &str,
    now: &BTreeMap<K, Sha256>,
    then: &BTreeMap<K, Sha256>,
) -> Vec<String> {
    let new = now.iter().filter_map(|(name, sha256)| match then.get(name) {
        None => Some(format!("the {kind} {name} is not in fleet.lock")),
        Some(locked) if locked != sha256 => {
            let (now, then) = (sha256.short(), locked.short());
            Some(format!("the {kind} {name} changed: it has the SHA-256 {now}..., {then}... in fleet.lock"))
        }
        Some(_) => None,
    });
    let gone = then.keys().filter(|name| !now.contains_key(name));
    new.chain(gone.map(|name| format!("the {kind} {name} is no longer used"))).collect()
}

fn guests(fleet: &Fleet, lock: &Lock) -> Vec<String> {
    let mut reasons = Vec::new();
    // Validation gives every guest of a fleet its place, so that assigning numbers does not fail.
    let assigned = address::numbered(fleet, &lock.guest).unwrap_or_default();
    for name in fleet.guests.keys() {
        match lock.guest.get(name) {
            None => reasons.push(format!("the guest {name} is not in fleet.lock")),
            Some(then) => reasons.extend(assigned.get(name).and_then(|now| numbers(name, now, then))),
        }
    }
    let gone = lock.guest.keys().filter(|name| !fleet.guests.contains_key(name));
    reasons.extend(gone.map(|name| format!("the guest {name} is no longer in fleet.toml")));
    reasons
}

/// What differs between the numbers that a guest has by `[host]` and those that it has in the lock.
fn numbers(name: &GuestName, now: &LockedGuest, then: &LockedGuest) -> Option<String> {
    let told = |guest: &LockedGuest| {
        [
            ("uid", guest.uid.to_string()),
            ("address", guest.ip.to_string()),
            ("MAC", guest.mac.to_string()),
            ("TAP", guest.tap.to_string()),
        ]
    };
    let differ = told(now).into_iter().zip(told(then)).filter(|((_, now), (_, then))| now != then);
    let differ = differ.map(|((what, now), (_, then))| format!("the {what} {then}, but [host] gives {now}"));
    let differ: Vec<String> = differ.chain(ports(now, then)).collect();
    (!differ.is_empty()).then(|| format!("the guest {name} has {}", differ.join("; ")))
}

/// What differs in the ports of the host that lead to a guest.
fn ports<'a>(now: &'a LockedGuest, then: &'a LockedGuest) -> impl Iterator<Item = String> + 'a {
    let names: BTreeSet<_> = now.ports.keys().chain(then.ports.keys()).collect();
    names.into_iter().filter_map(|name| match (now.ports.get(name), then.ports.get(name)) {
        (now, then) if now == then => None,
        (Some(now), Some(then)) => Some(format!("the port {then} for {name}, but `publish` gives {now}")),
        (Some(_), None) => Some(format!("no port for {name}, which its network publishes")),
        (None, _) => Some(format!("a port for {name}, which its network no longer publishes")),
    })
}
