//! gzip members, one by one: what apk hashes and signs are compressed members, whose ends only inflating finds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

/// Why a member cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    #[error("it is not gzip, or it is damaged: {0}")]
    Damaged(io::Error),
    #[error("it inflates to more than {0} bytes")]
    TooLarge(u64),
}

/// The first member of a file.
pub struct Member<'a> {
    /// As it stands in the file.
    pub compressed: &'a [u8],
    pub inflated: Vec<u8>,
    /// What follows it.
    pub rest: &'a [u8],
}

/// Inflates the first member, to at most `limit` bytes.
pub fn first_member(bytes: &[u8], limit: u64) -> Result<Member<'_>, GzipError> {
    let mut decoder = GzDecoder::new(bytes);
    // Text, which is most of what is held in memory, is packed to about a quarter.
    let likely = (bytes.len() as u64).saturating_mul(4).min(limit);
    let mut inflated = Vec::with_capacity(usize::try_from(likely).unwrap_or(0));
    (&mut decoder).take(limit + 1).read_to_end(&mut inflated).map_err(GzipError::Damaged)?;
    if inflated.len() as u64 > limit {
        return Err(GzipError::TooLarge(limit));
    }
    let rest = decoder.into_inner();
    Ok(Member { compressed: &bytes[..bytes.len() - rest.len()], inflated, rest })
}

/// Bytes that are inflated at a time: they stay in a processor's cache.
const PIECE: usize = 256 * 1024;

/// Inflates one member as it is read; more than `limit` bytes, or anything after the member, is an error.
pub struct MemberReader<R> {
    decoder: GzDecoder<R>,
    left: u64,
}

impl<R: BufRead> MemberReader<R> {
    pub fn new(source: R, limit: u64) -> Self {
        Self { decoder: GzDecoder::new(source), left: limit }
    }

    /// The same, inflated in large pieces, which is faster, however little is read at a time.
    pub fn buffered(source: R, limit: u64) -> BufReader<Self> {
        BufReader::with_capacity(PIECE, Self::new(source, limit))
    }
}

impl<R: BufRead> Read for MemberReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.decoder.read(buffer)?;
        if got == 0 && !buffer.is_empty() && !self.decoder.get_mut().fill_buf()?.is_empty() {
            return Err(io::Error::other("bytes follow its end"));
        }
        self.left = self
            .left
            .checked_sub(got as u64)
            .ok_or_else(|| io::Error::other("it inflates to more than is allowed"))?;
        Ok(got)
    }
}

/// Most bytes that all threads together hold of members that are inflated whole.
const MAX_WHOLE: usize = 48 << 20;

/// Most bytes of one of them. Of a larger one, the kernel's work for fresh memory costs more than inflating whole saves.
const LARGEST_WHOLE: usize = 16 << 20;

/// How much of that is taken.
static WHOLE: AtomicUsize = AtomicUsize::new(0);

/// A member that was inflated at once.
pub struct InflatedMember(Vec<u8>);

impl InflatedMember {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for InflatedMember {
    fn drop(&mut self) {
        WHOLE.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

/// Inflates a member at once, which is about half as fast again as [`MemberReader`], and not strict: neither what follows the
/// member is seen nor is its sum looked at. For bytes that the strict reader has accepted before. `None` where it is large, where
/// there is no room for it just now, or where it is damaged, which the strict reader then explains.
pub fn inflate_whole(bytes: &[u8]) -> Option<InflatedMember> {
    // RFC 1952: a member ends with its length modulo 2^32. Deflate makes 1032 bytes of one at most.
    let (_, length) = bytes.split_last_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length / 1032 > bytes.len() || length > LARGEST_WHOLE {
        return None;
    }
    let deflated = bytes.get(header_length(bytes)?..bytes.len() - TRAILER)?;
    let take = |taken: usize| taken.checked_add(length).filter(|taken| *taken <= MAX_WHOLE);
    WHOLE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
    let mut whole = InflatedMember(vec![0; length]);
    let inflated = libdeflater::Decompressor::new().deflate_decompress(deflated, &mut whole.0);
    (inflated == Ok(length)).then_some(whole)
}

/// Bytes behind what is deflated: its CRC-32, and its length (RFC 1952).
const TRAILER: usize = 8;

/// Bytes before what is deflated; `None` where that is not told here: of a header with extra fields, which abuild writes none of.
fn header_length(bytes: &[u8]) -> Option<usize> {
    const PLAIN: usize = 10;
    const NAME: u8 = 8;
    match bytes {
        [0x1f, 0x8b, 8, 0, ..] => Some(PLAIN),
        [0x1f, 0x8b, 8, NAME, ..] => {
            Some(PLAIN + bytes.get(PLAIN..)?.iter().position(|byte| *byte == 0)? + 1)
        }
        _ => None,
    }
}

/// Compresses into one member, without a time or a name.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::new(6));
    // Writing into a vector cannot fail.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_else(|error| unreachable!("writing into memory failed: {error}"))
}

/// Bytes of a block that is not compressed (RFC 1951, 3.2.4).
const STORED_BLOCK: usize = 0xffff;

/// One member whose bytes stand in it as they are: the same for each version of whatever compresses.
pub fn store(bytes: &[u8]) -> Vec<u8> {
    // RFC 1952: magic, deflate, no flags, no time, no hint, unknown system.
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = bytes.chunks(STORED_BLOCK).peekable();
    if bytes.is_empty() {
        member.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        member.push(u8::from(blocks.peek().is_none()));
        member.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
        member.extend_from_slice(block);
    }
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    member.extend(sum.sum().to_le_bytes().into_iter().chain(sum.amount().to_le_bytes()));
    member
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_apart() {
        let (one, two) = (compress(b"one"), compress(b"two"));
        let both = [&one[..], &two[..]].concat();
        let member = first_member(&both, 10).unwrap();
        assert_eq!((member.compressed, &member.inflated[..], member.rest), (&one[..], &b"one"[..], &two[..]));
    }

    #[test]
    fn what_is_stored_is_a_member() {
        for size in [0, 1, STORED_BLOCK, STORED_BLOCK + 1, 200_000] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let stored = store(&bytes);
            let member = first_member(&stored, 1 << 20).unwrap();
            assert!(member.inflated == bytes && member.rest.is_empty(), "{size}");
            assert!(inflate_whole(&stored).is_some_and(|whole| whole.bytes() == bytes), "{size}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = compress(&vec![0; 1 << 20]);
        assert!(matches!(first_member(&bomb, 1000), Err(GzipError::TooLarge(1000))));
        let error = io::copy(&mut MemberReader::new(&bomb[..], 1000), &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "it inflates to more than is allowed");
    }

    #[test]
    fn bytes_after_a_member_are_seen() {
        let trailing = [&compress(b"x")[..], b"y"].concat();
        let error = io::copy(&mut MemberReader::new(&trailing[..], 10), &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "bytes follow its end");
    }

    #[test]
    fn a_member_that_is_inflated_at_once_is_what_the_strict_reader_gives() {
        let plain: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let packed = compress(&plain);
        assert_eq!(inflate_whole(&packed).unwrap().bytes(), plain);
        // What a member is vouched for by is the SHA-256 of its package: here, only what is no member shows.
        let mut damaged = packed.clone();
        damaged[10..40].fill(0xff);
        assert!(inflate_whole(&damaged).is_none());
        assert!(inflate_whole(&packed[..100]).is_none() && inflate_whole(b"").is_none());
        let mut named = [&packed[..10], b"name\0", &packed[10..]].concat();
        named[3] = 8;
        assert_eq!(inflate_whole(&named).unwrap().bytes(), plain);
        named[3] = 4;
        assert!(inflate_whole(&named).is_none(), "extra fields are left to the strict reader");
        // A length that is a lie takes no memory.
        let liar = [&packed[..packed.len() - 4], &[0xff; 4][..]].concat();
        assert!(inflate_whole(&liar).is_none());
    }
}
