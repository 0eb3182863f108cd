//! Sparse files: where their data lie, and what they hash to without their holes being read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fstatfs};
use rustix::io::Errno;
use sha2::Digest;

use crate::base::{FileDigest, Sha256};

use super::fs::FileError;
use super::interrupt;

/// Blocks in which a file is looked at: a block of zeros counts as a hole.
const BLOCK: usize = 4096;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Bytes of a stream that are looked at together: those that are all zeros become a hole.
const PIECE: usize = 64 << 10;

/// Chunks below which another thread costs more than it saves.
const CHUNKS_A_THREAD: usize = 4;

/// Bytes that the kernel copies in one call, which no signal ends.
const AT_ONCE: usize = 64 << 20;

/// What the digest begins with, so that it is that of no file.
const PREFIX: &[u8] = b"sisforge sparse file 1\n";

/// The pieces of a file that its file system keeps data for, as offset and length, in their order. Where it knows no holes,
/// that is the whole file.
pub fn data_runs(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let size = file.metadata()?.len();
    let (mut runs, mut at) = (Vec::new(), 0);
    while at < size {
        let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(begin) if begin < size => begin,
            // No data behind; whoever has the file open may lengthen it meanwhile.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(begin))?.min(size);
        runs.push((begin, end - begin));
        at = end;
    }
    Ok(runs)
}

/// Asks for the blocks of what is about to be written, where that saves more than it costs: ext4 gives them at once, and counts each
/// page by itself otherwise. Nothing reads or looks otherwise for it; what lacks room is told before anything is written.
pub fn allocate(file: &File, begin: u64, length: u64) -> io::Result<()> {
    /// `EXT4_SUPER_MAGIC`. Memory would be cleared for it, and nothing is gained where blocks are given when they are written to the
    /// disk.
    const EXT4: u64 = 0xef53;
    if length == 0 || fstatfs(file).map_or(true, |stat| stat.f_type as u64 != EXT4) {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, begin, length) {
        Err(error) if is_no_room(error) => Err(error.into()),
        // Whatever forbids it, writing goes on without.
        _ => Ok(()),
    }
}

/// Whether a file cannot be written because there is no room for it, or it may not be so long.
pub fn is_no_room(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}

/// Digest and length of a file, by its bytes that are not zero: SHA-256 of the line `sisforge sparse file 1`, the length, and
/// of each block of 4096 bytes that is not all zeros its offset and its bytes, in order (numbers are 8 bytes, little-endian; the
/// last block is as long as it is). It follows from the bytes alone, not from where the file has holes, and a disk of gigabytes
/// that holds little takes milliseconds.
pub fn digest(path: &Path) -> Result<(FileDigest, u64), FileError> {
    let named = || FileError::when("read", path);
    let file = File::open(path).map_err(named())?;
    digest_open(&file).map_err(named())
}

fn digest_open(file: &File) -> io::Result<(FileDigest, u64)> {
    let size = file.metadata()?.len();
    let mut hasher = sha2::Sha256::new_with_prefix(PREFIX);
    hasher.update(size.to_le_bytes());
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    for (offset, length) in data_runs(file)? {
        // A run may begin within a block, of which the part before it is zeros.
        let mut at = (offset / BLOCK as u64 * BLOCK as u64).max(done);
        let end = (offset + length).next_multiple_of(BLOCK as u64).min(size);
        while at < end {
            let chunk = &mut buffer[..(end - at).min(CHUNK as u64) as usize];
            file.read_exact_at(chunk, at)?;
            for (index, block) in chunk.chunks(BLOCK).enumerate() {
                if !is_zero(block) {
                    hasher.update((at + (index * BLOCK) as u64).to_le_bytes());
                    hasher.update(block);
                }
            }
            at += chunk.len() as u64;
        }
        done = done.max(end);
    }
    Ok((FileDigest::Sparse(Sha256(hasher.finalize().into())), size))
}

/// Gives pieces of a file that are all zeros back to its disk, where its file system can; its bytes stay what they are. Whoever reads
/// it after that reads no zeros. All processors look.
pub fn dig_holes(file: &File) -> io::Result<()> {
    let end = |run: &(u64, u64)| run.0 + run.1;
    let pieces: Vec<(u64, u64)> = data_runs(file)?
        .iter()
        .flat_map(|run| {
            (run.0 / CHUNK as u64..end(run).div_ceil(CHUNK as u64)).map(move |chunk| {
                let (from, to) = (chunk * CHUNK as u64, (chunk + 1) * CHUNK as u64);
                (from.max(run.0), to.min(end(run)))
            })
        })
        .collect();
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        while let Some((from, to)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = &mut buffer[..(to - from) as usize];
            file.read_exact_at(bytes, *from)?;
            zeros(bytes).into_iter().for_each(|(at, length)| punch(file, from + at, length));
        }
        Ok(())
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..processors.min(pieces.len() / CHUNKS_A_THREAD)).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined =
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.fold(own, io::Result::and)
    })
}

/// Whether all bytes are zeros, compared in pieces of which the processor compares many bytes at once.
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|piece| piece == &ZEROS[..piece.len()])
}

/// Where so many bytes are all zeros, [`PIECE`] by `PIECE`, as offset and length.
fn zeros(bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (index, piece) in bytes.chunks(PIECE).enumerate() {
        if !is_zero(piece) {
            continue;
        }
        let (at, length) = ((index * PIECE) as u64, piece.len() as u64);
        match found.last_mut() {
            Some(before) if before.0 + before.1 == at => before.1 += length,
            _ => found.push((at, length)),
        }
    }
    found
}

fn punch(file: &File, at: u64, length: u64) {
    // Space is all that a failure costs.
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = fallocate(file, how, at, length);
}

/// Which side of a copy failed.
#[derive(Debug)]
pub enum StreamError {
    /// There were fewer bytes, or they could not be read.
    Read(io::Error),
    Write(io::Error),
}

/// Writes so many bytes of a stream into an empty file, with holes where they are zeros. Ends where this process is asked to end.
pub fn write_stream(from: &mut dyn Read, size: u64, to: &File) -> Result<(), StreamError> {
    to.set_len(size).map_err(StreamError::Write)?;
    let (mut piece, mut at) = (vec![0; PIECE], 0);
    while at < size {
        interrupt::check().map_err(StreamError::Read)?;
        let wanted = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        let part = &mut piece[..wanted];
        from.read_exact(part).map_err(StreamError::Read)?;
        if !is_zero(part) {
            to.write_all_at(part, at).map_err(StreamError::Write)?;
        }
        at += wanted as u64;
    }
    Ok(())
}

/// Copies a file into an empty one with the same holes. Where the file system can, both share their blocks; else the bytes
/// are copied in the kernel. Ends where this process is asked to end.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    copy_while(from, to, interrupt::check)
}

/// The same whatever this process is asked.
pub fn copy_to_the_end(from: &File, to: &File) -> io::Result<()> {
    copy_while(from, to, || Ok(()))
}

fn copy_while(from: &File, to: &File, go_on: impl Fn() -> io::Result<()>) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(from.metadata()?.len())?;
    for (offset, length) in data_runs(from)? {
        copy_run(from, to, (offset, length), &go_on)?;
    }
    Ok(())
}

fn copy_run(
    from: &File,
    to: &File,
    (offset, length): (u64, u64),
    go_on: &impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let end = offset + length;
    let (mut read, mut written) = (offset, offset);
    while written < end {
        go_on()?;
        let most = usize::try_from(end - written).unwrap_or(usize::MAX).min(AT_ONCE);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), most) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Between these two file systems the kernel does not copy.
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) if written == offset => {
                return copy_by_hand(from, to, (offset, end), go_on);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: &File,
    to: &File,
    (mut at, end): (u64, u64),
    go_on: &impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while at < end {
        go_on()?;
        let chunk = &mut buffer[..(end - at).min(CHUNK as u64) as usize];
        from.read_exact_at(chunk, at)?;
        to.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64, pieces: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        pieces.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
        file
    }

    #[test]
    fn a_digest_follows_from_the_bytes_and_not_from_the_holes() {
        let bytes = [7; 5000];
        let sparse = file(3 << 20, &[(70_000, &bytes), (2 << 20, b"x")]);
        let mut whole = vec![0; 3 << 20];
        whole[70_000..75_000].copy_from_slice(&bytes);
        whole[2 << 20] = b'x';
        let dense = file(3 << 20, &[(0, &whole)]);
        assert!(data_runs(&sparse).unwrap().len() > 1, "this file system keeps no holes");
        assert_eq!(data_runs(&dense).unwrap(), [(0, 3 << 20)]);
        assert_eq!(digest_open(&sparse).unwrap(), digest_open(&dense).unwrap());
    }

    #[test]
    fn a_digest_depends_on_every_byte_on_its_place_and_on_the_length() {
        let reference = digest_open(&file(1 << 20, &[(4096, b"x")])).unwrap();
        for other in [
            file(1 << 20, &[(4096, b"y")]),
            file(1 << 20, &[(4097, b"x")]),
            file(1 << 20, &[(8192, b"x")]),
            file(1 << 20, &[(4096, b"x"), ((1 << 20) - 1, b"x")]),
            file((1 << 20) + 1, &[(4096, b"x")]),
        ] {
            assert_ne!(reference, digest_open(&other).unwrap());
        }
    }

    #[test]
    fn the_digest_is_the_documented_one() {
        let mut text = b"sisforge sparse file 1\n".to_vec();
        text.extend(4099_u64.to_le_bytes());
        text.extend(4096_u64.to_le_bytes());
        text.extend(b"\0\0x");
        let expected = FileDigest::Sparse(Sha256::of(&text));
        assert_eq!(digest_open(&file(4099, &[(4098, b"x")])).unwrap(), (expected, 4099));
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        use std::os::unix::fs::MetadataExt;
        let from = file(1 << 30, &[(70_000, &[7; 5000]), (1 << 29, b"x"), ((1 << 30) - 1, b"y")]);
        let copies =
            [tempfile::tempfile().unwrap(), tempfile::tempfile_in("/dev/shm").unwrap(), file(1 << 30, &[])];
        copy(&from, &copies[0]).unwrap();
        // Another file system.
        copy(&from, &copies[1]).unwrap();
        for (offset, length) in data_runs(&from).unwrap() {
            copy_by_hand(&from, &copies[2], (offset, offset + length), &|| Ok(())).unwrap();
        }
        for copied in &copies {
            assert_eq!(digest_open(copied).unwrap(), digest_open(&from).unwrap());
            assert!(copied.metadata().unwrap().blocks() * 512 < 1 << 20, "the holes were filled");
        }
    }

    #[test]
    fn zeros_that_were_written_become_holes_and_nothing_else_does() {
        use std::os::unix::fs::MetadataExt;
        // Longer than what one thread takes at a time, and no whole number of blocks.
        let size = (9 << 20) + 5;
        let mut bytes = vec![0; size];
        for (at, length) in [(0, 1), (70_000, 5000), (3 << 20, 1 << 20), (size - 1, 1)] {
            bytes[at..at + length].fill(7);
        }
        let dense = file(0, &[(0, &bytes)]);
        dig_holes(&dense).unwrap();
        let mut after = vec![1; size];
        dense.read_exact_at(&mut after, 0).unwrap();
        assert!(after == bytes);
        assert!(dense.metadata().unwrap().blocks() * 512 < 2 << 20, "zeros take space");
    }

    #[test]
    fn gigabytes_of_nothing_are_not_read() {
        let huge = file(1 << 40, &[(1 << 39, b"x")]);
        let runs = data_runs(&huge).unwrap();
        assert!(runs.iter().map(|(_, length)| length).sum::<u64>() <= 1 << 16, "{runs:?}");
        digest_open(&huge).unwrap();
    }
}
