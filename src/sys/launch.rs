//! Starting what outlives its starter: a process of its own session, in its cgroups from its first instruction on.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::UnshareFlags;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{FileError, io_diagnosis};
use super::mount::{self, MountError};
use super::netns::{self, NetnsError};
use super::sparse;
use super::tool::{self, Tool, ToolError};

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot join the cgroup {}", path.display())]
    Join { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("cannot set the limit on file sizes")]
    FileSize { source: io::Error },
    #[error("cannot set no_new_privs")]
    Privileges { source: io::Error },
    #[error("{program} is not installed")]
    Missing { program: String },
    #[error("cannot start {program}")]
    Start { program: String, source: io::Error },
    #[error("no program was given")]
    NoProgram,
    /// Whoever was to wait for the program is gone.
    #[error("process {starter}, which started this one, is gone")]
    Abandoned { starter: u32 },
    #[error("cannot have a mount namespace of its own")]
    MountNamespace { source: io::Error },
    #[error("cannot have an IPC namespace of its own")]
    IpcNamespace { source: io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot end with whoever started this")]
    DeathSignal { source: io::Error },
}

impl Diagnostic for LaunchError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Join { source, .. }
            | Self::DeathSignal { source }
            | Self::MountNamespace { source }
            | Self::IpcNamespace { source }
            | Self::FileSize { source }
            | Self::Privileges { source }
            | Self::Start { source, .. } => io_diagnosis(source),
            Self::Netns(error) => error.diagnosis(),
            Self::Missing { program } => ToolError::Missing { tool: program.clone() }.diagnosis(),
            Self::Mount(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::NoProgram => Class::Invalid.no_hint(),
            Self::Abandoned { .. } => Class::Failed.no_hint(),
        }
    }
}

/// What is to become of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaunchRequest<'a> {
    /// The files to write `0` to (`Hierarchy::join_files`).
    pub cgroups: &'a [PathBuf],
    /// The network namespace to enter.
    pub netns: Option<&'a Path>,
    /// No file may grow beyond so many bytes.
    pub file_size: Option<u64>,
    /// Where this process is gone before the cgroups are joined, nothing is started: nobody would know of it.
    pub starter: Option<u32>,
    pub in_memory: Option<InMemory<'a>>,
    /// The program and its arguments.
    pub argv: &'a [OsString],
}

/// A copy of a file in a tmpfs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InMemory<'a> {
    pub from: &'a Path,
    /// The tmpfs is mounted at the directory that this stands in.
    pub to: &'a Path,
    /// Of the tmpfs, in bytes.
    pub size: u64,
    /// Whose the copy is: 0600.
    pub uid: u32,
}

impl LaunchRequest<'_> {
    /// The call of `sisforge launch` that comes to this; `launcher` is sisforge.
    pub fn command(&self, launcher: &Path) -> Tool {
        let option = |tool: Tool, name: &str, value: Option<OsString>| match value {
            Some(value) => tool.arg(name).arg(value),
            None => tool,
        };
        let number = |value: u64| OsString::from(value.to_string());
        let mut tool = Tool::new(launcher).arg("launch");
        tool = option(tool, "--starter", self.starter.map(|pid| number(pid.into())));
        tool = option(tool, "--netns", self.netns.map(Into::into));
        tool = self.cgroups.iter().fold(tool, |tool, file| tool.arg("--cgroup").arg(file));
        tool = option(tool, "--file-size", self.file_size.map(number));
        if let Some(InMemory { from, to, size, uid }) = self.in_memory {
            tool = tool.arg("--in-memory").arg(from).arg(to);
            tool =
                tool.arg("--in-memory-size").arg(number(size)).arg("--in-memory-uid").arg(number(uid.into()));
        }
        tool.arg("--").args(self.argv)
    }
}

impl InMemory<'_> {
    /// Makes it, in a mount namespace that this process alone has. What the host mounts and unmounts later happens there too, so
    /// that nothing is in use by it.
    #[expect(deprecated, reason = "unsafe is what it does to descriptors, which stay shared here")]
    fn make(self) -> Result<(), LaunchError> {
        let unshared = rustix::thread::unshare(UnshareFlags::NEWNS)
            .and_then(|()| mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC));
        unshared.map_err(|error| LaunchError::MountNamespace { source: error.into() })?;
        let dir = self.to.parent().unwrap_or(self.to);
        mount::tmpfs(dir, self.size, 0, 0, 0o755)?;
        let copied = File::open(self.from).and_then(|from| {
            let to = File::options().write(true).create_new(true).mode(0o600).open(self.to)?;
            sparse::copy(&from, &to)?;
            std::os::unix::fs::fchown(&to, Some(self.uid), Some(self.uid))
        });
        Ok(copied.map_err(FileError::when("copy into memory", self.from))?)
    }
}

/// Joins cgroups and becomes another program, in the clean environment of [`Tool`]; returns only where that fails.
/// The limits hold from the program's first instruction on, and nothing it starts can gain privileges through
/// set-user-id files (`no_new_privs`); a jailer that starts as root can still give its own up.
///
/// A file in memory is in no mount namespace but the program's, and goes with it, whoever is killed when.
pub fn exec_in_cgroup(request: &LaunchRequest<'_>) -> LaunchError {
    let Some((program, args)) = request.argv.split_first() else { return LaunchError::NoProgram };
    if let Err(error) = join_with(request.starter, request.cgroups) {
        return error;
    }
    if let Some(Err(error)) = request.netns.map(netns::enter) {
        return error.into();
    }
    if let Err(source) = own_ipc() {
        return LaunchError::IpcNamespace { source };
    }
    if let Some(Err(error)) = request.in_memory.map(|file| file.make()) {
        return error;
    }
    if let Some(size) = request.file_size {
        let limit = Rlimit { current: Some(size), maximum: Some(size) };
        if let Err(error) = setrlimit(Resource::Fsize, limit) {
            return LaunchError::FileSize { source: error.into() };
        }
    }
    // What a jailer makes has the same modes whoever starts it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        return LaunchError::Privileges { source: error.into() };
    }
    let source = Tool::new(program).args(args).command().exec();
    start_error(&program.to_string_lossy(), source)
}

/// Shared memory and message queues of its own, which go with it: whatever it takes of the host's, the host and its neighbours lack.
#[expect(deprecated, reason = "unsafe is what it does to descriptors, which stay shared here")]
fn own_ipc() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWIPC)?)
}

/// Joins cgroups, or ends with the process that started this one.
fn join_with(starter: Option<u32>, files: &[PathBuf]) -> Result<(), LaunchError> {
    let Some(starter) = starter else { return join_cgroups(files) };
    let die_with_it = |signal| {
        set_parent_process_death_signal(signal)
            .map_err(|error| LaunchError::DeathSignal { source: error.into() })
    };
    die_with_it(Some(Signal::KILL))?;
    // It may have gone before that. Whoever takes its place as a parent has another number.
    if parent_id() != starter {
        return Err(LaunchError::Abandoned { starter });
    }
    join_cgroups(files)?;
    die_with_it(None)
}

/// Moves this process into cgroups, by the files for that; its only thread, or the one by which it becomes another program.
pub fn join_cgroups(files: &[PathBuf]) -> Result<(), LaunchError> {
    for path in files {
        fs::write(path, "0").map_err(|source| LaunchError::Join { path: path.clone(), source })?;
    }
    Ok(())
}

fn start_error(program: &str, source: io::Error) -> LaunchError {
    match source.kind() {
        io::ErrorKind::NotFound => LaunchError::Missing { program: program.to_owned() },
        _ => LaunchError::Start { program: program.to_owned(), source },
    }
}

/// A process that goes on without whoever started it.
#[derive(Clone, Debug)]
pub struct Started {
    pub pid: u32,
    child: Arc<Mutex<Child>>,
}

/// How long the kernel may take to tell how a process ended that is gone.
const STATUS_PATIENCE: Duration = Duration::from_millis(200);

impl Started {
    /// How a process that is gone ended; `None` where it runs on, or nobody knows.
    pub fn status(&self) -> Option<ExitStatus> {
        let end = Instant::now() + STATUS_PATIENCE;
        while self.ended().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        self.ended()
    }

    /// How it ended, where it has; the kernel forgets it then, and this does not.
    fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }
}

/// Starts a program that goes on when this process ends and when its terminal hangs up. It leads a session of its own
/// where `setsid` of util-linux is installed, else a process group. While this process lives, one thread looks after all that
/// were started so, so that none stays a zombie.
pub fn spawn(tool: &Tool, stdin: File, stdout: File, stderr: File) -> Result<Started, LaunchError> {
    let plain = tool.command();
    let program = plain.get_program().to_string_lossy().into_owned();
    // `setsid` would find out too late to say so.
    if tool::find(&program).is_none() {
        return Err(LaunchError::Missing { program });
    }
    let mut command = match tool::find("setsid") {
        Some(setsid) => in_session(&setsid, &plain),
        None => {
            let mut plain = plain;
            plain.process_group(0);
            plain
        }
    };
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let child = command.spawn().map_err(|source| start_error(&program, source))?;
    let started = Started { pid: child.id(), child: Arc::new(Mutex::new(child)) };
    let (children, is_first) = &CHILDREN;
    children.lock().unwrap_or_else(PoisonError::into_inner).push(started.clone());
    is_first.call_once(|| drop(thread::spawn(reap)));
    Ok(started)
}

/// Those that nobody waited for yet, and whether somebody does.
static CHILDREN: (Mutex<Vec<Started>>, Once) = (Mutex::new(Vec::new()), Once::new());
/// How long one that ended may stay a zombie. Of hundreds that live, each costs a call so often; a descriptor for each would soon
/// be more than a process may have.
const REAPED_WITHIN: Duration = Duration::from_secs(1);

/// Waits for all children, with no thread and no descriptor for each.
fn reap() {
    loop {
        thread::sleep(REAPED_WITHIN);
        let mut children = CHILDREN.0.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|child| child.ended().is_none());
    }
}

/// The same command through `setsid`, which starts a session and becomes the program: the process stays the same,
/// since a fresh child leads no process group.
fn in_session(setsid: &Path, plain: &Command) -> Command {
    let mut tool = Tool::new(setsid).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            tool = tool.env(name, value);
        }
    }
    if let Some(dir) = plain.get_current_dir() {
        tool = tool.dir(dir);
    }
    tool.command()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn null() -> File {
        File::options().read(true).write(true).open("/dev/null").unwrap()
    }

    /// Waits for the process to be gone altogether, zombie included.
    fn is_reaped(pid: u32) -> bool {
        let end = Instant::now() + Duration::from_secs(5);
        while Path::new(&format!("/proc/{pid}")).exists() {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    #[test]
    fn a_spawned_process_leads_a_session_and_leaves_no_zombie() {
        let mut out = tempfile::tempfile().unwrap();
        let script = "cut -d' ' -f6 /proc/self/stat; echo $$ $EXTRA";
        let tool = Tool::new("sh").args(["-c", script]).env("EXTRA", "kept");
        let pid = spawn(&tool, null(), out.try_clone().unwrap(), null()).unwrap().pid;
        assert!(is_reaped(pid));
        io::Seek::rewind(&mut out).unwrap();
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{pid}\n{pid} kept\n"));
    }

    #[test]
    fn whoever_started_a_process_learns_how_it_ended() {
        let ended = spawn(&Tool::new("sh").args(["-c", "exit 148"]), null(), null(), null()).unwrap();
        assert!(is_reaped(ended.pid));
        assert_eq!(ended.status().and_then(|status| status.code()), Some(148));
    }

    #[test]
    fn a_missing_program_is_named_at_once() {
        let error = spawn(&Tool::new("no-such-tool-here"), null(), null(), null()).unwrap_err();
        assert_eq!(error.to_string(), "no-such-tool-here is not installed");
    }

    #[test]
    fn a_cgroup_that_cannot_be_joined_starts_nothing() {
        // Where it could be joined, the test would become `false` and fail.
        let procs = PathBuf::from("/proc/nonexistent/cgroup.procs");
        let error = exec_in_cgroup(&LaunchRequest {
            cgroups: &[procs],
            argv: &["false".into()],
            ..LaunchRequest::default()
        });
        assert_eq!(error.to_string(), "cannot join the cgroup /proc/nonexistent/cgroup.procs");
    }

    #[test]
    fn nothing_is_started_for_somebody_who_is_gone() {
        // No process has the number 0; this thread would else become `false`.
        let error = exec_in_cgroup(&LaunchRequest {
            starter: Some(0),
            argv: &["false".into()],
            ..LaunchRequest::default()
        });
        assert_eq!(error.to_string(), "process 0, which started this one, is gone");
        set_parent_process_death_signal(None).unwrap();
    }
}
