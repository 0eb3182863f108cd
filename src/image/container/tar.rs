//! Tars of layers, read as Go's `archive/tar` reads them, which Docker, Podman, skopeo and umoci share: V7, ustar, GNU and PAX;
//! sparse files in all forms; names of any bytes. What is no byte of a file can be recorded, as tar-split wants it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::apk::sparse::{SparseForm, SparseMap, SparseRecords};
use crate::apk::tar::{BLOCK, MAX_EXTENSION, fill, has_right_sum, number, pax_record, signed, until_nul};

/// An entry. `path` and `link` are bytes as they stand there.
#[derive(Debug)]
pub(super) struct Header {
    pub kind: EntryType,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// Bytes of the file; 0 for all but files.
    pub size: u64,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// From PAX records; values are raw bytes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Where the stored bytes of a sparse file belong.
    pub sparse: Option<SparseMap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryType {
    File,
    HardLink,
    Symlink,
    Device,
    Directory,
    Fifo,
    /// Records for the whole archive, which nobody reads.
    Global,
    Unknown(u8),
}

/// What a tar is read from.
pub(super) trait TarSource: Read {
    /// Passes over some bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()>
    where
        Self: Sized,
    {
        let mut passed = Read::by_ref(self).take(bytes);
        if io::copy(&mut passed, &mut io::sink())? == bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// Reads entries one after the other; the bytes of the current one through [`Read`], as they are stored.
pub(super) struct LayerReader<R> {
    source: R,
    /// What is not read yet of the current entry, and the padding after it.
    content: u64,
    padding: u64,
    /// What tar-split keeps: everything but the bytes of files, as far as [`LayerReader::take_raw`] has not taken it.
    raw: Vec<u8>,
    records: bool,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl<R: TarSource> LayerReader<R> {
    /// A reader that records nothing.
    pub fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0, raw: Vec::new(), records: false }
    }

    /// A reader that records what is no byte of a file.
    pub fn recording(source: R) -> Self {
        Self { records: true, ..Self::new(source) }
    }

    /// What was recorded since it was last asked for.
    pub fn take_raw(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.raw)
    }

    /// What follows the last entry; or where the content of the current one begins.
    pub fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// How many bytes are stored of the current entry and not read.
    pub fn stored(&self) -> u64 {
        self.content
    }

    /// The next entry; what was not read of the one before is skipped.
    pub fn next(&mut self) -> io::Result<Option<Header>> {
        self.skip()?;
        let mut extension = Extended::default();
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            let in_header = number(&block[124..136])?;
            match block[156] {
                b'x' => extension.read_pax(&self.body(in_header)?)?,
                b'L' => extension.long_path = Some(until_nul(&self.body(in_header)?).to_vec()),
                b'K' => extension.long_link = Some(until_nul(&self.body(in_header)?).to_vec()),
                b'g' => {
                    self.body(in_header)?;
                    return extension.entry(&block, EntryType::Global, 0).map(Some);
                }
                flag => return self.entry(flag, &block, in_header, extension).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        flag: u8,
        block: &[u8; BLOCK],
        in_header: u64,
        mut extension: Extended,
    ) -> io::Result<Header> {
        let kind = kind_of(flag);
        let stored = match kind {
            EntryType::File | EntryType::Unknown(_) => extension.size.unwrap_or(in_header),
            _ => 0,
        };
        if stored > i64::MAX.unsigned_abs() {
            return Err(wrong("a size is too large"));
        }
        let sparse = std::mem::take(&mut extension.sparse);
        let mut header = extension.entry(block, kind, stored)?;
        if flag == b'S' {
            let map = SparseMap::of_header(block, || -> io::Result<_> { self.block() })?;
            self.begin(stored);
            self.set_map(&mut header, map)?;
            return Ok(header);
        }
        self.begin(stored);
        // Before ustar, a directory was a file whose name ends in a slash.
        if kind == EntryType::File && header.path.ends_with(b"/") {
            io::copy(&mut Recorded(self), &mut io::sink())?;
            (header.kind, header.size) = (EntryType::Directory, 0);
        }
        if header.kind == EntryType::File {
            self.expand(&mut header, sparse)?;
        }
        Ok(header)
    }

    /// Takes what the records of a sparse file say into the header of its entry.
    fn expand(&mut self, header: &mut Header, sparse: SparseRecords) -> io::Result<()> {
        let map = match sparse.form(header.size)? {
            SparseForm::Plain => return Ok(()),
            SparseForm::Map(map) => map,
            SparseForm::InContent { size } => SparseMap::of_content(size, &mut Recorded(self))?.0,
        };
        if let Some(name) = sparse.name {
            header.path = name;
        }
        self.set_map(header, map)
    }

    fn set_map(&self, header: &mut Header, map: SparseMap) -> io::Result<()> {
        map.fits(self.content)?;
        header.size = map.size;
        header.sparse = Some(map);
        Ok(())
    }

    /// Reads what is stored of the current entry and records it, in pieces that `take` is given.
    pub fn record_content(&mut self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            take(&self.take_raw())?;
            if Recorded(self).read(&mut buffer)? == 0 {
                return Ok(());
            }
        }
    }

    fn begin(&mut self, size: u64) {
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// Skips what is left of the current entry; only its padding is recorded.
    fn skip(&mut self) -> io::Result<()> {
        self.source.skip(std::mem::take(&mut self.content))?;
        // The padding of a last file may be missing.
        let mut padding = vec![0; std::mem::take(&mut self.padding) as usize];
        let read = fill(&mut self.source, &mut padding)?;
        self.record(&padding[..read]);
        Ok(())
    }

    fn record(&mut self, bytes: &[u8]) {
        if self.records {
            self.raw.extend_from_slice(bytes);
        }
    }

    fn block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.source.read_exact(&mut block)?;
        self.record(&block);
        Ok(block)
    }

    /// A header; `None` at the end, which is a block of zeros or the end of the file.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let read = fill(&mut self.source, &mut block)?;
        self.record(&block[..read]);
        if read == 0 || block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if read < BLOCK {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !has_right_sum(&block)? {
            return Err(wrong("a header has a wrong checksum"));
        }
        Ok(Some(block))
    }

    /// The content of an extended header.
    fn body(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(wrong("an extended header has more than 1 MiB"));
        }
        let mut body = vec![0; size.next_multiple_of(BLOCK as u64) as usize];
        self.source.read_exact(&mut body)?;
        self.record(&body);
        body.truncate(size as usize);
        Ok(body)
    }
}

impl<R: TarSource> Read for LayerReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= read as u64;
        Ok(read)
    }
}

/// The content of an entry, recorded as it is read.
struct Recorded<'a, R>(&'a mut LayerReader<R>);

impl<R: TarSource> Read for Recorded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.0.record(&buffer[..read]);
        Ok(read)
    }
}

fn kind_of(flag: u8) -> EntryType {
    match flag {
        0 | b'0' | b'7' | b'S' => EntryType::File,
        b'1' => EntryType::HardLink,
        b'2' => EntryType::Symlink,
        b'3' | b'4' => EntryType::Device,
        b'5' => EntryType::Directory,
        b'6' => EntryType::Fifo,
        other => EntryType::Unknown(other),
    }
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extended {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: BTreeMap<String, Vec<u8>>,
    sparse: SparseRecords,
}

impl Extended {
    fn read_pax(&mut self, body: &[u8]) -> io::Result<()> {
        // A second header takes the place of the first.
        *self =
            Self { long_path: self.long_path.take(), long_link: self.long_link.take(), ..Self::default() };
        let mut rest = body;
        while !rest.is_empty() {
            let (key, value, after) =
                pax_record(rest).ok_or_else(|| wrong("an extended header is malformed"))?;
            self.take(key, value)?;
            rest = after;
        }
        Ok(())
    }

    fn take(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        if self.sparse.take(key, value)? {
            return Ok(());
        }
        let unreadable = || wrong(format!("the extended header {key:?} cannot be read"));
        let number = || -> io::Result<u64> {
            std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(unreadable)
        };
        // An empty value stands for that of the header.
        if value.is_empty() && !key.starts_with(XATTR) {
            return Ok(());
        }
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(number()?),
            "uid" => self.uid = Some(number()?),
            "gid" => self.gid = Some(number()?),
            "mtime" => self.mtime = Some(seconds(value).ok_or_else(unreadable)?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.insert(name.to_owned(), value.to_vec());
                }
            }
        }
        Ok(())
    }

    fn entry(self, block: &[u8; BLOCK], kind: EntryType, size: u64) -> io::Result<Header> {
        let mut path = until_nul(&block[..100]).to_vec();
        let prefix = until_nul(&block[345..500]);
        if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        Ok(Header {
            kind,
            path: self.long_path.or(self.path).unwrap_or(path),
            link: self.long_link.or(self.link).unwrap_or_else(|| until_nul(&block[157..257]).to_vec()),
            size,
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: self.uid.map_or_else(|| number(&block[108..116]), Ok)?,
            gid: self.gid.map_or_else(|| number(&block[116..124]), Ok)?,
            mtime: self.mtime.map_or_else(|| signed(&block[136..148]), Ok)?,
            xattrs: self.xattrs,
            sparse: None,
        })
    }
}

const XATTR: &str = "SCHILY.xattr.";

/// Whole seconds of a time such as `-1.5`: those before it.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let is_later = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    Some(seconds - i64::from(is_later))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_that_of_the_second_before_it() {
        assert_eq!(seconds(b"1700000000.9"), Some(1_700_000_000));
        assert_eq!(seconds(b"-1.5"), Some(-2));
        assert_eq!(seconds(b"-1.0"), Some(-1));
        assert_eq!(seconds(b"x"), None);
    }
}
