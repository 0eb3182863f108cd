//! What is written into a directory for somebody else takes a bounded part of its disk: whatever programs of a sandbox write
//! together, what comes out of an archive, what a repository brings. The kernel holds each file to a bound, and no directory.

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::fs::{FreeSpace, allocated_within, free_space};

/// Bytes of a source's tree and all that is built of it, at most: one with debug information takes about 15 GiB.
const LARGEST: u64 = 32 << 30;
/// Bytes of the file system that are left to others.
const LEFT: u64 = 1 << 30;
/// Files that can still be made there, on file systems that count them.
const FILES_LEFT: u64 = 1 << 16;
/// How often a directory is measured, which takes a second where it is large.
const MEASURED_EVERY: Duration = Duration::from_secs(30);
/// Bytes that are written before another look at the file system.
const LOOKED_EVERY: u64 = 1 << 20;
/// What the smallest file takes.
const BLOCK: u64 = 4096;

/// What is left to others where nobody can tell what is free.
const NOTHING: FreeSpace = FreeSpace { bytes: 0, files: None };

/// Looks at what a directory takes.
#[derive(Debug)]
pub struct DiskGuard {
    dir: PathBuf,
    largest: u64,
    left: FreeSpace,
    measured: Mutex<Instant>,
    every: Duration,
}

impl DiskGuard {
    /// Of a directory that somebody is about to write to. Of a file system that is nearly full already, half of what is free is left.
    pub fn of(dir: &Path) -> Self {
        let half = |free: u64, left: u64| left.min(free / 2);
        let left = free_space(dir).map_or(NOTHING, |free| FreeSpace {
            bytes: half(free.bytes, LEFT),
            files: free.files.map(|files| half(files, FILES_LEFT)),
        });
        let measured = Mutex::new(Instant::now());
        Self { dir: dir.to_owned(), largest: LARGEST, left, measured, every: MEASURED_EVERY }
    }

    /// Of so many bytes at most.
    #[must_use]
    pub fn of_at_most(self, largest: u64) -> Self {
        Self { largest, ..self }
    }

    /// Which bound is exceeded, in words.
    pub fn exceeded(&self) -> Option<String> {
        if let Some(beyond) = self.leaves_too_little() {
            return Some(beyond);
        }
        // Whoever measures elsewhere meanwhile will say it.
        let mut measured = self.measured.try_lock().ok()?;
        if measured.elapsed() < self.every {
            return None;
        }
        let takes = allocated_within(&self.dir);
        *measured = Instant::now();
        (takes > self.largest).then(|| self.takes_too_much())
    }

    fn leaves_too_little(&self) -> Option<String> {
        let free = free_space(&self.dir).ok()?;
        if free.bytes < self.left.bytes {
            return Some(format!("it left less than {} MiB of the file system", self.left.bytes >> 20));
        }
        let (files, left) = free.files.zip(self.left.files)?;
        (files < left).then(|| format!("it left room for fewer than {left} files on the file system"))
    }

    fn takes_too_much(&self) -> String {
        format!("it took more than {} MiB of the disk", self.largest >> 20)
    }

    /// How many bytes may come now.
    pub fn room(&self) -> u64 {
        let beyond = |free: FreeSpace| free.bytes.saturating_sub(self.left.bytes);
        free_space(&self.dir).map_or(self.largest, |free| beyond(free).min(self.largest))
    }

    /// Counts what this process itself writes there.
    pub fn meter(&self) -> WriteMeter<'_> {
        WriteMeter { guard: self, taken: 0, looked_at: 0 }
    }
}

/// What was written to a directory so far.
#[derive(Debug)]
pub struct WriteMeter<'a> {
    guard: &'a DiskGuard,
    taken: u64,
    looked_at: u64,
}

impl WriteMeter<'_> {
    /// Before so many bytes are written.
    pub fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.guard.largest {
            return Err(io::Error::other(self.guard.takes_too_much()));
        }
        if self.taken - self.looked_at >= LOOKED_EVERY {
            self.looked_at = self.taken;
            let beyond = self.guard.leaves_too_little();
            return beyond.map_or(Ok(()), |bound| Err(io::Error::new(ErrorKind::StorageFull, bound)));
        }
        Ok(())
    }

    /// Before another file, directory or link is made.
    pub fn take_entry(&mut self) -> io::Result<()> {
        self.take(BLOCK)
    }
}

/// Reads what is then written to a directory.
#[derive(Debug)]
pub struct Metered<'a, 'b, R> {
    pub from: R,
    pub meter: &'a mut WriteMeter<'b>,
}

impl<R: Read> Read for Metered<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.meter.take(count as u64)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tool::{Tool, ToolError};

    fn guard(dir: &Path, largest: u64, left: u64) -> DiskGuard {
        let measured = Mutex::new(Instant::now());
        let left = FreeSpace { bytes: left, files: None };
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

    #[test]
    fn what_this_process_writes_is_counted_before_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let read = |guard: &DiskGuard, bytes: u64| {
            let mut meter = guard.meter();
            io::copy(&mut Metered { from: io::repeat(0).take(bytes), meter: &mut meter }, &mut io::sink())
        };
        let small = guard(dir.path(), 2 << 20, 0);
        assert_eq!(read(&small, 2 << 20).unwrap(), 2 << 20);
        assert!(read(&small, (2 << 20) + 1).unwrap_err().to_string().contains("2 MiB of the disk"));
        let full = guard(dir.path(), u64::MAX, u64::MAX);
        assert_eq!(read(&full, 2 << 20).unwrap_err().kind(), ErrorKind::StorageFull);
        let mut entries = small.meter();
        assert!((0..=512).any(|_| entries.take_entry().is_err()), "empty files end too");
    }
}
