//! Random sets of packages, laid out by sisforge and by the genuine apk: the same files, modes, owners, attributes, links
//! and database, or an error of both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha1::{Digest, Sha1};
use sisforge::apk::{Contents, PackageContents, PackageInfo, SigningKey, pack, sign_directory};
use sisforge::image::content::Content;
use sisforge::image::layout::{ApkSettings, LayoutError, rootfs};
use sisforge::image::recipe::Recipes;
use sisforge::image::tree::{NodeKind, Tree};
use tar::EntryType;

use crate::apk::oracle::Apk;
use crate::common::namespaces::skip;
use crate::common::random::Random;

const ARCH: &str = "x86_64";
/// All that the packages bring is below these; the rest of a root is apk's own. What is in `/etc`, and in `/t/c`, which a
/// file of `protected_paths.d` names, apk keeps from upgrades, but not from other packages.
const BELOW: [&str; 2] = ["/etc/x", "/t"];
const ATTRIBUTES: [&str; 2] = ["security.capability", "user.x"];

/// What an entry of a package is, by path.
type Entries = BTreeMap<String, Entry>;

#[derive(Clone)]
struct Entry {
    kind: EntryType,
    mode: u32,
    /// Name, and the number beside it.
    owner: (&'static str, u64),
    /// Bytes of a file, or target of a link.
    bytes: String,
    xattrs: Vec<(&'static str, Vec<u8>)>,
}

impl Entry {
    fn new(kind: EntryType, mode: u32, bytes: &str) -> Self {
        Self { kind, mode, owner: ("root", 0), bytes: bytes.into(), xattrs: Vec::new() }
    }
}

/// Owners by names that `/etc/passwd` has and has not, with numbers that are not theirs. Root has its own: apk asks for it
/// when `/etc/passwd` is not there yet, and remembers that there was none.
const OWNERS: [(&str, u64); 4] = [("root", 0), ("root", 0), ("ann", 9), ("unknown", 88)];

fn directory(random: &mut Random) -> Entry {
    let mode = *random.one_of(&[0o755, 0o755, 0o700, 0o2750, 0o1777]);
    Entry { owner: *random.one_of(&OWNERS), ..Entry::new(EntryType::Directory, mode, "") }
}

fn file(random: &mut Random, package: &str) -> Entry {
    let mode = *random.one_of(&[0o644, 0o755, 0o600, 0o4755, 0o2711]);
    let bytes = *random.one_of(&[package, "", "same"]);
    let mut entry = Entry { owner: *random.one_of(&OWNERS), ..Entry::new(EntryType::Regular, mode, bytes) };
    if random.once_in(5) {
        entry.xattrs.push(("security.capability", [&[1, 0, 0, 2, 128][..], &[0; 15]].concat()));
    }
    if random.once_in(5) {
        entry.xattrs.push(("user.x", vec![0, 10, b'=', random.below(255) as u8]));
    }
    entry
}

/// Another name for a file that stands before `path`, perhaps in another directory. Files with capabilities are left alone:
/// apk gives a link's owner to the file once more, at which the kernel drops them; sisforge keeps them.
fn hard_link(random: &mut Random, entries: &Entries, path: &str) -> Option<Entry> {
    let is_plain = |entry: &Entry| entry.xattrs.iter().all(|(name, _)| *name != "security.capability");
    let files: Vec<_> = entries
        .iter()
        .filter(|(_, entry)| entry.kind == EntryType::Regular && is_plain(entry))
        .filter(|(other, _)| other.as_str() < path && !other.contains(".keep_"))
        .collect();
    let (target, of) = files.get(random.below(files.len().max(1)))?;
    Some(Entry { kind: EntryType::Link, bytes: (*target).clone(), xattrs: Vec::new(), ..(*of).clone() })
}

/// A few entries in a few places, so that packages meet.
fn entries(random: &mut Random, package: &str, folders: &[&str]) -> Entries {
    let mut entries = Entries::new();
    for _ in 0..1 + random.below(6) {
        let folder = *random.one_of(folders);
        for (at, _) in folder.match_indices('/').chain([(folder.len(), "")]) {
            if !entries.contains_key(&folder[..at]) {
                entries.insert(folder[..at].to_owned(), directory(random));
            }
        }
        let path = format!("{folder}/{}", random.one_of(&["f", "g", "h", ".keep_me"]));
        let entry = match random.below(8) {
            0 => {
                let target = *random.one_of(&["f", "/t/c", "../none"]);
                Entry::new(EntryType::Symlink, 0o777, target)
            }
            1 => hard_link(random, &entries, &path).unwrap_or_else(|| file(random, package)),
            _ => file(random, package),
        };
        // A file that others of the package link to stays what it is.
        let is_target = entries.values().any(|one| one.kind == EntryType::Link && one.bytes == path);
        if !is_target && !entries.contains_key(&path) {
            entries.insert(path, entry);
        }
    }
    entries
}

/// The package that all others need: accounts, and a directory by two names.
fn base() -> (PackageInfo, Entries) {
    let text = |text: &str| Entry::new(EntryType::Regular, 0o644, text);
    let folder = || Entry::new(EntryType::Directory, 0o755, "");
    let entries = [
        ("etc", folder()),
        ("etc/apk", folder()),
        ("etc/apk/protected_paths.d", folder()),
        ("etc/apk/protected_paths.d/base.list", text("+t/c\n-etc/x/f\n")),
        ("etc/x", folder()),
        ("etc/group", text("root:x:0:root\nann:x:601:\n")),
        ("etc/passwd", text("root:x:0:0:root:/root:/bin/sh\nann:x:600:601::/:\n")),
        ("t", folder()),
        ("t/a", folder()),
        ("t/link", Entry::new(EntryType::Symlink, 0o777, "a")),
    ];
    let entries = entries.into_iter().map(|(path, entry)| (path.to_owned(), entry)).collect();
    (info("base"), entries)
}

fn info(name: &str) -> PackageInfo {
    PackageInfo::new(name, "1.5-r0".parse().unwrap(), ARCH).unwrap()
}

/// Packages of random files, which replace each other more or less.
fn packages(random: &mut Random) -> Vec<(PackageInfo, Entries)> {
    let names = ["bb", "cc", "dd", "ee", "ff"];
    // Laid out by the rules of the apk that it is compared with.
    let apk = PackageInfo::new("apk-tools", "2.14.4-r0".parse().unwrap(), ARCH).unwrap();
    let mut packages = vec![base(), (apk, Entries::new())];
    // A file under two names of its directory clashes for sisforge, while apk overwrites it unseen.
    let folders: &[&str] = if random.once_in(3) {
        &["t", "t/c", "t/link", "t/link/b"]
    } else {
        &["t", "t/a", "t/a/b", "t/c", "etc/x"]
    };
    for name in &names[..2 + random.below(4)] {
        let mut info = info(name);
        info.depends.push("base".parse().unwrap());
        if random.once_in(3) {
            info.origin = Some((*random.one_of(&names)).to_owned());
        }
        for other in names.iter().chain(&["base"]).filter(|other| *other != name) {
            let wish = match random.below(4) {
                0 => format!("{other}>2"),
                1 => format!("{other}<2"),
                _ => (*other).to_owned(),
            };
            if !random.once_in(3) {
                info.replaces.push(wish.parse().unwrap());
            }
        }
        if random.once_in(2) {
            info.replaces_priority = Some(random.below(4) as i64);
        }
        packages.push((info, entries(random, name, folders)));
    }
    packages
}

fn tar_of(entries: &Entries) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, entry) in entries {
        if !entry.xattrs.is_empty() {
            let records = entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value));
            let records: Vec<_> = records.collect();
            tar.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
                .unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.1);
        header.set_gid(entry.owner.1);
        header.set_username(entry.owner.0).unwrap();
        header.set_groupname(entry.owner.0).unwrap();
        header.set_mtime(1_700_000_000);
        if matches!(entry.kind, EntryType::Link | EntryType::Symlink) {
            header.set_size(0);
            tar.append_link(&mut header, path, &entry.bytes).unwrap();
        } else {
            header.set_size(entry.bytes.len() as u64);
            tar.append_data(&mut header, path, entry.bytes.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

/// What is compared: a line for each path, groups of names of one file, and the database.
#[derive(Debug, PartialEq)]
struct Look {
    lines: BTreeMap<String, String>,
    links: BTreeSet<Vec<String>>,
    database: String,
}

fn line(kind: &str, mode: u32, uid: u32, gid: u32, xattrs: &BTreeMap<String, Vec<u8>>) -> String {
    let xattrs = xattrs.iter().map(|(name, value)| format!(" {name}={}", hex::encode(value)));
    format!("{kind} {mode:o} {uid}:{gid}{}", xattrs.collect::<String>())
}

fn groups(by_inode: BTreeMap<String, Vec<String>>) -> BTreeSet<Vec<String>> {
    by_inode.into_values().filter(|names| names.len() > 1).collect()
}

/// What apk laid out.
fn theirs(root: &Path) -> Look {
    let mut lines = BTreeMap::new();
    let mut inodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut open: Vec<String> = BELOW.map(str::to_owned).into();
    while let Some(path) = open.pop() {
        let at = root.join(&path[1..]);
        let meta = fs::symlink_metadata(&at).unwrap();
        let kind = if meta.is_dir() {
            let names = fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name());
            open.extend(names.map(|name| format!("{path}/{}", name.into_string().unwrap())));
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", fs::read_link(&at).unwrap().display())
        } else {
            inodes.entry(meta.ino().to_string()).or_default().push(path.clone());
            hex::encode(Sha1::digest(fs::read(&at).unwrap()))
        };
        let mut xattrs = BTreeMap::new();
        for name in ATTRIBUTES {
            let mut value = [0; 64];
            if let Ok(length) = rustix::fs::lgetxattr(&at, name, &mut value) {
                xattrs.insert(name.to_owned(), value[..length].to_vec());
            }
        }
        lines.insert(path, line(&kind, meta.mode() & 0o7777, meta.uid(), meta.gid(), &xattrs));
    }
    inodes.values_mut().for_each(|names| names.sort());
    let database = fs::read_to_string(root.join("lib/apk/db/installed")).unwrap();
    Look { lines, links: groups(inodes), database }
}

/// What sisforge lays out.
fn ours(tree: &Tree<Content>, packages: &[PackageContents]) -> Look {
    let mut lines = BTreeMap::new();
    let mut inodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut database = String::new();
    for (path, node) in tree.iter() {
        if let (NodeKind::File { content: Content::Inline(bytes), .. }, "/lib/apk/db/installed") =
            (&node.kind, path)
        {
            database = String::from_utf8(bytes.to_vec()).unwrap();
        }
        if !BELOW.iter().any(|below| path == *below || path.starts_with(&format!("{below}/"))) {
            continue;
        }
        let inode = match &node.kind {
            NodeKind::HardLink { target } => target.as_str(),
            _ => path,
        };
        let node = tree.get(inode).unwrap();
        let kind = match &node.kind {
            NodeKind::Directory => "directory".to_owned(),
            NodeKind::Symlink { target } => format!("-> {target}"),
            NodeKind::File { content: Content::Streamed { source, entry }, .. } => {
                inodes.entry(inode.to_owned()).or_default().push(path.to_owned());
                hex::encode(packages[*source].entries[*entry].sha1.unwrap())
            }
            other => panic!("{path} is {other:?}"),
        };
        lines.insert(path.to_owned(), line(&kind, node.mode.into(), node.uid, node.gid, &node.xattrs));
    }
    Look { lines, links: groups(inodes), database }
}

/// A place where the genuine apk installs.
struct Site {
    dir: tempfile::TempDir,
    key: SigningKey,
}

impl Site {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).into_os_string().into_string().unwrap()
    }

    /// Lets apk install all packages; gives their names in its order, and what it complained of.
    fn install(&self, apk: &Apk, packages: &[(PackageInfo, Entries)]) -> (Vec<PackageContents>, String) {
        for old in ["root", "repo"] {
            let _ = fs::remove_dir_all(self.path(old));
        }
        let repository = self.dir.path().join("repo").join(ARCH);
        fs::create_dir_all(&repository).unwrap();
        let mut made = BTreeMap::new();
        for (info, entries) in packages {
            let packed = pack(info.clone(), Contents::from_tar(&tar_of(entries)[..]).unwrap(), None).unwrap();
            fs::write(repository.join(packed.info.file_name()), &packed.bytes).unwrap();
            let package = PackageContents::inspect(packed.bytes.into()).unwrap();
            made.insert(info.name.clone(), package);
        }
        let index = sign_directory(&repository, &self.key).unwrap();
        fs::write(repository.join("APKINDEX.tar.gz"), index).unwrap();
        let (root, keys, repository) = (self.path("root"), self.path("keys"), self.path("repo"));
        let fixed = ["--root", &root, "--arch", ARCH, "--keys-dir", &keys, "--repository", &repository];
        let how = ["--no-network", "--no-progress", "--no-scripts", "--no-cache", "add", "--initdb"];
        let names = packages.iter().map(|(info, _)| info.name.as_str());
        let output = apk.run(fixed.into_iter().chain(how).chain(names));
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let installing = |line: &str| Some(line.split_once("Installing ")?.1.split(' ').next()?.to_owned());
        let order: Vec<String> = text.lines().filter_map(installing).collect();
        assert_eq!(order.len(), packages.len(), "{text}");
        let complaints: String = text.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(output.status.success(), complaints.is_empty(), "{text}");
        (order.into_iter().filter_map(|name| made.remove(&name)).collect(), complaints)
    }
}

#[test]
fn random_packages_are_laid_out_as_apk_lays_them_out() {
    let Some(apk) = Apk::find() else { return };
    if !rustix::process::geteuid().is_root() {
        return skip(
            "random_packages_are_laid_out_as_apk_lays_them_out",
            "apk gives files to their owners as root alone",
        );
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("keys")).unwrap();
    let key = SigningKey::generate(&dir.path().join("keys/test.rsa")).unwrap();
    let site = Site { dir, key };
    let settings = ApkSettings { arch: ARCH.into(), ..ApkSettings::default() };
    let rounds =
        std::env::var("SISFORGE_TEST_LAYOUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let mut random = Random(5);
    let (mut same, mut refused) = (0, 0);
    for round in 0..rounds {
        let set = packages(&mut random);
        let (packages, complaints) = site.install(&apk, &set);
        match rootfs(&packages, &Recipes::default(), &BTreeMap::new(), &settings) {
            Ok(root) => {
                assert_eq!(complaints, "", "round {round}: apk refuses what sisforge does not");
                let (ours, theirs) = (ours(&root.tree, &packages), theirs(Path::new(&site.path("root"))));
                assert_eq!(ours.lines, theirs.lines, "round {round}");
                assert_eq!(ours.links, theirs.links, "round {round}");
                assert_eq!(ours.database, theirs.database, "round {round}");
                same += 1;
            }
            Err(LayoutError::LostLinkTarget { .. }) => {
                assert!(complaints.contains("no hard link target"), "round {round}: {complaints}");
                refused += 1;
            }
            Err(LayoutError::Clash { .. }) => {
                assert!(complaints.contains("trying to overwrite"), "round {round}: {complaints}");
                refused += 1;
            }
            Err(other) => panic!("round {round}: {other}; apk: {complaints:?}"),
        }
    }
    assert!(same >= rounds / 3 && refused >= rounds / 10, "{same} alike, {refused} refused");
}
