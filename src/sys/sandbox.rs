//! A sandbox for programs that a project or a download brings: what a source's Makefile says runs as nobody who owns
//! anything, sees the system's programs and its own directory, and reaches no network.
//!
//! It is made by bubblewrap (<https://github.com/containers/bubblewrap>). Root needs no user namespace for it: bubblewrap
//! makes the other namespaces, and setpriv(1) gives up root inside of them. Everybody else has a user namespace in which
//! he stays who he is.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::cgroup::CgroupError;
use super::disk_guard::DiskGuard;
use super::fs::FileError;
use super::tool::{self, Tool, ToolError};

pub mod memory;

use memory::MemoryGroup;

/// Who runs the programs where root started them: systemd and Debian leave this uid and this gid to nobody
/// (<https://systemd.io/UIDS-GIDS>).
pub const BUILD_ID: u32 = 65_533;

/// Where programs see the directory that they may write.
const INSIDE: &str = "/build";

/// Directories that hold programs; those but the first are shown only where PATH leads into them.
const PROGRAMS: [&str; 4] = ["/usr", "/opt", "/nix/store", "/gnu/store"];

/// Files that programs read on their way to their own: the dynamic linker's, and Debian's alternatives.
const SETTINGS: [&str; 4] = ["/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"];

/// Bytes of memory that temporary files may take.
const TEMPORARY: u64 = 2 << 30;

/// Processes and bytes of one file that root grants.
const BOUNDS: [&str; 3] = ["--core=0", "--nproc=16384", "--fsize=17179869184"];

/// How long all programs of one sandbox may take together.
pub const TIME: Duration = Duration::from_secs(4 * 3600);
/// How long one may take to end once its time is over.
const LAST_WORDS: &str = "--kill-after=10";

/// How programs of a project are run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    kind: Kind,
    /// When its time is over.
    ends: Instant,
    /// What holds all programs to a bound of memory; `None` where each is held to one alone.
    memory: Option<Arc<MemoryGroup>>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The words before a program that put it into a sandbox, but for its directory.
    Closed { before: Vec<OsString>, drops_root: Vec<OsString> },
    /// None, and why.
    Open(String),
}

/// Root has no sandbox here.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("programs of a kernel source are never run as root, and the sandbox for them is not available")]
    Missing(#[source] ToolError),
    #[error("programs of a kernel source are never run as root, and the sandbox for them cannot be set up")]
    Unusable(#[source] ToolError),
}

impl Diagnostic for SandboxError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Missing(error) => error.diagnosis(),
            Self::Unusable(_) => Class::Failed.hint(
                "it needs CAP_SYS_ADMIN, which a container may lack; or build as an ordinary user, without \
                 a sandbox; root then uses the kernel in out/",
            ),
        }
    }
}

impl Sandbox {
    /// The sandbox of this machine, tried once. An ordinary user, who could as well run the programs himself, goes on without
    /// one where there is none, or where it would not show one of `programs` that he has elsewhere.
    pub fn find(programs: &[&str]) -> Result<Self, SandboxError> {
        let is_root = rustix::process::geteuid().is_root();
        match (closed(is_root), is_root) {
            // In a container that may make no cgroups, each process has its bound.
            (Ok(sandbox), true) => Ok(sandbox.clone().bounded(memory::of_all()).unwrap_or(sandbox)),
            (Ok(sandbox), false) => Ok(match programs.iter().find_map(|program| elsewhere(program)) {
                None => sandbox,
                Some(path) => Self::open(format!("it would not show {}", path.display())),
            }),
            (Err(error), true) => Err(error),
            (Err(SandboxError::Missing(error) | SandboxError::Unusable(error)), false) => {
                Ok(Self::open(error.to_string()))
            }
        }
    }

    fn open(why: String) -> Self {
        Self::of(Kind::Open(why))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, ends: Instant::now() + TIME, memory: None }
    }

    /// Bounds the memory, in bytes, of all its programs together.
    pub fn bounded(self, bytes: u64) -> Result<Self, CgroupError> {
        Ok(Self { memory: Some(Arc::new(MemoryGroup::create(bytes)?)), ..self })
    }

    /// What holds all programs to a bound of memory.
    pub fn memory_group(&self) -> Option<&MemoryGroup> {
        self.memory.as_deref()
    }

    /// Why programs run without a sandbox, where they do.
    pub fn lacking(&self) -> Option<&str> {
        match &self.kind {
            Kind::Closed { .. } => None,
            Kind::Open(why) => Some(why),
        }
    }

    /// Gives a directory with all that is in it to whoever runs the programs.
    pub fn hand_over(&self, dir: &Path) -> Result<(), FileError> {
        match &self.kind {
            Kind::Closed { drops_root, .. } if !drops_root.is_empty() => give(dir),
            _ => Ok(()),
        }
    }

    /// Where programs see the directory that they work in.
    pub fn inside<'a>(&self, dir: &'a Path) -> &'a Path {
        match &self.kind {
            Kind::Closed { .. } => Path::new(INSIDE),
            Kind::Open(_) => dir,
        }
    }

    /// A call of a program that works in `dir`, may write there, and nowhere else.
    pub fn call(&self, program: impl AsRef<OsStr>, dir: &Path) -> Tool {
        let tool = Tool::new(program).env("PATH", search_path());
        match &self.kind {
            Kind::Open(_) => tool.dir(dir),
            Kind::Closed { before, drops_root } => {
                let own = ["--bind".into(), dir.into(), INSIDE.into(), "--chdir".into(), INSIDE.into()];
                let end = ["--remount-ro", "/", "--"].map(OsString::from);
                let left = self.ends.saturating_duration_since(Instant::now());
                let join = self.memory_group().map(MemoryGroup::join).unwrap_or_default();
                let before = join.into_iter().chain(bounds(left)).chain(before.iter().cloned());
                tool.behind(before.chain(own).chain(end).chain(drops_root.iter().cloned()))
            }
        }
    }

    /// Runs a call that works in `dir`, as [`Tool::lines_within`] does, and within what all calls may take of the disk and of memory.
    /// Without a sandbox there is no such bound, as there is none for what a user runs himself.
    pub fn lines(
        &self,
        call: &Tool,
        dir: &Path,
        exceeded: &(dyn Fn() -> Option<String> + Sync),
        line: impl FnMut(&str),
    ) -> Result<(), ToolError> {
        match &self.kind {
            Kind::Open(_) => call.lines_within(exceeded, line),
            Kind::Closed { .. } => {
                let (guard, memory) = (DiskGuard::of(dir), self.memory_group());
                let out_of_memory = || memory.and_then(MemoryGroup::exceeded);
                let bounds = || exceeded().or_else(out_of_memory).or_else(|| guard.exceeded());
                let done = call.lines_within(&bounds, line);
                // Whoever is not stopped by the end of one of his programs has not made what he should either.
                match (done, out_of_memory()) {
                    (Ok(()) | Err(ToolError::Failed { .. }), Some(bound)) => {
                        Err(ToolError::Exceeded { command: call.command_line(), bound })
                    }
                    (Err(ToolError::Failed { command, status, mut stderr, code }), None) => {
                        memory::told(&mut stderr);
                        Err(ToolError::Failed { command, status, stderr, code })
                    }
                    (done, _) => done,
                }
            }
        }
    }
}

/// The search path of what builds. For root it has the directories that the sandbox shows: a compiler that is named in a
/// build's key must be the one that builds.
pub fn search_path() -> OsString {
    let path = tool::search_path();
    if !rustix::process::geteuid().is_root() {
        return path;
    }
    let system = ["/bin", "/sbin"].iter().chain(&PROGRAMS);
    let system: Vec<_> = system.map(Path::new).collect();
    let shown = std::env::split_paths(&path).filter(|dir| system.iter().any(|top| dir.starts_with(top)));
    // Nothing that was split at colons holds one.
    std::env::join_paths(shown).unwrap_or_default()
}

/// A program that is found where no sandbox shows it.
fn elsewhere(program: &str) -> Option<PathBuf> {
    let path = fs::canonicalize(tool::find(program)?).ok()?;
    PROGRAMS.iter().all(|dir| !path.starts_with(dir)).then_some(path)
}

fn closed(is_root: bool) -> Result<Sandbox, SandboxError> {
    let installed = |program: &str| {
        let missing = || SandboxError::Missing(ToolError::Missing { tool: program.to_owned() });
        tool::find(program).map(OsString::from).ok_or_else(missing)
    };
    let bwrap = installed("bwrap")?;
    let drops_root = if is_root { drop_root(installed("setpriv")?) } else { Vec::new() };
    let before = std::iter::once(bwrap).chain(namespaces(is_root)).chain(view()).collect();
    let sandbox = Sandbox::of(Kind::Closed { before, drops_root });
    let dir = tempfile::tempdir()
        .map_err(|source| SandboxError::Unusable(ToolError::Start { tool: "bwrap".into(), source }))?;
    sandbox.call("true", dir.path()).run().map_err(SandboxError::Unusable)?;
    Ok(sandbox)
}

/// What stands outside of the sandbox, where nothing that runs in it can end it: that it ends with this process, the limit of time,
/// of the memory of each process, and that the kernel kills them first where memory is short.
fn bounds(left: Duration) -> Vec<OsString> {
    // None at all would be no limit.
    let seconds = left.as_secs().max(1).to_string();
    let most = format!("--as={}", memory::of_one());
    let all: [(&str, &[&str]); 3] =
        [("timeout", &[LAST_WORDS, &seconds]), ("choom", &["-n", "1000", "--"]), ("prlimit", &[&most])];
    let mut before = Vec::new();
    if tool::find("setpriv").is_some() {
        before.extend(tool::ending_with_this("KILL"));
    }
    for (program, words) in all {
        if let Some(found) = tool::find(program) {
            before.push(found.into_os_string());
            before.extend(words.iter().map(OsString::from));
        }
    }
    before
}

/// What gives up root, without a way back.
fn drop_root(setpriv: OsString) -> Vec<OsString> {
    let bounds = tool::find("prlimit").map(OsString::from).into_iter();
    let bounds = bounds.flat_map(|prlimit| std::iter::once(prlimit).chain(BOUNDS.map(OsString::from)));
    bounds.chain([setpriv]).chain(becoming(BUILD_ID).map(OsString::from)).collect()
}

/// What setpriv is told to become a user and its group, without a way back.
pub(super) fn becoming(id: u32) -> [String; 6] {
    let rest = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"];
    let [groups, inherited, bounding, privileges] = rest.map(str::to_owned);
    [format!("--reuid={id}"), format!("--regid={id}"), groups, inherited, bounding, privileges]
}

/// Namespaces of its own but for that of the network, for bubblewrap.
pub(super) const NAMESPACES: [&str; 7] = [
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--hostname",
    "sisforge",
    "--new-session",
];

/// The capabilities that setpriv needs to become another; it keeps none.
pub(super) const CAPABILITIES: [&str; 8] =
    ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"];

fn namespaces(is_root: bool) -> impl Iterator<Item = OsString> {
    let as_user: &[&str] = if is_root { &CAPABILITIES } else { &["--cap-drop", "ALL", "--unshare-user"] };
    let all = ["--unshare-net", "--die-with-parent"].into_iter().chain(NAMESPACES);
    all.chain(as_user.iter().copied()).map(OsString::from)
}

/// What programs see beside their directory, and cannot change.
pub(super) fn view() -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |parts: &[&OsStr]| words.extend(parts.iter().map(|part| (*part).to_owned()));
    let path = search_path();
    let used: BTreeSet<_> = std::env::split_paths(&path).collect();
    let [first, others @ ..] = PROGRAMS;
    let others = others.into_iter().filter(|dir| used.iter().any(|used| used.starts_with(dir)));
    for dir in std::iter::once(first).chain(others) {
        // Else bubblewrap makes it for root alone.
        if let Some(above) = Path::new(dir).parent().filter(|above| above.parent().is_some()) {
            add(&["--perms".as_ref(), "0755".as_ref(), "--dir".as_ref(), above.as_os_str()]);
        }
        add(&["--ro-bind".as_ref(), dir.as_ref(), dir.as_ref()]);
    }
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let dir = Path::new("/").join(name);
        match fs::read_link(&dir) {
            Ok(target) => add(&["--symlink".as_ref(), target.as_ref(), dir.as_ref()]),
            Err(_) if dir.is_dir() => add(&["--ro-bind".as_ref(), dir.as_ref(), dir.as_ref()]),
            Err(_) => {}
        }
    }
    add(&["--perms", "0755", "--dir", "/etc"].map(OsStr::new));
    for path in SETTINGS {
        add(&["--ro-bind-try", path, path].map(OsStr::new));
    }
    let temporary = TEMPORARY.to_string();
    add(&["--proc", "/proc", "--dev", "/dev", "--size", &temporary].map(OsStr::new));
    add(&["--perms", "1777", "--tmpfs", "/tmp"].map(OsStr::new));
    words
}

/// Gives away a directory and all that is in it, links themselves and not what they lead to.
fn give(path: &Path) -> Result<(), FileError> {
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        lchown(&path, Some(BUILD_ID), Some(BUILD_ID))
            .map_err(FileError::when("change the owner of", &path))?;
        let named = || FileError::when("read", &path);
        if !fs::symlink_metadata(&path).map_err(named())?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).map_err(named())? {
            waiting.push(entry.map_err(named())?.path());
        }
    }
    Ok(())
}
