//! The same packages, laid out by sisforge and by the genuine apk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sisforge::apk::{
    Contents, PackMap, PackageContents, PackageInfo, Packed, SigningKey, UnknownDependency, convert_debs,
    pack, sign_directory,
};
use sisforge::image::ext4::{Ext4Options, Purpose, write_ext4};
use sisforge::image::layout::{ApkSettings, rootfs};
use sisforge::image::recipe::Recipes;
use sisforge::sys::tool::Tool;
use tar::EntryType;

use super::ext4::{by_the_kernel, mounted};
use super::oci::{self, Item, directory, file, link};
use super::{e2fsck, missing, open_ext4, skip};
use crate::apk::oracle::{Apk, data};
use crate::common::scripts::with_script;

const TEST: &str = "image::genuine_apk::the_root_is_what_apk_lays_out";
const TEST_3: &str = "image::genuine_apk::the_root_is_what_apk_3_lays_out";

const ARCH: &str = "aarch64";

fn info(name: &str) -> PackageInfo {
    PackageInfo::new(name, "1.2-r0".parse().unwrap(), ARCH).unwrap()
}

fn packed(info: PackageInfo, items: &[Item<'_>]) -> Packed {
    pack(info, Contents::from_tar(&oci::layer(items)[..]).unwrap(), None).unwrap()
}

/// Packages with what apk has rules for: owners, special modes, links, clashes, shared directories.
fn packages() -> Vec<Packed> {
    let mut base = info("alpine-baselayout-data");
    base.version = "3.2.0-r23".parse().unwrap();
    base.provides = ["/bin/sh", "so:libc.musl-aarch64.so.1=1"].map(|name| name.parse().unwrap()).into();
    let base = packed(
        base,
        &[
            directory("bin/"),
            Item { mode: 0o755, ..file("bin/busybox", b"ELF") },
            link(EntryType::Symlink, "bin/sh", "/bin/busybox"),
            Item { mode: 0o755, ..directory("etc/") },
            file("etc/hello", b"from base\n"),
            file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
            file("etc/group", b"root:x:0:root\nshadow:x:42:\n"),
            Item { mode: 0o640, owner: (0, 42), ..file("etc/shadow", b"root:*::0:::::\n") },
        ],
    );
    let mut tool = info("tool");
    tool.depends = vec!["alpine-baselayout".parse().unwrap(), "library".parse().unwrap()];
    tool.replaces = vec!["alpine-baselayout-data".parse().unwrap()];
    let tool = packed(
        tool,
        &[
            directory("usr/"),
            directory("usr/bin/"),
            Item { mode: 0o4755, ..file("usr/bin/tool", b"ELF tool") },
            // As tar and abuild do, the link repeats the mode; apk takes it from there.
            Item { mode: 0o4755, ..link(EntryType::Link, "usr/bin/tool-too", "usr/bin/tool") },
            Item { mode: 0o2750, owner: (0, 42), ..directory("var/") },
            Item { mode: 0o640, owner: (80, 82), ..file("usr/bin/of-another", b"x") },
            file("etc/hello", b"from tool\n"),
            Item {
                record: Some((
                    "SCHILY.xattr.security.capability",
                    b"\x01\0\0\x02\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                )),
                ..file("usr/bin/capable", b"x")
            },
            file("usr/share/deep/empty", b""),
        ],
    );
    let mut library = info("library");
    library.origin = Some("tool".into());
    library.replaces = vec!["tool".parse().unwrap()];
    library.replaces_priority = Some(2);
    let library = packed(
        library,
        &[
            Item { mode: 0o700, ..directory("usr/") },
            Item { mode: 0o711, ..directory("usr/share/") },
            file("usr/share/tool", b"the library's\n"),
            file("usr/bin/of-another", b"the library keeps it"),
            link(EntryType::Symlink, "usr/share/link", "../lib/none"),
        ],
    );
    vec![base, tool, library]
}

/// The package of an apk, by which a layout knows whose rules hold, with scripts that it remembers.
fn apk_tools(version: &str) -> Vec<u8> {
    let mut info = info("apk-tools");
    info.version = version.parse().unwrap();
    info.build_date = Some(1_700_000_000);
    let apk = packed(info, &[directory("sbin/"), Item { mode: 0o755, ..file("sbin/apk", b"ELF") }]).bytes;
    let apk = with_script(&apk, "post-install", "#!/bin/sh\necho installed\n");
    with_script(&apk, "pre-deinstall", "#!/bin/sh\necho away\n")
}

/// What a tar of scripts holds, whatever its headers look like and in whatever order.
fn scripts(tar: &[u8]) -> Vec<(String, u32, u64, String)> {
    let mut archive = tar::Archive::new(tar);
    let script = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut body = String::new();
        entry.read_to_string(&mut body).unwrap();
        let (path, header) = (entry.path().unwrap().to_str().unwrap().to_owned(), entry.header());
        (path, header.mode().unwrap(), header.mtime().unwrap(), body)
    };
    let mut found: Vec<_> = archive.entries().unwrap().map(script).collect();
    found.sort();
    found
}

/// A small Debian package, made by Debian's own tool.
fn debian_package(dir: &Path) -> PathBuf {
    let tree = dir.join("deb");
    for folder in ["DEBIAN", "usr/lib/deb", "usr/share/doc/deb"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    let control = "Package: deb\nVersion: 2:1.0-3\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: x\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    fs::write(tree.join("usr/lib/deb/data"), "data\n").unwrap();
    fs::hard_link(tree.join("usr/lib/deb/data"), tree.join("usr/lib/deb/data-too")).unwrap();
    std::os::unix::fs::symlink("data", tree.join("usr/lib/deb/link")).unwrap();
    let path = dir.join("deb.deb");
    Tool::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&path).run().unwrap();
    path
}

/// Lets the genuine apk install packages; gives their names in the order in which it did.
fn install(apk: &Apk, dir: &Path, names: &[&str]) -> Vec<String> {
    let at = |name: &str| dir.join(name).into_os_string().into_string().unwrap();
    let (root, keys, repository) = (at("root"), at("keys"), at("repo"));
    let fixed = ["--root", &root, "--arch", ARCH, "--keys-dir", &keys, "--repository", &repository];
    let how = ["--no-network", "--no-progress", "--no-scripts", "--no-cache", "add", "--initdb"];
    let text = apk.text(fixed.iter().chain(&how).chain(names));
    let installing = |line: &str| Some(line.split_once("Installing ")?.1.split(' ').next()?.to_owned());
    text.lines().filter_map(installing).collect()
}

/// What the genuine apk says of a root when it is asked for what is installed, what was changed by hand, and what it would
/// mend; with its exit status.
fn answers(apk: &Apk, dir: &Path, root: &str) -> Vec<(String, String)> {
    let at = |name: &str| dir.join(name).into_os_string().into_string().unwrap();
    let (root, keys, repository) = (at(root), at("keys"), at("repo"));
    let fixed = ["--root", &root, "--arch", ARCH, "--keys-dir", &keys, "--repository", &repository];
    let how = ["--no-network", "--no-progress", "--no-cache"];
    let questions = [
        "info -vv",
        "info -a tool",
        "info -L tool",
        "info -R alpine-baselayout",
        "info --who-owns /usr/bin/capable",
        "audit --system",
        "audit --check-permissions",
        "fix --simulate",
        "add --simulate",
        "del --simulate tool",
        "version",
        "list --installed",
    ];
    let ask = |question: &str| {
        let output = apk.run(fixed.iter().copied().chain(how).chain(question.split(' ')));
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap().replace(&root, "ROOT");
        (question.to_owned(), format!("{}\n{text}", output.status))
    };
    questions.map(ask).into()
}

/// What `apk add --initdb` makes before any package: a root without packages has it, too.
fn is_of_apk(path: &str) -> bool {
    ["/etc/apk", "/lib/apk", "/var/cache", "/var/log/apk.log", "/dev/", "/proc"]
        .iter()
        .any(|own| path.starts_with(own))
}

fn attributes(root: &Path, paths: impl IntoIterator<Item = String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for path in paths {
        let mut value = [0; 64];
        let at = root.join(path.trim_start_matches('/'));
        if let Ok(length) = rustix::fs::lgetxattr(&at, "security.capability", &mut value) {
            found.insert(path, hex::encode(&value[..length]));
        }
    }
    found
}

/// Groups of names of one file.
fn links(root: &Path, paths: impl IntoIterator<Item = String>) -> BTreeSet<Vec<String>> {
    let mut by_inode: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for path in paths {
        let meta = fs::symlink_metadata(root.join(path.trim_start_matches('/'))).unwrap();
        by_inode.entry(meta.ino()).or_default().push(path);
    }
    by_inode.into_values().filter(|names| names.len() > 1).collect()
}

/// Everything that is compared.
struct Look {
    lines: BTreeMap<String, String>,
    attributes: BTreeMap<String, String>,
    links: BTreeSet<Vec<String>>,
}

/// What a root holds. Times of directories and symlinks are left out: apk does not set them.
fn look(root: &Path) -> Look {
    let mut lines = by_the_kernel(root);
    lines.retain(|path, _| !is_of_apk(path));
    for line in lines.values_mut().filter(|line| !line.starts_with("file")) {
        line.truncate(line.find('@').unwrap());
    }
    let attributes = attributes(root, lines.keys().cloned());
    let links = links(root, lines.keys().cloned());
    Look { lines, attributes, links }
}

#[test]
fn the_root_is_what_apk_lays_out() {
    let Some(apk) = Apk::find() else { return };
    if let Some(reason) = missing(&["dpkg-deb", "mount"]) {
        return skip(TEST, &reason);
    }
    compare(&apk);
}

#[test]
fn the_root_is_what_apk_3_lays_out() {
    let Some(apk) = Apk::three(TEST_3) else { return };
    if let Some(reason) = missing(&["dpkg-deb", "mount"]) {
        return skip(TEST_3, &reason);
    }
    compare(&apk);
}

/// Lets both lay out the same packages, and the genuine apk look at both roots.
fn compare(apk: &Apk) {
    let Some(baselayout) = data("apk/alpine-baselayout-3.2.0-r23.aarch64.apk") else { return };
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("repo").join(ARCH);
    fs::create_dir_all(&repository).unwrap();
    let debs =
        convert_debs(&[debian_package(dir.path())], &PackMap::default(), UnknownDependency::Ignore, None)
            .unwrap();
    for made in packages().iter().chain(&debs) {
        fs::write(repository.join(made.info.file_name()), &made.bytes).unwrap();
    }
    fs::copy(baselayout, repository.join("alpine-baselayout-3.2.0-r23.apk")).unwrap();
    fs::write(repository.join(format!("apk-tools-{}.apk", apk.version)), apk_tools(apk.version)).unwrap();
    fs::create_dir(dir.path().join("keys")).unwrap();
    let key = SigningKey::generate(&dir.path().join("keys/test.rsa")).unwrap();
    fs::write(repository.join("APKINDEX.tar.gz"), sign_directory(&repository, &key).unwrap()).unwrap();

    let order = install(apk, dir.path(), &["tool", "deb", "apk-tools"]);
    assert_eq!(order.len(), 6, "{order:?}");
    let packages: Vec<PackageContents> = order
        .iter()
        .map(|name| {
            let found = fs::read_dir(&repository).unwrap().map(|entry| entry.unwrap().path());
            let bytes = found
                .map(|path| PackageContents::inspect(fs::read(path).unwrap_or_default().into()))
                .filter_map(Result::ok)
                .find(|package| package.info.name == *name);
            bytes.unwrap_or_else(|| panic!("there is no {name}"))
        })
        .collect();
    let world = ["apk-tools", "deb", "tool"].map(|wish| wish.parse().unwrap()).into();
    let settings = ApkSettings { arch: ARCH.into(), world, ..ApkSettings::default() };
    let root = rootfs(&packages, &Recipes::default(), &BTreeMap::new(), &settings).unwrap();
    let image = dir.path().join("image");
    let options = Ext4Options {
        label: "root".into(),
        uuid: [1; 16],
        hash_seed: [1; 16],
        size: None,
        purpose: Purpose::ReadOnly,
    };
    write_ext4(&root.tree, &root.sources(), &options, None, &image).unwrap();
    e2fsck(&image);
    let ours = mounted(&image, look);
    let genuine = look(&dir.path().join("root"));
    assert_eq!(ours.lines, genuine.lines);
    assert_eq!(ours.attributes, genuine.attributes);
    assert_eq!(ours.links, genuine.links);
    for file in ["lib/apk/db/installed", "lib/apk/db/triggers", "etc/apk/world", "etc/apk/arch"] {
        let of_apk = fs::read_to_string(dir.path().join("root").join(file)).unwrap();
        let ours = open_ext4(&image).read_to_string(format!("/{file}").as_str()).unwrap();
        assert_eq!(ours, of_apk, "{file}");
    }
    let is_3 = apk.version.starts_with("3.");
    let name = if is_3 { "lib/apk/db/scripts.tar.gz" } else { "lib/apk/db/scripts.tar" };
    let plain = |bytes: Vec<u8>| {
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar).map(|_| tar).unwrap_or(bytes)
    };
    let of_apk = scripts(&plain(fs::read(dir.path().join("root").join(name)).unwrap()));
    assert_eq!(scripts(&plain(open_ext4(&image).read(format!("/{name}").as_str()).unwrap())), of_apk);
    assert_eq!(of_apk.len(), 2 + 4, "{of_apk:?}");
    let unpacked = dir.path().join("unpacked");
    mounted(&image, |root| Tool::new("cp").arg("-a").arg(root).arg(&unpacked).run().unwrap());
    // Whoever runs `apk add` brings this file.
    fs::write(dir.path().join("root/etc/apk/repositories"), "").unwrap();
    let said = answers(apk, dir.path(), "unpacked");
    assert_eq!(said, answers(apk, dir.path(), "root"));
    let of = |question: &str| said.iter().find(|(asked, _)| asked == question).unwrap().1.as_str();
    assert!(
        of("info -vv").lines().count() == 7 && of("info -L tool").contains("usr/bin/capable"),
        "{said:?}"
    );
    // apk looks: what is changed under its hands, it tells.
    fs::write(unpacked.join("usr/bin/tool"), "changed").unwrap();
    fs::remove_file(unpacked.join("usr/share/tool")).unwrap();
    let changed = answers(apk, dir.path(), "unpacked");
    let audit = changed.iter().find(|(asked, _)| asked == "audit --system").unwrap();
    assert!(audit.1.contains("U usr/bin/tool") && audit.1.contains("X usr/share/tool"), "{audit:?}");
    assert!(ours.links.len() == 2 && ours.attributes.len() == 1, "the packages hold what is to be compared");
}
