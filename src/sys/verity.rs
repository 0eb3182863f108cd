//! The digest that fs-verity gives a file: the root of a tree of digests, so that the leaves are hashed on all processors,
//! blocks that somebody knows are not read again, and holes cost nothing. Linux checks it page by page, where a file system
//! can and a file is sealed with it.
//!
//! Source followed: `Documentation/filesystems/fsverity.rst` of Linux, "Merkle tree" and "fs-verity descriptor", with SHA-256,
//! blocks of 4096 bytes, and no salt: the defaults of `fsverity digest`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};

use composefs_ioctls::fsverity::{EnableVerityError, fs_ioc_enable_verity, fs_ioc_measure_verity};

use crate::base::{FileDigest, Sha256};

use super::fs::FileError;
use super::sparse::{data_runs, is_zero};

/// Bytes of a block, of a file or of the tree.
pub const BLOCK: usize = 4096;

/// Digests in a block of the tree.
const ARITY: usize = BLOCK / 32;

/// Bytes of a file below one block of the tree.
const GROUP: u64 = (ARITY * BLOCK) as u64;

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u8 = 1;

/// The digests of a file's blocks, as far as somebody knows them already: whoever wrote them. By group, so that holes take no
/// memory.
pub struct KnownBlocks(Vec<OnceLock<Box<[OnceLock<Sha256>]>>>);

impl KnownBlocks {
    /// Of a file of `size` bytes, none of them known.
    pub fn none(size: u64) -> Self {
        Self((0..size.div_ceil(GROUP)).map(|_| OnceLock::new()).collect())
    }

    /// Notes what was written at an offset, which must be the beginning of a block. The rest of the last block is zeros.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let blocks = (offset / BLOCK as u64..).zip(bytes.chunks(BLOCK));
        blocks.for_each(|(index, block)| self.set(index, of_block(block)));
    }

    /// Notes the digest of a block.
    pub fn set(&self, index: u64, digest: Sha256) {
        let (group, block) = split(index);
        if let Some(group) = self.0.get(group) {
            let blocks = group.get_or_init(|| (0..ARITY).map(|_| OnceLock::new()).collect());
            // It is noted once: whoever writes a block writes all of it.
            let _ = blocks[block].set(digest);
        }
    }

    /// Groups of which a block is known.
    fn groups(&self) -> impl Iterator<Item = u64> {
        (0..).zip(&self.0).filter(|(_, blocks)| blocks.get().is_some()).map(|(group, _)| group)
    }

    /// The digest of a block, where it is known.
    pub fn get(&self, index: u64) -> Option<&Sha256> {
        let (group, block) = split(index);
        self.0.get(group)?.get()?[block].get()
    }
}

/// A block's group, and its place there.
fn split(index: u64) -> (usize, usize) {
    let arity = ARITY as u64;
    (usize::try_from(index / arity).unwrap_or(usize::MAX), (index % arity) as usize)
}

/// Digest and length of a file.
pub fn digest(path: &Path) -> Result<(FileDigest, u64), FileError> {
    let named = || FileError::when("read", path);
    let file = File::open(path).map_err(named())?;
    digest_of(&file, None).map_err(named())
}

/// The same of an open file. Blocks that are known are not read, and may be written later.
pub fn digest_of(file: &File, known: Option<&KnownBlocks>) -> io::Result<(FileDigest, u64)> {
    let size = file.metadata()?.len();
    let runs = data_runs(file)?;
    let with_data =
        runs.iter().flat_map(|(offset, length)| offset / GROUP..(offset + length).div_ceil(GROUP));
    let groups: BTreeSet<u64> = with_data.chain(known.into_iter().flat_map(KnownBlocks::groups)).collect();
    let groups: Vec<u64> = groups.into_iter().collect();
    let node = |buffer: &mut Vec<u8>, group: u64| {
        let leaves = leaves_of_group(&Unhashed { file, size, runs: &runs, known }, group, buffer)?;
        Ok((group, over(&leaves, size)))
    };
    let mut nodes = side_by_side(&groups, node)?;
    nodes.sort_unstable_by_key(|(group, _)| *group);
    Ok((of_root(size, root(nodes, size)), size))
}

/// Groups below which another thread costs more than it saves.
const GROUPS_A_THREAD: usize = 8;

/// Does the same for each group, on all processors, in any order. No thread outlives this, as one of a pool would in `watch`.
fn side_by_side(
    groups: &[u64],
    node: impl Fn(&mut Vec<u8>, u64) -> io::Result<(u64, Sha256)> + Sync,
) -> io::Result<Vec<(u64, Sha256)>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut buffer, mut nodes) = (Vec::new(), Vec::new());
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            nodes.push(node(&mut buffer, *group)?);
        }
        Ok::<_, io::Error>(nodes)
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let others = processors.min(groups.len() / GROUPS_A_THREAD).saturating_sub(1);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
        let mut nodes = work()?;
        for other in others {
            nodes.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(nodes)
    })
}

/// Digest of some bytes, as of a file that holds them.
pub fn digest_of_bytes(bytes: &[u8]) -> FileDigest {
    let size = bytes.len() as u64;
    let groups = (0..).zip(bytes.chunks(GROUP as usize));
    let nodes = groups.map(|(group, bytes)| (group, over(&leaves(bytes), size))).collect();
    of_root(size, root(nodes, size))
}

/// A file whose digest is to be taken.
struct Unhashed<'a> {
    file: &'a File,
    size: u64,
    /// Where it has data, in order.
    runs: &'a [(u64, u64)],
    known: Option<&'a KnownBlocks>,
}

/// Digests of the blocks of a group. Read are those that hold data and are not known.
fn leaves_of_group(of: &Unhashed<'_>, group: u64, buffer: &mut Vec<u8>) -> io::Result<Vec<Sha256>> {
    let block_size = BLOCK as u64;
    let (begin, end) = (group * GROUP, ((group + 1) * GROUP).min(of.size));
    let known = |block: &u64| of.known.and_then(|known| known.get(*block));
    let (first, hole) = (begin / block_size, of_block(&[]));
    let mut found: Vec<Sha256> =
        (first..end.div_ceil(block_size)).map(|block| known(&block).copied().unwrap_or(hole)).collect();
    let earlier = of.runs.partition_point(|(offset, length)| offset + length <= begin);
    for (offset, length) in of.runs[earlier..].iter().take_while(|(offset, _)| *offset < end) {
        let mut block = offset.max(&begin) / block_size;
        let last = (offset + length).min(end).div_ceil(block_size);
        while let Some(unknown) = (block..last).find(|block| known(block).is_none()) {
            block = (unknown..last).find(|block| known(block).is_some()).unwrap_or(last);
            buffer.resize(((block * block_size).min(end) - unknown * block_size) as usize, 0);
            of.file.read_exact_at(buffer, unknown * block_size)?;
            found.splice((unknown - first) as usize..(block - first) as usize, leaves(buffer));
        }
    }
    Ok(found)
}

fn leaves(bytes: &[u8]) -> Vec<Sha256> {
    bytes.chunks(BLOCK).map(of_block).collect()
}

/// Digest of a block of a file; what is short of one is filled up with zeros.
fn of_block(bytes: &[u8]) -> Sha256 {
    /// Memory and disks have many of them, and to compare one takes a tenth of the time of its digest.
    static ZEROS: LazyLock<Sha256> = LazyLock::new(|| Sha256::of([0; BLOCK]));
    if is_zero(bytes) {
        return *ZEROS;
    }
    if bytes.len() == BLOCK {
        return Sha256::of(bytes);
    }
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    Sha256::of(block)
}

/// The lowest block of the tree over the blocks of a group, in a file of that size: one that has a single block has no tree.
fn over(leaves: &[Sha256], size: u64) -> Sha256 {
    match leaves {
        [leaf] if size <= BLOCK as u64 => *leaf,
        leaves => parent(leaves),
    }
}

/// Digest of a block of the tree over so many digests, at most [`ARITY`].
fn parent(children: &[Sha256]) -> Sha256 {
    let mut block = [0; BLOCK];
    for (place, child) in block.chunks_exact_mut(32).zip(children) {
        place.copy_from_slice(&child.0);
    }
    Sha256::of(block)
}

/// The root of a tree, of whose lowest level those nodes are given that stand over data, in order. What stands over holes
/// alone is the same everywhere, but for the last node of a level, which may have fewer children.
fn root(mut level: Vec<(u64, Sha256)>, size: u64) -> Sha256 {
    let Some(last) = size.div_ceil(GROUP).checked_sub(1) else { return Sha256([0; 32]) };
    let hole = of_block(&[]);
    if level.last().is_none_or(|(group, _)| *group != last) {
        let blocks = (size - last * GROUP).div_ceil(BLOCK as u64) as usize;
        level.push((last, over(&vec![hole; blocks], size)));
    }
    let (mut count, mut hole) = (last + 1, parent(&[hole; ARITY]));
    while count > 1 {
        level = parents(&level, count, hole);
        (count, hole) = (count.div_ceil(ARITY as u64), parent(&[hole; ARITY]));
    }
    level[0].1
}

/// The next level over one of `count` nodes, of which those that are not given stand over holes.
fn parents(level: &[(u64, Sha256)], count: u64, hole: Sha256) -> Vec<(u64, Sha256)> {
    let of = |node: &(u64, Sha256)| node.0 / ARITY as u64;
    let siblings = level.chunk_by(|a, b| of(a) == of(b));
    let over = |siblings: &[(u64, Sha256)]| {
        let first = of(&siblings[0]) * ARITY as u64;
        let mut children = vec![hole; (count - first).min(ARITY as u64) as usize];
        siblings.iter().for_each(|(node, digest)| children[(node - first) as usize] = *digest);
        (of(&siblings[0]), parent(&children))
    };
    siblings.map(over).collect()
}

/// Digest of `struct fsverity_descriptor`: what the kernel calls the digest of the file.
fn of_root(size: u64, root: Sha256) -> FileDigest {
    // version, hash_algorithm, log_blocksize, salt_size, __le32, then __le64 data_size, root_hash[64], salt[32], reserved[144].
    let mut descriptor = [0; 256];
    descriptor[..3].copy_from_slice(&[1, SHA256, BLOCK.trailing_zeros() as u8]);
    descriptor[8..16].copy_from_slice(&size.to_le_bytes());
    descriptor[16..48].copy_from_slice(&root.0);
    FileDigest::Verity(Sha256::of(descriptor))
}

/// Seals a file, which nobody may have open for writing: the kernel keeps its tree beside it, refuses to write it, and checks
/// each page that it reads. `false` where its file system cannot.
pub fn enable(file: &File) -> io::Result<bool> {
    match fs_ioc_enable_verity(file, SHA256, BLOCK as u32) {
        Ok(()) | Err(EnableVerityError::AlreadyEnabled) => Ok(true),
        Err(EnableVerityError::FilesystemNotSupported) => Ok(false),
        Err(EnableVerityError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The digest that a file is sealed with; `None` where it is not.
pub fn measure(file: &File) -> Option<FileDigest> {
    // Whatever the reason why there is none: nobody vouches for the file.
    fs_ioc_measure_verity(file, SHA256).ok().map(|digest| FileDigest::Verity(Sha256(digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of zeros but for some bytes at some places, each as long as it is said.
    fn file(size: u64, data: &[(u64, usize)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (offset, length) in data {
            let bytes: Vec<u8> = (0..*length).map(|at| (at % 251) as u8 + 1).collect();
            file.write_all_at(&bytes, *offset).unwrap();
        }
        file
    }

    fn of(file: &File) -> String {
        digest_of(file, None).unwrap().0.to_string()
    }

    #[test]
    fn the_digest_is_the_one_that_fsverity_prints() {
        // `fsverity digest --compact` of fsverity-utils 1.5 on the same files.
        for (size, data, expected) in [
            (0, &[][..], "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
            (1, &[(0, 1)], "4af995a62686da554d03ce169687e48b993f81ce8af86799b9e6641164f2ab11"),
            (4096, &[(0, 4096)], "56ad1be6387408fbed81d670d092c1ff3eff217a638b9460dcb97f4fa8451aaa"),
            (4097, &[(0, 4097)], "43c594218df442d6a6858b74f01127cd593d0c1938aef155bc2e1aecbee69627"),
            (5000, &[], "4c7e6c75f1014377909ba4222b4a796bf40ce11e4d0990161ef7f4db9622cf9d"),
            (524288, &[(0, 524288)], "0a2d0a2bf27fb78f9a348f76485ac5ee86c9ed184db5751bd5cb812d62688ce8"),
            (524289, &[(0, 524289)], "dfac3e64e73fd53ee8247b71d8e71b04a759dc72043de31b4450d1d99df78ff5"),
            (1572869, &[(524295, 10)], "bed632108e40419b3119991dabbd8fc92dc5e7b1b4a952a917c20b24b1573652"),
            (
                64 << 20,
                &[(5, 3), ((40 << 20) + 123, 70000)],
                "845fa6bea06b0105f74128acb835e416925b1b0d271918cd34de5e7477e2f7af",
            ),
            (
                (1 << 30) + 4097,
                &[(1 << 29, 5), ((1 << 30) + 4096, 1)],
                "fa0b41d4d5ff7b2f9ce86a6509a98ffa3979c18c365c5fea2b08ccea3ed07024",
            ),
            (1 << 30, &[], "ec1faaf35eccc9b3486408c064d1a357e41825379fedfebe4c697df89f05d8db"),
        ] {
            assert_eq!(of(&file(size, data)), format!("verity-{expected}"), "{size} bytes with {data:?}");
        }
    }

    #[test]
    fn bytes_have_the_digest_of_a_file_that_holds_them() {
        for size in [0, 1, 4096, 4097, 524288, 524289, 2 << 20] {
            let bytes = vec![7; size];
            let dense = file(0, &[]);
            dense.write_all_at(&bytes, 0).unwrap();
            assert_eq!(digest_of_bytes(&bytes).to_string(), of(&dense), "{size} bytes");
        }
    }

    #[test]
    fn blocks_that_are_known_are_not_read() {
        let (size, data) = ((3 * GROUP) + 100, (GROUP - 8192, 20_000));
        let bytes: Vec<u8> = (0..data.1).map(|at| (at % 251) as u8 + 1).collect();
        let written = file(size, &[data]);
        let known = KnownBlocks::none(size);
        // The rest of the group has a hole, whose digest nobody noted.
        known.write(data.0, &bytes);
        assert_eq!(digest_of(&written, Some(&known)).unwrap(), digest_of(&written, None).unwrap());
        known.write(0, &vec![0; data.0 as usize]);
        let after = (data.0 + 20_000).next_multiple_of(4096);
        known.write(after, &vec![0; (2 * GROUP - after) as usize]);
        let other = file(size, &[(data.0, 1), (GROUP, 1)]);
        assert_eq!(digest_of(&other, Some(&known)).unwrap(), digest_of(&written, None).unwrap());
    }

    #[test]
    fn blocks_that_are_known_may_be_written_later() {
        let whole = file(2 * GROUP, &[(0, 100), (8192, 9000), (GROUP + 4096, 4096)]);
        let (part, known) = (file(2 * GROUP, &[(0, 100)]), KnownBlocks::none(2 * GROUP));
        for (offset, length) in [(8192, 9000), (GROUP + 4096, 4096)] {
            let bytes: Vec<u8> = (0..length).map(|at: usize| (at % 251) as u8 + 1).collect();
            known.write(offset, &bytes);
        }
        assert_eq!(digest_of(&part, Some(&known)).unwrap(), digest_of(&whole, None).unwrap());
    }

    #[test]
    fn terabytes_of_nothing_are_not_read() {
        let huge = file(1 << 43, &[(1 << 42, 1)]);
        assert_ne!(of(&huge), of(&file(1 << 43, &[])));
    }

    #[test]
    fn a_file_that_nobody_sealed_has_no_measure() {
        assert_eq!(measure(&file(5000, &[(0, 5000)])), None);
    }
}
