//! What sisforge packs, the genuine apk installs; and its database is the one that sisforge writes.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::common::namespaces::skip;
use sisforge::apk::database::{self, Installed};
use sisforge::apk::{
    Contents, INDEX_FILE, KeyRing, PackMap, PackageContents, PackageInfo, Packed, SigningKey,
    UnknownDependency, convert_debs, pack, sign_directory,
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
        skip("is_debian", "dpkg-deb is not here");
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
    let mut packages = convert_debs(&debs, &map, UnknownDependency::Ignore, Some(&key)).unwrap();
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

/// As `setcap cap_setuid=ep` writes it, and a value that no text can hold.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const BINARY: &[u8] = b"\0 =\n12 a=b\n\xff";

/// Name and value of an attribute.
type Attribute = (&'static str, &'static [u8]);

/// Attributes of each file, by name.
const ATTRIBUTES: [(&str, &[Attribute]); 3] = [
    ("usr/bin/capable", &[("security.capability", CAPABILITY)]),
    ("usr/bin/both", &[("security.capability", CAPABILITY), ("user.note", BINARY)]),
    ("usr/share/note", &[("user.empty", b""), ("user.note", BINARY)]),
];

/// A tar of those files, as `tar --xattrs` writes it.
fn tar_with_attributes() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, attributes) in ATTRIBUTES {
        let records: Vec<_> =
            attributes.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), *value)).collect();
        tar.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), *value))).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(path.len() as u64);
        header.set_username("root").unwrap();
        header.set_groupname("root").unwrap();
        tar.append_data(&mut header, format!("./{path}"), path.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn directory_with_attributes(dir: &Path) -> PathBuf {
    let tree = dir.join("files");
    for (path, attributes) in ATTRIBUTES {
        let at = tree.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(&at, path).unwrap();
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755)).unwrap();
        for (name, value) in attributes {
            rustix::fs::lsetxattr(&at, *name, value, rustix::fs::XattrFlags::empty()).unwrap();
        }
        // Another machine's labels and lists are not part of the files.
        rustix::fs::lsetxattr(&at, "trusted.x", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    }
    tree
}

/// A `.deb` around a tar: Debian's own tool writes no attributes.
fn deb_with_attributes(dir: &Path) -> PathBuf {
    let mut control = tar::Builder::new(Vec::new());
    let text = b"Package: files\nVersion: 1\nArchitecture: all\n";
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    control.append_data(&mut header, "./control", &text[..]).unwrap();
    let mut deb = ar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", control.into_inner().unwrap()),
        ("data.tar", tar_with_attributes()),
    ] {
        deb.append(&ar::Header::new(name.into(), bytes.len() as u64), &bytes[..]).unwrap();
    }
    let path = dir.join("files.deb");
    std::fs::write(&path, deb.into_inner().unwrap()).unwrap();
    path
}

#[test]
fn attributes_are_kept_from_a_directory_a_tar_and_a_deb() {
    if !rustix::process::geteuid().is_root() {
        return skip(
            "attributes_are_kept_from_a_directory_a_tar_and_a_deb",
            "capabilities are given by root alone",
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let key = SigningKey::generate(&keys.join("test.rsa")).unwrap();
    let directory = directory_with_attributes(dir.path());
    let debs = [deb_with_attributes(dir.path())];
    let info = || PackageInfo::new("files", "1-r0".parse().unwrap(), "noarch").unwrap();
    let packed_twice = |make: &dyn Fn() -> Packed| {
        let (first, second) = (make(), make());
        assert!(first.bytes == second.bytes, "the same files make the same bytes");
        first
    };
    let inputs = [
        packed_twice(&|| pack(info(), Contents::from_directory(&directory).unwrap(), Some(&key)).unwrap()),
        packed_twice(&|| {
            pack(info(), Contents::from_tar(&tar_with_attributes()[..]).unwrap(), Some(&key)).unwrap()
        }),
        packed_twice(&|| {
            convert_debs(&debs, &PackMap::default(), UnknownDependency::Ignore, Some(&key)).unwrap().remove(0)
        }),
    ];
    let Some(apk) = Apk::find() else { return };
    for (at, packed) in inputs.iter().enumerate() {
        let repo = dir.path().join(format!("repo{at}"));
        repository(&repo, std::slice::from_ref(packed), &key);
        let (root, repo) = (dir.path().join(format!("root{at}")), repo.to_str().unwrap().to_owned());
        let keys = keys.to_str().unwrap();
        let file = format!("{repo}/x86_64/{}", packed.info.file_name());
        assert!(apk.text(["verify", "--keys-dir", keys, &file]).ends_with(": 0 - OK\n"));
        let fixed =
            ["--root", root.to_str().unwrap(), "--arch", "x86_64", "--keys-dir", keys, "--no-network"];
        apk.text(fixed.into_iter().chain(["add", "--initdb", "-X", &repo, "files"]));
        for (path, attributes) in ATTRIBUTES {
            let installed = root.join(path);
            assert_eq!(std::fs::read_to_string(&installed).unwrap(), path);
            let expected: BTreeMap<_, _> =
                attributes.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
            assert_eq!(found_attributes(&installed), expected, "{path} of input {at}");
        }
        assert_eq!(apk.text(fixed.into_iter().chain(["audit", "--system"])), "");
        let package = PackageContents::inspect(packed.bytes.as_slice().into()).unwrap();
        same_database(&root, &[package]);
    }
}

/// Attributes of a file, by name.
fn found_attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = [0; 256];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value).unwrap();
        (name, value[..length].to_vec())
    };
    names.map(value).collect()
}
