//! Comparing what two readers give, without holding either.

use std::io::{self, Read};

use crate::apk::tar::fill;

/// Most bytes read at a time.
const CHUNK: u64 = 256 * 1024;

/// Which of two readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Whether two readers give the same bytes, and equally many. `expected` is about how many: it only decides how much is
/// read at a time.
pub fn same_bytes(
    mut left: &mut dyn Read,
    mut right: &mut dyn Read,
    expected: u64,
) -> Result<bool, (Side, io::Error)> {
    // One more than expected, so that one read sees the end of a small file.
    let chunk = usize::try_from(expected.saturating_add(1).min(CHUNK)).unwrap_or(1);
    let (mut a, mut b) = (vec![0; chunk], vec![0; chunk]);
    loop {
        let (from_left, from_right) = (fill(&mut left, &mut a), fill(&mut right, &mut b));
        let from_left = from_left.map_err(|error| (Side::Left, error))?;
        let from_right = from_right.map_err(|error| (Side::Right, error))?;
        if a[..from_left] != b[..from_right] {
            return Ok(false);
        }
        if from_left < chunk {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_the_same_to_their_ends() {
        let large = vec![7; (CHUNK as usize) * 2];
        let same = |a: &[u8], b: &[u8], expected| same_bytes(&mut &a[..], &mut &b[..], expected).unwrap();
        for expected in [0, 1, large.len() as u64, u64::MAX] {
            assert!(same(&large, &large, expected));
            assert!(!same(&large, &large[1..], expected));
            assert!(!same(b"", b"x", expected));
            assert!(same(b"", b"", expected));
            assert!(!same(b"ab", b"ax", expected));
        }
    }
}
