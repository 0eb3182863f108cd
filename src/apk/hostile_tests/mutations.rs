//! Random changes: nothing panics, and nothing is accepted as what it is not.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::entry::{Entry, EntryKind};
use super::super::index::Index;
use super::super::package::PackageError;
use super::*;

/// A change of some bytes; places are parts of the whole.
#[derive(Clone, Debug)]
enum Change {
    Set(f64, u8),
    Remove(f64, f64),
    Repeat(f64, f64),
    Move(f64, f64, f64),
    Insert(f64, Vec<u8>),
    Cut(f64),
}

fn change() -> impl Strategy<Value = Change> {
    let part = 0.0..1.0f64;
    prop_oneof![
        8 => (part.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (part.clone(), part.clone()).prop_map(|(from, to)| Change::Remove(from, to)),
        1 => (part.clone(), part.clone()).prop_map(|(from, to)| Change::Repeat(from, to)),
        1 => (part.clone(), part.clone(), part.clone()).prop_map(|(from, to, at)| Change::Move(from, to, at)),
        1 => (part.clone(), vec(any::<u8>(), 0..40)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => part.prop_map(Change::Cut),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let at = |part: f64| (part * bytes.len() as f64) as usize;
        let range = |from, to| at(from).min(at(to))..at(from).max(at(to));
        match change {
            Change::Set(place, byte) => {
                let place = at(*place);
                bytes.iter_mut().skip(place).take(1).for_each(|b| *b = *byte);
            }
            Change::Remove(from, to) => drop(bytes.drain(range(*from, *to))),
            Change::Repeat(from, to) => {
                let piece = bytes[range(*from, *to)].to_vec();
                let place = at(*to);
                bytes.splice(place..place, piece);
            }
            Change::Move(from, to, place) => {
                let piece: Vec<u8> = bytes.drain(range(*from, *to)).collect();
                let place = ((*place) * bytes.len() as f64) as usize;
                bytes.splice(place..place, piece);
            }
            Change::Insert(place, more) => {
                let place = at(*place);
                bytes.splice(place..place, more.iter().copied());
            }
            Change::Cut(place) => bytes.truncate(at(*place)),
        }
    }
    bytes
}

/// The data of a package with one of everything.
fn good_data() -> Vec<u8> {
    let mut tar = TarWriter::default();
    let mut summed = file("usr/bin/x", 700);
    summed.pax.insert("APK-TOOLS.checksum.SHA1".into(), hex::encode(Checksum::of([7; 700]).0).into_bytes());
    summed.pax.insert("SCHILY.xattr.user.x".into(), b"1\n2".to_vec());
    for (entry, bytes) in [
        dir("usr"),
        dir("usr/bin"),
        (summed, &[7; 700][..]),
        (entry(TarKind::HardLink, "usr/bin/y", "usr/bin/x"), b""),
        (entry(TarKind::Symlink, "usr/lib", "../lib"), b""),
    ] {
        tar.add(&entry, bytes);
    }
    let name = format!("usr/{}", "n".repeat(120));
    tar.add(&file(&name, 3), b"abc");
    tar.ended()
}

fn good() -> Vec<u8> {
    with_data(&compress(&good_data()))
}

/// All that an image takes from a package.
type Taken = (String, Vec<Entry>, Vec<Vec<u8>>);

fn taken(package: &PackageContents) -> Taken {
    let mut files = Vec::new();
    let read = |_, reader: &mut dyn std::io::BufRead| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        files.push(bytes);
        Ok::<_, PackageError>(())
    };
    package.each_file(read).unwrap();
    (format!("{:?}", package.info), package.entries.clone(), files)
}

/// What holds for every package that is accepted, whatever it says.
fn is_safe(package: &PackageContents) {
    let mut directories = vec![String::new()];
    let mut files = Vec::new();
    for entry in &package.entries {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        assert!(entry.path.split('/').all(plain), "{:?}", entry.path);
        assert!(!entry.path.chars().any(char::is_control), "{:?}", entry.path);
        let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        assert!(directories.iter().any(|directory| directory == parent), "{:?}", entry.path);
        match &entry.kind {
            EntryKind::Directory => directories.push(entry.path.clone()),
            EntryKind::File { .. } => files.push(entry.path.clone()),
            EntryKind::HardLink { target } => assert!(files.contains(target)),
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => {
                assert!(entry.path.starts_with("dev/"))
            }
            EntryKind::Symlink { .. } | EntryKind::Fifo => {}
        }
    }
    let sizes: Vec<u64> = package
        .entries
        .iter()
        .filter_map(|entry| if let EntryKind::File { size, .. } = entry.kind { Some(size) } else { None })
        .collect();
    let (_, _, contents) = taken(package);
    assert_eq!(contents.iter().map(|bytes| bytes.len() as u64).collect::<Vec<_>>(), sizes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_package_is_refused_or_holds_the_same(changes in vec(change(), 1..4)) {
        let good = good();
        let original = PackageContents::inspect(good.clone().into()).unwrap();
        let expected = ExpectedPackage::from(&original.info);
        let bytes = changed(good, &changes);
        if let Ok(package) = PackageContents::verify(bytes.into(), &expected) {
            prop_assert_eq!(taken(&package), taken(&original));
        }
    }

    #[test]
    fn a_package_of_changed_files_is_refused_or_safe(changes in vec(change(), 1..6)) {
        let bytes = with_data(&compress(&changed(good_data(), &changes)));
        match PackageContents::inspect(bytes.into()) {
            Ok(package) => is_safe(&package),
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.starts_with("package evil-1-r0: data member: "), "{}", said);
                prop_assert!(!said.chars().any(char::is_control), "{:?}", said);
            }
        }
    }

    #[test]
    fn a_changed_control_member_is_refused_or_safe(changes in vec(change(), 1..6)) {
        let good = good();
        let member = super::super::gzip::first_member(&good, 1 << 20).unwrap();
        let control = compress(&changed(member.inflated, &changes));
        let inspected = PackageContents::inspect([&control[..], member.rest].concat().into());
        match inspected {
            Ok(package) => is_safe(&package),
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control), "{:?}", error.to_string()),
        }
    }

    #[test]
    fn no_text_makes_the_index_panic(text in "([A-Za-z]:[ -~]{0,20}\n|\n|[CPVASIDip]:[a-z0-9.=<>~!@:+-]{0,30}\n){0,30}") {
        let index = Index::parse(&text);
        for (name, reason) in &index.rejected {
            prop_assert!(![name.as_str(), reason].concat().chars().any(char::is_control));
        }
    }
}
