//! Which containers of a guest that runs come, go and change, and why.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::text::excerpt;
use crate::base::{Label, Sha256};
use crate::fleet::{ContainerSource, HealthCheck, SecretPlace, SecretSpec};
use crate::host::container::{GuestContainer, StartedContainer};
use crate::host::observed::ObservedVmm;
use crate::host::wanted::{Startup, WantedGuest};

/// Why something is done to the containers of a guest, in words.
pub(super) fn why(vmm: &ObservedVmm, want: &WantedGuest) -> Vec<String> {
    let is_restored = matches!(want.startup, Startup::Restored { .. });
    let removed = undeclared(&vmm.containers, want).filter(|_| !is_restored);
    let removed = removed.map(|one| format!("container {} is not declared any more", one.container.name));
    let started = |name: &Label| vmm.containers.iter().find(|one| one.container.name == *name);
    let added = missing(&vmm.containers, want).map(|wanted| match started(&wanted.name) {
        Some(started) => format!("container {}: {}", wanted.name, differences(&started.container, wanted)),
        None => format!("container {} was not started", wanted.name),
    });
    let awaited = want.containers.iter().filter(|one| {
        is_awaited(&vmm.containers, one) && vmm.containers.iter().any(|started| started.container == **one)
    });
    let awaited = awaited.map(|one| format!("container {} has not been healthy yet", one.name));
    removed.chain(added).chain(awaited).collect()
}

/// Whether a guest has other containers than it should.
pub(super) fn differ(vmm: &ObservedVmm, want: &WantedGuest) -> bool {
    !vmm.containers.iter().map(|started| &started.container).eq(&want.containers)
}

/// Containers that have not been started since the guest's boot, or otherwise than they should be.
pub(super) fn missing<'a>(
    started: &'a [StartedContainer],
    want: &'a WantedGuest,
) -> impl Iterator<Item = &'a GuestContainer> {
    want.containers.iter().filter(|wanted| !started.iter().any(|one| one.container == **wanted))
}

/// Containers that were started, and of whose name none is declared any more.
pub(super) fn undeclared<'a>(
    started: &'a [StartedContainer],
    want: &'a WantedGuest,
) -> impl Iterator<Item = &'a StartedContainer> {
    let is_declared = |name: &Label| want.containers.iter().any(|container| container.name == *name);
    started.iter().filter(move |one| !is_declared(&one.container.name))
}

/// Whether it is waited for until a container is healthy: it has not been since it was started, or is about to be started.
pub(super) fn is_awaited(started: &[StartedContainer], wanted: &GuestContainer) -> bool {
    wanted.health.is_some() && !started.iter().any(|one| one.container == *wanted && !one.is_awaited())
}

/// What two containers of the same name differ in. Every field is named, so that a new one does not compile before it is decided
/// what it is called.
fn differences(started: &GuestContainer, wanted: &GuestContainer) -> String {
    let GuestContainer {
        name: _,
        source,
        command,
        env,
        ports,
        volumes,
        tmpfs,
        memory_mib,
        milli_cpus,
        read_only,
        user,
        restart,
        health,
        secrets,
    } = started;
    let limit = |milli: &Option<u32>| or_none(milli.map(|milli| (f64::from(milli) / 1000.0).to_string()));
    let all = [
        of_sources(source, &wanted.source),
        told("command", command, &wanted.command, |words| quoted(words)),
        told("ports", ports, &wanted.ports, |ports| listed(ports)),
        told("volumes", volumes, &wanted.volumes, |volumes| listed(volumes)),
        told("tmpfs", tmpfs, &wanted.tmpfs, |tmpfs| listed(tmpfs)),
        told("memory", memory_mib, &wanted.memory_mib, |mib| or_none(mib.map(|mib| format!("{mib}MiB")))),
        told("cpus", milli_cpus, &wanted.milli_cpus, limit),
        told("read-only", read_only, &wanted.read_only, ToString::to_string),
        told("user", user, &wanted.user, |user| or_none(user.clone())),
        told("restart", restart, &wanted.restart, ToString::to_string),
        told("health", health, &wanted.health, |health| or_none(health.as_ref().map(health_in_words))),
    ];
    let of_maps = variables(env, &wanted.env).into_iter().chain(secret_changes(secrets, &wanted.secrets));
    all.into_iter().flatten().chain(of_maps).collect::<Vec<_>>().join(", ")
}

fn told<T: PartialEq>(what: &str, from: &T, to: &T, words: impl Fn(&T) -> String) -> Option<String> {
    (from != to).then(|| format!("{what} {} -> {}", excerpt(&words(from)), excerpt(&words(to))))
}

fn of_sources(from: &ContainerSource<Sha256>, to: &ContainerSource<Sha256>) -> Option<String> {
    let words = |source: &ContainerSource<Sha256>| match source {
        ContainerSource::Image(image) => ("image", image.clone()),
        ContainerSource::Kube(file) => ("kube file", file.short()),
    };
    let ((from_kind, from_name), (to_kind, to_name)) = (words(from), words(to));
    let to_kind = if from_kind == to_kind { String::new() } else { format!("{to_kind} ") };
    (from != to).then(|| format!("{from_kind} {from_name} -> {to_kind}{to_name}"))
}

fn health_in_words(health: &HealthCheck) -> String {
    let HealthCheck { command, interval, timeout, retries, start_period } = health;
    format!("{} every {interval}s for {timeout}s, {retries} times, after {start_period}s", quoted(command))
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| "none".to_owned())
}

/// Values of a list that hold no commas of their own.
fn listed(values: &[impl ToString]) -> String {
    let all: Vec<_> = values.iter().map(ToString::to_string).collect();
    or_none((!all.is_empty()).then(|| all.join(" ")))
}

/// Words that may hold anything.
fn quoted(words: &[String]) -> String {
    or_none((!words.is_empty()).then(|| format!("{words:?}")))
}

/// Each variable that is another, or is there on one side alone.
fn variables(started: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<_> = started.keys().chain(wanted.keys()).collect();
    let value = |env: &BTreeMap<String, String>, name: &String| {
        or_none(env.get(name).map(|value| format!("{value:?}")))
    };
    let change = |name: &String| {
        let (from, to) = (value(started, name), value(wanted, name));
        (from != to).then(|| format!("env {name} {} -> {}", excerpt(&from), excerpt(&to)))
    };
    names.into_iter().filter_map(change).collect()
}

/// Each secret that is another, by its name: what it is shows nowhere.
fn secret_changes(started: &[SecretSpec<Sha256>], wanted: &[SecretSpec<Sha256>]) -> Vec<String> {
    let of = |secrets: &'_ [SecretSpec<Sha256>], name: &Label| {
        secrets.iter().find(|secret| secret.name == *name).cloned()
    };
    let place = |secret: Option<&SecretSpec<Sha256>>| match secret.map(|secret| &secret.place) {
        None => "none".to_owned(),
        Some(SecretPlace::Env(variable)) => format!("variable {variable}"),
        Some(SecretPlace::Target(target)) => format!("file {target}"),
    };
    let names: BTreeSet<_> = started.iter().chain(wanted).map(|secret| &secret.name).collect();
    let change = |name: &Label| {
        let (from, to) = (of(started, name), of(wanted, name));
        let places = (place(from.as_ref()), place(to.as_ref()));
        match from == to {
            true => None,
            false if places.0 == places.1 => Some(format!("secret {name} changed")),
            false => Some(format!("secret {name} {} -> {}", excerpt(&places.0), excerpt(&places.1))),
        }
    };
    let mut changes: Vec<_> = names.into_iter().filter_map(change).collect();
    // A secret may be given twice, once as a variable.
    if changes.is_empty() && started != wanted {
        changes.push("secrets changed".to_owned());
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{PortMapping, Protocol, RestartPolicy};

    fn web() -> GuestContainer {
        GuestContainer::of_image("web".parse().unwrap(), "localhost/a")
    }

    #[test]
    fn a_change_is_told_with_both_values() {
        let health = HealthCheck {
            command: vec!["true".into()],
            interval: 1,
            timeout: 2,
            retries: 3,
            start_period: 4,
        };
        let port = PortMapping { guest: 8080, container: 80, protocol: Protocol::Tcp };
        let wanted = GuestContainer {
            source: ContainerSource::Image("localhost/b".into()),
            command: vec!["a b".into(), "\u{1b}[2J".into()],
            env: [("LANG".to_owned(), "de\nDE".to_owned())].into(),
            ports: vec![port],
            memory_mib: Some(64),
            milli_cpus: Some(500),
            restart: RestartPolicy::Always,
            health: Some(health),
            ..web()
        };
        assert_eq!(
            differences(&web(), &wanted),
            "image localhost/a -> localhost/b, command none -> [\"a b\", \"\\u{1b}[2J\"], \
             ports none -> 8080:80/tcp, memory none -> 64MiB, cpus none -> 0.5, restart no -> always, \
             health none -> [\"true\"] every 1s for 2s, 3 times, after 4s, env LANG none -> \"de\\nDE\""
        );
    }

    #[test]
    fn of_a_secret_that_is_another_the_name_is_told() {
        let with = |value: &str, place: SecretPlace| {
            let secret = SecretSpec { name: "token".parse().unwrap(), file: Sha256::of(value), place };
            GuestContainer { secrets: vec![secret], ..web() }
        };
        let env = || SecretPlace::Env("T".into());
        assert_eq!(differences(&with("a", env()), &with("b", env())), "secret token changed");
        assert_eq!(differences(&web(), &with("b", env())), "secret token none -> variable T");
    }
}
