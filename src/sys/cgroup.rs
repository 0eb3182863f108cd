//! Control groups of both versions: limits on memory, processes and CPU time.
//!
//! Source: the kernel's `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`.
//!
//! Paths are relative to the hierarchy's root, such as `sisforge/sis/alice`. Only directories named by the
//! caller are made, changed or removed; nothing is ever written to a cgroup above them, but that version 2
//! must be told at its root which controllers the cgroups below may use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{io_diagnosis, read_kernel_file};
use super::mount::unescape;

mod kill;
mod limits;
mod usage;

pub use limits::{Device, EVEN_WEIGHT, IoLimits, Limits};
pub use usage::{IoUsage, Usage};

/// Why a control group is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Neither version can limit memory, processes and CPU time here.
    #[error(
        "this host has no cgroup hierarchy with the controllers cpu, memory and pids (found: {found}); \
         mount cgroup2 at /sys/fs/cgroup, or give this container its cgroups read-write"
    )]
    Unsupported { found: String },
    /// The path would leave the hierarchy.
    #[error("{path:?} is not the path of a cgroup below the root")]
    InvalidPath { path: String },
    /// The kernel refused.
    #[error("cannot {action} {}{}", path.display(), hint(.source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Limits of block devices were asked for.
    #[error("this host has no cgroup controller that limits disk I/O (`io`, or `blkio` of cgroup v1)")]
    NoIo,
    /// It still has processes.
    #[error("the cgroup {path} still has processes: {pids:?}")]
    Busy { path: String, pids: Vec<u32> },
}

impl Diagnostic for CgroupError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            // What to do is in its words.
            Self::Unsupported { .. } => Class::Failed.no_hint(),
            Self::InvalidPath { .. } => Class::Failed.no_hint(),
            Self::Io { source, .. } => io_diagnosis(source),
            Self::NoIo => {
                Class::Failed.hint("remove `io` from the guests, or give this host that controller")
            }
            Self::Busy { .. } => Class::Failed.hint("end those processes"),
        }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::PermissionDenied => " (this needs root)",
        ErrorKind::ReadOnlyFilesystem => " (the cgroups are mounted read-only here)",
        ErrorKind::ResourceBusy => " (a cgroup with processes of its own cannot hand controllers down)",
        _ => "",
    }
}

/// What every cgroup made here limits.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// How often a cgroup is tried to be made while its parents vanish.
const ATTEMPTS: usize = 100;
/// Version 1 stops processes with this one while they are killed, where it is there.
const FREEZER: &str = "freezer";
/// Limits what is read from and written to block devices, where it is there; version 2 calls it otherwise.
const BLKIO: &str = "blkio";
const IO: &str = "io";

/// Where this host's cgroups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// One tree with all controllers.
    V2 { root: PathBuf },
    /// One tree for each controller; several controllers may share one.
    V1 { mounts: BTreeMap<String, PathBuf> },
}

/// Finds the hierarchy that can limit CPU, memory and processes. On a hybrid host that is version 1.
pub fn detect() -> Result<Hierarchy, CgroupError> {
    let path = Path::new("/proc/self/mounts");
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let (unified, mounts) = parse_mounts(&text);
    let mut found = Vec::new();
    if let Some(root) = unified {
        let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if has_all(|name| available.split_whitespace().any(|word| word == name)) {
            return Ok(Hierarchy::V2 { root });
        }
        found.push(format!("version 2 with {:?}", available.trim()));
    }
    if has_all(|name| mounts.contains_key(name)) {
        return Ok(Hierarchy::V1 { mounts });
    }
    if !mounts.is_empty() {
        found.push(format!("version 1 with {:?}", mounts.keys().collect::<Vec<_>>()));
    }
    Err(CgroupError::Unsupported {
        found: if found.is_empty() { "nothing".to_owned() } else { found.join(", ") },
    })
}

fn has_all(has: impl Fn(&str) -> bool) -> bool {
    CONTROLLERS.into_iter().all(has)
}

/// Reads `/proc/self/mounts`: where version 2 is, and where each controller of version 1 is that matters here.
pub fn parse_mounts(text: &str) -> (Option<PathBuf>, BTreeMap<String, PathBuf>) {
    let mut unified = None;
    let mut mounts = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, target, kind, options, ..] = fields[..] else { continue };
        match kind {
            "cgroup2" if unified.is_none() => unified = Some(unescape(target)),
            "cgroup" => {
                let ours = |name: &&str| CONTROLLERS.contains(name) || [FREEZER, BLKIO].contains(name);
                for name in options.split(',').filter(ours) {
                    mounts.entry(name.to_owned()).or_insert_with(|| unescape(target));
                }
            }
            _ => {}
        }
    }
    (unified, mounts)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Io { action, path, source }
}

fn checked(path: &str) -> Result<&str, CgroupError> {
    let plain = |part| matches!(part, Component::Normal(_));
    if !path.is_empty() && Path::new(path).components().all(plain) {
        Ok(path)
    } else {
        Err(CgroupError::InvalidPath { path: path.to_owned() })
    }
}

fn write(file: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(file, value).map_err(failed("write", file))
}

fn read(file: &Path) -> Option<String> {
    String::from_utf8(read_kernel_file(file).ok()?).ok()
}

/// Reads a number, or `max` for no limit; version 1 has a huge number for that.
fn parse_limit(text: &str) -> Option<Option<u64>> {
    /// The largest multiple of a 4 KiB page: what `memory.limit_in_bytes` shows where nothing is set.
    const V1_NO_LIMIT: u64 = 0x7FFF_FFFF_FFFF_F000;
    match text.trim() {
        "max" => Some(None),
        number => Some(Some(number.parse().ok()?).filter(|limit| *limit < V1_NO_LIMIT)),
    }
}

/// Reads `cpu.max`: `50000 100000`, or `max 100000` for no limit.
fn parse_cpu_max(text: &str) -> Option<Option<(u64, u64)>> {
    let (quota, period) = text.trim().split_once(' ')?;
    match quota {
        "max" => Some(None),
        quota => Some(Some((quota.parse().ok()?, period.parse().ok()?))),
    }
}

/// Reads one number from `memory.events` or `memory.oom_control`: lines of `name number`.
fn parse_counter(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

impl Hierarchy {
    /// The directory of `path` for one controller.
    fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Self::V2 { root } => Some(root.join(path)),
            Self::V1 { mounts } => mounts.get(controller).map(|mount| mount.join(path)),
        }
    }

    /// The directories of `path`, each once.
    fn dirs(&self, path: &str) -> BTreeSet<PathBuf> {
        match self {
            Self::V2 { root } => BTreeSet::from([root.join(path)]),
            Self::V1 { mounts } => mounts.values().map(|mount| mount.join(path)).collect(),
        }
    }

    /// Makes a cgroup and sets its limits; one that is there keeps its processes. On version 2 its memory
    /// is never swapped out, and where it runs out of memory all of its processes are killed together.
    pub fn create(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        checked(path)?;
        // Whoever removes the last cgroup beside this one may take the empty parent with it at any moment.
        for _ in 1..ATTEMPTS {
            match self.attempt_to_create(path, limits) {
                Err(CgroupError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                done => return done,
            }
        }
        self.attempt_to_create(path, limits)
    }

    fn attempt_to_create(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        if let Self::V2 { root } = self {
            hand_down_controllers(root, path)?;
        }
        for dir in self.dirs(path) {
            fs::create_dir_all(&dir).map_err(failed("create cgroup", &dir))?;
        }
        self.set(path, limits)
    }

    /// The processes in the cgroup itself, in any hierarchy; none where it is absent.
    pub fn procs(&self, path: &str) -> Vec<u32> {
        let files = self.dirs(path).into_iter().filter_map(|dir| read(&dir.join("cgroup.procs")));
        let pids: BTreeSet<u32> = files
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect();
        pids.into_iter().collect()
    }

    /// The files to which a process of this host is written, with all of its threads, to be moved into the cgroup.
    pub fn procs_files(&self, path: &str) -> Vec<PathBuf> {
        self.dirs(path).into_iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// The files to which a process that has one thread, or is about to become another program, writes `0` to join the cgroup.
    ///
    /// Version 1 moves a thread by itself at once. Before it moves all threads of a process, the kernel waits for every processor
    /// (`cgroup_threadgroup_rwsem`), which takes 10 to 40 ms. Version 2 knows no other way.
    pub fn join_files(&self, path: &str) -> Vec<PathBuf> {
        let file = match self {
            Self::V2 { .. } => "cgroup.procs",
            Self::V1 { .. } => "tasks",
        };
        self.dirs(path).into_iter().map(|dir| dir.join(file)).collect()
    }

    /// Moves a process of this host into the cgroup, for every controller.
    pub fn take_in(&self, path: &str, pid: u32) -> Result<(), CgroupError> {
        checked(path)?;
        self.procs_files(path).iter().try_for_each(|file| write(file, &pid.to_string()))
    }

    /// Whether a process is in the cgroup for each controller, as its `/proc/PID/cgroup` says.
    pub fn holds(&self, path: &str, pid: u32) -> bool {
        read(Path::new(&format!("/proc/{pid}/cgroup"))).is_some_and(|text| self.is_member(path, &text))
    }

    /// Whether a process is in the cgroup for any controller.
    fn has(&self, path: &str, pid: u32) -> bool {
        let is_it = |at: &str| at.strip_suffix(path).is_some_and(|above| above.ends_with('/'));
        read(Path::new(&format!("/proc/{pid}/cgroup")))
            .is_some_and(|text| text.lines().any(|line| line.splitn(3, ':').nth(2).is_some_and(is_it)))
    }

    /// The same for all, from the text of `/proc/PID/cgroup`: lines of `number:controllers:path`. Where the hierarchy is mounted from
    /// below its root, as in a container, a path there is longer than here.
    fn is_member(&self, path: &str, text: &str) -> bool {
        let is_in = |controller: &str| {
            text.lines().any(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, at) =
                    (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
                controllers.split(',').any(|name| name == controller)
                    && at.strip_suffix(path).is_some_and(|above| above.ends_with('/'))
            })
        };
        match self {
            // Version 2 names no controllers.
            Self::V2 { .. } => is_in(""),
            Self::V1 { mounts } => mounts.keys().all(|controller| is_in(controller)),
        }
    }

    /// The cgroups directly below, in any hierarchy; none where it is absent.
    pub fn children(&self, path: &str) -> BTreeSet<String> {
        // A directory that has two links has none below it, and need not be read.
        let dirs = self.dirs(path).into_iter().filter(|dir| links(dir) != 2);
        let entries = dirs.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        entries.filter(is_dir).filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Whether several cgroups are directly below, where that can be told without reading a directory. A cgroup's directory has a
    /// link from each, its own name and its `.` beside them.
    pub fn has_several(&self, path: &str) -> bool {
        self.dirs(path).iter().any(|dir| links(dir) > 3)
    }

    /// Bytes of memory in use, page cache included.
    pub fn memory_current(&self, path: &str) -> Option<u64> {
        let file = match self {
            Self::V2 { .. } => "memory.current",
            Self::V1 { .. } => "memory.usage_in_bytes",
        };
        read(&self.dir("memory", path)?.join(file))?.trim().parse().ok()
    }

    /// Whether, and about how often, processes were killed because the cgroup ran out of memory: version 2 counts the
    /// one that it picked twice, alone and as one of the group.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let file = match self {
            Self::V2 { .. } => "memory.events",
            Self::V1 { .. } => "memory.oom_control",
        };
        let text = self.dir("memory", path).and_then(|dir| read(&dir.join(file)));
        text.and_then(|text| parse_counter(&text, "oom_kill")).unwrap_or(0)
    }
}

/// How many names a directory has; 0 where it is not there.
fn links(dir: &Path) -> u64 {
    fs::metadata(dir).map_or(0, |meta| meta.nlink())
}

/// Version 2: a cgroup has a controller's files only where each cgroup above hands it down.
fn hand_down_controllers(root: &Path, path: &str) -> Result<(), CgroupError> {
    let mut dir = root.to_owned();
    for part in Path::new(path) {
        let file = dir.join("cgroup.subtree_control");
        let enabled = read(&file).unwrap_or_default();
        let is_on = |name: &str| enabled.split_whitespace().any(|word| word == name);
        let has_io = read(&dir.join("cgroup.controllers"))
            .is_some_and(|all| all.split_whitespace().any(|name| name == IO));
        let wanted = CONTROLLERS.into_iter().chain(has_io.then_some(IO));
        let missing: Vec<String> =
            wanted.filter(|name| !is_on(name)).map(|name| format!("+{name}")).collect();
        if !missing.is_empty() {
            write(&file, &missing.join(" "))?;
        }
        dir.push(part);
        absent_or_made(&dir)?;
    }
    Ok(())
}

fn absent_or_made(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        done => done.map_err(failed("create cgroup", dir)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

    #[test]
    fn mounts_say_which_controller_is_where() {
        let (unified, mounts) = parse_mounts(HYBRID);
        assert_eq!(unified, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let expected = [
            ("cpu", "/sys/fs/cgroup/cpu,cpuacct"),
            ("freezer", "/sys/fs/cgroup/freezer"),
            ("memory", "/sys/fs/cgroup/memory"),
            ("pids", "/sys/fs/cgroup/pids"),
        ];
        let expected = expected.map(|(name, path)| (name.to_owned(), PathBuf::from(path)));
        assert_eq!(mounts, BTreeMap::from(expected));
    }

    #[test]
    fn where_a_thread_moves_by_itself_the_kernel_does_not_wait_for_all_processors() {
        let mounts =
            BTreeMap::from(["cpu", "pids"].map(|name| (name.to_owned(), Path::new("/c").join(name))));
        let files = Hierarchy::V1 { mounts }.join_files("sisforge/a");
        assert_eq!(files, ["/c/cpu/sisforge/a/tasks", "/c/pids/sisforge/a/tasks"].map(PathBuf::from));
        let files = Hierarchy::V2 { root: "/c".into() }.join_files("sisforge/a");
        assert_eq!(files, [PathBuf::from("/c/sisforge/a/cgroup.procs")]);
    }

    #[test]
    fn no_limit_reads_the_same_in_both_versions() {
        assert_eq!(parse_limit("max\n"), Some(None));
        assert_eq!(parse_limit("9223372036854771712\n"), Some(None));
        assert_eq!(parse_limit("536870912\n"), Some(Some(536_870_912)));
        assert_eq!(parse_cpu_max("max 100000\n"), Some(None));
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(Some((50_000, 100_000))));
    }

    #[test]
    fn oom_kills_are_told_from_oom_events() {
        assert_eq!(parse_counter("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n", "oom_kill"), Some(1));
        assert_eq!(parse_counter("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
    }

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        let hierarchy = Hierarchy::V2 { root: PathBuf::from("/nonexistent") };
        for path in ["", "/", "../x", "sisforge/../../x", "/sys/fs/cgroup/x"] {
            let error = hierarchy.remove(path).unwrap_err();
            assert!(matches!(error, CgroupError::InvalidPath { .. }), "{path}: {error}");
        }
    }

    #[test]
    fn version_2_hands_controllers_down_and_sets_limits() {
        let root = tempfile::tempdir().unwrap();
        let text = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "cpuset memory").unwrap();
        let hierarchy = Hierarchy::V2 { root: root.path().to_owned() };
        let io = IoLimits { read_bytes: Some(1 << 20), write_operations: Some(50), ..IoLimits::NONE };
        let mut limits = Limits {
            memory: Some(64 << 20),
            pids: Some(32),
            cpu_quota: Some((50_000, 100_000)),
            cpu_weight: 300,
            io: BTreeMap::new(),
        };
        hierarchy.create("sisforge/sis/alice", &limits).unwrap();
        assert_eq!(text("cgroup.subtree_control"), "+cpu +pids");
        assert_eq!(text("sisforge/cgroup.subtree_control"), "+cpu +memory +pids");
        assert_eq!(text("sisforge/sis/alice/cpu.weight"), "300");
        assert_eq!(text("sisforge/sis/cgroup.subtree_control"), "+cpu +memory +pids");
        assert_eq!(hierarchy.limits("sisforge/sis/alice").as_ref(), Some(&limits));
        limits.io.insert(Device { major: 8, minor: 16 }, io);
        assert!(matches!(hierarchy.create("sisforge/sis/alice", &limits), Err(CgroupError::NoIo)));
        fs::write(root.path().join("sisforge/sis/alice/io.max"), "").unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu io memory pids").unwrap();
        hierarchy.create("sisforge/sis/alice", &limits).unwrap();
        assert!(text("cgroup.subtree_control").contains("+io"));
        assert_eq!(text("sisforge/sis/alice/io.max"), "8:16 rbps=1048576 wbps=max riops=max wiops=50");
        assert_eq!(hierarchy.limits("sisforge/sis/alice"), Some(limits));
        assert_eq!(hierarchy.children("sisforge/sis"), BTreeSet::from(["alice".to_owned()]));
        assert_eq!(hierarchy.limits("sisforge/sis/bob"), None);
    }

    #[test]
    fn a_process_is_a_member_only_where_every_controller_has_it() {
        let mounts = ["cpu", "memory", "pids"].map(|name| (name.to_owned(), PathBuf::from("/sys/fs/cgroup")));
        let v1 = Hierarchy::V1 { mounts: mounts.into() };
        let text = "9:pids:/sisforge/sis/alice\n4:memory:/sisforge/sis/alice\n2:cpu,cpuacct:/sisforge/sis/alice\n0::/\n";
        assert!(v1.is_member("sisforge/sis/alice", text));
        assert!(!v1.is_member("sisforge/sis/alice", &text.replace("memory:/sisforge/sis/alice", "memory:/")));
        assert!(!v1.is_member("forge/sis/alice", text) && !v1.is_member("sisforge/sis/ali", text));
        let v2 = Hierarchy::V2 { root: PathBuf::from("/sys/fs/cgroup") };
        assert!(v2.is_member("sisforge/sis/alice", "0::/container/sisforge/sis/alice\n"));
        assert!(!v2.is_member("sisforge/sis/alice", text));
    }
}
