//! tar, written: ustar, with PAX headers for what does not fit it.

use super::archive::{TarEntry, TarKind};
use super::tar::{BLOCK, sum};

/// Writes a tar into memory, the same bytes for the same entries.
#[derive(Default)]
pub struct TarWriter {
    bytes: Vec<u8>,
}

impl TarWriter {
    /// Adds one entry; `content` is empty for all but files.
    pub fn add(&mut self, entry: &TarEntry, content: &[u8]) {
        let mut pax = entry.pax.clone();
        let in_header = |text: &str, room: usize| text.len() <= room;
        if !in_header(&entry.path, 100) {
            pax.insert("path".into(), entry.path.clone().into_bytes());
        }
        if !in_header(&entry.link, 100) {
            pax.insert("linkpath".into(), entry.link.clone().into_bytes());
        }
        if !pax.is_empty() {
            let body: Vec<u8> = pax.iter().flat_map(|(key, value)| encode_pax(key, value)).collect();
            let header = TarEntry { path: "PaxHeader".into(), mode: 0o644, ..TarEntry::empty() };
            self.block(&header, b'x', body.len() as u64);
            self.content(&body);
        }
        self.block(entry, flag_of(entry.kind), content.len() as u64);
        self.content(content);
    }

    /// The archive so far, without the two zero blocks that end one.
    pub fn unended(self) -> Vec<u8> {
        self.bytes
    }

    /// The whole archive.
    pub fn ended(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn content(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    fn block(&mut self, entry: &TarEntry, flag: u8, size: u64) {
        let mut block = [0; BLOCK];
        put(&mut block[..100], entry.path.as_bytes());
        put_octal(&mut block[100..108], u64::from(entry.mode));
        put_octal(&mut block[108..116], u64::from(entry.uid));
        put_octal(&mut block[116..124], u64::from(entry.gid));
        put_octal(&mut block[124..136], size);
        put_octal(&mut block[136..148], u64::try_from(entry.mtime).unwrap_or(0));
        block[156] = flag;
        put(&mut block[157..257], entry.link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        put(&mut block[265..296], entry.owner.as_bytes());
        put(&mut block[297..328], entry.group.as_bytes());
        put_octal(&mut block[329..337], u64::from(entry.device.0));
        put_octal(&mut block[337..345], u64::from(entry.device.1));
        let sum = sum(&block);
        put(&mut block[148..156], format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
    }
}

fn flag_of(kind: TarKind) -> u8 {
    match kind {
        TarKind::File => b'0',
        TarKind::HardLink => b'1',
        TarKind::Symlink => b'2',
        TarKind::CharDevice => b'3',
        TarKind::BlockDevice => b'4',
        TarKind::Directory => b'5',
        TarKind::Fifo => b'6',
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Octal with a closing NUL, or GNU's base-256 where that does not hold the number.
fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if value < 1 << (3 * digits) {
        put(field, format!("{value:0digits$o}").as_bytes());
    } else {
        let start = field.len() - 8;
        field[start..].copy_from_slice(&value.to_be_bytes());
        field[0] = 0x80;
    }
}

fn encode_pax(key: &str, value: &[u8]) -> Vec<u8> {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
