//! Logs that stay small: a stream of bytes in files of bounded size, and when each part of it came.
//!
//! ```text
//! serial.log                what came last, as it came
//! serial.log.1, .2, ...     what came before; the oldest goes when another is begun
//! serial.index, .1, ...     one beside each: the inode of its log, then marks of 16 bytes
//! ```
//!
//! A log is cut at the end of a line. It is found by its inode, because names move while it is read. An index that is lost
//! costs the times alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod keep;
mod read;
mod write;

pub use keep::{Work, keep, open_pipe_to_read, open_pipe_to_write};
pub use read::{Lines, Reader, Start};
pub use write::Writer;

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes in one file. A line that begins in it ends in it, up to [`LONGEST_LINE`] more.
    pub size: u64,
    /// Files that are kept beside the one that is written; at most [`MOST_KEPT`].
    pub keep: u32,
}

/// A line that goes on for longer than this is cut where a file is full.
pub const LONGEST_LINE: u64 = 64 << 10;

/// The largest [`LogBounds::keep`].
pub const MOST_KEPT: u32 = 99;

/// Where the file of a log is that is `age` files older than the present one.
pub fn file(log: &Path, age: u32) -> PathBuf {
    if age == 0 { log.to_owned() } else { suffixed(log, age) }
}

/// The index of that file.
fn index(log: &Path, age: u32) -> PathBuf {
    file(&log.with_extension("index"), age)
}

/// The ages of a log's files and indexes that are there, in one look at their directory.
fn ages(log: &Path) -> io::Result<BTreeSet<u32>> {
    let dir = log.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let present = [log.to_owned(), log.with_extension("index")];
    let present = present.each_ref().map(|path| path.file_name().unwrap_or_default().to_string_lossy());
    let age = |name: &str| {
        let rest = present.iter().find_map(|present| name.strip_prefix(&**present))?;
        if rest.is_empty() { Some(0) } else { rest.strip_prefix('.')?.parse().ok() }
    };
    let names = super::fs::names_in(dir).map_err(|error| error.source)?;
    Ok(names.iter().filter_map(|name| age(name)).collect())
}

fn suffixed(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

/// When the bytes from `offset` on came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    offset: u64,
    /// Milliseconds since 1970.
    time: u64,
    /// Whether whoever writes was started here.
    begins: bool,
}

/// What an index begins with, before the inode of its log.
const MAGIC: &[u8; 8] = b"sislog1\n";
/// Bytes of what an index begins with, and of each mark.
const RECORD: usize = 16;
const BEGINS: u64 = 1 << 63;

impl Mark {
    fn to_bytes(self) -> [u8; RECORD] {
        let flag = if self.begins { BEGINS } else { 0 };
        record((self.offset | flag).to_le_bytes(), self.time.to_le_bytes())
    }

    fn from_bytes(bytes: [u8; RECORD]) -> Self {
        let [offset, time] = halves(bytes).map(u64::from_le_bytes);
        Self { offset: offset & !BEGINS, time, begins: offset & BEGINS != 0 }
    }

    fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.time)
    }
}

fn record(first: [u8; 8], second: [u8; 8]) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&first);
    bytes[8..].copy_from_slice(&second);
    bytes
}

fn halves(bytes: [u8; RECORD]) -> [[u8; 8]; 2] {
    let half = |from: usize| std::array::from_fn(|at| bytes[from + at]);
    [half(0), half(8)]
}

/// Reads the next whole record; `None` where there is none yet.
fn next_record(file: &mut File) -> io::Result<Option<[u8; RECORD]>> {
    use std::io::{Seek, SeekFrom};
    let mut bytes = [0; RECORD];
    let mut have = 0;
    while have < RECORD {
        match file.read(&mut bytes[have..]) {
            Ok(0) => {
                // One that is half written is read again.
                file.seek(SeekFrom::Current(-(have as i64)))?;
                return Ok(None);
            }
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(bytes))
}

/// The inode of the log that an index is for; leaves the file at its first mark.
fn inode_of_index(file: &mut File) -> io::Result<Option<u64>> {
    let Some(bytes) = next_record(file)? else { return Ok(None) };
    let [magic, inode] = halves(bytes);
    Ok((&magic == MAGIC).then_some(u64::from_le_bytes(inode)))
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// `None` where there is no such file.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
