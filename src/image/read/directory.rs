//! Checksums of directory blocks (`ext4_dirblock_csum_verify` and `ext4_dx_csum_verify` of Linux).

use mkext4::csum;
use mkext4::spec::{self, BLOCK_SIZE};

/// What stands at the end of a block of names: a record without a name, whose last four bytes are the sum.
const TAIL: [u8; 8] = [0, 0, 0, 0, 12, 0, 0, 0xde];

/// Does a block of a directory agree with its checksum? `seed` is that of the directory's inode; `is_root` is said of the first
/// block of an indexed directory, which holds the root of its index.
pub(super) fn has_right_sum(seed: u32, block: &[u8], is_root: bool) -> bool {
    if is_root {
        return has_right_index_sum(seed, block, spec::htree::ROOT_COUNT_OFFSET);
    }
    // An inner level of an index begins with an unused record as long as the block; names leave room for their sum.
    let length = BLOCK_SIZE.to_le_bytes();
    if block.starts_with(&[0, 0, 0, 0, length[0], length[1]]) {
        return has_right_index_sum(seed, block, spec::htree::NODE_COUNT_OFFSET);
    }
    let [.., a, b, c, d] = block else { return false };
    let has_tail = block.len().checked_sub(12).is_some_and(|at| block[at..].starts_with(&TAIL));
    has_tail && csum::dirent_block(seed, block) == u32::from_le_bytes([*a, *b, *c, *d])
}

/// The same of a block of the index, whose limit, count and entries begin at `at`.
fn has_right_index_sum(seed: u32, block: &[u8], at: usize) -> bool {
    let Some([a, b, c, d]) = block.get(at..at + 4) else { return false };
    let (limit, count) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
    let tail = at + usize::from(limit) * 8;
    let Some([_, _, _, _, sum @ ..]) = block.get(tail..tail + 8) else { return false };
    count <= limit && csum::dx_block(seed, block, at, count, limit).to_le_bytes() == *sum
}
