//! What differs between two images: packages, files, and what files give whoever runs them.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::apk::InstalledPackage;

use super::inspect::{InspectedImage, Privileged};
use super::read::{Flaw, InodeKind, Inventory, InventoryEntry, ReadError, Side, same_bytes};

/// What differs; empty lists where nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    pub packages: Vec<PackageChange>,
    pub files: Vec<FileChange>,
    /// Files that are setuid, setgid or have capabilities in one of the images, and not alike in both.
    pub privileged: Vec<PrivilegeChange>,
    /// How many files differ in nothing but their time; they are among the files only where times are asked for.
    pub times_alone: usize,
}

/// A package that is in one image alone, or in both and not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PackageChange {
    pub name: String,
    /// Its version in the first image.
    pub from: Option<String>,
    /// Its version in the second one: that of the first where it was built anew.
    pub to: Option<String>,
}

/// A path that is in one image alone, or in both and not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileChange {
    pub path: String,
    /// In what it differs: empty where it is in one image alone.
    pub what: Vec<Aspect>,
    pub from: Option<FileState>,
    pub to: Option<FileState>,
}

/// In what two files of one path can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    Kind,
    Content,
    /// Where a symlink leads.
    Target,
    /// Numbers of a device.
    Device,
    Mode,
    Owner,
    Attributes,
    /// Which other names the file has.
    Names,
    Time,
}

/// What is told of a file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileState {
    pub kind: &'static str,
    /// Bytes of content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Four octal digits.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Values in hexadecimal digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

/// What a file gives whoever runs it, in both images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PrivilegeChange {
    pub path: String,
    pub from: Option<Privileged>,
    pub to: Option<Privileged>,
}

impl Difference {
    /// Compares two images. Contents are compared by their bytes, where sizes are equal; times are told with `times` alone.
    pub fn between(one: &InspectedImage, two: &InspectedImage, times: bool) -> Result<Self, ReadError> {
        let files = compared(one, two).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Self::made_of(one, two, files, times))
    }

    /// The same where the second may be damaged: what of the contents of its files cannot be read stands beside it.
    pub fn salvaged(
        one: &InspectedImage,
        two: &InspectedImage,
        times: bool,
    ) -> Result<(Self, Vec<Flaw>), ReadError> {
        let (mut files, mut flaws) = (Vec::new(), Vec::new());
        for compared in compared(one, two) {
            match compared {
                Ok(change) => files.push(change),
                Err(error) if error.image == two.volume.path() => flaws.push(error.flaw),
                Err(error) => return Err(error),
            }
        }
        Ok((Self::made_of(one, two, files, times), flaws))
    }

    fn made_of(
        one: &InspectedImage,
        two: &InspectedImage,
        files: Vec<Option<FileChange>>,
        times: bool,
    ) -> Self {
        let mut files: Vec<FileChange> = files.into_iter().flatten().collect();
        let is_time_alone = |change: &FileChange| change.what == [Aspect::Time];
        let times_alone = files.iter().filter(|change| is_time_alone(change)).count();
        if !times {
            files.retain(|change| !is_time_alone(change));
            files.iter_mut().for_each(|change| change.what.retain(|what| *what != Aspect::Time));
        }
        Self {
            packages: packages(&one.system.packages, &two.system.packages),
            files,
            privileged: privileged(&one.inventory, &two.inventory),
            times_alone,
        }
    }

    /// Whether nothing differs that is told.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.files.is_empty() && self.privileged.is_empty()
    }
}

/// Every path of both, and in what it differs.
fn compared(one: &InspectedImage, two: &InspectedImage) -> Vec<Result<Option<FileChange>, ReadError>> {
    let names = [&one.inventory, &two.inventory].map(other_names);
    let paths: BTreeSet<&str> =
        one.inventory.iter().chain(two.inventory.iter()).map(|(path, _)| path).collect();
    let paths: Vec<&str> = paths.into_iter().collect();
    let compare = |path: &&str| -> Result<Option<FileChange>, ReadError> {
        let (from, to) = (one.inventory.get(path), two.inventory.get(path));
        let mut what = Vec::new();
        if let (Some(a), Some(b)) = (from, to) {
            what = metadata(a, b);
            if names[0].get(path) != names[1].get(path) {
                what.push(Aspect::Names);
            }
            if !what.contains(&Aspect::Kind) && !same_content(path, (one, a), (two, b))? {
                what.insert(0, Aspect::Content);
            }
            if a.mtime != b.mtime {
                what.push(Aspect::Time);
            }
            if what.is_empty() {
                return Ok(None);
            }
        }
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        let (from, to) = (from.map(FileState::of), to.map(FileState::of));
        Ok(Some(FileChange { path, what, from, to }))
    };
    paths.par_iter().map(compare).collect()
}

impl FileState {
    fn of(entry: &InventoryEntry) -> Self {
        let target = match &entry.kind {
            InodeKind::Symlink { target } => Some(target.clone()),
            InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
                Some(format!("{major}:{minor}"))
            }
            _ => None,
        };
        Self {
            kind: entry.kind.name(),
            size: matches!(entry.kind, InodeKind::File { .. }).then(|| entry.size()),
            target,
            mode: format!("{:04o}", entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.iter().map(|(name, value)| (name.clone(), hex::encode(value))).collect(),
        }
    }
}

/// In what two entries differ, contents and times aside. Symlinks have no mode of their own.
fn metadata(a: &InventoryEntry, b: &InventoryEntry) -> Vec<Aspect> {
    let mut what = Vec::new();
    if std::mem::discriminant(&a.kind) != std::mem::discriminant(&b.kind) {
        what.push(Aspect::Kind);
    } else if a.kind != b.kind {
        match a.kind {
            InodeKind::Symlink { .. } => what.push(Aspect::Target),
            InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } => what.push(Aspect::Device),
            // Sizes are compared with the contents.
            _ => {}
        }
    }
    let is_link = |entry: &InventoryEntry| matches!(entry.kind, InodeKind::Symlink { .. });
    if a.mode != b.mode && !(is_link(a) && is_link(b)) {
        what.push(Aspect::Mode);
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        what.push(Aspect::Owner);
    }
    if a.xattrs != b.xattrs {
        what.push(Aspect::Attributes);
    }
    what
}

/// The other names of each path that is a file with several.
fn other_names(inventory: &Inventory) -> BTreeMap<&str, Vec<&str>> {
    let groups = inventory.hard_links().into_values();
    groups.flat_map(|names| names.clone().into_iter().map(move |name| (name, names.clone()))).collect()
}

fn same_content(
    path: &str,
    one: (&InspectedImage, &InventoryEntry),
    two: (&InspectedImage, &InventoryEntry),
) -> Result<bool, ReadError> {
    if one.1.size() != two.1.size() {
        return Ok(false);
    }
    if one.1.size() == 0 {
        return Ok(true);
    }
    let mut left = one.0.volume.bytes_of(one.1.inode)?;
    let mut right = two.0.volume.bytes_of(two.1.inode)?;
    same_bytes(&mut left, &mut right, one.1.size()).map_err(|(side, error)| {
        let opened = if side == Side::Left { one.0 } else { two.0 };
        ReadError::of(opened.volume.path(), Flaw::at(path, error))
    })
}

fn packages(one: &[InstalledPackage], two: &[InstalledPackage]) -> Vec<PackageChange> {
    let by_name = |packages: &[InstalledPackage]| -> BTreeMap<String, (String, crate::apk::Checksum)> {
        let of = |package: &InstalledPackage| {
            (package.info.name.clone(), (package.info.version.to_string(), package.info.checksum))
        };
        packages.iter().map(of).collect()
    };
    let (one, two) = (by_name(one), by_name(two));
    let names: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    names
        .into_iter()
        .filter(|name| one.get(*name) != two.get(*name))
        .map(|name| {
            let version = |packages: &BTreeMap<String, (String, _)>| {
                packages.get(name).map(|(version, _)| version.clone())
            };
            PackageChange { name: name.clone(), from: version(&one), to: version(&two) }
        })
        .collect()
}

fn privileged(one: &Inventory, two: &Inventory) -> Vec<PrivilegeChange> {
    let by_path = |inventory| -> BTreeMap<String, Privileged> {
        Privileged::all(inventory).into_iter().map(|file| (file.path.clone(), file)).collect()
    };
    let (one, two) = (by_path(one), by_path(two));
    let paths: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    paths
        .into_iter()
        .filter(|path| one.get(*path) != two.get(*path))
        .map(|path| PrivilegeChange {
            path: path.clone(),
            from: one.get(path).cloned(),
            to: two.get(path).cloned(),
        })
        .collect()
}
