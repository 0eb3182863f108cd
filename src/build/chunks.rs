//! Files in pieces that are cut by their content: where one package of an image changed, and what lies behind it moved by blocks, most
//! pieces are still those of the image before.
//!
//! A piece is of blocks of 4096 bytes that are not all zeros, one behind the other. It ends with a block whose checksum says so, at
//! the latest after [`MOST`] of the fewest, and before a block of zeros: zeros are in no piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::sys::fs::FileError;
use crate::sys::sparse::data_runs;

const BLOCK: usize = 4096;

/// Fewest blocks of a piece of a small file, unless zeros end it: 64 KiB.
const FEWEST: u64 = 16;
/// By how much the longest piece is longer.
const MOST: u64 = 16;
/// So many more blocks, on the average, are in a piece of a small file than in the shortest.
const AVERAGE: u64 = 64;
/// Files from this size on are cut into larger pieces: a manifest lists them all, and registries take 4 MiB of it.
const SMALL_FILE: u64 = 1 << 30;

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// In bytes.
    pub offset: u64,
    pub length: usize,
}

impl Chunk {
    /// Its bytes.
    pub fn read(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// Longest piece of a file of a size.
pub fn longest(size: u64) -> u64 {
    FEWEST * MOST * BLOCK as u64 * scale(size)
}

/// A power of two.
fn scale(size: u64) -> u64 {
    size.div_ceil(SMALL_FILE).max(1).next_power_of_two()
}

/// Where the pieces of a file are, in order.
pub fn chunks(path: &Path) -> Result<Vec<Chunk>, FileError> {
    let named = || FileError::when("read", path);
    let file = File::open(path).map_err(named())?;
    cut(&file).map_err(named())
}

fn cut(file: &File) -> io::Result<Vec<Chunk>> {
    let size = file.metadata()?.len();
    let mut cutter = Cutter { scale: scale(size), open: None, done: Vec::new() };
    let mut buffer = vec![0; 256 * BLOCK];
    let mut done = 0;
    for (offset, length) in data_runs(file)? {
        // A run may begin within a block, of which the part before it is zeros.
        let mut at = (offset / BLOCK as u64 * BLOCK as u64).max(done);
        let end = (offset + length).next_multiple_of(BLOCK as u64).min(size);
        while at < end {
            let part = &mut buffer[..(end - at).min(256 * BLOCK as u64) as usize];
            file.read_exact_at(part, at)?;
            for (index, block) in part.chunks(BLOCK).enumerate() {
                cutter.add(at + (index * BLOCK) as u64, block);
            }
            at += part.len() as u64;
        }
        done = done.max(end);
    }
    cutter.end();
    Ok(cutter.done)
}

struct Cutter {
    scale: u64,
    open: Option<Chunk>,
    done: Vec<Chunk>,
}

impl Cutter {
    fn add(&mut self, offset: u64, block: &[u8]) {
        if self.open.is_some_and(|open| open.offset + open.length as u64 != offset) {
            self.end();
        }
        if block.iter().all(|byte| *byte == 0) {
            return self.end();
        }
        let open = self.open.get_or_insert(Chunk { offset, length: 0 });
        open.length += block.len();
        let blocks = open.length.div_ceil(BLOCK) as u64;
        let (fewest, most) = (FEWEST * self.scale, FEWEST * MOST * self.scale);
        let says_so = || u64::from(libdeflater::crc32(block)).is_multiple_of(AVERAGE * self.scale);
        if blocks >= most || (blocks >= fewest && says_so()) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.done.extend(self.open.take());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Blocks that differ from each other.
    fn blocks(count: u64, of: u64) -> Vec<u8> {
        let block = |number: u64| {
            let mut state = (of << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            std::iter::repeat_with(move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 56) as u8 | 1
            })
            .take(BLOCK)
        };
        (0..count).flat_map(block).collect()
    }

    fn pieces(bytes: &[u8]) -> Vec<Vec<u8>> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        cut(&file).unwrap().iter().map(|chunk| chunk.read(&file).unwrap()).collect()
    }

    #[test]
    fn what_moved_by_blocks_is_in_the_same_pieces() {
        let before = blocks(4000, 1);
        let after = [&blocks(3, 2), &before[..500 * BLOCK], &blocks(7, 3), &before[500 * BLOCK..]].concat();
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (pieces(&before).into_iter().collect(), pieces(&after).into_iter().collect());
        assert!(old.len() > 20, "{}", old.len());
        assert!(new.difference(&old).count() <= 6, "{} of {}", new.difference(&old).count(), new.len());
        assert!(new.iter().all(|piece| piece.len() as u64 <= longest(after.len() as u64)));
    }

    #[test]
    fn pieces_are_all_that_is_not_zero_whatever_holes_a_file_has() {
        let mut bytes = blocks(40, 1);
        bytes[5 * BLOCK..9 * BLOCK].fill(0);
        bytes.extend(b"end");
        let dense = tempfile::tempfile().unwrap();
        dense.write_all_at(&bytes, 0).unwrap();
        let sparse = tempfile::tempfile().unwrap();
        sparse.set_len(bytes.len() as u64).unwrap();
        sparse.write_all_at(&bytes[..5 * BLOCK], 0).unwrap();
        sparse.write_all_at(&bytes[9 * BLOCK..], 9 * BLOCK as u64).unwrap();
        let found = cut(&sparse).unwrap();
        assert_eq!(found, cut(&dense).unwrap());
        let mut whole = vec![0; bytes.len()];
        for chunk in found {
            let at = chunk.offset as usize;
            whole[at..at + chunk.length].copy_from_slice(&chunk.read(&sparse).unwrap());
        }
        assert_eq!(whole, bytes);
    }
}
