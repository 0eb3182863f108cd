//! Headers that no honest archiver writes: numbers, lengths, names and types that lie.

use super::super::tar::{BLOCK, sum};
use super::*;

/// A header of a file `a` with something changed, its checksum made right again, and content behind it.
fn header(change: impl FnOnce(&mut [u8; BLOCK]), content: &[u8]) -> Vec<u8> {
    let mut tar = TarWriter::default();
    tar.add(&file("a", content.len()), content);
    let mut bytes = tar.unended();
    let mut block: [u8; BLOCK] = bytes[..BLOCK].try_into().unwrap();
    change(&mut block);
    let stated = format!("{:06o}\0 ", sum(&block));
    block[148..156].copy_from_slice(stated.as_bytes());
    bytes[..BLOCK].copy_from_slice(&block);
    bytes
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field.fill(0);
    field[..bytes.len()].copy_from_slice(bytes);
}

/// A header of this type that is followed by this many bytes, and says so.
fn extension(flag: u8, body: &[u8]) -> Vec<u8> {
    header(|block| block[156] = flag, body)
}

/// An extended header of these records, and the file that it is about.
fn pax(records: &[u8]) -> Vec<u8> {
    [extension(b'x', records), header(|_| (), b"")].concat()
}

/// A record whose length is right.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..9).map(|digits| rest + digits).find(|n| rest + n.to_string().len() == *n).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// A package whose data member is this, with hashes that hold.
fn of_tar(tar: &[u8]) -> Vec<u8> {
    with_data(&compress(&[tar, &[0; 2 * BLOCK]].concat()))
}

#[test]
fn numbers_that_lie_are_refused() {
    let number = |field: &'static str, range: std::ops::Range<usize>, bytes: &'static [u8]| {
        let words = format!("its {field} is not a number");
        (words, header(|block| put(&mut block[range], bytes), b""))
    };
    let cases = [
        number("size", 124..136, &[0xff; 12]),
        number("size", 124..136, b"-1"),
        number("size", 124..136, b"12x"),
        number("size", 124..136, b"9"),
        number("mode", 100..108, b"rwx"),
        number("uid", 108..116, &[0xff; 8]),
        number("uid", 108..116, b"\x80\0\0\x01\0\0\0\0"),
        number("gid", 116..124, b"root"),
        number("mtime", 136..148, &[0xff; 12]),
        number("mtime", 136..148, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
    ];
    for (words, tar) in cases {
        let said = refusal(of_tar(&tar));
        assert!(
            said.starts_with("package evil-1-r0: data member: ") && said.ends_with(&words),
            "{said}: {words}"
        );
    }
    for (key, value) in [
        ("size", "-1"),
        ("size", "18446744073709551616"),
        ("uid", "4294967296"),
        ("gid", "x"),
        ("mtime", "-1"),
        ("size", ""),
    ] {
        let said = refusal(of_tar(&pax(&record(key, value.as_bytes()))));
        assert!(
            said.contains("data member: ") && said.ends_with(&format!("its {key} is not a number")),
            "{said}"
        );
    }
    let said = refusal(of_tar(&header(|block| put(&mut block[100..108], b"7777777"), b"")));
    assert_eq!(said, "package evil-1-r0: data member: a: 7777777 is not a file mode");
}

#[test]
fn sizes_beyond_the_archive_are_refused_without_being_made_room_for() {
    let largest = b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
    let cases = [
        header(|block| put(&mut block[124..136], largest), b""),
        header(|block| put(&mut block[124..136], b"77777777777"), b""),
        header(|block| put(&mut block[124..136], b"\x80\0\0\0\x10\0\0\0\0\0\0\0"), b""),
        pax(&record("size", b"18446744073709551615")),
        pax(&record("size", b"18446744073709551100")),
        pax(&record("size", b"9223372036854775807")),
    ];
    for tar in cases {
        let said = refusal(of_tar(&tar));
        let is_told = ["the archive ends within a file", "its size is not a number"]
            .iter()
            .any(|words| said.ends_with(words));
        assert!(said.starts_with("package evil-1-r0: data member: ") && is_told, "{said}");
    }
    for flag in *b"xgLK" {
        let tar = header(
            |block| {
                block[156] = flag;
                put(&mut block[124..136], b"77777777777");
            },
            b"",
        );
        let said = refusal(of_tar(&tar));
        let words = "an extended header has 8589934591 bytes; at most 1048576 are allowed";
        assert_eq!(said, format!("package evil-1-r0: data member: {words}"));
    }
}

#[test]
fn extended_headers_whose_lengths_lie_are_refused() {
    for records in [
        &b"99 path=b\n"[..],
        b"5 path=b\n",
        b"0 path=b\n",
        b"-9 path=b\n",
        b"9path=b\n",
        b"x path=b\n",
        b"99999999999999999999 path=b\n",
        b"10 path=bb",
        b"9 pathbbb\n",
        b"\n",
        b"10 p\xffth=b\n",
    ] {
        let said = refusal(of_tar(&pax(records)));
        assert_eq!(said, "package evil-1-r0: data member: an extended header is malformed", "{records:?}");
    }
    let cut = [extension(b'x', &record("path", b"b")), vec![]].concat();
    let alone = refusal(of_tar(&cut[..BLOCK]));
    assert!(alone.starts_with("package evil-1-r0: data member: "), "{alone}");
}

#[test]
fn names_of_extended_headers_are_held_to_the_same_rules() {
    let path = "its name is absolute, or has an empty, '.' or '..' part, or is too long";
    let long = [b"d/".repeat(2100), b"x".to_vec()].concat();
    let part = vec![b'x'; 256];
    for (name, words) in [
        (&b"../../etc/shadow"[..], path),
        (b"/etc/shadow", path),
        (&long, path),
        (&part, path),
        (b"", path),
        (b"a\0b", "its name contains a control character"),
        (b"a\x7f", "its name contains a control character"),
        (b"b/c", "its directory has no entry before it"),
    ] {
        let said = refusal(of_tar(&pax(&record("path", name))));
        assert!(said.starts_with("package evil-1-r0: data member: ") && said.ends_with(words), "{said}");
        if !name.is_empty() && !name.contains(&0) {
            let said = refusal(of_tar(&[extension(b'L', name), header(|_| (), b"")].concat()));
            assert!(said.starts_with("package evil-1-r0: data member: ") && said.ends_with(words), "{said}");
        }
    }
    for name in [&b"\xff\xfe"[..], b"a\xc3"] {
        let plain = header(|block| put(&mut block[..100], name), b"");
        for tar in
            [plain, pax(&record("path", name)), pax(&record("linkpath", name)), pax(&record("uname", name))]
        {
            let said = refusal(of_tar(&tar));
            assert!(said.starts_with("package evil-1-r0: data member: a name is not UTF-8: "), "{said}");
        }
    }
    let prefixed = header(|block| put(&mut block[345..500], b"../.."), b"");
    assert_eq!(refusal(of_tar(&prefixed)), format!("package evil-1-r0: data member: ../../a: {path}"));
}

#[test]
fn attributes_and_owners_hold_no_control_characters() {
    for (key, words) in [
        ("SCHILY.xattr.", "a: the name of an attribute contains a control character"),
        ("SCHILY.xattr.user.\n", "a: the name of an attribute contains a control character"),
        ("uname", "a: its owner contains a control character"),
        ("gname", "a: its group contains a control character"),
    ] {
        let said = refusal(of_tar(&pax(&record(key, b"ro\not"))));
        assert_eq!(said, format!("package evil-1-r0: data member: {words}"));
    }
    let said = refusal(of_tar(&pax(&record("APK-TOOLS.checksum.SHA1", b"\xff"))));
    assert_eq!(said, "package evil-1-r0: data member: a: its checksum record is malformed");
}

#[test]
fn types_that_are_not_known_are_refused() {
    for flag in *b"VSDMNA\x01\xff89" {
        let said = refusal(of_tar(&header(|block| block[156] = flag, b"")));
        assert!(said.starts_with("package evil-1-r0: data member: a: entry type '"), "{said}");
    }
}

#[test]
fn content_where_none_belongs_is_no_content() {
    // What follows is read as a header, and is none.
    for flag in *b"123456" {
        let tar = header(
            |block| {
                block[156] = flag;
                put(&mut block[157..257], b"b");
            },
            &[7; 600],
        );
        let said = refusal(of_tar(&tar));
        assert!(said.starts_with("package evil-1-r0: data member: "), "{said}");
    }
}

#[test]
fn headers_whose_checksum_is_wrong_and_what_follows_the_end_are_refused() {
    let mut tar = header(|_| (), b"");
    tar[0] = b'b';
    assert_eq!(refusal(of_tar(&tar)), "package evil-1-r0: data member: a header has a wrong checksum");
    let hidden = [header(|_| (), b""), vec![0; 2 * BLOCK], header(|block| block[0] = b'b', b"")].concat();
    assert_eq!(
        refusal(of_tar(&hidden)),
        "package evil-1-r0: data member: bytes follow the end of the archive"
    );
}

#[test]
fn a_name_that_stands_twice_is_refused_however_it_is_written() {
    let twice = "a: it is in the archive twice";
    let first = header(|_| (), b"");
    let directory = header(|block| block[156] = b'5', b"");
    let link = header(
        |block| {
            block[156] = b'1';
            put(&mut block[157..257], b"a");
        },
        b"",
    );
    for second in [first.clone(), pax(&record("path", b"a")), directory, link] {
        let said = refusal(of_tar(&[first.clone(), second].concat()));
        assert_eq!(said, format!("package evil-1-r0: data member: {twice}"));
    }
    let last = [record("path", b"../x"), record("path", b"b")].concat();
    assert!(PackageContents::inspect(of_tar(&pax(&last)).into()).is_ok_and(|p| p.entries[0].path == "b"));
}

#[test]
fn names_without_end_take_no_memory() {
    let mut tar = TarWriter::default();
    let name = "n".repeat(200);
    for number in 0..120_000 {
        tar.add(&file(&format!("{name}{number}"), 0), b"");
    }
    let said = refusal(with_data(&compress(&tar.ended())));
    assert!(said.ends_with("the package's names and attributes take more than 67108864 bytes"), "{said}");
}
