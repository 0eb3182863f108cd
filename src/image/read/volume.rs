//! The ext4 file system in a file, read without trust: every number of it is held against what the file can hold.
//!
//! `mkext4`'s reader decodes structures and checks their sums. What it follows without end on a forged image is followed
//! here: extent trees, and sizes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use mkext4::Error;
use mkext4::reader::{FileExtent, Fs};
use mkext4::spec::{
    self, BLOCK_SIZE, BLOCKS_PER_GROUP, DirentIter, Extent, ExtentHeader, ExtentIdx, Inode, JOURNAL_INO,
    Superblock, XattrEntry,
};

use super::{Flaw, ReadError, directory};

/// Bytes of a block.
const BLOCK: u64 = BLOCK_SIZE as u64;

/// Most pieces that one file may lie in: what is written in one go has a piece for each 128 MiB.
const MAX_EXTENTS: usize = 1 << 20;

/// Levels below the root of an extent tree (`EXT4_MAX_EXTENT_DEPTH`).
const MAX_DEPTH: u16 = 5;

/// An ext4 file system in a file, opened for reading.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    file: File,
    fs: Fs<File>,
    /// Bytes of the whole file.
    length: u64,
}

/// What a file system says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct VolumeInfo {
    pub label: String,
    /// As `8-4-4-4-12` hexadecimal digits.
    pub uuid: String,
    /// Bytes of the file system.
    pub size: u64,
    /// Bytes that nothing uses.
    pub free: u64,
    /// Bytes of the file that are on disk; the rest are holes.
    pub allocated: u64,
    /// Bytes of the journal; 0 without one.
    pub journal: u64,
    pub inodes: u32,
    pub free_inodes: u32,
}

impl Volume {
    /// Opens the file system in a file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |flaw| ReadError { image: path.to_owned(), flaw };
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (meta, file) = opened.map_err(|error| failed(Flaw::Open(error)))?;
        if meta.is_dir() {
            return Err(failed(Flaw::NotExt4("it is a directory".into())));
        }
        let length = meta.len();
        check_superblock(&file, length).map_err(failed)?;
        let again = file.try_clone().map_err(|error| failed(Flaw::Open(error)))?;
        let fs = Fs::open(again).map_err(|error| failed(Flaw::not_ext4(error)))?;
        let volume = Self { path: path.to_owned(), file, fs, length };
        volume.check_groups().map_err(failed)?;
        Ok(volume)
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about this file system.
    pub(super) fn error(&self, flaw: Flaw) -> ReadError {
        ReadError { image: self.path.clone(), flaw }
    }

    /// Its label; empty without one.
    pub fn label(&self) -> String {
        label_of(self.fs.superblock())
    }

    /// What it says of itself.
    pub fn facts(&self) -> Result<VolumeInfo, ReadError> {
        let superblock = self.fs.superblock();
        let has_journal = superblock.feature_compat & spec::compat::HAS_JOURNAL != 0;
        let journal = if has_journal {
            self.fs.inode(JOURNAL_INO).map_err(|error| self.error(Flaw::at("the journal", error)))?.size
        } else {
            0
        };
        let meta = self.file.metadata().map_err(|error| self.error(Flaw::Open(error)))?;
        Ok(VolumeInfo {
            label: self.label(),
            uuid: crate::base::uuid_text(superblock.uuid),
            size: superblock.blocks_count * BLOCK,
            free: superblock.free_blocks_count.min(superblock.blocks_count) * BLOCK,
            allocated: crate::sys::fs::allocated(&meta),
            journal,
            inodes: superblock.inodes_count,
            free_inodes: superblock.free_inodes_count,
        })
    }

    /// Inode tables lie in the file, so that no later place overflows.
    fn check_groups(&self) -> Result<(), Flaw> {
        let blocks = self.fs.superblock().blocks_count;
        for group in 0..self.fs.superblock().group_count() {
            let descriptor = self.fs.group_desc(group).map_err(Flaw::not_ext4)?;
            if descriptor.inode_table >= blocks {
                return Err(Flaw::NotExt4(format!("the inodes of block group {group} are outside of it")));
            }
        }
        Ok(())
    }

    /// An inode, its checksum held.
    pub(super) fn inode(&self, number: u32) -> Result<Inode, Error> {
        self.fs.inode(number)
    }

    /// The attributes of an inode.
    pub(super) fn xattrs(&self, number: u32, inode: &Inode) -> Result<Vec<XattrEntry>, Error> {
        if inode.ibody.is_empty() && inode.file_acl == 0 { Ok(Vec::new()) } else { self.fs.xattrs(number) }
    }

    /// Calls `visit` with the inode number and the bytes of each name in a directory, `.` and `..` left out.
    pub(super) fn each_name<E: From<Error>>(
        &self,
        number: u32,
        inode: &Inode,
        mut visit: impl FnMut(u32, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let extents = self.extents(number, inode)?;
        let blocks = inode.size / BLOCK;
        let is_indexed = inode.flags & spec::iflags::INDEX != 0;
        let mut expected = 0;
        for extent in &extents {
            for index in 0..u64::from(extent.len) {
                let logical = u64::from(extent.logical) + index;
                if logical >= blocks {
                    break;
                }
                if logical != expected || extent.unwritten {
                    return Err(corrupt("directory", "it has a hole".into()).into());
                }
                expected += 1;
                let block = self.fs.read_block(extent.physical + index)?;
                if let Some(seed) = self.seed(number, inode)
                    && !directory::has_right_sum(seed, &block, is_indexed && logical == 0)
                {
                    let why = format!("the checksum of block {} is wrong", extent.physical + index);
                    return Err(corrupt("directory", why).into());
                }
                // Blocks of a hash tree's inner levels read as one unused record.
                for entry in DirentIter::new(&block) {
                    let entry = entry?;
                    if !matches!(entry.name, b"." | b"..") {
                        visit(entry.inode, entry.name)?;
                    }
                }
            }
        }
        if expected == blocks { Ok(()) } else { Err(corrupt("directory", "it is cut".into()).into()) }
    }

    /// What the checksums of an inode's own blocks begin with; `None` where the file system has no checksums.
    fn seed(&self, number: u32, inode: &Inode) -> Option<u32> {
        let has_sums = self.fs.superblock().feature_ro_compat & spec::ro_compat::METADATA_CSUM != 0;
        has_sums.then(|| mkext4::csum::inode_seed(self.fs.fs_seed(), number, inode.generation))
    }

    /// The target of a symlink.
    pub(super) fn target(&self, number: u32, inode: &Inode) -> Result<Vec<u8>, Error> {
        if let Some(target) = inode.fast_symlink_target() {
            return Ok(target.to_owned());
        }
        if inode.size >= BLOCK {
            return Err(corrupt("symlink", format!("its target has {} bytes", inode.size)));
        }
        let mut target = Vec::new();
        self.reader(number, inode)?.read_to_end(&mut target)?;
        Ok(target)
    }

    /// The bytes of a regular file, holes as the zeros that they are. One that claims more bytes than the whole image
    /// has is refused.
    pub fn bytes_of(&self, number: u32) -> Result<FileReader<'_>, ReadError> {
        let opened = self.inode(number).and_then(|inode| self.reader(number, &inode));
        opened.map_err(|error| self.error(Flaw::at(&format!("inode {number}"), error)))
    }

    fn reader(&self, number: u32, inode: &Inode) -> Result<FileReader<'_>, Error> {
        if inode.size > self.length {
            let why = format!("it claims {} bytes, more than the image has", inode.size);
            return Err(corrupt("file", why));
        }
        let extents = self.extents(number, inode)?;
        Ok(FileReader { file: &self.file, extents, next: 0, offset: 0, size: inode.size })
    }

    /// Where the blocks of a file lie, in order.
    fn extents(&self, number: u32, inode: &Inode) -> Result<Vec<FileExtent>, Error> {
        let Some(root) = inode.extent_root() else {
            return match inode.size {
                0 => Ok(Vec::new()),
                _ if inode.uses_extents() => Err(corrupt("extent tree", "it has no root".into())),
                _ => Err(Error::Unsupported("files without extents, as ext2 and ext3 have them".into())),
            };
        };
        let mut walk = ExtentWalk { volume: self, number, inode, found: Vec::new(), end: 0 };
        walk.node(root, None)?;
        Ok(walk.found)
    }
}

/// The bytes of the superblock in a file, and what they say. Nothing is checked but that it is one.
fn superblock(file: &File) -> Result<([u8; Superblock::LEN], Superblock), Flaw> {
    let mut bytes = [0; Superblock::LEN];
    if let Err(error) = file.read_exact_at(&mut bytes, 1024) {
        return Err(match (error.kind(), file.metadata()) {
            (io::ErrorKind::UnexpectedEof, Ok(meta)) => Flaw::NotExt4(format!("it has {} bytes", meta.len())),
            _ => Flaw::Open(error),
        });
    }
    let superblock = Superblock::decode(&bytes).map_err(Flaw::not_ext4)?;
    Ok((bytes, superblock))
}

fn label_of(superblock: &Superblock) -> String {
    let label = superblock.volume_name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(label).into_owned()
}

/// The label of the ext4 file system in a file, `None` where there is none. A guest may be writing the rest, and nothing of it is
/// followed.
pub fn label(file: &File) -> Option<String> {
    superblock(file).ok().map(|(_, superblock)| label_of(&superblock))
}

/// The UUID of the ext4 file system in a file, `None` where there is none.
pub fn uuid(file: &File) -> Option<[u8; 16]> {
    superblock(file).ok().map(|(_, superblock)| superblock.uuid)
}

/// Looks whether a file holds a whole ext4 file system, of any size of blocks: its superblock, its length, its features, its block
/// groups and its journal.
pub fn check_file_system(file: &File) -> Result<(), Flaw> {
    check_length(file)?;
    let file = file.try_clone().map_err(Flaw::Open)?;
    ext4_view::Ext4::load(Box::new(file)).map(drop).map_err(|error| Flaw::NotExt4(error.to_string()))
}

/// Looks whether a superblock is right, and its file is as long as it says.
fn check_length(file: &File) -> Result<(), Flaw> {
    let (bytes, superblock) = superblock(file)?;
    let wrong = |text: &str| Err(Flaw::NotExt4(text.to_owned()));
    let has_sums = superblock.feature_ro_compat & spec::ro_compat::METADATA_CSUM != 0;
    if has_sums && mkext4::csum::superblock(&bytes) != superblock.checksum {
        return wrong("the checksum of its superblock is wrong");
    }
    // Blocks of 64 KiB are the largest (`EXT4_MAX_BLOCK_LOG_SIZE`).
    if superblock.log_block_size > 6 || superblock.blocks_count == 0 {
        return wrong("the numbers in its superblock contradict each other");
    }
    let found = file.metadata().map_err(Flaw::Open)?.len();
    let expected = superblock.blocks_count.saturating_mul(1024 << superblock.log_block_size);
    if expected > found { Err(Flaw::Cut { expected, found }) } else { Ok(()) }
}

/// What the superblock must be like before anything is computed from it.
fn check_superblock(file: &File, length: u64) -> Result<(), Flaw> {
    let (_, superblock) = superblock(file)?;
    let wrong = |text: String| Err(Flaw::NotExt4(text));
    if superblock.log_block_size != 2 {
        return wrong(format!("its blocks are not of {BLOCK} bytes"));
    }
    let blocks = superblock.blocks_count;
    if superblock.first_data_block != 0 || superblock.blocks_per_group != BLOCKS_PER_GROUP || blocks == 0 {
        return wrong("the numbers in its superblock contradict each other".into());
    }
    let whole = blocks.checked_mul(BLOCK).filter(|whole| *whole <= length);
    let Some(_) = whole else {
        return Err(Flaw::Cut { expected: blocks.saturating_mul(BLOCK), found: length });
    };
    if superblock.feature_incompat & spec::incompat::RECOVER != 0 {
        return wrong("it was not unmounted; `e2fsck -p` repairs it".into());
    }
    Ok(())
}

/// Following one file's extent tree: each piece begins behind the one before it, so that a forged tree ends.
struct ExtentWalk<'a> {
    volume: &'a Volume,
    number: u32,
    inode: &'a Inode,
    found: Vec<FileExtent>,
    /// The first logical block behind all pieces so far.
    end: u64,
}

impl ExtentWalk<'_> {
    fn node(&mut self, node: &[u8], depth: Option<u16>) -> Result<(), Error> {
        let wrong = |why: String| Err(corrupt("extent tree", why));
        let header = ExtentHeader::decode(node)?;
        if header.depth > MAX_DEPTH || depth.is_some_and(|depth| depth != header.depth) {
            return wrong(format!("a depth of {}", header.depth));
        }
        let capacity = (node.len() - ExtentHeader::LEN) / ExtentHeader::ENTRY_LEN;
        let entries = usize::from(header.entries);
        // An empty leaf would add nothing, however often it is visited.
        if entries > capacity || (entries == 0 && depth.is_some()) {
            return wrong(format!("a node of {entries} entries"));
        }
        for entry in (0..entries).map(|index| spec::extent::entry(node, index)) {
            if header.depth == 0 {
                self.piece(Extent::decode(entry))?;
            } else {
                let block = ExtentIdx::decode(entry).leaf;
                let child = self.volume.fs.read_block(block)?;
                self.check_sum(&child, block)?;
                self.node(&child, Some(header.depth - 1))?;
            }
        }
        Ok(())
    }

    fn piece(&mut self, extent: Extent) -> Result<(), Error> {
        let (logical, length) = (u64::from(extent.logical), u64::from(extent.len()));
        let blocks = self.volume.fs.superblock().blocks_count;
        if extent.is_empty() || logical < self.end || extent.start + length > blocks {
            return Err(corrupt("extent tree", format!("an extent of {length} blocks at {}", extent.start)));
        }
        if self.found.len() == MAX_EXTENTS {
            return Err(corrupt("extent tree", format!("more than {MAX_EXTENTS} extents")));
        }
        self.end = logical + length;
        self.found.push(FileExtent {
            logical: extent.logical,
            physical: extent.start,
            len: extent.len(),
            unwritten: extent.is_unwritten(),
        });
        Ok(())
    }

    fn check_sum(&self, node: &[u8], block: u64) -> Result<(), Error> {
        let Some(seed) = self.volume.seed(self.number, self.inode) else { return Ok(()) };
        let wanted = mkext4::csum::extent_block(seed, node).to_le_bytes();
        if node.ends_with(&wanted) {
            Ok(())
        } else {
            Err(corrupt("extent tree", format!("the checksum of block {block} is wrong")))
        }
    }
}

fn corrupt(what: &'static str, why: String) -> Error {
    Error::Corrupt { what, why }
}

/// Reads one file of an image from its beginning.
pub struct FileReader<'a> {
    file: &'a File,
    extents: Vec<FileExtent>,
    /// The first piece that does not end before `offset`.
    next: usize,
    offset: u64,
    size: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = |extent: &FileExtent| u64::from(extent.logical) * BLOCK;
        let end = |extent: &FileExtent| start(extent) + u64::from(extent.len) * BLOCK;
        while self.extents.get(self.next).is_some_and(|extent| end(extent) <= self.offset) {
            self.next += 1;
        }
        let extent = self.extents.get(self.next);
        let covered = extent.filter(|extent| start(extent) <= self.offset);
        // Up to the end of the piece, of the hole before the next one, or of the file.
        let stop = match (covered, extent) {
            (Some(extent), _) => end(extent),
            (None, Some(extent)) => start(extent),
            (None, None) => self.size,
        };
        let left = stop.min(self.size) - self.offset;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = &mut buffer[..length];
        match covered.filter(|extent| !extent.unwritten) {
            Some(extent) => {
                let place = extent.physical * BLOCK + (self.offset - start(extent));
                self.file.read_exact_at(chunk, place)?;
            }
            None => chunk.fill(0),
        }
        self.offset += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 8 KiB whose superblock says that it has as many blocks of 1 KiB, and that it is called `home`.
    fn small(change: impl FnOnce(&mut [u8])) -> File {
        let mut bytes = vec![0; 8 << 10];
        let superblock = &mut bytes[1024..2048];
        superblock[4] = 8;
        superblock[0x38..0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        superblock[0x78..0x7c].copy_from_slice(b"home");
        change(superblock);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file
    }

    #[test]
    fn a_file_that_is_shorter_than_its_superblock_says_holds_no_file_system() {
        let good = small(|_| {});
        assert!(check_length(&good).is_ok());
        assert!(matches!(check_file_system(&good), Err(Flaw::NotExt4(_))), "there are no groups");
        assert_eq!(label(&good).as_deref(), Some("home"));
        good.set_len((8 << 10) - 1).unwrap();
        assert!(matches!(check_file_system(&good), Err(Flaw::Cut { expected: 8192, found: 8191 })));
        good.set_len(1500).unwrap();
        assert!(matches!(check_file_system(&good), Err(Flaw::NotExt4(_))));
        assert_eq!(label(&good), None);
        let changes: [fn(&mut [u8]); 4] = [
            |superblock| superblock[0x38] = 0,
            |superblock| superblock[0x18] = 7,
            |superblock| superblock[0x4] = 0,
            // It says that there are checksums.
            |superblock| superblock[0x65] = 4,
        ];
        for change in changes {
            assert!(matches!(check_file_system(&small(change)), Err(Flaw::NotExt4(_))));
        }
    }
}
