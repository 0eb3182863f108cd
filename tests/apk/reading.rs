//! What others made is read; what is damaged is refused.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use sisforge::apk::database::{self, Installed, Owned};
use sisforge::apk::{
    Contents, ExpectedPackage, Index, IndexError, KeyRing, PackageContents, PackageInfo, RecordedFile,
    Version, pack, parse_installed,
};
use sisforge::base::Sha256;
use sisforge::sys::tool::Tool;

use super::oracle::{Apk, data};
use crate::common::random::Random;

fn bytes(path: &Path) -> Arc<[u8]> {
    std::fs::read(path).unwrap().into()
}

#[test]
fn real_indexes_are_read_whole() {
    for (repository, keys, packages) in [
        ("alpine-3.16-main/x86_64", "keys/alpine-x86_64", 4929),
        ("alpine-3.17-main/aarch64", "keys/alpine-aarch64", 5004),
    ] {
        let (Some(index), Some(keys)) = (data(repository), data(keys)) else { return };
        let text = bytes(&index.join("APKINDEX.tar.gz"));
        let index = Index::verify(&text, &KeyRing::read(&[keys]).unwrap()).unwrap();
        assert_eq!(index.rejected, []);
        assert_eq!(index.packages.len(), packages);
        assert_eq!(Index::parse(&index.to_text()).packages, index.packages);
    }
}

#[test]
fn every_kind_of_signature_is_checked() {
    for (index, keys) in [
        ("chain/packages/x86_64/APKINDEX.tar.gz", "chain/packages"),
        ("chain/rsa256-signed/APKINDEX.tar.gz", "chain/rsa256-signed"),
        ("chain/signing/APKINDEX.tar.gz", "chain/signing/keys"),
    ] {
        let (Some(index), Some(keys)) = (data(index), data(keys)) else { return };
        let text = bytes(&index);
        let keys = KeyRing::read(&[keys]).unwrap();
        Index::verify(&text, &keys).unwrap();
        let mut changed = text.to_vec();
        let at = changed.len() - 30;
        changed[at] ^= 1;
        let error = Index::verify(&changed, &keys).unwrap_err();
        assert!(matches!(error, IndexError::Signature(_)), "{}: {error}", index.display());
    }
}

#[test]
fn a_key_of_another_repository_is_refused_by_name() {
    let (Some(index), Some(keys)) = (data("alpine-3.16-main/x86_64"), data("keys/alpine-aarch64")) else {
        return;
    };
    let text = bytes(&index.join("APKINDEX.tar.gz"));
    let error = Index::verify(&text, &KeyRing::read(&[keys]).unwrap()).unwrap_err();
    assert!(
        error.to_string().starts_with(
            "the index: it is signed by alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub, which is not among"
        ),
        "{error}"
    );
}

#[test]
fn packages_hold_by_their_index() {
    for arch in ["x86_64", "aarch64"] {
        let (Some(dir), Some(keys)) = (data(&format!("chain/packages/{arch}")), data("chain/packages"))
        else {
            return;
        };
        let keys = KeyRing::read(&[keys]).unwrap();
        let index = Index::verify(&bytes(&dir.join("APKINDEX.tar.gz")), &keys).unwrap();
        assert!(!index.packages.is_empty());
        for info in &index.packages {
            let package = bytes(&dir.join(info.file_name()));
            let read = PackageContents::verify(package.clone(), &ExpectedPackage::from(info)).unwrap();
            assert_eq!(read.info.depends, info.depends);
            let (signed, key) = PackageContents::verify_signed(package, &keys).unwrap();
            assert_eq!((signed.entries, key.as_str()), (read.entries, "melange.rsa.pub"));
        }
    }
}

/// Wherever a byte is changed, the package is refused: there is no byte that nothing vouches for.
#[test]
fn a_package_with_one_byte_changed_is_refused() {
    let Some(path) = data("chain/packages/x86_64/replayout-1.0.0-r0.apk") else { return };
    let good = bytes(&path);
    let expected = ExpectedPackage::from(&PackageContents::inspect(good.clone()).unwrap().info);
    let signature = good.windows(2).skip(1).position(|w| w == [0x1f, 0x8b]).unwrap() + 1;
    for at in (signature..good.len()).step_by(7) {
        let mut changed = good.to_vec();
        changed[at] ^= 0x10;
        let result = PackageContents::verify(changed.into(), &expected);
        assert!(result.is_err(), "a change of byte {at} was not seen");
    }
}

#[test]
fn packages_of_other_makers_are_read() {
    let Some(dir) = data("apk") else { return };
    for (name, entries, scripts) in [
        ("alpine-baselayout-3.2.0-r23.aarch64.apk", 83, 4),
        ("hello-2.12-r0.apk", 144, 0),
        ("hello-wolfi-2.12.1-r0.apk", 144, 0),
        ("replaces-0.0.1-r0.apk", 6, 0),
    ] {
        let package = PackageContents::inspect(bytes(&dir.join(name))).unwrap();
        assert_eq!((package.entries.len(), package.scripts.len()), (entries, scripts), "{name}");
    }
}

/// Versions that follow each other in a real index, and one of each kind, in the order of the genuine apk.
#[test]
fn versions_compare_as_apk_compares_them() {
    let (Some(apk), Some(index)) = (Apk::find(), data("alpine-3.16-main/x86_64")) else { return };
    let keys = KeyRing::read(&[data("keys/alpine-x86_64").unwrap()]).unwrap();
    let index = Index::verify(&bytes(&index.join("APKINDEX.tar.gz")), &keys).unwrap();
    let mut versions: Vec<Version> =
        index.packages.iter().step_by(50).map(|info| info.version.clone()).collect();
    for text in ["1_alpha", "1_rc2", "1", "1-r1", "1_p1", "1_git20200101", "1a", "1.0", "1.01", "1.1", "1.10"]
    {
        versions.push(text.parse().unwrap());
    }
    for pair in versions.windows(2).chain(versions.windows(3)) {
        let (a, b) = (&pair[0], &pair[pair.len() - 1]);
        let ours = match a.compare(b) {
            Ordering::Less => "<",
            Ordering::Equal => "=",
            Ordering::Greater => ">",
        };
        assert_eq!(apk.text(["version", "-t", a.as_str(), b.as_str()]).trim(), ours, "{a} against {b}");
    }
}

#[test]
fn the_record_of_a_real_root_is_read_and_written_alike() {
    for name in ["alpine-minirootfs-3.16.9-x86_64.tar.gz", "alpine-minirootfs-3.20.3-x86_64.tar.gz"] {
        let Some(archive) = data(name) else { return };
        let call = Tool::new("tar").arg("-xzOf").arg(archive).arg("./lib/apk/db/installed");
        let text = call.text().unwrap();
        let packages = parse_installed(&text).unwrap();
        assert!(packages.len() >= 14, "{name}: {} packages", packages.len());
        let none = BTreeMap::new();
        let owned = |file: &'_ RecordedFile| {
            assert_eq!(file.xattrs, None, "the digest alone does not tell the attributes");
            (file.path.clone(), file.is_directory, file.mode, file.uid, file.gid, file.sha1)
        };
        let files: Vec<Vec<_>> =
            packages.iter().map(|package| package.files.iter().map(owned).collect()).collect();
        let installed: Vec<Installed<'_>> = packages
            .iter()
            .zip(&files)
            .map(|(package, files)| Installed {
                info: &package.info,
                scripts: &[],
                tag: package.tag.as_deref(),
                owned: files
                    .iter()
                    .map(|(path, is_directory, mode, uid, gid, sha1)| Owned {
                        path,
                        is_directory: *is_directory,
                        mode: *mode,
                        uid: *uid,
                        gid: *gid,
                        sha1: sha1.map(|sum| sum.0),
                        xattrs: &none,
                    })
                    .collect(),
            })
            .collect();
        // apk 2.12 writes packages in the order in which it installed them.
        let records = |text: &str| text.split_inclusive("\n\n").map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(records(&database::installed(&installed)), records(&text), "{name}");
    }
}

/// Versions of every kind of part, some of them none.
fn drawn_version(random: &mut Random) -> String {
    let mut text = random.one_of(&["0", "1", "2", "10", "20200101"]).to_string();
    for _ in 0..random.below(3) {
        text += *random.one_of(&[".0", ".1", ".2", ".10", ".01"]);
    }
    text += *random.one_of(&["", "", "", "", "a", "b", "z"]);
    for _ in 0..random.below(3) {
        text += *random.one_of(&[
            "_alpha",
            "_beta2",
            "_pre1",
            "_rc",
            "_rc10",
            "_cvs",
            "_svn3",
            "_git20200101",
            "_hg",
            "_p",
            "_p1",
            "_x",
        ]);
    }
    text + *random.one_of(&["", "", "-r0", "-r1", "-r10", "-1"])
}

/// apk compares what it takes for versions, and says which it does not. Left out is what apk 2 takes and apk 3 does not:
/// no digits after `.` and `-r`.
#[test]
fn drawn_versions_are_versions_and_compare_as_apk_says() {
    let Some(apk) = Apk::find() else { return };
    let mut random = Random(7);
    let drawn: Vec<String> = (0..400).map(|_| drawn_version(&mut random)).collect();
    let output = apk.run(["version", "--check"].into_iter().chain(drawn.iter().map(String::as_str)));
    let wrong: BTreeSet<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    let mut versions: Vec<Version> = Vec::new();
    for text in &drawn {
        let parsed = text.parse::<Version>();
        assert_eq!(parsed.is_err(), wrong.contains(text.as_str()), "{text}");
        versions.extend(parsed);
    }
    assert!(versions.len() > 150 && wrong.len() > 50, "{} and {}", versions.len(), wrong.len());
    for pair in versions.windows(2).step_by(2) {
        let ours = match pair[0].compare(&pair[1]) {
            Ordering::Less => "<",
            Ordering::Equal => "=",
            Ordering::Greater => ">",
        };
        let theirs = apk.text(["version", "-t", pair[0].as_str(), pair[1].as_str()]);
        assert_eq!(ours, theirs.trim(), "{} against {}", pair[0], pair[1]);
    }
}

/// One package, listed by the SHA-256 of its control member: neither apk can install it, whatever else the index lists can be.
#[test]
fn a_package_that_is_listed_by_its_sha_256_is_none_that_apk_installs() {
    let packed = |name: &str| {
        let info = PackageInfo::new(name, "1-r0".parse().unwrap(), "x86_64").unwrap();
        pack(info, Contents::default(), None).unwrap()
    };
    let (one, other) = (packed("one"), packed("other"));
    let index = Index { packages: vec![one.info.clone(), other.info.clone()], ..Index::default() }.to_text();
    let mut data = &one.bytes[..];
    std::io::copy(&mut flate2::bufread::GzDecoder::new(&mut data), &mut std::io::sink()).unwrap();
    let control = &one.bytes[..one.bytes.len() - data.len()];
    let index = index.replace(&one.info.checksum.to_string(), &format!("X2{}", Sha256::of(control)));
    let read = Index::parse(&index);
    let names: Vec<&str> = read.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["other"]);
    let reason = "a SHA-256, by which no apk can install a package";
    assert!(read.rejected[0].1.contains(reason), "{:?}", read.rejected);

    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("x86_64");
    std::fs::create_dir(&repository).unwrap();
    for package in [&one, &other] {
        std::fs::write(repository.join(package.info.file_name()), &package.bytes).unwrap();
    }
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, text) in [("DESCRIPTION", "test"), ("APKINDEX", index.as_str())] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let bytes = tar.into_inner().unwrap().finish().unwrap();
    std::fs::write(repository.join("APKINDEX.tar.gz"), bytes).unwrap();
    let test = "apk::reading::a_package_that_is_listed_by_its_sha_256_is_none_that_apk_installs";
    for (apk, words) in [(Apk::find(), "is too long"), (Apk::three(test), "integrity error")] {
        let Some(apk) = apk else { continue };
        let add = |name: &str| {
            let root = tempfile::tempdir().unwrap();
            let fixed =
                ["--root", root.path().to_str().unwrap(), "--repository", dir.path().to_str().unwrap()];
            let how = [
                "--allow-untrusted",
                "--arch",
                "x86_64",
                "--no-network",
                "--no-cache",
                "add",
                "--initdb",
                name,
            ];
            let output = apk.run(fixed.into_iter().chain(how));
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        assert!(add("one").contains(words), "{}", add("one"));
        assert!(!add("other").contains("ERROR"), "{}", add("other"));
    }
}
