//! Containers of a guest, as whoever is outside asks for them.

use std::io;
use std::process::Stdio;

use crate::base::GuestName;
use crate::host::container::StartedContainer;
use crate::sys::fs::FileError;
use crate::sys::ssh::{self, Finished, Io, Target};

use super::error::ContainersError;
use super::{RunError, Workspace, reach};

/// Which part of a container's log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogRequest {
    pub follow: bool,
    /// The last lines alone.
    pub tail: Option<usize>,
    /// RFC 3339.
    pub since: Option<String>,
    pub timestamps: bool,
}

/// The log of a container that was started in a guest.
pub struct ContainerLog {
    target: Target,
    guest: GuestName,
    started: StartedContainer,
}

/// Finds a container by its guest and name.
pub fn log(workspace: &Workspace<'_>, guest: &str, name: &str) -> Result<ContainerLog, RunError> {
    let (guest, ready, target) = reach::ready(workspace, guest)?;
    let found = ready.containers.iter().find(|one| one.container.name.as_str() == name);
    match found {
        Some(started) => Ok(ContainerLog { target, guest, started: started.clone() }),
        None => {
            let started = ready.containers.iter().map(|one| one.container.name.to_string()).collect();
            Err(ContainersError::NoContainer { guest, name: name.to_owned(), started }.into())
        }
    }
}

/// Runs what is behind it, as `LOG...`, for as long as somebody reads: a Podman that follows a log would not notice.
const WHILE_READ: &str = r#"exec 3<&0
if [ "$1" = pods ]; then
	shift
	pods=$1
	shift
	for pod in $pods; do podman pod logs "$@" "$pod" 2>&1 3<&- & done
else
	podman logs "$@" 2>&1 3<&- &
fi
logs=$!
{ cat <&3; kill $(jobs -p) $logs; } >/dev/null 2>&1 &
wait $logs"#;

impl ContainerLog {
    pub fn guest(&self) -> &GuestName {
        &self.guest
    }

    /// Writes it to `to`, until it ends, or nobody reads it any more.
    pub fn write(&self, request: &LogRequest, to: Stdio) -> Result<(), RunError> {
        let (stdin, held) = io::pipe().map_err(FileError::when("open a pipe for", "ssh"))?;
        let io = Io::Streams { stdin: stdin.into(), stdout: to };
        let finished = ssh::run(&self.target, &self.words(request), io);
        drop(held);
        match finished? {
            Finished { code: 0, .. } => Ok(()),
            Finished { code, .. } => {
                let name = self.started.container.name.clone();
                Err(ContainersError::NoLog { guest: self.guest.clone(), name, code }.into())
            }
        }
    }

    fn words(&self, LogRequest { follow, tail, since, timestamps }: &LogRequest) -> Vec<String> {
        let mut words = ["sh", "-c", WHILE_READ, "sis-logs"].map(str::to_owned).to_vec();
        let name = self.started.container.name.to_string();
        let is_pod = self.started.container.image().is_none();
        if is_pod {
            words.extend(["pods".to_owned(), self.started.pods.join(" ")]);
        }
        words.extend(follow.then(|| "--follow".to_owned()));
        words.extend(tail.map(|lines| format!("--tail={lines}")));
        words.extend(since.as_ref().map(|since| format!("--since={since}")));
        words.extend(timestamps.then(|| "--timestamps".to_owned()));
        words.extend((!is_pod).then_some(name));
        words
    }
}
