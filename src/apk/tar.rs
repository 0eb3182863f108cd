//! What all forms of tar have in common: blocks, number fields, checksums and PAX records.
//!
//! Follows POSIX.1-2024 `pax` and GNU tar's `tar.h`, and Go's `archive/tar` where these are silent.

use std::io::{self, Read};

/// Bytes of a header, and what content is padded to.
pub const BLOCK: usize = 512;

/// Larger PAX headers and GNU long names are refused, as Go does: room for several extended attributes of the kernel's 64 KiB.
pub const MAX_EXTENSION: u64 = 1 << 20;

/// Why a number field cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNumber {
    #[error("a number of a header cannot be read")]
    Unreadable,
    #[error("a number of a header is too large")]
    TooLarge,
    #[error("a header has a negative number")]
    Negative,
}

impl From<InvalidNumber> for io::Error {
    fn from(error: InvalidNumber) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Reads until a buffer is full or the source ends; gives how many bytes were read.
pub fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Sum of the bytes of a header, the checksum field counted as spaces.
pub fn sum(block: &[u8; BLOCK]) -> i64 {
    sum_of(block, i64::from)
}

fn sum_of(block: &[u8; BLOCK], value: fn(u8) -> i64) -> i64 {
    let all: i64 = block.iter().map(|b| value(*b)).sum();
    let field: i64 = block[148..156].iter().map(|b| value(*b)).sum();
    all - field + 8 * i64::from(b' ')
}

/// Whether a header's checksum is that of its bytes. Some programs have added bytes with a sign.
pub fn has_right_sum(block: &[u8; BLOCK]) -> Result<bool, InvalidNumber> {
    let stated = signed(&block[148..156])?;
    Ok([sum(block), sum_of(block, |b| i64::from(b as i8))].contains(&stated))
}

/// A field as of [`signed`]; negative numbers are refused.
pub fn number(field: &[u8]) -> Result<u64, InvalidNumber> {
    u64::try_from(signed(field)?).map_err(|_| InvalidNumber::Negative)
}

/// An octal field, spaces and zero bytes around it left out and 0 where nothing is left; or GNU's base-256, where the top bit is
/// set.
pub fn signed(field: &[u8]) -> Result<i64, InvalidNumber> {
    let shift = |n: i64, next: i64| n.checked_mul(256).map(|n| n | next).ok_or(InvalidNumber::TooLarge);
    if field[0] & 0x80 != 0 {
        // Two's complement, its first bit apart.
        let is_negative = field[0] & 0x40 != 0;
        let first = i64::from(field[0] & 0x7f) | if is_negative { !0x7f } else { 0 };
        return field[1..].iter().try_fold(first, |n, b| shift(n, i64::from(*b)));
    }
    let is_filling = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !is_filling(b)).unwrap_or(field.len());
    let digits = until_nul(&field[start..]);
    let end = digits.iter().rposition(|b| !is_filling(b)).map_or(0, |at| at + 1);
    digits[..end].iter().try_fold(0i64, |n, b| match b {
        b'0'..=b'7' => n.checked_mul(8).map(|n| n | i64::from(b - b'0')).ok_or(InvalidNumber::TooLarge),
        _ => Err(InvalidNumber::Unreadable),
    })
}

/// A text field: what stands before the first zero byte.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

/// The first PAX record, `<length> <key>=<value>\n`, the length counting the whole record: its key, its value, and what follows.
pub fn pax_record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = bytes.iter().take(12).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((std::str::from_utf8(&record[..equals]).ok()?, &record[equals + 1..], &bytes[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(signed(b"0000644\0"), Ok(0o644));
        assert_eq!(signed(b"   644 \0"), Ok(0o644));
        assert_eq!(signed(b"        "), Ok(0));
        assert_eq!(signed(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Ok(258));
        assert_eq!(signed(&[0xff; 12]), Ok(-1));
        assert_eq!(signed(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Ok(-2));
        assert_eq!(signed(b"000008\0\0"), Err(InvalidNumber::Unreadable));
        assert_eq!(signed(b"12 34\0\0\0"), Err(InvalidNumber::Unreadable));
        let large = [0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0];
        assert_eq!(signed(&large), Err(InvalidNumber::TooLarge));
        assert_eq!(number(&[0xff; 8]), Err(InvalidNumber::Negative));
    }

    #[test]
    fn bytes_of_a_header_are_added_with_a_sign_or_without() {
        let mut block = [0; BLOCK];
        block[0] = 0xff;
        for (sum, is_right) in [(0xff + 256, true), (256 - 1, true), (256, false)] {
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert_eq!(has_right_sum(&block), Ok(is_right), "{sum}");
        }
    }

    #[test]
    fn a_record_says_how_long_it_is() {
        assert_eq!(pax_record(b"9 a=b\nc\n\nrest"), Some(("a", &b"b\nc\n"[..], &b"rest"[..])));
        for cut in [&b"11 a=b\nc\n\n"[..], b"9 a=b\nc\nxx", b"6 ab\n\n", b"x a=b\n", b""] {
            assert_eq!(pax_record(cut), None, "{cut:?}");
        }
    }
}
