//! xz, within a bound on memory: what is unpacked may be anybody's.

use std::io;

use liblzma::stream::Stream;

/// Bytes that unpacking may take; the largest preset needs 65 MiB.
pub const MEMORY: u64 = 256 << 20;

/// What unpacks one stream, or with `liblzma::stream::CONCATENATED` all that follow each other.
pub fn decoder(flags: u32) -> io::Result<Stream> {
    Ok(Stream::new_stream_decoder(MEMORY, flags)?)
}
