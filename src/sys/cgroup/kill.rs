//! The end of a cgroup: its processes killed, its directories removed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{CgroupError, FREEZER, Hierarchy, checked, failed, read};
use crate::sys::process;

/// How long killed processes may take to go. One in uninterruptible sleep takes as long as its disk.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// How long is waited for the end of one that was killed alone, and may be frozen, before another look.
const ALONE: Duration = Duration::from_millis(500);

/// What makes the processes of a cgroup stand still, and what lets them run.
struct Freezer {
    file: PathBuf,
    frozen: &'static str,
    thawed: &'static str,
}

impl Hierarchy {
    /// Kills every process in the cgroup and below it, and waits until they are gone; absence is fine. Those that are
    /// still there after ten seconds are an error.
    pub fn kill(&self, path: &str) -> Result<(), CgroupError> {
        checked(path)?;
        let end = Instant::now() + PATIENCE;
        let mut is_first = true;
        loop {
            let pids = self.procs_below(path);
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(CgroupError::Busy { path: path.to_owned(), pids });
            }
            // One alone has no time to make another, but for one who waits for just that; who did is met frozen.
            match pids.as_slice() {
                [pid] if is_first => self.kill_alone(path, *pid),
                _ => {
                    self.kill_once(path, &pids)?;
                    thread::sleep(POLL);
                }
            }
            is_first = false;
        }
    }

    /// Kills a process while the cgroup has it, and waits a little for its end.
    pub fn kill_alone(&self, path: &str, pid: u32) {
        // What is of this cgroup once its process is held is that process.
        let Some(process) = process::Handle::open(pid).filter(|_| self.has(path, pid)) else { return };
        process.kill();
        process.wait(ALONE);
    }

    fn procs_below(&self, path: &str) -> Vec<u32> {
        let mut pids = self.procs(path);
        for child in self.children(path) {
            pids.extend(self.procs_below(&format!("{path}/{child}")));
        }
        pids
    }

    /// `cgroup.kill` (Linux 5.14) where it is there; else every process by itself while all of them stand still,
    /// so that none can make new ones faster than they are killed.
    fn kill_once(&self, path: &str, pids: &[u32]) -> Result<(), CgroupError> {
        if let Self::V2 { root } = self {
            let file = root.join(path).join("cgroup.kill");
            if file.exists() {
                return absent_is_fine(fs::write(&file, "1")).map_err(failed("write", &file));
            }
        }
        // Freezing is a help, not a need: one that fails only makes the loop longer.
        let switch = self.freezer(path);
        let set = |value| switch.as_ref().is_some_and(|switch| fs::write(&switch.file, value).is_ok());
        switch.as_ref().map(|switch| set(switch.frozen));
        let held: Vec<_> = pids.iter().filter_map(|pid| process::Handle::open(*pid)).collect();
        // A number that is still listed once its process is held is that process, and of this cgroup.
        let listed = self.procs_below(path);
        for process in held.iter().filter(|process| listed.contains(&process.pid())) {
            process.kill();
        }
        switch.as_ref().map(|switch| set(switch.thawed));
        Ok(())
    }

    fn freezer(&self, path: &str) -> Option<Freezer> {
        match self {
            Self::V2 { root } => {
                Some(Freezer { file: root.join(path).join("cgroup.freeze"), frozen: "1", thawed: "0" })
            }
            Self::V1 { mounts } => {
                let file = mounts.get(FREEZER)?.join(path).join("freezer.state");
                Some(Freezer { file, frozen: "FROZEN", thawed: "THAWED" })
            }
        }
    }

    /// Whether the processes of a cgroup are made to stand still.
    pub fn is_frozen(&self, path: &str) -> bool {
        let switch = self.freezer(path);
        // One of version 1 may still be on its way (`FREEZING`).
        switch.is_some_and(|switch| read(&switch.file).is_some_and(|state| state.trim() != switch.thawed))
    }

    /// Lets the processes of a cgroup run; absence is fine.
    pub fn thaw(&self, path: &str) -> Result<(), CgroupError> {
        checked(path)?;
        let Some(switch) = self.freezer(path) else { return Ok(()) };
        absent_is_fine(fs::write(&switch.file, switch.thawed)).map_err(failed("write", &switch.file))
    }

    /// Removes the cgroup from every hierarchy, waiting a little for its last process; absence is fine.
    /// One that has cgroups below it is not removed. One that still has processes after ten seconds is an error: kill
    /// first.
    pub fn remove(&self, path: &str) -> Result<(), CgroupError> {
        checked(path)?;
        let end = Instant::now() + PATIENCE;
        for dir in self.dirs(path) {
            loop {
                match absent_is_fine(fs::remove_dir(&dir)) {
                    Ok(()) => break,
                    Err(error) if error.kind() != ErrorKind::ResourceBusy => {
                        return Err(failed("remove cgroup", &dir)(error));
                    }
                    Err(error) if Instant::now() > end || !self.children(path).is_empty() => {
                        return Err(match self.procs(path) {
                            pids if pids.is_empty() => failed("remove cgroup", &dir)(error),
                            pids => CgroupError::Busy { path: path.to_owned(), pids },
                        });
                    }
                    Err(_) => thread::sleep(POLL),
                }
            }
        }
        Ok(())
    }
}

/// A cgroup that goes while it is looked at answers `ENOENT` or `ENODEV`.
fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        done => done,
    }
}
