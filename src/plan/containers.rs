//! Which containers of a guest that runs come, go and change, and why.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Label, Sha256};
use crate::fleet::{ContainerSource, HealthCheck, SecretPlace, SecretSpec};
use crate::host::container::{GuestContainer, StartedContainer};
use crate::host::observed::ObservedVmm;
use crate::host::wanted::{Startup, WantedGuest};

use super::change::{Change, or_none, told, untold};

/// Why something is done to the containers of a guest, in words.
pub(super) fn why(vmm: &ObservedVmm, want: &WantedGuest) -> Vec<String> {
    let is_restored = matches!(want.startup, Startup::Restored { .. });
    let removed = undeclared(&vmm.containers, want).filter(|_| !is_restored);
    let removed = removed.map(|one| format!("container {} is not declared any more", one.container.name));
    let started = |name: &Label| vmm.containers.iter().find(|one| one.container.name == *name);
    let added = missing(&vmm.containers, want).map(|wanted| match started(&wanted.name) {
        Some(started) => {
            let changes = changes(&started.container, wanted);
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            format!("container {}: {}", wanted.name, changes.join(", "))
        }
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
fn changes(started: &GuestContainer, wanted: &GuestContainer) -> Vec<Change> {
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
    all.into_iter().flatten().chain(of_maps).collect()
}

/// One that becomes another kind says which.
fn of_sources(from: &ContainerSource<Sha256>, to: &ContainerSource<Sha256>) -> Option<Change> {
    let kind = |source: &ContainerSource<Sha256>| match source {
        ContainerSource::Image(_) => "image",
        ContainerSource::Kube(_) => "kube file",
    };
    let words = |source: &ContainerSource<Sha256>| {
        let name = match source {
            ContainerSource::Image(image) => image.clone(),
            ContainerSource::Kube(file) => file.short(),
        };
        if kind(source) == kind(from) { name } else { format!("{} {name}", kind(source)) }
    };
    told(kind(from), from, to, words)
}

fn health_in_words(health: &HealthCheck) -> String {
    let HealthCheck { command, interval, timeout, retries, start_period } = health;
    format!("{} every {interval}s for {timeout}s, {retries} times, after {start_period}s", quoted(command))
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
fn variables(started: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<_> = started.keys().chain(wanted.keys()).collect();
    let words = |value: &Option<&String>| or_none(value.map(|value| format!("{value:?}")));
    let change = |name: &String| told(format!("env {name}"), &started.get(name), &wanted.get(name), words);
    names.into_iter().filter_map(change).collect()
}

/// Each secret that is another, by its name: what it is shows nowhere.
fn secret_changes(started: &[SecretSpec<Sha256>], wanted: &[SecretSpec<Sha256>]) -> Vec<Change> {
    let of = |secrets: &'_ [SecretSpec<Sha256>], name: &Label| {
        secrets.iter().find(|secret| secret.name == *name).cloned()
    };
    let place = |place: &Option<SecretPlace>| match place {
        None => "none".to_owned(),
        Some(SecretPlace::Env(variable)) => format!("variable {variable}"),
        Some(SecretPlace::Target(target)) => format!("file {target}"),
    };
    let names: BTreeSet<_> = started.iter().chain(wanted).map(|secret| &secret.name).collect();
    let change = |name: &Label| {
        let (what, from, to) = (format!("secret {name}"), of(started, name), of(wanted, name));
        let places = [&from, &to].map(|secret| secret.as_ref().map(|secret| secret.place.clone()));
        told(what.clone(), &places[0], &places[1], place).or_else(|| untold(what, &from, &to))
    };
    let changes: Vec<_> = names.into_iter().filter_map(change).collect();
    // A secret may be given twice, once as a variable.
    if changes.is_empty() { untold("secrets", &started, &wanted).into_iter().collect() } else { changes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{PortMapping, Protocol, RestartPolicy};

    fn web() -> GuestContainer {
        GuestContainer::of_image("web".parse().unwrap(), "localhost/a")
    }

    fn in_words(started: &GuestContainer, wanted: &GuestContainer) -> String {
        changes(started, wanted).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
            in_words(&web(), &wanted),
            "image localhost/a -> localhost/b, command none -> [\"a b\", \"\\u{1b}[2J\"], \
             ports none -> 8080:80/tcp, memory none -> 64MiB, cpus none -> 0.5, restart no -> always, \
             health none -> [\"true\"] every 1s for 2s, 3 times, after 4s, env LANG none -> \"de\\nDE\""
        );
    }

    #[test]
    fn a_source_of_another_kind_is_told_with_its_kind() {
        let file = Sha256::of("kind: Pod");
        let kube = GuestContainer { source: ContainerSource::Kube(file), ..web() };
        let other = GuestContainer { source: ContainerSource::Kube(Sha256::of("")), ..web() };
        let (file, other_file) = (file.short(), Sha256::of("").short());
        assert_eq!(in_words(&web(), &kube), format!("image localhost/a -> kube file {file}"));
        assert_eq!(in_words(&kube, &web()), format!("kube file {file} -> image localhost/a"));
        assert_eq!(in_words(&kube, &other), format!("kube file {file} -> {other_file}"));
    }

    #[test]
    fn of_a_secret_that_is_another_the_name_is_told() {
        let with = |value: &str, place: SecretPlace| {
            let secret = SecretSpec { name: "token".parse().unwrap(), file: Sha256::of(value), place };
            GuestContainer { secrets: vec![secret], ..web() }
        };
        let env = || SecretPlace::Env("T".into());
        assert_eq!(in_words(&with("a", env()), &with("b", env())), "secret token changed");
        assert_eq!(in_words(&web(), &with("b", env())), "secret token none -> variable T");
    }
}
