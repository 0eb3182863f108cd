//! Who holds a lock on a file (flock(2)), as the kernel tells it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::base::text::excerpt;

use super::fs::is_same_file;
use super::process;

/// A process that others wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    pub pid: u32,
    /// As it was called, for messages.
    pub command: String,
    /// Whether somebody stopped it: it will not let go by itself.
    pub is_stopped: bool,
}

/// The process that took the lock on a file; `None` where nobody did, or the kernel does not show who.
pub fn lock_holder(path: &Path) -> Option<LockHolder> {
    let file = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = takers(&locks, file.ino()).into_iter().find(|pid| has_open(*pid, &file))?;
    let process = process::inspect(pid)?;
    Some(LockHolder {
        pid,
        command: excerpt(&process::command(pid).join(" ")),
        is_stopped: process.state == process::STOPPED,
    })
}

/// Who took a lock on a file of this inode, on whichever file system: lines as `1: FLOCK  ADVISORY  WRITE 42 08:01:1234 0 EOF`. Those
/// who wait have `->` before the kind. (proc(5))
fn takers(locks: &str, inode: u64) -> Vec<u32> {
    let taker = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, pid, file) = (fields.next()?, fields.nth(2)?, fields.next()?);
        let is_it = kind == "FLOCK" && file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|_| is_it)
    };
    locks.lines().filter_map(taker).collect()
}

/// Whether a process has a file open: what the kernel says of locks names some file systems otherwise than stat(2) does.
fn has_open(pid: u32, file: &Metadata) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut open = open.filter_map(|entry| fs::metadata(entry.path()).ok());
    open.any(|open| is_same_file(&open, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::FileLock;

    #[test]
    fn who_holds_a_lock_is_told_and_who_waits_for_it_is_not() {
        let locks = "1: FLOCK  ADVISORY  WRITE 42 fe:00:1234 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 43 fe:00:1234 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 44 fe:00:1234 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 45 fe:00:123 0 EOF\n";
        assert_eq!(takers(locks, 1234), [42]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::wait(&path).unwrap();
        if fs::read_to_string("/proc/locks").is_ok_and(|locks| !locks.is_empty()) {
            let holder = lock_holder(&path).unwrap();
            assert_eq!((holder.pid, holder.is_stopped), (std::process::id(), false));
        }
        drop(held);
        assert_eq!(lock_holder(&path), None);
    }
}
