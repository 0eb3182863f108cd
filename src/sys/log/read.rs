//! Readers of a log that is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{
    LONGEST_LINE, MOST_KEPT, Mark, absent_is_none, ages, file, index, inode, inode_of_index, next_record,
};

/// Which part of a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Of whoever writes now or wrote last, and all that it will write.
    This,
    /// Of its predecessor.
    Previous,
}

/// What is read in the place of parts that were removed before they were.
const DROPPED: &[u8] = b"\n[sisforge: some lines were dropped here before they were read]\n";
/// How often the files of a log may move on, from one look at their names until they are open.
const MOVES: u32 = 4;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Reads a log from somewhere on, past the ends of its files, as it grows.
#[derive(Debug)]
pub struct Reader {
    log: PathBuf,
    /// Those that are known and not read to their end, oldest first.
    files: VecDeque<LogFile>,
    /// Where in the first of them.
    at: u64,
    /// The inode and the offset where reading ends.
    end: Option<(u64, u64)>,
}

/// A file of the log.
#[derive(Debug)]
struct LogFile {
    file: File,
    inode: u64,
    index: Option<File>,
    marks: Vec<Mark>,
}

impl LogFile {
    /// Takes in the marks that were written meanwhile.
    fn refresh(&mut self) -> io::Result<()> {
        if let Some(index) = &mut self.index {
            while let Some(bytes) = next_record(index)? {
                self.marks.push(Mark::from_bytes(bytes));
            }
        }
        Ok(())
    }

    /// The mark of the byte at `at`, and where the next one is.
    fn around(&self, at: u64) -> (Option<Mark>, Option<u64>) {
        let next = self.marks.partition_point(|mark| mark.offset <= at);
        let mark = next.checked_sub(1).map(|before| self.marks[before]);
        (mark, self.marks.get(next).map(|mark| mark.offset))
    }
}

impl Reader {
    /// At the beginning of a start; `None` where there is no such log, or nothing is kept of that start.
    pub fn open(log: &Path, start: Start) -> io::Result<Option<Self>> {
        let files = parts(log)?;
        if files.is_empty() {
            return Ok(None);
        }
        let begins = files.iter().enumerate().flat_map(|(place, part)| {
            part.marks.iter().filter(|mark| mark.begins).map(move |mark| (place, mark.offset))
        });
        let begins: Vec<_> = std::iter::once((0, 0)).chain(begins).collect();
        let mut newest_first = begins.into_iter().rev();
        let last = newest_first.next().unwrap_or_default();
        let mut reader = Self { log: log.to_owned(), files, at: 0, end: None };
        let from = match start {
            Start::This => last,
            Start::Previous => {
                let Some(previous) = newest_first.find(|begin| *begin != last) else { return Ok(None) };
                reader.end = Some((reader.files[last.0].inode, last.1));
                previous
            }
        };
        reader.files.drain(..from.0);
        reader.at = from.1;
        Ok(Some(reader))
    }

    /// What comes next, and when it came where that is known: `None` where there is nothing yet, or no more.
    pub fn read(&mut self) -> io::Result<Option<(Option<SystemTime>, Vec<u8>)>> {
        loop {
            if let Some(piece) = self.read_here()? {
                return Ok(Some(piece));
            }
            let Some(part_inode) = self.files.front().map(|part| part.inode) else { return Ok(None) };
            if self.end.is_some_and(|(inode, _)| inode == part_inode) {
                return Ok(None);
            }
            if self.files.len() == 1 {
                if absent_is_none(std::fs::metadata(&self.log))?.map(|meta| meta.ino()) == Some(part_inode) {
                    return Ok(None);
                }
                // It is no longer written to; what was added before it was moved is read first.
                if let Some(piece) = self.read_here()? {
                    return Ok(Some(piece));
                }
                let all = parts(&self.log)?;
                let known = all.iter().position(|newer| newer.inode == part_inode);
                let newer = all.into_iter().skip(known.map_or(0, |known| known + 1));
                self.files.extend(newer);
                if self.files.len() == 1 {
                    return Ok(None);
                }
                if known.is_none() {
                    // Whoever reads so slowly is told.
                    self.next_file();
                    return Ok(Some((None, DROPPED.to_vec())));
                }
            }
            self.next_file();
        }
    }

    fn next_file(&mut self) {
        self.files.pop_front();
        self.at = 0;
    }

    fn read_here(&mut self) -> io::Result<Option<(Option<SystemTime>, Vec<u8>)>> {
        let Some(part) = self.files.front_mut() else { return Ok(None) };
        let end = self.end.filter(|(inode, _)| *inode == part.inode).map(|(_, offset)| offset);
        let most = end.map_or(PIECE as u64, |end| end.saturating_sub(self.at)).min(PIECE as u64);
        let mut bytes = vec![0; usize::try_from(most).unwrap_or(PIECE)];
        let count = part.file.read_at(&mut bytes, self.at)?;
        if count == 0 {
            return Ok(None);
        }
        part.refresh()?;
        let (mark, next) = part.around(self.at);
        let until_next = next.map_or(count as u64, |next| next - self.at);
        bytes.truncate(usize::try_from(until_next).unwrap_or(count).min(count));
        self.at += bytes.len() as u64;
        Ok(Some((mark.map(Mark::time), bytes)))
    }
}

/// The files of a log, oldest first. A file that moves meanwhile is seen twice, never missed.
fn parts(log: &Path) -> io::Result<VecDeque<LogFile>> {
    let mut found: VecDeque<LogFile> = VecDeque::new();
    let mut indexes = Vec::new();
    let oldest = ages(log)?.last().copied().unwrap_or_default();
    for age in 0..=oldest.saturating_add(MOVES).min(MOST_KEPT) {
        if let Some(mut index) = absent_is_none(File::open(index(log, age)))?
            && let Some(inode) = inode_of_index(&mut index)?
        {
            indexes.push((inode, index));
        }
        if let Some(file) = absent_is_none(File::open(file(log, age)))? {
            let inode = inode(&file)?;
            found.retain(|part| part.inode != inode);
            found.push_front(LogFile { file, inode, index: None, marks: Vec::new() });
        }
    }
    for (inode, mut index) in indexes {
        if let Some(part) = found.iter_mut().find(|part| part.inode == inode) {
            index.seek(SeekFrom::Start(super::RECORD as u64))?;
            (part.index, part.marks) = (Some(index), Vec::new());
            part.refresh()?;
        }
    }
    Ok(found)
}

/// Puts lines together again that came in pieces.
#[derive(Debug, Default)]
pub struct Lines {
    unfinished: Vec<u8>,
    time: Option<SystemTime>,
}

impl Lines {
    /// Gives each line that is whole now to `each`, with when its beginning came and without its end (`\n` or `\r\n`).
    pub fn feed(
        &mut self,
        time: Option<SystemTime>,
        bytes: &[u8],
        mut each: impl FnMut(Option<SystemTime>, &[u8]),
    ) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.unfinished.is_empty() {
                self.time = time;
            }
            self.unfinished.extend_from_slice(part);
            if part.ends_with(b"\n") || self.unfinished.len() as u64 >= LONGEST_LINE {
                self.finish(&mut each);
            }
        }
    }

    /// Gives what is left, a line without an end.
    pub fn finish(&mut self, mut each: impl FnMut(Option<SystemTime>, &[u8])) {
        if !self.unfinished.is_empty() {
            let line = self.unfinished.strip_suffix(b"\n").unwrap_or(&self.unfinished);
            each(self.time, line.strip_suffix(b"\r").unwrap_or(line));
            self.unfinished.clear();
        }
    }
}
