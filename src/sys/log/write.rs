//! The one writer of a log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{LONGEST_LINE, LogBounds, MAGIC, Mark, RECORD, absent_is_none, ages, file, index, record};

/// Marks are no closer than this, in milliseconds.
const MARK_EVERY: u64 = 100;
/// For so many bytes that a file may hold, it may have one mark, so that an index is smaller than its log.
const BYTES_PER_MARK: u64 = 64;

/// Appends to a log, and begins another file where one is full.
#[derive(Debug)]
pub struct Writer {
    log: PathBuf,
    limits: LogBounds,
    /// Of the present file; `None` after one could not be made.
    files: Option<LogFiles>,
    /// Bytes that could not be written since the last that could.
    lost: u64,
}

#[derive(Debug)]
struct LogFiles {
    log: File,
    size: u64,
    at_line_start: bool,
    index: File,
    marks: u64,
    /// When the last mark was made.
    marked: u64,
}

impl Writer {
    /// Goes on with the log at `log`, whose directory is there.
    pub fn open(log: &Path, limits: LogBounds) -> io::Result<Self> {
        for age in ages(log)?.into_iter().filter(|age| *age > limits.keep) {
            remove(log, age)?;
        }
        Ok(Self { log: log.to_owned(), limits, files: Some(LogFiles::open(log)?), lost: 0 })
    }

    /// Marks that whoever writes was started anew. What its predecessor left unfinished ends here.
    pub fn begin(&mut self, now: SystemTime) {
        let unfinished = self.files.as_ref().is_some_and(|files| !files.at_line_start);
        if unfinished {
            self.append(b"\n", now);
        }
        // Lost, it costs the border between two starts.
        let _ = self.files().and_then(|files| files.mark(milliseconds(now), true));
    }

    /// Appends bytes that came now. What cannot be written, because the disk is full, is counted, and told in the log
    /// once it can be written to again: whoever writes must never have to wait.
    pub fn append(&mut self, bytes: &[u8], now: SystemTime) {
        let now = milliseconds(now);
        if self.lost > 0 {
            let notice = format!("\n[sisforge: {} bytes could not be written here]\n", self.lost);
            if self.write(notice.as_bytes(), now).is_err() {
                self.lost += bytes.len() as u64;
                return;
            }
            self.lost = 0;
        }
        if let Err(left) = self.write(bytes, now) {
            self.lost += left;
        }
    }

    fn files(&mut self) -> io::Result<&mut LogFiles> {
        match &mut self.files {
            Some(files) => Ok(files),
            none => Ok(none.insert(LogFiles::open(&self.log)?)),
        }
    }

    /// Gives how many bytes could not be written.
    fn write(&mut self, mut bytes: &[u8], now: u64) -> Result<(), u64> {
        while !bytes.is_empty() {
            let limits = self.limits;
            let files = self.files().map_err(|_| bytes.len() as u64)?;
            let full = files.marks > limits.size / BYTES_PER_MARK;
            let limit = if full { files.size } else { limits.size };
            let (now_fits, then_full) = fitting(bytes, files.size, limit);
            let (head, rest) = bytes.split_at(now_fits);
            if let Err(left) = files.append(head, now) {
                // The next attempt begins anew: the file may be where nothing can be written any more.
                self.files = None;
                return Err(left + rest.len() as u64);
            }
            bytes = rest;
            if then_full {
                self.files = None;
                rotate(&self.log, self.limits.keep).map_err(|_| bytes.len() as u64)?;
            }
        }
        Ok(())
    }
}

/// How many of `bytes` go into a file of this size, and whether it is full then. A file ends with a line where lines are
/// no longer than [`LONGEST_LINE`].
fn fitting(bytes: &[u8], size: u64, limit: u64) -> (usize, bool) {
    let room =
        |limit: u64| usize::try_from(limit.saturating_sub(size)).unwrap_or(usize::MAX).min(bytes.len());
    let (room, most) = (room(limit), room(limit + LONGEST_LINE.min(limit)));
    if room == bytes.len() {
        return (room, false);
    }
    let last = bytes[..room].iter().rposition(|byte| *byte == b'\n');
    let first_behind = || bytes[room..most].iter().position(|byte| *byte == b'\n').map(|at| room + at);
    match last.or_else(first_behind) {
        Some(end) => (end + 1, true),
        None => (most, most < bytes.len()),
    }
}

/// The present file becomes the first of the older ones; the oldest goes. A log goes after its index: its inode may be
/// another's the moment that it is free.
fn rotate(log: &Path, keep: u32) -> io::Result<()> {
    remove(log, keep)?;
    for age in (0..keep).rev() {
        for name in [index, file] {
            absent_is_none(fs::rename(name(log, age), name(log, age + 1)))?;
        }
    }
    Ok(())
}

fn remove(log: &Path, age: u32) -> io::Result<()> {
    absent_is_none(fs::remove_file(index(log, age)))?;
    absent_is_none(fs::remove_file(file(log, age))).map(drop)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)
}

impl LogFiles {
    fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileExt;
        let log = append_to(path)?;
        let meta = log.metadata()?;
        let (size, inode) = (meta.len(), meta.ino());
        let mut last = [b'\n'];
        if size > 0 {
            log.read_exact_at(&mut last, size - 1)?;
        }
        let mut index = append_to(&index(path, 0))?;
        if super::inode_of_index(&mut index)? != Some(inode) {
            index.set_len(0)?;
            index.write_all(&record(*MAGIC, inode.to_le_bytes()))?;
        }
        let whole = index.seek(SeekFrom::End(0))? / RECORD as u64;
        index.set_len(whole * RECORD as u64)?;
        Ok(Self { log, size, at_line_start: last == *b"\n", index, marks: whole - 1, marked: 0 })
    }

    /// Gives how many bytes were not written.
    fn append(&mut self, mut bytes: &[u8], now: u64) -> Result<(), u64> {
        // The mark first: a reader that sees the bytes finds it.
        if now.saturating_sub(self.marked) >= MARK_EVERY && !bytes.is_empty() {
            self.mark(now, false).map_err(|_| bytes.len() as u64)?;
        }
        while !bytes.is_empty() {
            match self.log.write(bytes) {
                Ok(count) => {
                    self.size += count as u64;
                    self.at_line_start = bytes[..count].ends_with(b"\n");
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(bytes.len() as u64),
            }
        }
        Ok(())
    }

    fn mark(&mut self, now: u64, begins: bool) -> io::Result<()> {
        self.index.write_all(&Mark { offset: self.size, time: now, begins }.to_bytes())?;
        (self.marks, self.marked) = (self.marks + 1, now);
        Ok(())
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
