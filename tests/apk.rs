//! Packages against real files, and against the genuine `apk`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sisforge::apk::{Expected, Index, IndexError, KeyRing, PackageContents};

/// Real files made by others; `None`, said aloud, where they are not here.
pub fn data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SISFORGE_TEST_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let found = root.join(path);
    if !found.exists() {
        eprintln!("SKIPPED: {} is not here (set SISFORGE_TEST_DATA)", found.display());
        return None;
    }
    Some(found)
}

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
        assert!(
            matches!(Index::verify(&changed, &keys), Err(IndexError::Signature(_))),
            "{}",
            index.display()
        );
    }
}

#[test]
fn packages_hold_by_their_index() {
    for arch in ["x86_64", "aarch64"] {
        let (Some(dir), Some(keys)) = (data(&format!("chain/packages/{arch}")), data("chain/packages"))
        else {
            return;
        };
        let index =
            Index::verify(&bytes(&dir.join("APKINDEX.tar.gz")), &KeyRing::read(&[keys]).unwrap()).unwrap();
        assert!(!index.packages.is_empty());
        for info in &index.packages {
            let package =
                PackageContents::verify(bytes(&dir.join(info.file_name())), &Expected::from(info)).unwrap();
            assert_eq!(package.info.depends, info.depends);
        }
    }
}

#[test]
fn packages_of_other_makers_are_read() {
    let Some(dir) = data("apk") else { return };
    for name in [
        "alpine-baselayout-3.2.0-r23.aarch64.apk",
        "hello-2.12-r0.apk",
        "hello-wolfi-2.12.1-r0.apk",
        "replaces-0.0.1-r0.apk",
    ] {
        let package = PackageContents::inspect(bytes(&dir.join(name))).unwrap();
        println!("{name}: {} entries, {} scripts", package.entries.len(), package.scripts.len());
    }
}
