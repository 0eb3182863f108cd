//! tar, read as packages need it: ustar with PAX headers (parsed by length, so that values are raw bytes), and
//! GNU's long names, which Debian's packages use. A header is never larger than stated here, whatever it claims.
//!
//! Follows POSIX.1-2024 `pax` and GNU tar's `tar.h`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fs::io_diagnosis;

use super::sparse::{SparseError, SparseForm, SparseMap, SparseRecords};
use super::tar::{self, BLOCK, MAX_EXTENSION, fill, has_right_sum, pax_record, until_nul};

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it cannot be unpacked: {0}")]
    Read(#[from] io::Error),
    #[error("it ends in the middle of {0}")]
    Cut(&'static str),
    #[error("a header has a wrong checksum")]
    HeaderChecksum,
    #[error("{entry}: its {field} is not a number")]
    Number { entry: String, field: &'static str },
    #[error("a name is not UTF-8: {0:?}")]
    NotUtf8(String),
    #[error("an extended header has {0} bytes; at most {MAX_EXTENSION} are allowed")]
    ExtensionTooLong(u64),
    #[error("an extended header is malformed")]
    Extension,
    #[error("{entry}: entry type '{kind}' is not known")]
    Kind { entry: String, kind: char },
    #[error("bytes follow the end of the archive")]
    Trailing,
    #[error(transparent)]
    Sparse(#[from] SparseError),
}

impl Diagnostic for ArchiveError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Read(error) if error.raw_os_error().is_some() => io_diagnosis(error),
            Self::Read(_)
            | Self::Cut(_)
            | Self::HeaderChecksum
            | Self::Number { .. }
            | Self::NotUtf8(_)
            | Self::ExtensionTooLong(_)
            | Self::Extension
            | Self::Kind { .. }
            | Self::Trailing
            | Self::Sparse(_) => Class::Invalid.no_hint(),
        }
    }
}

/// Type of a tar entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TarKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, as the archive states it; nothing of it is checked but that it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    pub path: String,
    pub kind: TarKind,
    /// Bytes of content that follow; 0 for all but files.
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub owner: String,
    pub group: String,
    pub mtime: i64,
    pub link: String,
    pub device: (u32, u32),
    /// PAX records, without those that the fields above come from.
    pub pax: BTreeMap<String, Vec<u8>>,
}

/// Reads entries one after the other. Content is read through [`Read`] until the next entry is asked for.
pub struct TarReader<R> {
    source: R,
    /// Content of the current entry that is not read yet, and the padding after it.
    content: u64,
    padding: u64,
    /// A tar may end without its two zero blocks: those of apk's signature and control members do.
    ended: bool,
    /// Whether sparse files are understood. apk knows none: in a package they are what they are to it.
    takes_sparse: bool,
    /// Where the content of the current entry belongs, if that is sparse.
    sparse: Option<SparseMap>,
}

impl<R: Read> TarReader<R> {
    pub fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0, ended: false, takes_sparse: false, sparse: None }
    }

    /// A reader that understands sparse files: [`TarReader::read_whole`] gives their bytes.
    pub fn with_sparse(source: R) -> Self {
        Self { takes_sparse: true, ..Self::new(source) }
    }

    /// All bytes of the current entry, a sparse file's holes as zeros.
    pub fn read_whole(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        match self.sparse.take() {
            Some(map) => map.expand(self).read_to_end(&mut bytes)?,
            None => self.read_to_end(&mut bytes)?,
        };
        Ok(bytes)
    }

    /// The next entry; what is left of the one before is skipped. Anything but zeros behind the end is an error.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, ArchiveError> {
        let mut extension = Extension::default();
        self.sparse = None;
        loop {
            let Some(header) = self.next_header()? else { return Ok(None) };
            let size = extension.size(number(&header[124..136], "header", "size")?)?;
            match header[156] {
                b'x' => extension.read_pax(&self.extension_body(size)?, self.takes_sparse)?,
                b'g' => drop(self.extension_body(size)?),
                b'L' => extension.long_name = Some(text(&self.extension_body(size)?)?),
                b'K' => extension.long_link = Some(text(&self.extension_body(size)?)?),
                b'S' if self.takes_sparse => {
                    let map = SparseMap::of_header(&header, || self.table())?;
                    let mut header = header;
                    header[156] = b'0';
                    let entry = extension.entry(&header, size)?;
                    self.expect_content(size);
                    return self.as_sparse(entry, map).map(Some);
                }
                _ => {
                    let records = std::mem::take(&mut extension.sparse);
                    let entry = extension.entry(&header, size)?;
                    self.expect_content(entry.size);
                    return self.by_records(entry, records).map(Some);
                }
            }
        }
    }

    /// Further pieces of a sparse file, which follow its header.
    fn table(&mut self) -> Result<[u8; BLOCK], ArchiveError> {
        let mut block = [0; BLOCK];
        let filled = fill(&mut self.source, &mut block)?;
        if filled == BLOCK { Ok(block) } else { Err(ArchiveError::Cut("a header")) }
    }

    fn as_sparse(&mut self, mut entry: TarEntry, map: SparseMap) -> Result<TarEntry, ArchiveError> {
        map.fits(self.content)?;
        entry.size = map.size;
        self.sparse = Some(map);
        Ok(entry)
    }

    /// The entry as its records of a sparse file have it.
    fn by_records(
        &mut self,
        mut entry: TarEntry,
        records: Option<SparseRecords>,
    ) -> Result<TarEntry, ArchiveError> {
        let Some(records) = records.filter(|_| entry.kind == TarKind::File) else { return Ok(entry) };
        let map = match records.form(entry.size)? {
            SparseForm::Plain => return Ok(entry),
            SparseForm::Map(map) => map,
            SparseForm::InContent { size } => SparseMap::of_content(size, self)?.0,
        };
        if let Some(name) = &records.name {
            entry.path = text(name)?;
        }
        self.as_sparse(entry, map)
    }

    fn expect_content(&mut self, size: u64) {
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn next_header(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let left = self.content + self.padding;
        self.content = 0;
        self.padding = 0;
        if io::copy(&mut (&mut self.source).take(left), &mut io::sink())? != left {
            return Err(ArchiveError::Cut("an entry"));
        }
        let mut block = [0; BLOCK];
        match fill(&mut self.source, &mut block)? {
            0 => {
                self.ended = true;
                return Ok(None);
            }
            BLOCK => {}
            _ => return Err(ArchiveError::Cut("a header")),
        }
        if block.iter().all(|b| *b == 0) {
            self.ended = true;
            self.only_zeros()?;
            return Ok(None);
        }
        if has_right_sum(&block) == Ok(true) { Ok(Some(block)) } else { Err(ArchiveError::HeaderChecksum) }
    }

    fn only_zeros(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = [0; 4096];
        loop {
            match self.source.read(&mut buffer)? {
                0 => return Ok(()),
                n if buffer[..n].iter().all(|b| *b == 0) => {}
                _ => return Err(ArchiveError::Trailing),
            }
        }
    }

    fn extension_body(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            return Err(ArchiveError::ExtensionTooLong(size));
        }
        self.expect_content(size);
        let mut body = Vec::new();
        self.read_to_end(&mut body)?;
        if body.len() as u64 == size { Ok(body) } else { Err(ArchiveError::Cut("an extended header")) }
    }
}

impl<'b> TarReader<&'b [u8]> {
    /// The whole content of the entry that was just read; it need not be copied out.
    pub fn content(&self) -> Result<&'b [u8], ArchiveError> {
        let size = usize::try_from(self.content).unwrap_or(usize::MAX);
        self.source.get(..size).ok_or(ArchiveError::Cut("a file"))
    }
}

/// What of the current entry lies in the source's own buffer need not be copied out.
impl<R: BufRead> BufRead for TarReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let wanted = usize::try_from(self.content).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Ok(&[]);
        }
        let bytes = self.source.fill_buf()?;
        if bytes.is_empty() {
            return Err(cut_file());
        }
        Ok(&bytes[..wanted.min(bytes.len())])
    }

    fn consume(&mut self, count: usize) {
        self.content -= count as u64;
        self.source.consume(count);
    }
}

fn cut_file() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file")
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.source.read(&mut buffer[..wanted])?;
        if got == 0 {
            return Err(cut_file());
        }
        self.content -= got as u64;
        Ok(got)
    }
}

fn number(field: &[u8], entry: &str, name: &'static str) -> Result<u64, ArchiveError> {
    tar::number(field).map_err(|_| ArchiveError::Number { entry: entry.to_owned(), field: name })
}

fn text(bytes: &[u8]) -> Result<String, ArchiveError> {
    let bytes = until_nul(bytes);
    String::from_utf8(bytes.to_vec())
        .map_err(|_| ArchiveError::NotUtf8(String::from_utf8_lossy(bytes).into_owned()))
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extension {
    pax: BTreeMap<String, Vec<u8>>,
    sparse: Option<SparseRecords>,
    long_name: Option<String>,
    long_link: Option<String>,
}

impl Extension {
    fn read_pax(&mut self, body: &[u8], takes_sparse: bool) -> Result<(), ArchiveError> {
        let mut rest = body;
        while !rest.is_empty() {
            let (key, value, after) = pax_record(rest).ok_or(ArchiveError::Extension)?;
            if !(takes_sparse && self.sparse.get_or_insert_default().take(key, value)?) {
                self.pax.insert(key.to_owned(), value.to_vec());
            }
            rest = after;
        }
        Ok(())
    }

    fn take_text(&mut self, key: &str) -> Result<Option<String>, ArchiveError> {
        let Some(value) = self.pax.remove(key) else { return Ok(None) };
        String::from_utf8(value)
            .map(Some)
            .map_err(|error| ArchiveError::NotUtf8(String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn take_number(&mut self, key: &'static str) -> Result<Option<u64>, ArchiveError> {
        let Some(text) = self.take_text(key)? else { return Ok(None) };
        // Times may have a fraction, which no file system here needs.
        let whole = text.split('.').next().unwrap_or_default();
        whole.parse().map(Some).map_err(|_| ArchiveError::Number { entry: "header".into(), field: key })
    }

    fn size(&mut self, in_header: u64) -> Result<u64, ArchiveError> {
        let size = self.take_number("size")?.unwrap_or(in_header);
        // More than any file has; what is padded and added to it still fits.
        let fits = size <= i64::MAX.unsigned_abs();
        if fits { Ok(size) } else { Err(ArchiveError::Number { entry: "header".into(), field: "size" }) }
    }

    fn entry(mut self, header: &[u8; BLOCK], size: u64) -> Result<TarEntry, ArchiveError> {
        let is_ustar = header[257..263] == *b"ustar\0";
        let mut path = text(&header[..100])?;
        if is_ustar && header[345] != 0 {
            path = format!("{}/{path}", text(&header[345..500])?);
        }
        let path = match (self.take_text("path")?, self.long_name.take()) {
            (Some(path), _) | (None, Some(path)) => path,
            (None, None) => path,
        };
        let link = match (self.take_text("linkpath")?, self.long_link.take()) {
            (Some(link), _) | (None, Some(link)) => link,
            (None, None) => text(&header[157..257])?,
        };
        let kind = kind_of(header[156], &path)?;
        let narrow = |value: u64, field| {
            u32::try_from(value).map_err(|_| ArchiveError::Number { entry: path.clone(), field })
        };
        let field = |range: std::ops::Range<usize>, name| number(&header[range], &path, name);
        let uid = self.take_number("uid")?.map_or_else(|| field(108..116, "uid"), Ok)?;
        let gid = self.take_number("gid")?.map_or_else(|| field(116..124, "gid"), Ok)?;
        let mtime = self.take_number("mtime")?.map_or_else(|| field(136..148, "mtime"), Ok)?;
        let device = match kind {
            TarKind::CharDevice | TarKind::BlockDevice => {
                (field(329..337, "device")?, field(337..345, "device")?)
            }
            _ => (0, 0),
        };
        Ok(TarEntry {
            kind,
            size: if kind == TarKind::File { size } else { 0 },
            mode: narrow(field(100..108, "mode")?, "mode")?,
            uid: narrow(uid, "uid")?,
            gid: narrow(gid, "gid")?,
            owner: self.take_text("uname")?.map_or_else(|| text(&header[265..297]), Ok)?,
            group: self.take_text("gname")?.map_or_else(|| text(&header[297..329]), Ok)?,
            mtime: i64::try_from(mtime)
                .map_err(|_| ArchiveError::Number { entry: path.clone(), field: "mtime" })?,
            link,
            device: (narrow(device.0, "device")?, narrow(device.1, "device")?),
            pax: self.pax,
            path,
        })
    }
}

fn kind_of(flag: u8, path: &str) -> Result<TarKind, ArchiveError> {
    Ok(match flag {
        // Before ustar, a directory was a file whose name ends in a slash.
        0 | b'0' | b'7' if path.ends_with('/') => TarKind::Directory,
        0 | b'0' | b'7' => TarKind::File,
        b'1' => TarKind::HardLink,
        b'2' => TarKind::Symlink,
        b'3' => TarKind::CharDevice,
        b'4' => TarKind::BlockDevice,
        b'5' => TarKind::Directory,
        b'6' => TarKind::Fifo,
        other => {
            return Err(ArchiveError::Kind {
                entry: path.to_owned(),
                kind: other.escape_ascii().to_string().chars().next().unwrap_or('?'),
            });
        }
    })
}

impl TarEntry {
    /// A file of no bytes, owned by root, of the epoch.
    pub fn empty() -> Self {
        Self {
            path: String::new(),
            kind: TarKind::File,
            size: 0,
            mode: 0o644,
            uid: 0,
            gid: 0,
            owner: "root".into(),
            group: "root".into(),
            mtime: 0,
            link: String::new(),
            device: (0, 0),
            pax: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
