//! What sisforge packs, the genuine apk installs; and its database is the one that sisforge writes.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sisforge::apk::database::{self, Installed};
use sisforge::apk::{
    Contents, INDEX_FILE, KeyRing, Missing, PackMap, PackageContents, PackageInfo, Packed, SigningKey,
    convert_debs, pack, sign_directory,
};

use super::oracle::{Apk, data};

/// A `.deb` by Debian's own tool, with what is hard to carry over.
fn debian_package(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    let deep = tree.join("usr/share").join("a-long-directory-name/".repeat(6));
    for path in [&tree.join("DEBIAN"), &tree.join("usr/bin"), &tree.join("etc/hello"), &deep] {
        std::fs::create_dir_all(path).unwrap();
    }
    let control = "Package: hello\nVersion: 1:2.10-3~rc1+b1\nArchitecture: amd64\nMaintainer: A <a@example.org>\n\
                   Depends: libc6 (>= 2.34) | libc, hello-data\nDescription: says hello\n and more\n";
    std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
    std::fs::write(tree.join("usr/bin/hello"), "#!/bin/sh\necho hello\n").unwrap();
    std::fs::hard_link(tree.join("usr/bin/hello"), tree.join("usr/bin/another")).unwrap();
    std::os::unix::fs::symlink("hello", tree.join("usr/bin/link")).unwrap();
    std::fs::write(tree.join("etc/hello/secret"), "x").unwrap();
    std::fs::write(deep.join("file"), "y".repeat(3000)).unwrap();
    let mode = |path: &str, mode| {
        std::fs::set_permissions(tree.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("usr/bin/hello", 0o4755);
    mode("etc/hello/secret", 0o600);
    mode("etc/hello", 0o750);
    let deb = dir.join("hello.deb");
    let build =
        Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb).output();
    assert!(build.expect("dpkg-deb is part of Debian").status.success());
    deb
}

fn is_debian() -> bool {
    let found = Path::new("/usr/bin/dpkg-deb").exists();
    if !found {
        assert!(std::env::var_os("SISFORGE_REQUIRE_ORACLES").is_none(), "dpkg-deb is missing");
        eprintln!("SKIPPED: dpkg-deb is not here");
    }
    found
}

fn repository(dir: &Path, packages: &[Packed], key: &SigningKey) {
    std::fs::create_dir_all(dir.join("x86_64")).unwrap();
    for packed in packages {
        std::fs::write(dir.join("x86_64").join(packed.info.file_name()), &packed.bytes).unwrap();
    }
    let index = sign_directory(&dir.join("x86_64"), key).unwrap();
    std::fs::write(dir.join("x86_64").join(INDEX_FILE), index).unwrap();
}

#[test]
fn apk_installs_what_was_packed_from_a_debian_package() {
    if !is_debian() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let key = SigningKey::generate(&keys.join("test.rsa")).unwrap();
    let mut map = PackMap::default();
    map.package.entry("hello".into()).or_default().provides.push("greeting=2".into());
    let debs = [debian_package(dir.path())];
    let mut packages = convert_debs(&debs, &map, Missing::Ignore, Some(&key)).unwrap();
    assert_eq!(packages[0].info.id(), "hello-2.10_p3_rc1_p1-r0");
    let mut info = PackageInfo::new("hello-data", "1-r0".parse().unwrap(), "noarch").unwrap();
    info.extend(&[], &["greeting>1".into()]).unwrap();
    packages.push(pack(info, Contents::default(), Some(&key)).unwrap());
    let repo = dir.path().join("repo");
    repository(&repo, &packages, &key);

    let ring = KeyRing::read(std::slice::from_ref(&keys)).unwrap();
    let contents: Vec<PackageContents> = packages
        .iter()
        .map(|packed| PackageContents::verify_signed(packed.bytes.as_slice().into(), &ring).unwrap().0)
        .collect();
    let Some(apk) = Apk::find() else { return };
    let (repo, keys, root) = (repo.to_str().unwrap(), keys.to_str().unwrap(), dir.path().join("root"));
    for packed in &packages {
        let file = format!("{repo}/x86_64/{}", packed.info.file_name());
        assert!(apk.text(["verify", "--keys-dir", keys, &file]).ends_with(": 0 - OK\n"));
    }
    let root_text = root.to_str().unwrap();
    let fixed = ["--root", root_text, "--arch", "x86_64", "--keys-dir", keys, "--no-network"];
    apk.text(fixed.into_iter().chain(["add", "--initdb", "-X", repo, "hello-data"]));
    assert_eq!(apk.text(fixed.into_iter().chain(["audit", "--system"])), "");

    let hello = root.join("usr/bin/hello").symlink_metadata().unwrap();
    assert_eq!(hello.mode() & 0o7777, 0o4755);
    assert_eq!(hello.ino(), root.join("usr/bin/another").symlink_metadata().unwrap().ino());
    assert_eq!(std::fs::read_link(root.join("usr/bin/link")).unwrap(), Path::new("hello"));
    same_database(&root, &contents);
}

fn same_database(root: &Path, contents: &[PackageContents]) {
    // The repository lists a package for any machine under its own.
    let mut contents = contents.to_vec();
    contents.iter_mut().for_each(|package| package.info.arch = "x86_64".into());
    let packages: Vec<Installed<'_>> = contents.iter().map(Installed::whole).collect();
    let theirs = std::fs::read_to_string(root.join("lib/apk/db/installed")).unwrap();
    assert_eq!(database::installed(&packages), theirs);
    let theirs = std::fs::read_to_string(root.join("lib/apk/db/triggers")).unwrap();
    assert_eq!(database::triggers(&packages), theirs);
}

#[test]
fn the_database_is_the_one_that_apk_writes() {
    let (Some(apk), Some(dir)) = (Apk::find(), data("chain/packages")) else { return };
    let names = ["custom-ca-certs-1-1.0.0-r0", "pretend-baselayout-1.0.0-r0"];
    let read = |name: &&str| {
        let bytes: Arc<[u8]> = std::fs::read(dir.join(format!("x86_64/{name}.apk"))).unwrap().into();
        PackageContents::inspect(bytes).unwrap()
    };
    let contents: Vec<PackageContents> = names.iter().map(read).collect();
    let root = tempfile::tempdir().unwrap();
    let fixed = ["--root", root.path().to_str().unwrap(), "--arch", "x86_64", "--no-network", "--no-scripts"];
    let add = ["add", "--initdb", "--keys-dir", dir.to_str().unwrap(), "-X", dir.to_str().unwrap()];
    let wishes = contents.iter().map(|package| package.info.name.as_str());
    apk.text(fixed.into_iter().chain(add).chain(wishes));
    same_database(root.path(), &contents);
}
