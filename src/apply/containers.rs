//! Containers in guests: started, removed and asked after through the guest's own Podman, as its user. Whoever is inside decides how
//! long that takes and what it says, so each call has an end, and each answer a bound.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::base::diagnostic::one_line;
use crate::base::text::{excerpt, last_lines};
use crate::base::{GuestName, Label};
use crate::fleet::ContainerSpec;
use crate::sys::ssh;

use super::ApplyError;
use super::linux::{GuestHandle, LinuxHost};
use super::record::{self, Ready};

/// How long a container may take to start; the image may have to come over the network first.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long all that is removed of a guest may take; Podman itself kills a container that ignores SIGTERM for ten seconds. The host
/// is held meanwhile.
const REMOVE_LIMIT: Duration = Duration::from_secs(60);
/// How long a guest may take to tell of its containers.
const LIST_LIMIT: Duration = Duration::from_secs(15);
/// How many guests are asked at a time.
const ASKED_AT_ONCE: usize = 32;

/// A container that was started in a guest, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    pub guest: GuestName,
    pub name: Label,
    /// As it is declared.
    pub image: String,
    pub state: ContainerState,
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
    /// Starts a container in a guest, in place of one of the same name, and remembers that it was started.
    pub(super) fn start_container(self, container: &ContainerSpec) -> Result<(), ApplyError> {
        let words = ["run", "--detach", "--replace", "--name", container.name.as_str(), &container.image];
        let failed = |reason| self.failed(container.name.as_str(), "did not start", reason);
        let mut ready = self.podman_for(&words, START_LIMIT, &failed)?;
        ready.containers.retain(|started| started.name != container.name);
        ready.containers.push(container.clone());
        Ok(record::write(&self.layout().ready(self.name), &ready)?)
    }

    /// Ends containers of a guest and removes them, whoever has removed some of them already.
    pub(super) fn remove_containers(self, containers: &[Label]) -> Result<(), ApplyError> {
        let names: Vec<_> = containers.iter().map(Label::as_str).collect();
        let failed = |reason| self.failed(&names.join(", "), "was not removed", reason);
        let words = [&["rm", "--force", "--ignore"], names.as_slice()].concat();
        let mut ready = self.podman_for(&words, REMOVE_LIMIT, &failed)?;
        ready.containers.retain(|started| !containers.contains(&started.name));
        Ok(record::write(&self.layout().ready(self.name), &ready)?)
    }

    fn failed(self, container: &str, outcome: &'static str, reason: String) -> ApplyError {
        ApplyError::Container { guest: self.name.clone(), container: container.to_owned(), outcome, reason }
    }

    /// Runs podman(1) in a guest and gives the guest's record; `failed` makes an error of a reason.
    fn podman_for(
        self,
        words: &[&str],
        limit: Duration,
        failed: &dyn Fn(String) -> ApplyError,
    ) -> Result<Ready, ApplyError> {
        let ready = record::read::<Ready>(&self.layout().ready(self.name))?;
        let ready = ready.ok_or_else(|| failed("the guest is not ready".into()))?;
        self.podman(&ready, words, limit, failed)?;
        Ok(ready)
    }

    /// What podman(1) prints in a guest, of very much the beginning and the end.
    fn podman(
        self,
        ready: &Ready,
        words: &[&str],
        limit: Duration,
        failed: &dyn Fn(String) -> ApplyError,
    ) -> Result<Vec<u8>, ApplyError> {
        let target = self.ssh_target(ready)?.ok_or_else(|| failed("the guest runs no sshd".into()))?;
        let words: Vec<_> = std::iter::once(&"podman").chain(words).map(|word| (*word).to_owned()).collect();
        let output = ssh::run_within(&target, &words, limit)?;
        match output.code {
            0 => Ok(output.stdout),
            ssh::OUT_OF_TIME => Err(failed(format!("not within {} s", limit.as_secs()))),
            _ => Err(failed(shown(&String::from_utf8_lossy(&output.stderr)))),
        }
    }

    /// What became of the containers that were started in a guest since its boot.
    fn containers(self) -> Vec<ContainerStatus> {
        let ready = match self.ready(self.vmm().as_ref()) {
            Ok(Some(ready)) if !ready.containers.is_empty() => ready,
            // One that is not ready has none.
            _ => return Vec::new(),
        };
        let states = match self.stands_still() {
            // It could not answer.
            true => vec![ContainerState::Other("paused".to_owned()); ready.containers.len()],
            false => self.container_states(&ready),
        };
        let told = ready.containers.iter().zip(states).map(|(container, state)| ContainerStatus {
            guest: self.name.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            state,
        });
        told.collect()
    }

    /// One for each container of the record.
    fn container_states(self, ready: &Ready) -> Vec<ContainerState> {
        let names: Vec<_> = ready.containers.iter().map(|container| container.name.as_str()).collect();
        let filters: Vec<_> = names.iter().map(|name| format!("name=^{name}$")).collect();
        let mut words = vec!["ps", "--all", "--format", "json"];
        words.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
        let failed = |reason| self.failed(&names.join(", "), "cannot be asked after", reason);
        let said = self.podman(ready, &words, LIST_LIMIT, &failed).map_err(|error| match error {
            ApplyError::Container { reason, .. } => reason,
            error => one_line(&error),
        });
        let listed = said.and_then(|said| parse_list(&said));
        names.iter().map(|name| state_of(name, &listed)).collect()
    }
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

/// What a guest said, for an error: lines of its own, that look like none of this program's.
fn shown(said: &str) -> String {
    match last_lines(said).as_slice() {
        [line] => line.clone(),
        lines => lines.iter().map(|line| format!("\n    {line}")).collect(),
    }
}

/// A container as `podman ps --format json` tells of it (containers/podman `pkg/domain/entities`, ListContainer).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodmanContainer {
    names: Vec<String>,
    state: String,
    #[serde(default)]
    exit_code: i64,
}

/// What a guest said of its containers, or in what it is not that.
fn parse_list(said: &[u8]) -> Result<Vec<PodmanContainer>, String> {
    if said.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let no_list = |error: serde_json::Error| {
        format!("what its Podman prints is no list of containers: {}", excerpt(&error.to_string()))
    };
    serde_json::from_slice(said).map_err(no_list)
}

fn state_of(name: &str, listed: &Result<Vec<PodmanContainer>, String>) -> ContainerState {
    let listed = match listed {
        Ok(listed) => listed,
        Err(reason) => return ContainerState::Unknown(reason.clone()),
    };
    match listed.iter().find(|one| one.names.iter().any(|there| there == name)) {
        None => ContainerState::Removed,
        Some(one) => match one.state.as_str() {
            "running" => ContainerState::Running,
            "exited" | "stopped" => ContainerState::Exited(one.exit_code),
            word => ContainerState::Other(excerpt(word)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(said: &str) -> ContainerState {
        state_of("web", &parse_list(said.as_bytes()))
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
}
