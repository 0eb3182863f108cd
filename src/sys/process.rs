//! Processes as `/proc` shows them (proc(5)), told apart by number and start time, signalled by pidfd.
//!
//! Not read by the crate `procfs`: it parses all fields of a file where two are wanted, of each process of the host, and leaves the
//! octal escapes of mountinfo as they are.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use serde::{Deserialize, Serialize};

pub use rustix::process::Signal;

use crate::base::{Diagnosis, Diagnostic};

use super::fs::{io_diagnosis, read_kernel_file, read_open_kernel_file};
use super::mount::{MountEntry, parse_mountinfo};

/// A process that could not be signalled.
#[derive(Debug, thiserror::Error)]
#[error("cannot send {signal:?} to process {pid}")]
pub struct ProcessError {
    pub pid: u32,
    pub signal: Signal,
    pub source: io::Error,
}

impl Diagnostic for ProcessError {
    fn diagnosis(&self) -> Diagnosis {
        io_diagnosis(&self.source)
    }
}

/// Start times in `/proc/PID/stat` count these; the kernel's `USER_HZ` is 100 on x86-64 and arm64.
const CLOCK_TICKS_PER_SECOND: u64 = 100;

/// A directory, by what it is and not by where it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirId {
    device: u64,
    inode: u64,
}

impl DirId {
    /// Of what a path leads to; `None` where there is nothing.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { device: meta.dev(), inode: meta.ino() })
    }

    /// This process's own root directory.
    pub fn own_root() -> Option<Self> {
        Self::of(Path::new("/"))
    }
}

/// One process, for as long as the host runs: another that has its number by now is not it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// A process with its root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChrootedProcess {
    pub id: ProcessId,
    pub root: DirId,
}

/// The number of every live process whose root directory is another than this process's, with that directory. For those of other
/// users this needs root.
pub fn rooted_elsewhere() -> Vec<(u32, DirId)> {
    let own = DirId::own_root();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let elsewhere = |pid| {
        let root = DirId::of(&proc_file(pid, "root")).filter(|root| Some(*root) != own)?;
        Some((pid, root))
    };
    numbers.filter_map(elsewhere).collect()
}

/// Whether a process lives.
pub fn lives(process: ProcessId) -> bool {
    stat(process.pid).is_some_and(|stat| stat.start_time == process.start_time)
}

/// A live process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    pub id: ProcessId,
    /// Its root directory, whatever mount namespace that is in; `None` where it is not to be seen.
    pub root: Option<DirId>,
    /// Whether it is a thread of the kernel, such as KVM puts beside a VMM into the same cgroup.
    pub is_kernel_thread: bool,
    /// `R`, `S`, `D`, `T` or another letter of proc(5).
    pub state: char,
    /// Seconds between boot and its start.
    pub started: u64,
}

/// What `/proc/PID/stat` says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub state: char,
    /// `PF_*` of the kernel's `include/linux/sched.h`.
    pub flags: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Reads `/proc/PID/stat`. The name, in parentheses, may hold spaces and parentheses itself.
pub fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Fields 9 and 22 of the line; the state is field 3.
    let flags = fields.nth(5)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    Some(Stat { state, flags, start_time })
}

/// `PF_KTHREAD`: a command line can be empty for other reasons.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Reads the effective user id from `/proc/PID/status`: `Uid:` real, effective, saved, file system.
pub fn parse_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Reads resident memory in bytes from `/proc/PID/status`.
pub fn parse_resident(status: &str) -> Option<u64> {
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kib * 1024)
}

/// Reads the clock ticks that all threads of a process have run for from `/proc/PID/stat`: fields 14 and 15.
pub fn parse_processor_ticks(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let [user, system]: [u64; 2] = [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?];
    Some(user + system)
}

/// How long all threads of a process have run.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let ticks = parse_processor_ticks(&String::from_utf8_lossy(&fs::read(proc_file(pid, "stat")).ok()?))?;
    Some(Duration::from_millis(ticks.saturating_mul(1000) / CLOCK_TICKS_PER_SECOND))
}

fn proc_file(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn read(pid: u32, name: &str) -> Option<Vec<u8>> {
    read_kernel_file(&proc_file(pid, name)).ok()
}

fn read_text(pid: u32, name: &str) -> Option<String> {
    read(pid, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

impl Stat {
    /// A zombie is dead and only waits for its parent.
    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_text(pid, "stat")?).filter(Stat::is_alive)
}

/// What is known of a process; `None` where it is dead or never was, or (for those of others) is not to be seen.
pub fn inspect(pid: u32) -> Option<ProcessInfo> {
    // What is read through this is one process, whoever has its number next.
    let dir = rustix::fs::open(format!("/proc/{pid}"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, "stat", flags, Mode::empty()).ok()?;
    let text = read_open_kernel_file(file.into()).ok()?;
    let Stat { state, flags, start_time } =
        parse_stat(&String::from_utf8_lossy(&text)).filter(Stat::is_alive)?;
    let root = rustix::fs::statat(&dir, "root", AtFlags::empty()).ok();
    Some(ProcessInfo {
        id: ProcessId { pid, start_time },
        root: root.map(|root| DirId { device: root.st_dev, inode: root.st_ino }),
        is_kernel_thread: flags & KERNEL_THREAD != 0,
        state,
        started: start_time / CLOCK_TICKS_PER_SECOND,
    })
}

/// Effective user id of a process; `None` where it is gone.
pub fn uid(process: &ProcessInfo) -> Option<u32> {
    let status = read_text(process.id.pid, "status")?;
    // Unchanged behind it: it was that process.
    lives(process.id).then(|| parse_uid(&status)).flatten()
}

/// The arguments of whatever process has this number, the program first; none for a kernel thread, nor where there is none.
pub fn command(pid: u32) -> Vec<String> {
    let command = read(pid, "cmdline").unwrap_or_default();
    let words = command.strip_suffix(b"\0").unwrap_or(&command);
    let words = words.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    if command.is_empty() { Vec::new() } else { words.collect() }
}

/// A process as it is now; `None` where it is dead.
pub fn again(process: ProcessId) -> Option<ProcessInfo> {
    inspect(process.pid).filter(|now| now.id == process)
}

/// When this machine was started, by its clock as it is now; `None` where the kernel does not tell.
pub fn booted() -> Option<SystemTime> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.trim().parse().ok()?))
}

/// How long the process has run; `None` where `/proc/uptime` cannot be read.
pub fn uptime(info: &ProcessInfo) -> Option<Duration> {
    let now = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let started = Duration::from_millis(info.id.start_time * 1000 / CLOCK_TICKS_PER_SECOND);
    Some(Duration::try_from_secs_f64(now).ok()?.saturating_sub(started))
}

/// Bytes of memory that the process holds, a guest's memory included; `None` where it is gone.
pub fn resident_memory(pid: u32) -> Option<u64> {
    parse_resident(&read_text(pid, "status")?)
}

/// A process held by a file descriptor: its number cannot come to mean another while this lives.
#[derive(Debug)]
pub struct Handle {
    pid: u32,
    fd: OwnedFd,
}

impl Handle {
    /// Takes hold of whatever process has this number now; `None` where there is none.
    pub fn open(pid: u32) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(raw, PidfdFlags::empty()).ok().map(|fd| Self { pid, fd })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has ended, or longer than that.
    pub fn wait(&self, patience: Duration) {
        // Where that fails, whoever waits looks again who is left.
        let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], patience.try_into().ok().as_ref());
    }

    /// Sends SIGKILL; one that is dead already is fine.
    pub fn kill(&self) {
        // Fails only for the dead and for those of others; whoever kills looks again who is left.
        let _ = pidfd_send_signal(&self.fd, Signal::KILL);
    }
}

/// Sends a signal to a process. `false` where it is gone.
pub fn send_signal(process: ProcessId, signal: Signal) -> Result<bool, ProcessError> {
    let ProcessId { pid, start_time } = process;
    let Some(handle) = Handle::open(pid) else { return Ok(false) };
    // Looked up after the process is held, so it is the one that gets the signal.
    if stat(pid).map(|stat| stat.start_time) != Some(start_time) {
        return Ok(false);
    }
    match pidfd_send_signal(&handle.fd, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(ProcessError { pid, signal, source: error.into() }),
    }
}

/// Stops a process by SIGSTOP, and waits until each of its threads stands still: the signal is sent before it is obeyed. `false` where
/// it is gone, or not still after `timeout`.
pub fn stop(process: ProcessId, timeout: Duration) -> Result<bool, ProcessError> {
    let end = Instant::now() + timeout;
    if !send_signal(process, Signal::STOP)? {
        return Ok(false);
    }
    while !stands_still(process) {
        if Instant::now() > end || !lives(process) {
            return Ok(false);
        }
        std::thread::sleep(STOP_POLL);
    }
    Ok(true)
}

/// How long is waited before another look at a process that is to stop.
const STOP_POLL: Duration = Duration::from_millis(1);

/// Whether all threads of a live process are stopped.
fn stands_still(process: ProcessId) -> bool {
    let threads = fs::read_dir(proc_file(process.pid, "task")).into_iter().flatten().flatten();
    let stat = |thread: fs::DirEntry| parse_stat(&fs::read_to_string(thread.path().join("stat")).ok()?);
    let mut threads = threads.filter_map(stat).peekable();
    threads.peek().is_some() && threads.all(|thread| thread.state == STOPPED) && lives(process)
}

/// The live processes that run as one of these users, each with its user.
pub fn running_as(uids: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of = |pid: u32| {
        let uid = parse_uid(&read_text(pid, "status")?)?;
        (uids.contains(&uid) && stat(pid).is_some()).then_some((pid, uid))
    };
    numbers.filter_map(of).collect()
}

/// Waits until the process is dead (a zombie is); `false` where it still lives after `timeout`.
pub fn wait_gone(process: ProcessId, timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    let Some(handle) = Handle::open(process.pid) else { return true };
    while lives(process) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        // Ready once it has ended (pidfd_open(2)); where that fails, the next look tells.
        let wait = left.min(LONGEST_WAIT).try_into().ok();
        let _ = poll(&mut [PollFd::new(&handle.fd, PollFlags::IN)], wait.as_ref());
    }
    true
}

/// How long is waited for an end without another look.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The processes whose root directory is `dir` or below it, also where it has been removed meanwhile. For those of
/// other users this needs root.
pub fn rooted_in(dir: &Path) -> Vec<u32> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_inside = |root: &PathBuf| root.starts_with(&dir);
    let is_below = |pid: &u32| stat(*pid).is_some() && roots_of(*pid).iter().any(is_inside);
    let mut pids: Vec<u32> = numbers.filter(is_below).collect();
    pids.sort_unstable();
    pids
}

/// The root directory of whatever process has this number.
pub fn root(pid: u32) -> Option<DirId> {
    DirId::of(&proc_file(pid, "root"))
}

/// State of a process that SIGSTOP stopped (proc(5)).
pub const STOPPED: char = 'T';

/// A process that is stopped, with its root directory.
pub fn stopped(pid: u32) -> Option<ChrootedProcess> {
    let Stat { start_time, .. } = stat(pid).filter(|stat| stat.state == STOPPED)?;
    Some(ChrootedProcess { id: ProcessId { pid, start_time }, root: DirId::of(&proc_file(pid, "root"))? })
}

/// Whether a process's root directory is `dir` or below it, as in [`rooted_in`].
pub fn is_rooted_in(pid: u32, dir: &Path) -> bool {
    let Some(root) = DirId::of(&proc_file(pid, "root")) else { return false };
    if Some(root) == DirId::own_root() || Some(root) == DirId::of(dir) {
        return Some(root) == DirId::of(dir);
    }
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    roots_of(pid).iter().any(|root| root.starts_with(&dir))
}

/// The root directory of a process as a path of this process's own mount namespace, by every path that leads there: a file
/// system may be mounted at several places here.
///
/// `/proc/PID/root` reads `/` for one that has called pivot_root in a namespace of its own, as a jailer does.
/// Its mountinfo then tells which directory of which file system is mounted there.
fn roots_of(pid: u32) -> Vec<PathBuf> {
    let Ok(link) = fs::read_link(proc_file(pid, "root")) else { return Vec::new() };
    let link = without_mark(&link);
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).ok();
    if link != Path::new("/") || namespace(&pid.to_string()) == namespace("self") {
        return vec![link];
    }
    let mounts = |of: &str| fs::read_to_string(format!("/proc/{of}/mountinfo")).unwrap_or_default();
    let places = seen_from(&parse_mountinfo(&mounts("self")), &parse_mountinfo(&mounts(&pid.to_string())));
    if places.is_empty() { vec![link] } else { places }
}

/// Where in `ours` the directory is that is mounted at `/` in `theirs`.
fn seen_from(ours: &[MountEntry], theirs: &[MountEntry]) -> Vec<PathBuf> {
    // Later mounts hide earlier ones.
    let Some(root) = theirs.iter().rev().find(|entry| entry.target == Path::new("/")) else {
        return Vec::new();
    };
    let inside = without_mark(&root.root);
    let place = |entry: &MountEntry| {
        let rest = inside.strip_prefix(&entry.root).ok()?;
        Some(if rest.as_os_str().is_empty() { entry.target.clone() } else { entry.target.join(rest) })
    };
    ours.iter().filter(|entry| entry.device == root.device).filter_map(place).collect()
}

/// The kernel marks a directory that has been removed: ` (deleted)` in links, `//deleted` in mountinfo.
fn without_mark(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let plain =
        bytes.strip_suffix(b" (deleted)").or_else(|| bytes.strip_suffix(b"//deleted")).unwrap_or(bytes);
    PathBuf::from(OsStr::from_bytes(plain))
}

#[cfg(test)]
mod tests;
