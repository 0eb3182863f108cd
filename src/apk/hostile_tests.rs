//! Damaged and hostile packages: each is refused with the package, the member and the reason.

mod indexes;
mod mutations;
mod raw;
mod signatures;

use super::archive::{TarEntry, TarKind};
use super::archive_writer::TarWriter;
use super::dependency::Checksum;
use super::gzip::compress;
use super::package::{ExpectedPackage, PackageContents};
use crate::base::Diagnostic as _;

/// A package of these data entries, with hashes that hold.
fn package(entries: &[(TarEntry, &[u8])]) -> Vec<u8> {
    let mut data = TarWriter::default();
    entries.iter().for_each(|(entry, bytes)| data.add(entry, bytes));
    with_data(&compress(&data.ended()))
}

fn with_data(data: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    let hash = hex::encode(sha2::Sha256::digest(data));
    with_control(&[(".PKGINFO", &format!("pkgname = evil\npkgver = 1-r0\ndatahash = {hash}\n"))], data)
}

fn with_control(files: &[(&str, &str)], data: &[u8]) -> Vec<u8> {
    let mut control = TarWriter::default();
    for (name, text) in files {
        control.add(&file(name, text.len()), text.as_bytes());
    }
    [compress(&control.unended()), data.to_vec()].concat()
}

fn entry(kind: TarKind, path: &str, link: &str) -> TarEntry {
    TarEntry { kind, path: path.into(), link: link.into(), ..TarEntry::empty() }
}

fn file(path: &str, size: usize) -> TarEntry {
    TarEntry { size: size as u64, ..entry(TarKind::File, path, "") }
}

fn dir(path: &str) -> (TarEntry, &'static [u8]) {
    (entry(TarKind::Directory, path, ""), b"")
}

fn refusal(bytes: Vec<u8>) -> String {
    PackageContents::inspect(bytes.into()).expect_err("was accepted").to_string()
}

#[track_caller]
fn refused(entries: &[(TarEntry, &[u8])], reason: &str) {
    assert_eq!(refusal(package(entries)), format!("package evil-1-r0: data member: {reason}"));
}

#[test]
fn names_that_leave_their_place_are_refused() {
    let path = "its name is absolute, or has an empty, '.' or '..' part, or is too long";
    for name in ["/etc/passwd", "../x", "a/../../x", "a//b", "..", "a/."] {
        refused(&[dir("a"), (file(name, 0), b"")], &format!("{name}: {path}"));
    }
    let dot = "its name begins with './', so apk would not install it: the directory itself was packed as \
      '.', instead of its contents";
    for name in ["./x", "."] {
        refused(&[dir("a"), (file(name, 0), b"")], &format!("{name}: {dot}"));
    }
    refused(&[(file("a\u{1b}[2J", 0), b"")], "a\\u{1b}[2J: its name contains a control character");
    refused(&[(file("a\nR:b", 0), b"")], "a\\nR:b: its name contains a control character");
    refused(&[(entry(TarKind::Symlink, "l", "a\nb"), b"")], "l: its link contains a control character");
}

#[test]
fn what_is_no_package_has_words_of_its_own() {
    assert!(refusal(b"ADB.pckg".to_vec()).contains("apk 3's own format (ADB)"));
    assert!(refusal(b"<html><body>404".to_vec()).contains("an HTML page"));
    let listed =
        ExpectedPackage { name: "a".into(), version: "1".into(), checksum: Checksum([0; 20]), size: 9 };
    let page = b"<!doctype html>".to_vec();
    let error = PackageContents::verify(page.into(), &listed).unwrap_err();
    assert!(error.to_string().contains("an HTML page"), "{error}");
    assert!(!error.hint().unwrap().contains("damaged"));
}

#[test]
fn a_directory_that_was_packed_as_a_dot_is_its_makers_mistake() {
    let bytes = package(&[(entry(TarKind::Directory, "./", ""), b""), (file("./a", 1), b"x")]);
    let error = PackageContents::inspect(bytes.into()).unwrap_err();
    assert!(error.to_string().contains("its name begins with './'"), "{error}");
    assert!(error.hint().unwrap().contains("was built this way"));
}

#[test]
fn a_file_needs_a_directory_before_it() {
    refused(&[(file("a/b", 0), b"")], "a/b: its directory has no entry before it");
    refused(&[(file("a", 0), b""), (file("a/b", 0), b"")], "a/b: its parent is not a directory");
    let link = entry(TarKind::Symlink, "a", "/etc");
    refused(&[(link, b""), (file("a/b", 0), b"")], "a/b: its parent is not a directory");
    refused(&[dir("a"), dir("a/")], "a/: it is in the archive twice");
    refused(
        &[(file("a", 0), b""), (entry(TarKind::Symlink, "a", "b"), b"")],
        "a: it is in the archive twice",
    );
}

#[test]
fn a_hard_link_stays_in_its_package() {
    let reason = |target: &str| {
        format!("l: it is a hard link to '{target}', which is not a regular file earlier in this package")
    };
    for target in ["/etc/shadow", "../x", "later", "a"] {
        let entries = [dir("a"), (entry(TarKind::HardLink, "l", target), &b""[..]), (file("later", 0), b"")];
        refused(&entries, &reason(target));
    }
}

#[test]
fn devices_belong_below_dev() {
    refused(&[(entry(TarKind::CharDevice, "mem", ""), b"")], "mem: device nodes are allowed below dev/ only");
    refused(
        &[dir("a"), (entry(TarKind::BlockDevice, "a/sda", ""), b"")],
        "a/sda: device nodes are allowed below dev/ only",
    );
    let null = [dir("dev"), (entry(TarKind::CharDevice, "dev/null", ""), &b""[..])];
    assert!(PackageContents::inspect(package(&null).into()).is_ok());
}

#[test]
fn a_file_that_is_not_what_its_sum_says_is_refused() {
    let mut wrong = file("a", 1);
    wrong.pax.insert("APK-TOOLS.checksum.SHA1".into(), "00".repeat(20).into_bytes());
    let found = Checksum::of("x");
    let stated = "00".repeat(20);
    refused(&[(wrong, b"x")], &format!("a: its SHA-1 is {found}, but the archive says {stated}"));
}

#[test]
fn members_that_are_cut_swapped_or_added_are_refused() {
    let good = package(&[(file("a", 3000), &[7; 3000])]);
    assert!(PackageContents::inspect(good.clone().into()).is_ok());
    assert!(refusal(good[..good.len() - 20].to_vec()).contains("data member: its SHA-256 is"));
    assert!(refusal([&good[..], &compress(b"more")[..]].concat()).contains("data member: its SHA-256 is"));
    let mut tar = TarWriter::default();
    tar.add(&file("a", 0), b"");
    let data = compress(&tar.ended());
    assert!(refusal(with_data(&data[..data.len() - 9])).contains("data member: it cannot be unpacked"));
    assert!(refusal(with_data(&compress(&[7; 700]))).contains("data member: a header has a wrong checksum"));
    let twice = [data, compress(b"")].concat();
    assert!(refusal(with_data(&twice)).ends_with("data member: it cannot be unpacked: bytes follow its end"));
    assert!(refusal(b"no gzip at all".to_vec()).contains("control member: it is not gzip, or it is damaged"));
    assert!(refusal(Vec::new()).contains("it is empty"));
}

#[test]
fn a_control_member_holds_what_it_may() {
    let control = |files: &[(&str, &str)]| refusal(with_control(files, b""));
    assert!(control(&[]).ends_with("control member: it has no .PKGINFO"));
    let no_hash = "pkgname = a\npkgver = 1\n";
    assert!(control(&[(".PKGINFO", no_hash)]).ends_with("control member: .PKGINFO: it has no datahash"));
    assert!(
        control(&[(".PKGINFO", no_hash), ("etc/x", "")])
            .ends_with("it contains a file that belongs in the data member")
    );
    assert!(control(&[(".PKGINFO", no_hash), (".PKGINFO", no_hash)]).ends_with("it contains a file twice"));
    assert!(control(&[(".INSTALL", "")]).ends_with("it contains .INSTALL, which apk no longer supports"));
    for name in ["../a", "a/b", ".a", "a b", ""] {
        let text = format!("pkgname = {name}\npkgver = 1\ndatahash = {}\n", "0".repeat(64));
        assert!(control(&[(".PKGINFO", &text)]).contains("is not allowed"), "{name:?} was accepted");
    }
}

#[test]
fn a_field_that_is_refused_is_repeated_without_what_a_terminal_obeys() {
    let whole = format!("pkgname = a\npkgver = 1\ndatahash = {}\n", "0".repeat(64));
    let fields =
        ["pkgname", "pkgver", "arch", "size", "builddate", "depend", "install_if", "replaces", "datahash"];
    for (field, odd) in
        fields.iter().flat_map(|field| ["a\tb", "a\x1b]0;b", "a\u{202e}b"].map(|odd| (field, odd)))
    {
        let error = refusal(with_control(&[(".PKGINFO", &format!("{whole}{field} = {odd} !\n"))], b""));
        assert!(error.contains(&format!(".PKGINFO: {field}: ")), "{error:?}");
        assert!(error.chars().all(crate::base::text::is_plain), "{error:?}");
    }
}

#[test]
fn bombs_take_neither_memory_nor_time() {
    let zeros = compress(&vec![0; 32 << 20]);
    assert!(refusal(zeros.clone()).ends_with("control member: it inflates to more than 16777216 bytes"));
    let mut huge = file("a", 0);
    huge.pax.insert("SCHILY.xattr.user.x".into(), vec![0; 2 << 20]);
    assert!(refusal(package(&[(huge, b"")])).contains("at most 1048576 are allowed"));
}

#[test]
fn a_package_is_what_the_index_says() {
    let good = package(&[]);
    let info = PackageContents::inspect(good.clone().into()).unwrap().info;
    let verify = |change: &dyn Fn(&mut ExpectedPackage), bytes: &[u8]| {
        let mut expected = ExpectedPackage::from(&info);
        change(&mut expected);
        PackageContents::verify(bytes.into(), &expected).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(verify(&|_| (), &good), Ok(()));
    let size = good.len();
    let longer = [&good[..], b"x"].concat();
    assert_eq!(
        verify(&|_| (), &longer),
        Err(format!("package evil-1-r0: the file has {} bytes, but the index says {size}", size + 1))
    );
    let other = verify(&|expected| expected.checksum = Checksum([0; 20]), &good).unwrap_err();
    assert!(other.contains("its checksum is Q1") && other.contains("the index says Q1AAAA"), "{other}");
    assert_eq!(
        verify(&|expected| expected.name = "good".into(), &good),
        Err("package good-1-r0: it says that it is evil-1-r0".into())
    );
}
