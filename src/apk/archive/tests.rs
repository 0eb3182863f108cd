use super::*;
use crate::apk::archive_writer::TarWriter;
use crate::apk::tar::sum;

fn read_back(bytes: &[u8]) -> Vec<(TarEntry, Vec<u8>)> {
    let mut reader = TarReader::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        found.push((entry, content));
    }
    found
}

#[test]
fn what_is_written_is_read_back() {
    let mut writer = TarWriter::default();
    let long = TarEntry { path: "d/".repeat(80) + "x", size: 3, mtime: 1 << 34, ..TarEntry::empty() };
    let mut with_xattr = TarEntry { path: "cap".into(), uid: 1 << 24, ..TarEntry::empty() };
    with_xattr.pax.insert("SCHILY.xattr.security.capability".into(), b"\x01\0\n= \n\xff".to_vec());
    let link =
        TarEntry { path: "l".into(), kind: TarKind::Symlink, link: "t".repeat(101), ..TarEntry::empty() };
    writer.add(&long, b"abc");
    writer.add(&with_xattr, b"");
    writer.add(&link, b"");
    let found = read_back(&writer.ended());
    assert_eq!(found, [(long, b"abc".to_vec()), (with_xattr, vec![]), (link, vec![])]);
}

#[test]
fn a_damaged_archive_is_refused() {
    let mut writer = TarWriter::default();
    writer.add(&TarEntry { path: "a".into(), size: 600, ..TarEntry::empty() }, &[7; 600]);
    let good = writer.ended();
    let read = |bytes: &[u8]| {
        let mut reader = TarReader::new(bytes);
        while reader.next_entry()?.is_some() {}
        Ok::<_, ArchiveError>(())
    };
    assert!(read(&good).is_ok());
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert!(matches!(read(&flipped), Err(ArchiveError::HeaderChecksum)));
    assert!(matches!(read(&good[..700]), Err(ArchiveError::Cut("an entry"))));
    assert!(matches!(read(&good[..300]), Err(ArchiveError::Cut("a header"))));
    let trailing = [&good[..], b"x"].concat();
    assert!(matches!(read(&trailing), Err(ArchiveError::Trailing)));
}

#[test]
fn a_giant_extended_header_takes_no_memory() {
    let mut writer = TarWriter::default();
    writer.add(&TarEntry { path: "h".into(), ..TarEntry::empty() }, b"");
    let mut block: [u8; BLOCK] = writer.unended().try_into().unwrap();
    block[124..136].copy_from_slice(b"77777777777\0");
    block[156] = b'x';
    let sum = format!("{:06o}\0 ", sum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    let error = TarReader::new(&block[..]).next_entry().unwrap_err();
    assert!(matches!(error, ArchiveError::ExtensionTooLong(_)), "{error}");
}
