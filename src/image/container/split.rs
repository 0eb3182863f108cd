//! tar-split: what is needed besides the unpacked files to give back a layer's tar byte for byte. containers/storage keeps
//! one beside each layer, and `podman push` and `podman save` read it.
//!
//! Format: gzip of one JSON object a line, as `github.com/vbatts/tar-split/tar/storage` has it: type 2 is raw bytes of the tar
//! (headers, padding), type 1 a file's bytes, to be read from disk, with their CRC-64.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::write::GzEncoder;
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    payload: Option<String>,
    position: u64,
}

fn is_zero(size: &u64) -> bool {
    *size == 0
}

/// Writes the parts of one tar in order.
pub(super) struct SplitWriter {
    out: GzEncoder<Vec<u8>>,
    position: u64,
}

impl SplitWriter {
    pub(super) fn new() -> Self {
        Self { out: GzEncoder::new(Vec::new(), flate2::Compression::default()), position: 0 }
    }

    /// Bytes of the tar that are in no file.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let payload = Some(STANDARD.encode(bytes));
        self.line(Line { kind: 2, name: None, name_raw: None, size: 0, payload, position: 0 })
    }

    /// A member, and the checksum of its bytes where it has any. `name` is as the tar has it.
    pub(super) fn file(&mut self, name: &[u8], size: u64, crc: u64) -> io::Result<()> {
        let text = std::str::from_utf8(name).ok();
        let name_raw = text.is_none().then(|| STANDARD.encode(name));
        let payload = (size > 0).then(|| STANDARD.encode(crc.to_be_bytes()));
        self.line(Line { kind: 1, name: text, name_raw, size, payload, position: 0 })
    }

    fn line(&mut self, line: Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Line { position: self.position, ..line })?;
        self.position += 1;
        self.out.write_all(b"\n")
    }

    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        self.out.finish()
    }
}

/// CRC-64 of ISO 3309, as Go's `hash/crc64` computes it with its ISO table.
pub(super) struct Crc64 {
    state: u64,
}

const CRC_TABLE: [u64; 256] = crc_table();

const fn crc_table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xD800_0000_0000_0000 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

impl Crc64 {
    pub(super) fn new() -> Self {
        Self { state: !0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = CRC_TABLE[usize::from((self.state as u8) ^ byte)] ^ (self.state >> 8);
        }
    }

    pub(super) fn finish(self) -> u64 {
        !self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_tar_split() {
        // From a tar-split file that podman 4.3 wrote.
        let mut crc = Crc64::new();
        crc.update(b"root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:b:/:/bin/sh\n");
        assert_eq!(STANDARD.encode(crc.finish().to_be_bytes()), "/gE17DzDhW4=");
    }
}
