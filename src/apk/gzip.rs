//! gzip members, one by one: what apk hashes and signs are compressed members, whose ends only inflating finds.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

/// Why a member cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    #[error("it is not gzip, or damaged: {0}")]
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
///
/// # Errors
/// Where it is damaged or larger.
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

/// Inflates one member as it is read; more than `limit` bytes, or anything after the member, is an error.
pub struct MemberReader<'a> {
    decoder: GzDecoder<&'a [u8]>,
    left: u64,
}

impl<'a> MemberReader<'a> {
    pub fn new(bytes: &'a [u8], limit: u64) -> Self {
        Self { decoder: GzDecoder::new(bytes), left: limit }
    }
}

impl Read for MemberReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.decoder.read(buffer)?;
        if got == 0 && !buffer.is_empty() && !self.decoder.get_ref().is_empty() {
            return Err(io::Error::other("bytes follow its end"));
        }
        self.left = self
            .left
            .checked_sub(got as u64)
            .ok_or_else(|| io::Error::other("it inflates to more than is allowed"))?;
        Ok(got)
    }
}

/// Compresses into one member, without a time or a name.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::new(6));
    // Writing into a vector cannot fail.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_else(|error| unreachable!("writing into memory failed: {error}"))
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
    fn a_bomb_stops_at_the_limit() {
        let bomb = compress(&vec![0; 1 << 20]);
        assert!(matches!(first_member(&bomb, 1000), Err(GzipError::TooLarge(1000))));
        let error = io::copy(&mut MemberReader::new(&bomb, 1000), &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "it inflates to more than is allowed");
    }

    #[test]
    fn bytes_after_a_member_are_seen() {
        let trailing = [&compress(b"x")[..], b"y"].concat();
        let error = io::copy(&mut MemberReader::new(&trailing, 10), &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "bytes follow its end");
    }
}
