//! Where the bytes of a download go: memory, or the end of a file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Where the bytes of a download go.
pub trait Sink {
    /// Bytes that are there already.
    fn len(&self) -> u64;
    /// Whether nothing is there yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Forgets them.
    fn restart(&mut self) -> io::Result<()>;
    /// Adds more.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl Sink for Vec<u8> {
    fn len(&self) -> u64 {
        self.len() as u64
    }
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// A file that is written at its end.
pub struct FileSink {
    file: File,
    len: u64,
}

impl FileSink {
    /// Goes on at the end of an open file.
    pub fn new(mut file: File) -> io::Result<Self> {
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, len })
    }
}

impl Sink for FileSink {
    fn len(&self) -> u64 {
        self.len
    }
    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.len = 0;
        Ok(())
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}
