//! Sparse files in tars: where the bytes that an archive holds of a file belong, with zeros between them. All of GNU tar's forms
//! are read: the old one (type `S`), and those of PAX records, versions 0.0, 0.1 and 1.0.
//!
//! Follows GNU tar's manual (Appendix D, "Storing Sparse Files"), and Go's `archive/tar` where the manual is silent.

use std::borrow::Borrow;
use std::io::{self, Read};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::tar::{self, BLOCK};

/// Larger files are refused: ext4 has none.
const MOST_BYTES: u64 = 16 << 40;

/// Pieces of one file that are read: 16 MiB of memory.
const MOST_PIECES: usize = 1 << 20;

/// Prefix of the PAX records that say something of a sparse file.
const PREFIX: &str = "GNU.sparse.";

/// What is wrong with a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its sparse map {0}")]
pub struct SparseError(&'static str);

impl Diagnostic for SparseError {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

impl From<SparseError> for io::Error {
    fn from(error: SparseError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

const UNREADABLE: SparseError = SparseError("cannot be read");

/// Where the stored bytes of a file belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseMap {
    /// Bytes of the file, zeros counted.
    pub size: u64,
    /// Offset and length of each stored piece, in ascending order.
    pieces: Vec<(u64, u64)>,
}

impl SparseMap {
    /// Pieces must be in order, without overlapping, and within the file.
    pub fn new(size: u64, pieces: Vec<(u64, u64)>) -> Result<Self, SparseError> {
        let mut end = 0;
        for (offset, length) in &pieces {
            if *offset < end {
                return Err(SparseError("has pieces that are not in order"));
            }
            end = offset.checked_add(*length).ok_or(UNREADABLE)?;
        }
        if end > size || size > MOST_BYTES {
            return Err(SparseError("does not fit its size"));
        }
        Ok(Self { size, pieces })
    }

    /// How many bytes an archive holds of the file.
    pub fn stored(&self) -> u64 {
        self.pieces.iter().map(|(_, length)| length).sum()
    }

    /// Whether the archive holds just the bytes that belong somewhere.
    pub fn fits(&self, stored: u64) -> Result<(), SparseError> {
        if stored == self.stored() {
            Ok(())
        } else {
            Err(SparseError("does not fit the bytes that are stored"))
        }
    }

    /// The whole file: `stored` gives the bytes that the archive holds.
    pub fn expand<R: Read>(&self, stored: R) -> Expanded<&Self, R> {
        Expanded::new(self, stored)
    }

    /// The map of the old form: in the header, and in further blocks that `next` gives.
    pub fn of_header<E: From<SparseError>>(
        header: &[u8; BLOCK],
        mut next: impl FnMut() -> Result<[u8; BLOCK], E>,
    ) -> Result<Self, E> {
        let size = number(&header[483..495])?;
        let mut pieces = Vec::new();
        let mut goes_on = read_pieces(&header[386..482], &mut pieces)? && header[482] != 0;
        while goes_on {
            if pieces.len() > MOST_PIECES {
                return Err(SparseError("has too many pieces").into());
            }
            let block = next()?;
            goes_on = read_pieces(&block[..504], &mut pieces)? && block[504] != 0;
        }
        Ok(Self::new(size, pieces)?)
    }

    /// The map that stands before a file's bytes (version 1.0): decimal numbers, each on a line, in whole blocks. Gives how many
    /// bytes it takes, too.
    pub fn of_content(size: u64, content: &mut dyn Read) -> io::Result<(Self, u64)> {
        let mut lines = DecimalLines { content, block: Vec::new(), at: 0, taken: 0 };
        let count = lines.number()?;
        if count > MOST_PIECES as u64 {
            return Err(SparseError("has too many pieces").into());
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((lines.number()?, lines.number()?));
        }
        let taken = lines.taken;
        Ok((Self::new(size, pieces)?, taken))
    }
}

/// Adds the pieces of a header's table, as long as there are any; tells whether the table was full.
fn read_pieces(table: &[u8], pieces: &mut Vec<(u64, u64)>) -> Result<bool, SparseError> {
    for entry in table.chunks_exact(24) {
        if entry[0] == 0 {
            return Ok(false);
        }
        pieces.push((number(&entry[..12])?, number(&entry[12..])?));
    }
    Ok(true)
}

fn number(field: &[u8]) -> Result<u64, SparseError> {
    tar::number(field).map_err(|_| UNREADABLE)
}

/// Lines of decimal numbers in blocks.
struct DecimalLines<'a> {
    content: &'a mut dyn Read,
    block: Vec<u8>,
    at: usize,
    taken: u64,
}

impl DecimalLines<'_> {
    fn number(&mut self) -> io::Result<u64> {
        let wrong = || io::Error::from(UNREADABLE);
        let mut number = None;
        loop {
            if self.at == self.block.len() {
                self.block.resize(BLOCK, 0);
                self.content.read_exact(&mut self.block)?;
                (self.at, self.taken) = (0, self.taken + BLOCK as u64);
            }
            let byte = self.block[self.at];
            self.at += 1;
            number = match byte {
                b'\n' => return number.ok_or_else(wrong),
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    number.unwrap_or(0u64).checked_mul(10).and_then(|n| n.checked_add(digit))
                }
                _ => None,
            };
            if number.is_none() {
                return Err(wrong());
            }
        }
    }
}

/// What the PAX records of one file say of it, gathered as they come: version 0.0 repeats them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseRecords {
    major: Option<String>,
    minor: Option<String>,
    size: Option<String>,
    real_size: Option<String>,
    count: Option<String>,
    map: String,
    /// The file's real name: the entry has one of tar's making.
    pub name: Option<Vec<u8>>,
}

/// What a file is by its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SparseForm {
    /// Not sparse, or of a version that is not known.
    Plain,
    Map(SparseMap),
    /// The map stands before the bytes; `size` is that of the file.
    InContent {
        size: u64,
    },
}

impl SparseRecords {
    /// Takes a record, where it is one of these.
    pub fn take(&mut self, key: &str, value: &[u8]) -> Result<bool, SparseError> {
        let Some(key) = key.strip_prefix(PREFIX) else { return Ok(false) };
        if key == "name" {
            self.name = Some(value.to_vec());
            return Ok(true);
        }
        let value = std::str::from_utf8(value).map_err(|_| UNREADABLE)?;
        let text = || Some(value.to_owned());
        match key {
            "major" => self.major = text(),
            "minor" => self.minor = text(),
            "size" => self.size = text(),
            "realsize" => self.real_size = text(),
            "numblocks" => self.count = text(),
            "map" => value.clone_into(&mut self.map),
            "offset" | "numbytes" => {
                if self.map.len() > MOST_PIECES * 16 {
                    return Err(SparseError("has too many pieces"));
                }
                if !self.map.is_empty() {
                    self.map.push(',');
                }
                self.map.push_str(value);
            }
            _ => {}
        }
        Ok(true)
    }

    /// What they say together of a file whose header gives it `stored` bytes.
    pub fn form(&self, stored: u64) -> Result<SparseForm, SparseError> {
        let decimal = |text: &str| text.parse::<u64>().map_err(|_| UNREADABLE);
        let size = self.size.as_deref().or(self.real_size.as_deref()).map_or(Ok(stored), decimal)?;
        match (self.major.as_deref(), self.minor.as_deref()) {
            (Some("1"), Some("0")) => return Ok(SparseForm::InContent { size }),
            (Some("0"), Some("0" | "1")) => {}
            (None, None) if !self.map.is_empty() => {}
            _ => return Ok(SparseForm::Plain),
        }
        let numbers: Vec<u64> =
            self.map.split(',').filter(|text| !text.is_empty()).map(decimal).collect::<Result<_, _>>()?;
        let pairs = numbers.chunks_exact(2);
        let count = self.count.as_deref().map_or(Ok(pairs.len() as u64), decimal)?;
        if !pairs.remainder().is_empty() || count != pairs.len() as u64 {
            return Err(SparseError("has a different number of pieces than it says"));
        }
        SparseMap::new(size, pairs.map(|pair| (pair[0], pair[1])).collect()).map(SparseForm::Map)
    }
}

/// The bytes of a sparse file, its holes as zeros.
pub struct Expanded<M, R> {
    stored: R,
    map: M,
    /// The piece that is read, or comes next.
    piece: usize,
    /// Bytes given so far.
    at: u64,
}

impl<M: Borrow<SparseMap>, R: Read> Expanded<M, R> {
    /// The file that `map` makes of what `stored` gives.
    pub fn new(map: M, stored: R) -> Self {
        Self { stored, map, piece: 0, at: 0 }
    }
}

impl<M: Borrow<SparseMap>, R: Read> Read for Expanded<M, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let map = self.map.borrow();
        while map.pieces.get(self.piece).is_some_and(|(offset, length)| self.at >= offset + length) {
            self.piece += 1;
        }
        let (start, end) = match map.pieces.get(self.piece) {
            Some((offset, length)) => (*offset, offset + length),
            None => (map.size, map.size),
        };
        let until = if self.at < start { start } else { end };
        let most = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = if self.at < start {
            buffer[..most].fill(0);
            most
        } else {
            match self.stored.read(&mut buffer[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(map: &SparseMap, stored: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        map.expand(stored).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn holes_are_zeros() {
        let map = SparseMap::new(9, vec![(2, 3), (5, 0), (6, 1)]).unwrap();
        assert_eq!((expanded(&map, b"abcd"), map.stored()), (b"\0\0abc\0d\0\0".to_vec(), 4));
        assert_eq!(expanded(&SparseMap::new(3, vec![]).unwrap(), b""), [0; 3]);
        assert!(map.expand(&b"abc"[..]).read_to_end(&mut Vec::new()).is_err(), "it is truncated");
    }

    #[test]
    fn pieces_stand_in_order_and_within_the_file() {
        for (size, pieces) in
            [(9, vec![(2, 3), (4, 1)]), (9, vec![(8, 2)]), (9, vec![(u64::MAX, 2)]), (MOST_BYTES + 1, vec![])]
        {
            assert!(SparseMap::new(size, pieces.clone()).is_err(), "{size} {pieces:?}");
        }
    }

    #[test]
    fn records_of_each_version_are_understood() {
        let form = |records: &[(&str, &str)]| {
            let mut all = SparseRecords::default();
            for (key, value) in records {
                assert!(all.take(key, value.as_bytes()).unwrap());
            }
            all.form(4)
        };
        let map = || SparseForm::Map(SparseMap::new(9, vec![(2, 3), (6, 1)]).unwrap());
        let version_0_0 = [
            ("GNU.sparse.size", "9"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "2"),
            ("GNU.sparse.numbytes", "3"),
            ("GNU.sparse.offset", "6"),
            ("GNU.sparse.numbytes", "1"),
        ];
        assert_eq!(form(&version_0_0), Ok(map()));
        let version_0_1 =
            [("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "2,3,6,1")];
        assert_eq!(form(&version_0_1), Ok(map()));
        let version_1_0 =
            [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")];
        assert_eq!(form(&version_1_0), Ok(SparseForm::InContent { size: 9 }));
        assert_eq!(form(&[("GNU.sparse.major", "2")]), Ok(SparseForm::Plain));
        assert!(form(&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "2,3,6")]).is_err());
        assert!(!SparseRecords::default().take("path", b"x").unwrap());
    }

    #[test]
    fn a_map_before_the_bytes_takes_whole_blocks() {
        let mut content = b"2\n2\n3\n6\n1\n".to_vec();
        content.resize(512, 0);
        content.extend(b"abcd");
        let mut rest = &content[..];
        let (map, taken) = SparseMap::of_content(9, &mut rest).unwrap();
        assert_eq!((expanded(&map, rest), taken), (b"\0\0abc\0d\0\0".to_vec(), 512));
        for wrong in ["", "x\n", "\n", "1\n2\n", "9999999999\n"] {
            let mut content = wrong.as_bytes().to_vec();
            content.resize(512, 0);
            assert!(SparseMap::of_content(9, &mut &content[..]).is_err(), "{wrong:?}");
        }
    }
}
