//! How layers and archives are compressed: told by their first bytes, as Podman does, whatever they say of themselves.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use crate::sys::xz;

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    /// That of what begins so. What is read of `packed` is lost.
    pub(super) fn of(packed: &mut dyn Read) -> io::Result<Self> {
        const KINDS: [(Compression, &[u8]); 4] = [
            (Compression::Gzip, &[0x1f, 0x8b, 8]),
            (Compression::Bzip2, b"BZh"),
            (Compression::Xz, b"\xfd7zXZ\0"),
            (Compression::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
        ];
        let mut head = Vec::new();
        packed.take(6).read_to_end(&mut head)?;
        let kind = KINDS.iter().find(|(_, magic)| head.starts_with(magic));
        Ok(kind.map_or(Self::None, |(kind, _)| *kind))
    }

    /// The bytes that were compressed.
    pub(super) fn unpack(self, packed: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::None => packed,
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(packed)?),
            Self::Xz => {
                let stream = xz::decoder(liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
            }
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(packed)),
        })
    }

    /// containers/storage's number for it (`pkg/archive.Compression`).
    pub(super) fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Bzip2 => 1,
            Self::Gzip => 2,
            Self::Xz => 3,
            Self::Zstd => 4,
        }
    }
}
