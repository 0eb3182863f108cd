//! apk's own database of what is installed, `/lib/apk/db`, so that the apk inside an image knows it. Pure functions of values.
//!
//! Follows what apk-tools 2.14 and 3.0 write (`src/database.c`), which differ in where scripts are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

use super::archive::TarEntry;
use super::archive_writer::TarWriter;
use super::dependency::{Checksum, Dependency};
use super::gzip;
use super::info::{PackageInfo, index_record, join};
use super::package::PackageContents;
use super::rules::Rules;
use super::scripts::{Script, ScriptKind};

/// A package as it was laid out.
#[derive(Clone, Debug)]
pub struct Installed<'a> {
    pub info: &'a PackageInfo,
    pub scripts: &'a [Script],
    /// `@tag` of the repository that it came from.
    pub tag: Option<&'a str>,
    /// What the package owns after all packages are laid out: without files that another one has taken from it.
    pub owned: Vec<Owned<'a>>,
}

/// One path that a package owns, with the owners that the image resolved by name.
#[derive(Clone, Debug)]
pub struct Owned<'a> {
    /// Without a leading slash; `""` is the root.
    pub path: &'a str,
    pub is_directory: bool,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Of a file's bytes, of a symlink's target, or of a hard link's target; devices have none.
    pub sha1: Option<[u8; 20]>,
    pub xattrs: &'a BTreeMap<String, Vec<u8>>,
}

impl<'a> Installed<'a> {
    /// Everything of a package as it stands in it, with numeric owners: where no other package brings the same paths.
    pub fn whole(package: &'a PackageContents) -> Self {
        let sums: BTreeMap<&str, Option<[u8; 20]>> =
            package.entries.iter().map(|entry| (entry.path.as_str(), entry.sha1)).collect();
        let owned = package.entries.iter().filter(|entry| entry.is_installed()).map(|entry| Owned {
            path: &entry.path,
            is_directory: entry.kind == super::EntryKind::Directory,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            sha1: match &entry.kind {
                super::EntryKind::HardLink { target } => sums.get(target.as_str()).copied().flatten(),
                _ => entry.sha1,
            },
            xattrs: &entry.xattrs,
        });
        Self { info: &package.info, scripts: &package.scripts, tag: None, owned: owned.collect() }
    }
}

/// The text of `/lib/apk/db/installed` (mode 0644): packages by name, each with its directories and files.
pub fn installed(packages: &[Installed<'_>]) -> String {
    sorted(packages).into_iter().map(|package| record(package) + "\n").collect()
}

fn sorted<'p, 'a>(packages: &'p [Installed<'a>]) -> Vec<&'p Installed<'a>> {
    let mut sorted: Vec<_> = packages.iter().collect();
    sorted.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    sorted
}

fn record(package: &Installed<'_>) -> String {
    let info = package.info;
    let mut text = index_record(info);
    // Writing into a string cannot fail.
    if !info.replaces.is_empty() {
        let _ = writeln!(text, "r:{}", join(&info.replaces));
    }
    if let Some(priority) = info.replaces_priority.filter(|priority| *priority != 0) {
        let _ = writeln!(text, "q:{priority}");
    }
    if let Some(tag) = package.tag {
        let _ = writeln!(text, "s:{tag}");
    }
    let mut files: BTreeMap<&str, Vec<(&str, &Owned<'_>)>> = BTreeMap::new();
    for file in package.owned.iter().filter(|owned| !owned.is_directory) {
        let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
        files.entry(directory).or_default().push((name, file));
    }
    let mut directories: Vec<(&str, Option<&Owned<'_>>)> = Vec::new();
    let has_root = package.owned.iter().any(|owned| owned.is_directory && owned.path.is_empty());
    if files.contains_key("") && !has_root {
        directories.push(("", None));
    }
    directories
        .extend(package.owned.iter().filter(|o| o.is_directory).map(|owned| (owned.path, Some(owned))));
    for (path, owned) in directories {
        let _ = writeln!(text, "F:{path}");
        if let Some(owned) = owned.filter(|owned| !path.is_empty() && !is_plain(owned, 0o755)) {
            let _ = writeln!(text, "M:{}", permissions(owned));
        }
        let mut inside = files.remove(path).unwrap_or_default();
        inside.sort_by_key(|(name, _)| *name);
        for (name, file) in inside {
            let _ = writeln!(text, "R:{name}");
            if !is_plain(file, 0o644) {
                let _ = writeln!(text, "a:{}", permissions(file));
            }
            if let Some(sum) = file.sha1 {
                let _ = writeln!(text, "Z:{}", Checksum(sum));
            }
        }
    }
    text
}

fn is_plain(owned: &Owned<'_>, mode: u16) -> bool {
    (owned.uid, owned.gid, owned.mode) == (0, 0, mode) && owned.xattrs.is_empty()
}

fn permissions(owned: &Owned<'_>) -> String {
    let plain = format!("{}:{}:{:o}", owned.uid, owned.gid, owned.mode);
    if owned.xattrs.is_empty() { plain } else { format!("{plain}:{}", xattr_digest(owned.xattrs)) }
}

/// The digest of extended attributes: SHA-1 over each name and value, each with its length before it (32 bits, big endian),
/// sorted by name.
pub fn xattr_digest(xattrs: &BTreeMap<String, Vec<u8>>) -> Checksum {
    let mut hash = Sha1::new();
    for (name, value) in xattrs {
        for bytes in [name.as_bytes(), value] {
            // Names and values are bounded far below 4 GiB when they are read.
            hash.update((bytes.len() as u32).to_be_bytes());
            hash.update(bytes);
        }
    }
    Checksum(hash.finalize().into())
}

/// Part of every key of an image: changed whenever the same packages would be recorded in other bytes.
pub const LAYOUT: &str = "2";

/// A file of `/lib/apk/db` (mode 0644), name and bytes, with what apk would run when the image's packages are changed or removed:
/// `scripts.tar`, as apk 2 writes it, or `scripts.tar.gz`, as apk 3 does. It is not compressed, so that its bytes are not those of a
/// compressor.
pub fn scripts(packages: &[Installed<'_>], rules: Rules) -> (&'static str, Vec<u8>) {
    let mut tar = TarWriter::default();
    for package in sorted(packages) {
        let checksum = match rules {
            Rules::Apk2 => package.info.checksum.to_string(),
            Rules::Apk3 => package.info.checksum.to_hex(),
        };
        let mtime = package.info.build_date.and_then(|date| i64::try_from(date).ok()).unwrap_or(0);
        for script in package.scripts {
            let path = format!("{}.{checksum}.{}", package.info.id(), script.kind.as_str());
            let (owner, group) = ("root".to_owned(), "root".to_owned());
            let size = script.body.len() as u64;
            let entry = TarEntry { path, size, mode: 0o755, mtime, owner, group, ..TarEntry::empty() };
            tar.add(&entry, &script.body);
        }
    }
    match rules {
        Rules::Apk2 => ("scripts.tar", tar.ended()),
        Rules::Apk3 => ("scripts.tar.gz", gzip::store(&tar.ended())),
    }
}

/// The text of `/lib/apk/db/triggers` (mode 0644): which directories the trigger scripts watch.
pub fn triggers(packages: &[Installed<'_>]) -> String {
    let with_trigger = sorted(packages).into_iter().filter(|package| {
        !package.info.triggers.is_empty()
            && package.scripts.iter().any(|script| script.kind == ScriptKind::Trigger)
    });
    with_trigger
        .map(|package| format!("{} {}\n", package.info.checksum, package.info.triggers.join(" ")))
        .collect()
}

/// The text of `/etc/apk/world`: what was asked for, sorted by name, one a line.
pub fn world(dependencies: &[Dependency]) -> String {
    let mut lines: Vec<String> = dependencies.iter().map(Dependency::to_string).collect();
    lines.sort();
    lines.dedup();
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(value: &str) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([("security.capability".to_owned(), hex::decode(value).unwrap())])
    }

    #[test]
    fn attributes_have_apks_digest() {
        let digest = |value| xattr_digest(&capability(value)).to_string();
        assert_eq!(digest("0100000280000000000000000000000000000000"), "Q1/osWNNTgKx4dhEDYR4jrIlwwo8Y=");
        assert_eq!(digest("0100000240000000000000000000000000000000"), "Q1LAjYo6BkscfVNwuBGd4r6T2QIgM=");
    }

    #[test]
    fn a_record_lists_directories_and_files_with_what_is_special() {
        let mut info = PackageInfo::new("b", "1-r0".parse().unwrap(), "x86_64").unwrap();
        info.replaces = vec!["a<2".parse().unwrap()];
        info.replaces_priority = Some(1000);
        let (none, special) = (BTreeMap::new(), capability("01"));
        let owned = |path, is_directory, mode, uid, xattrs| Owned {
            path,
            is_directory,
            mode,
            uid,
            gid: 0,
            sha1: (!is_directory).then_some([0; 20]),
            xattrs,
        };
        let owned = vec![
            owned("tmp", true, 0o1777, 0, &none),
            owned("usr", true, 0o755, 0, &none),
            owned("usr/z", false, 0o777, 0, &none),
            owned("usr/b", false, 0o644, 5, &special),
            owned("init", false, 0o644, 0, &none),
        ];
        let package = Installed { info: &info, scripts: &[], tag: Some("edge"), owned };
        let other = PackageInfo::new("a", "1-r0".parse().unwrap(), "x86_64").unwrap();
        let other = Installed { info: &other, scripts: &[], tag: None, owned: Vec::new() };
        let text = installed(&[package, other]);
        assert!(text.starts_with("C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:a\n"), "{text}");
        let zero = Checksum([0; 20]);
        let digest = xattr_digest(&special);
        let expected = format!(
            "r:a<2\nq:1000\ns:edge\nF:\nR:init\nZ:{zero}\nF:tmp\nM:0:0:1777\nF:usr\nR:b\na:5:0:644:{digest}\nZ:{zero}\n\
             R:z\na:0:0:777\nZ:{zero}\n\n"
        );
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn the_world_is_sorted_and_without_repeats() {
        let dependencies = ["podman~5", "busybox", "podman~5"].map(|dependency| dependency.parse().unwrap());
        assert_eq!(world(&dependencies), "busybox\npodman~5\n");
    }
}
