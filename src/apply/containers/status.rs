//! What became of containers that were started in guests, as the guests tell it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::apply::ApplyError;
use crate::apply::linux::{GuestHandle, LinuxHost};
use crate::apply::record::Ready;
use crate::base::diagnostic::one_line;
use crate::base::text::excerpt;
use crate::base::{GuestName, Label};
use crate::host::container::StartedContainer;
use crate::sys::ssh::command_line;

/// How long a guest may take to tell of its containers.
const LIST_LIMIT: Duration = Duration::from_secs(15);
/// How many guests are asked at a time.
const ASKED_AT_ONCE: usize = 32;

const LIST: &str = include_str!("list.sh");

/// A container that was started in a guest, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    pub guest: GuestName,
    pub name: Label,
    /// As it is declared; `None` where a `kube` file says what runs.
    pub image: Option<String>,
    pub state: ContainerState,
    /// Of one with a health check: `starting`, `healthy`, `unhealthy`, or what else the guest says, made printable.
    pub health: Option<String>,
}

/// How a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Running,
    /// Its program ended, with this exit status.
    Exited(i64),
    /// Somebody inside removed it.
    Removed,
    /// Podman's own word for anything else, such as `paused`, made printable.
    Other(String),
    /// The guest did not say; why.
    Unknown(String),
}

impl ContainerState {
    /// In one word.
    pub fn word(&self) -> &str {
        match self {
            Self::Running => "running",
            Self::Exited(_) => "exited",
            Self::Removed => "removed",
            Self::Other(word) => word,
            Self::Unknown(_) => "unknown",
        }
    }
}

impl GuestHandle<'_> {
    /// What became of the containers that were started in a guest since its boot.
    fn containers(self) -> Vec<ContainerStatus> {
        let ready = match self.ready(self.vmm().as_ref()) {
            Ok(Some(ready)) if !ready.containers.is_empty() => ready,
            // One that is not ready has none.
            _ => return Vec::new(),
        };
        let states = match self.is_paused_spare() {
            // It could not answer.
            true => vec![(ContainerState::Other("paused".to_owned()), None); ready.containers.len()],
            false => self.container_states(&ready),
        };
        let told = ready.containers.iter().zip(states).map(|(started, (state, health))| ContainerStatus {
            guest: self.name.clone(),
            name: started.container.name.clone(),
            image: started.container.image().map(str::to_owned),
            state,
            health,
        });
        told.collect()
    }

    /// One for each container of the record, and how its checks are.
    fn container_states(self, ready: &Ready) -> Vec<(ContainerState, Option<String>)> {
        let names: Vec<_> = ready.containers.iter().map(|one| one.container.name.as_str()).collect();
        let failed = |reason| self.failed(&names.join(", "), "cannot be asked after", reason);
        let said =
            self.say(ready, &question(&ready.containers), LIST_LIMIT, &failed).map_err(|error| match error {
                ApplyError::Container { reason, .. } => reason,
                error => one_line(&error),
            });
        let told = said.and_then(|said| Told::parse(&said, has_checks(&ready.containers)));
        let one = |started: &StartedContainer| match &told {
            Ok(told) => (told.state_of(started), told.health_of(started)),
            Err(reason) => (ContainerState::Unknown(reason.clone()), None),
        };
        ready.containers.iter().map(one).collect()
    }
}

/// Whether the guest is asked how checks are, beside what its Podman says.
fn has_checks(started: &[StartedContainer]) -> bool {
    started.iter().any(|one| one.container.health.is_some())
}

/// What is run in a guest to find out how these containers are.
fn question(started: &[StartedContainer]) -> Vec<String> {
    let (kube, plain): (Vec<_>, Vec<_>) = started.iter().partition(|one| one.container.image().is_none());
    let names = plain.iter().map(|one| format!("name=^{}$", one.container.name));
    let pods = kube.iter().flat_map(|one| &one.pods).map(|pod| format!("pod={pod}"));
    let asks = [names.collect::<Vec<_>>(), pods.collect()].into_iter().filter(|filters| !filters.is_empty());
    let lines = asks.map(|filters| {
        let words = ["podman", "ps", "--all", "--format", "json"].map(str::to_owned).into_iter();
        words
            .chain(filters.into_iter().flat_map(|filter| ["--filter".to_owned(), filter]))
            .collect::<Vec<_>>()
    });
    let mut lines: Vec<_> = lines.collect();
    if lines.len() == 1 && !has_checks(started) {
        return lines.remove(0);
    }
    let checked = started.iter().filter(|one| one.container.health.is_some());
    let checked: Vec<_> = checked.map(|one| one.container.name.to_string()).collect();
    let mut words = ["sh", "-c", LIST, "sis-list"].map(str::to_owned).to_vec();
    words.push(checked.len().to_string());
    words.extend(checked);
    words.extend(lines.iter().map(|line| command_line(line)));
    words
}

/// What became of the containers of guests that are ready, by guest; many guests are asked at a time.
pub fn all(host: &LinuxHost, guests: &[GuestName]) -> Vec<ContainerStatus> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..ASKED_AT_ONCE.min(guests.len()) {
            scope.spawn(|| {
                while let Some(guest) = guests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = host.guest(guest).containers();
                    found.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|a, b| (&a.guest, &a.name).cmp(&(&b.guest, &b.name)));
    found
}

/// What a guest said of its containers.
#[derive(Debug, Default)]
struct Told {
    containers: Vec<PodmanContainer>,
    /// Names of containers, and how their checks are.
    health: Vec<(String, String)>,
}

/// A container as `podman ps --format json` tells of it (containers/podman `pkg/domain/entities`, ListContainer).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodmanContainer {
    names: Vec<String>,
    state: String,
    #[serde(default)]
    exit_code: i64,
    /// The id of its pod; empty outside of one.
    #[serde(default)]
    pod: String,
    /// Whether it holds a pod together, and nothing else.
    #[serde(default)]
    is_infra: bool,
}

impl Told {
    /// What was said, or in what it is not that. What is said of checks comes first.
    fn parse(said: &[u8], has_checks: bool) -> Result<Self, String> {
        let mut told = Self::default();
        let mut lists = said;
        if has_checks {
            loop {
                let end = lists.iter().position(|byte| *byte == b'\n').unwrap_or(lists.len());
                let line = String::from_utf8_lossy(&lists[..end]).into_owned();
                lists = &lists[lists.len().min(end + 1)..];
                let Some((name, health)) = line.split_once(' ') else { break };
                told.health.push((name.to_owned(), excerpt(health)));
            }
        }
        let no_list = |error: serde_json::Error| {
            format!("what its Podman prints is no list of containers: {}", excerpt(&error.to_string()))
        };
        for list in serde_json::Deserializer::from_slice(lists).into_iter::<Vec<PodmanContainer>>() {
            told.containers.extend(list.map_err(no_list)?);
        }
        Ok(told)
    }

    fn health_of(&self, started: &StartedContainer) -> Option<String> {
        started.container.health.as_ref()?;
        let name = started.container.name.as_str();
        let found = self.health.iter().find(|(there, _)| there == name);
        Some(found.map_or("unknown", |(_, health)| health).to_owned())
    }

    fn state_of(&self, started: &StartedContainer) -> ContainerState {
        let name = started.container.name.as_str();
        let is_its = |one: &&PodmanContainer| match started.container.image() {
            Some(_) => one.names.iter().any(|there| there == name),
            None => !one.is_infra && started.pods.contains(&one.pod),
        };
        let states: Vec<_> = self.containers.iter().filter(is_its).map(PodmanContainer::state).collect();
        // Of several, the one that is in trouble tells.
        let failed = states.iter().find(|state| matches!(state, ContainerState::Exited(code) if *code != 0));
        let first = states.first().unwrap_or(&ContainerState::Removed);
        match failed {
            Some(failed) => failed.clone(),
            None if states.iter().all(|state| state == first) => first.clone(),
            None => ContainerState::Other("degraded".to_owned()),
        }
    }
}

impl PodmanContainer {
    fn state(&self) -> ContainerState {
        match self.state.as_str() {
            "running" => ContainerState::Running,
            "exited" | "stopped" => ContainerState::Exited(self.exit_code),
            word => ContainerState::Other(excerpt(word)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;
    use crate::fleet::{ContainerSource, HealthCheck};
    use crate::host::container::GuestContainer;

    fn web() -> StartedContainer {
        StartedContainer::new(GuestContainer::of_image("web".parse().unwrap(), "localhost/web"))
    }

    fn state(said: &str) -> ContainerState {
        match Told::parse(said.as_bytes(), false) {
            Ok(told) => told.state_of(&web()),
            Err(reason) => ContainerState::Unknown(reason),
        }
    }

    #[test]
    fn a_container_runs_has_ended_or_was_removed() {
        // Of Podman 4.3, cut.
        let listed = |state: &str| {
            format!(
                r#"[{{"AutoRemove":false,"ExitCode":3,"Exited":true,"Names":["web"],"State":"{state}","Status":""}},
                   {{"ExitCode":0,"Names":["other"],"State":"running"}}]"#
            )
        };
        assert_eq!(state(&listed("running")), ContainerState::Running);
        assert_eq!(state(&listed("exited")), ContainerState::Exited(3));
        assert_eq!(state(&listed("paused")), ContainerState::Other("paused".into()));
        for nothing in ["[]", "", "\n", r#"[{"Names":["web2"],"State":"running"}]"#] {
            assert_eq!(state(nothing), ContainerState::Removed, "{nothing:?}");
        }
    }

    #[test]
    fn what_a_guest_makes_up_is_shown_printable_and_bounded() {
        let ContainerState::Other(word) = state("[{\"Names\":[\"web\"],\"State\":\"\\u001b[2J\\nweb\"}]")
        else {
            panic!("a word of its own")
        };
        assert_eq!(word, "\\u{1b}[2J\\nweb");
        let long = format!(r#"[{{"Names":["web"],"State":"{}"}}]"#, "x".repeat(60_000));
        assert!(state(&long).word().len() < 400);
        for wrong in ["{}", "[1]", "no such command", "[{\"Names\":null}]", "[[[[[[", "\u{1b}[31m"] {
            let ContainerState::Unknown(why) = state(wrong) else { panic!("{wrong:?}") };
            assert!(!why.chars().any(char::is_control), "{why:?}");
        }
        assert!(matches!(state(&"[".repeat(60_000)), ContainerState::Unknown(_)));
    }

    #[test]
    fn a_pod_is_what_its_containers_are() {
        let pods = vec!["ab".repeat(32)];
        let source = ContainerSource::Kube(Sha256::of("pod"));
        let container = GuestContainer { source, ..web().container };
        let pod = StartedContainer { pods, ..StartedContainer::new(container) };
        let state = |states: &[(&str, i64)]| {
            let one = |(state, code): &(&str, i64)| {
                format!(r#"{{"Names":["web"],"State":"{state}","ExitCode":{code},"Pod":"{}"}}"#, pod.pods[0])
            };
            let all: Vec<_> = states.iter().map(one).collect();
            let infra =
                format!(r#"{{"Names":["i"],"State":"running","IsInfra":true,"Pod":"{}"}}"#, pod.pods[0]);
            let text = format!("[{}]\n[{infra}]\n", all.join(","));
            Told::parse(text.as_bytes(), false).unwrap().state_of(&pod)
        };
        assert_eq!(state(&[("running", 0), ("running", 0)]), ContainerState::Running);
        assert_eq!(state(&[("running", 0), ("exited", 3)]), ContainerState::Exited(3));
        assert_eq!(state(&[("running", 0), ("exited", 0)]).word(), "degraded");
        assert_eq!(state(&[]), ContainerState::Removed);
    }

    #[test]
    fn how_checks_are_is_told_before_the_list() {
        let check = HealthCheck {
            command: vec!["true".into()],
            interval: 1,
            timeout: 1,
            retries: 1,
            start_period: 0,
        };
        let web = StartedContainer::new(GuestContainer { health: Some(check), ..web().container });
        let told = |said: &str| Told::parse(said.as_bytes(), true).map(|told| told.health_of(&web).unwrap());
        assert_eq!(told("web healthy\n\n[]\n").unwrap(), "healthy");
        assert_eq!(told("web \u{1b}[2J\n\n[]").unwrap(), "\\u{1b}[2J");
        assert_eq!(told("\n").unwrap(), "unknown");
        assert_eq!(told("").unwrap(), "unknown");
        assert!(told("web healthy").unwrap() == "healthy" && told("web healthy\n\nx").is_err());
        assert!(
            question(std::slice::from_ref(&web))
                .contains(&"'podman' 'ps' '--all' '--format' 'json' '--filter' 'name=^web$'".to_owned())
        );
    }
}
