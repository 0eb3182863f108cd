//! Containers in guests: started, removed and waited for through the guest's own Podman, as its user. Whoever is inside decides how
//! long that takes and what it says, so each call has an end, and each answer a bound.

pub mod file;
pub mod status;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::text::{excerpt, last_lines};
use crate::base::{Label, Sha256};
use crate::fleet::{ContainerSource, HealthCheck};
use crate::host::container::{GuestContainer, StartedContainer, start_words};
use crate::sys::ssh::{self, command_line};

use super::ApplyError;
use super::linux::GuestHandle;
use super::record::{self, Ready};

pub use status::{ContainerState, ContainerStatus, all};

/// How long a container may take to start; the image may have to come over the network first.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long all that is removed of a guest may take; Podman itself kills a container that ignores SIGTERM for ten seconds. The host
/// is held meanwhile.
const REMOVE_LIMIT: Duration = Duration::from_secs(60);
/// How long a guest is waited for at a time, in seconds, before it is looked whether this program is asked to end.
const AWAIT_SECONDS: u64 = 10;
/// How long such a call may take beyond that.
const AWAIT_SLACK: Duration = Duration::from_secs(30);

const START: &str = include_str!("containers/start.sh");
const HEALTH: &str = include_str!("containers/health.sh");
const AWAIT: &str = include_str!("containers/await.sh");

impl GuestHandle<'_> {
    /// Starts a container in a guest, in place of one of the same name, and remembers that it was started.
    pub(super) fn start_container(self, container: &GuestContainer) -> Result<(), ApplyError> {
        let failed = |reason| self.failed(container.name.as_str(), "did not start", reason);
        let mut ready = self.ready_for_containers(&failed)?;
        let (before, others): (Vec<_>, Vec<_>) = std::mem::take(&mut ready.containers)
            .into_iter()
            .partition(|one| one.container.name == container.name);
        self.remove_pods(&ready, &before)?;
        let secrets = self.secrets(container, &stale_secrets(&before, container, &others), &failed)?;
        let said = self.feed(&ready, &start_call(container), &secrets, START_LIMIT, &failed)?;
        let pods = match container.source {
            ContainerSource::Image(_) => Vec::new(),
            ContainerSource::Kube(_) => pods_in(&String::from_utf8_lossy(&said)),
        };
        ready.containers = others;
        ready.containers.push(StartedContainer { pods, ..StartedContainer::new(container.clone()) });
        Ok(record::write(&self.dir().ready(), &ready)?)
    }

    /// Ends containers of a guest and removes them, whoever has removed some of them already.
    pub(super) fn remove_containers(self, containers: &[Label]) -> Result<(), ApplyError> {
        let names: Vec<_> = containers.iter().map(Label::as_str).collect();
        let failed = |reason| self.failed(&names.join(", "), "was not removed", reason);
        let mut ready = self.ready_for_containers(&failed)?;
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut ready.containers)
            .into_iter()
            .partition(|one| containers.contains(&one.container.name));
        let words = [&["podman", "rm", "--force", "--ignore"], names.as_slice()].concat();
        self.say(&ready, &owned(&words), REMOVE_LIMIT, &failed)?;
        self.remove_pods(&ready, &gone)?;
        let secrets = unused_secrets(&gone, &stay);
        if !secrets.is_empty() {
            let words =
                [vec!["podman", "secret", "rm"], secrets.iter().map(Label::as_str).collect()].concat();
            // Whoever is inside may have removed them.
            let _ = self.say(&ready, &owned(&words), REMOVE_LIMIT, &failed);
        }
        ready.containers = stay;
        Ok(record::write(&self.dir().ready(), &ready)?)
    }

    /// Waits until a container that was started is healthy, and remembers that it was. One that is unhealthy is an error at once.
    pub(super) fn await_healthy(self, container: &GuestContainer) -> Result<(), ApplyError> {
        let Some(check) = &container.health else { return Ok(()) };
        let failed = |reason| self.failed(container.name.as_str(), "is not healthy", reason);
        let begun = Instant::now();
        let limit = Duration::from_secs(check.known_after()) + AWAIT_SLACK;
        loop {
            self.host.check_signals()?;
            let mut ready = self.ready_for_containers(&failed)?;
            let words = ["sh", "-c", AWAIT, "sis-await", container.name.as_str()];
            let words = [owned(&words), vec![AWAIT_SECONDS.to_string()]].concat();
            let said = self.say(&ready, &words, Duration::from_secs(AWAIT_SECONDS) + AWAIT_SLACK, &failed)?;
            let said = String::from_utf8_lossy(&said);
            let (health, last) = said.split_once('\n').unwrap_or((&said, ""));
            match health {
                "healthy" => {
                    let its = ready.containers.iter_mut().filter(|one| one.container.name == container.name);
                    its.for_each(|one| one.healthy = true);
                    return Ok(record::write(&self.dir().ready(), &ready)?);
                }
                "starting" if begun.elapsed() < limit => {}
                "starting" => {
                    return Err(failed(format!("not within {} s{}", limit.as_secs(), last_check(last))));
                }
                "unhealthy" => {
                    let why = format!(
                        "its check fails, or takes more than {} s{}",
                        check.timeout,
                        last_check(last)
                    );
                    return Err(failed(why));
                }
                // As where somebody removed it.
                other => return Err(failed(format!("its checks are {}", excerpt(other)))),
            }
        }
    }

    fn failed(self, container: &str, outcome: &'static str, reason: String) -> ApplyError {
        ApplyError::Container { guest: self.name.clone(), container: container.to_owned(), outcome, reason }
    }

    /// A guest's record; `failed` makes an error of a reason.
    fn ready_for_containers(self, failed: &dyn Fn(String) -> ApplyError) -> Result<Ready, ApplyError> {
        let ready = record::read::<Ready>(&self.dir().ready())?;
        ready.ok_or_else(|| failed("the guest is not ready".into()))
    }

    /// Ends the pods that `kube` files made.
    fn remove_pods(self, ready: &Ready, started: &[StartedContainer]) -> Result<(), ApplyError> {
        let pods: Vec<_> = started.iter().flat_map(|one| &one.pods).map(String::as_str).collect();
        let Some(first) = started.iter().find(|one| !one.pods.is_empty()) else { return Ok(()) };
        let failed = |reason| self.failed(first.container.name.as_str(), "was not removed", reason);
        let words = [&["podman", "pod", "rm", "--force", "--ignore"], pods.as_slice()].concat();
        self.say(ready, &owned(&words), REMOVE_LIMIT, &failed).map(drop)
    }

    /// What start.sh reads: secrets, those that go, and the `kube` file. What is read is what was planned, or nothing is started.
    fn secrets(
        self,
        container: &GuestContainer,
        stale: &[Label],
        failed: &dyn Fn(String) -> ApplyError,
    ) -> Result<Vec<u8>, ApplyError> {
        let path = |digest: &Sha256| {
            let path = self.host.container_files.get(digest);
            path.ok_or_else(|| {
                failed("a file that it names is not known: run `sisforge up` again".to_owned())
            })
        };
        let changed =
            || failed("a file that it names was changed meanwhile: run `sisforge up` again".to_owned());
        let key = file::secret_key(self.layout())?;
        let mut named: Vec<_> = container.secrets.iter().collect();
        named.dedup_by(|a, b| a.name == b.name);
        let mut lines = format!("{}\n", named.len() + stale.len());
        for secret in named {
            let value = file::secret(path(&secret.file)?)?;
            if file::digest(key.as_deref(), &value) != secret.file {
                return Err(changed());
            }
            let _ = writeln!(lines, "{} {}", secret.name, STANDARD.encode(value));
        }
        stale.iter().for_each(|name| lines.push_str(&format!("{name} \n")));
        let mut bytes = lines.into_bytes();
        if let ContainerSource::Kube(digest) = &container.source {
            let text = file::kube(path(digest)?)?;
            if Sha256::of(&text) != *digest {
                return Err(changed());
            }
            bytes.extend(text);
        }
        Ok(bytes)
    }

    /// What a command prints in a guest, of very much the beginning and the end.
    fn say(
        self,
        ready: &Ready,
        words: &[String],
        limit: Duration,
        failed: &dyn Fn(String) -> ApplyError,
    ) -> Result<Vec<u8>, ApplyError> {
        self.feed(ready, words, b"", limit, failed)
    }

    /// The same of a command that reads `input`.
    fn feed(
        self,
        ready: &Ready,
        words: &[String],
        input: &[u8],
        limit: Duration,
        failed: &dyn Fn(String) -> ApplyError,
    ) -> Result<Vec<u8>, ApplyError> {
        let target = self.ssh_target(ready)?.ok_or_else(|| failed("the guest runs no sshd".into()))?;
        let output = ssh::run_within(&target, words, input, limit)?;
        match output.code {
            0 => Ok(output.stdout),
            ssh::OUT_OF_TIME => Err(failed(format!("not within {} s", limit.as_secs()))),
            _ => Err(failed(shown(&String::from_utf8_lossy(&output.stderr)))),
        }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What is run in a guest to start a container.
fn start_call(container: &GuestContainer) -> Vec<String> {
    let (check, settings) = match &container.health {
        None => (String::new(), String::new()),
        Some(HealthCheck { command, interval, timeout, retries, start_period }) => {
            (command_line(command), format!("{interval} {timeout} {retries} {start_period}"))
        }
    };
    let directories: Vec<_> = container.volumes.iter().filter_map(|volume| volume.directory()).collect();
    let count = directories.len().to_string();
    let loop_text = if container.health.is_some() { HEALTH } else { "" };
    let head =
        ["sh", "-c", START, "sis-start", container.name.as_str(), loop_text, &check, &settings, &count];
    [owned(&head), owned(&directories), start_words(container)].concat()
}

/// Secrets of a container that goes or changes, which it has no more, and none of the others has.
fn stale_secrets(
    before: &[StartedContainer],
    container: &GuestContainer,
    others: &[StartedContainer],
) -> Vec<Label> {
    let stays = StartedContainer::new(container.clone());
    let mut unused = unused_secrets(before, others);
    unused.retain(|name| !stays.container.secrets.iter().any(|secret| secret.name == *name));
    unused
}

/// Names of the secrets of some containers, which others do not have.
fn unused_secrets(gone: &[StartedContainer], stay: &[StartedContainer]) -> Vec<Label> {
    let of = |started: &[StartedContainer]| -> Vec<Label> {
        started.iter().flat_map(|one| &one.container.secrets).map(|secret| secret.name.clone()).collect()
    };
    let (mut unused, used) = (of(gone), of(stay));
    unused.sort();
    unused.dedup();
    unused.retain(|name| !used.contains(name));
    unused
}

/// The ids of pods that `podman kube play` says it made, each on a line below `Pod:`.
fn pods_in(said: &str) -> Vec<String> {
    let is_id = |line: &str| line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit());
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let below = lines.windows(2).filter(|pair| pair[0] == "Pod:" && is_id(pair[1]));
    below.map(|pair| pair[1].to_owned()).collect()
}

/// What a guest said, for an error: lines of its own, that look like none of this program's.
fn shown(said: &str) -> String {
    match last_lines(said).as_slice() {
        [line] => line.clone(),
        lines => lines.iter().map(|line| format!("\n    {line}")).collect(),
    }
}

/// What the last check said, if anything.
fn last_check(said: &str) -> String {
    if said.trim().is_empty() { String::new() } else { format!(": {}", shown(said)) }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::fleet::{SecretPlace, SecretSpec};

    #[test]
    fn pods_are_told_by_their_ids() {
        let (a, b) = ("a1".repeat(32), "b2".repeat(32));
        let said = format!("Pods stopped:\n{b}\nPod:\n{a}\nContainers:\n{b}\n\nPod:\n--all\nPod:\n{b}\n");
        assert_eq!(pods_in(&said), [a, b]);
        assert!(pods_in("").is_empty());
    }

    #[test]
    fn a_secret_that_another_container_has_stays() {
        let with = |name: &str, secrets: &[&str]| {
            let secret = |name: &&str| SecretSpec {
                name: name.parse().unwrap(),
                file: Sha256::of(name),
                place: SecretPlace::Env("X".into()),
            };
            let container = GuestContainer::of_image(name.parse().unwrap(), "localhost/x");
            StartedContainer::new(GuestContainer {
                secrets: secrets.iter().map(secret).collect(),
                ..container
            })
        };
        let label = |name: &str| name.parse::<Label>().unwrap();
        let (web, mail) = (with("web", &["a", "b", "c"]), with("mail", &["b"]));
        assert_eq!(unused_secrets(slice::from_ref(&web), slice::from_ref(&mail)), [label("a"), label("c")]);
        let changed = with("web", &["c"]).container;
        assert_eq!(stale_secrets(&[web], &changed, &[mail]), [label("a")]);
    }
}
