//! What all programs of a sandbox may take of a disk together. The kernel holds each file to a bound, and no directory.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sys::fs::allocated;

/// Bytes of a source's tree and all that is built of it, at most: one with debug information takes about 15 GiB.
const LARGEST: u64 = 32 << 30;
/// Bytes of the file system that are left to others.
const LEFT: u64 = 1 << 30;
/// How often a directory is measured, which takes a second where it is large.
const MEASURED_EVERY: Duration = Duration::from_secs(30);

/// Looks at what a directory takes.
#[derive(Debug)]
pub struct DiskGuard {
    dir: PathBuf,
    largest: u64,
    left: u64,
    measured: Mutex<Instant>,
    every: Duration,
}

impl DiskGuard {
    /// Of a directory that programs are about to write to. Of a file system that is nearly full already, half of what is free is left.
    pub fn of(dir: &Path) -> Self {
        let left = free(dir).map_or(0, |free| LEFT.min(free / 2));
        let measured = Mutex::new(Instant::now());
        Self { dir: dir.to_owned(), largest: LARGEST, left, measured, every: MEASURED_EVERY }
    }

    /// Which bound is exceeded, in words.
    pub fn exceeded(&self) -> Option<String> {
        if free(&self.dir).is_some_and(|free| free < self.left) {
            return Some(format!("it left less than {} MiB of the file system", self.left >> 20));
        }
        // Whoever measures elsewhere meanwhile will say it.
        let mut measured = self.measured.try_lock().ok()?;
        if measured.elapsed() < self.every {
            return None;
        }
        let takes = allocated(&self.dir);
        *measured = Instant::now();
        (takes > self.largest).then(|| format!("it took more than {} MiB of the disk", self.largest >> 20))
    }
}

/// Bytes that are free on a directory's file system.
fn free(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tool::{Tool, ToolError};

    fn guard(dir: &Path, largest: u64, left: u64) -> DiskGuard {
        let measured = Mutex::new(Instant::now());
        DiskGuard { dir: dir.to_owned(), largest, left, measured, every: Duration::ZERO }
    }

    #[test]
    fn a_program_that_fills_the_disk_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let write = "while :; do head -c 1000000 /dev/zero >> file; sleep 0.1; done";
        let call = Tool::new("sh").args(["-c", write]).dir(dir.path());
        let guard = guard(dir.path(), 2 << 20, 0);
        let begun = Instant::now();
        let error = call.lines_within(&|| guard.exceeded(), |_| {}).unwrap_err();
        assert!(
            matches!(&error, ToolError::Exceeded { bound, .. } if bound.contains("2 MiB of the disk")),
            "{error}"
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_file_system_is_left_to_others() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(guard(dir.path(), u64::MAX, 0).exceeded(), None);
        assert!(guard(dir.path(), u64::MAX, u64::MAX).exceeded().unwrap().contains("of the file system"));
        assert_eq!(DiskGuard::of(dir.path()).exceeded(), None);
    }
}
