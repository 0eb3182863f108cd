//! What is in an image, counted: by package, by directory, and what deserves a look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::read::{
    GroupEntry, InodeKind, Inventory, InventoryEntry, PasswdEntry, ReadError, System, Volume, VolumeInfo,
};
use super::recipe::capability;
use super::tree::parent_of;

/// The attribute that holds a file's capabilities.
const CAPABILITY: &str = "security.capability";

/// An image, read whole but for the contents of its files.
#[derive(Debug)]
pub struct InspectedImage {
    pub volume: Volume,
    pub inventory: Inventory,
    pub system: System,
}

impl InspectedImage {
    /// Opens an image and reads its metadata.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let volume = Volume::open(path)?;
        let inventory = Inventory::of(&volume)?;
        let system = System::of(&volume, &inventory)?;
        Ok(Self { volume, inventory, system })
    }
}

/// What is in an image. Sizes are bytes of content; a file with several names counts once.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Inspection {
    #[serde(flatten)]
    pub facts: VolumeInfo,
    pub distribution: Option<String>,
    pub title: Option<String>,
    pub arch: Option<String>,
    pub counts: Counts,
    /// Largest first.
    pub packages: Vec<PackageSize>,
    /// Files that no package brought.
    pub unpackaged: Share,
    /// Largest first; each file counts to one directory, the deepest that is not deeper than was asked for.
    pub directories: Vec<DirectorySize>,
    pub privileged: Vec<Privileged>,
    pub users: Vec<PasswdEntry>,
    pub groups: Vec<GroupEntry>,
    pub services: BTreeMap<String, Vec<String>>,
    pub world: Vec<String>,
}

/// How many entries of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counts {
    pub files: usize,
    pub directories: usize,
    pub symlinks: usize,
    /// Devices, named pipes and sockets.
    pub others: usize,
    /// Names of files beyond their first.
    pub hard_links: usize,
    /// Bytes of all files.
    pub content: u64,
}

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Share {
    pub files: usize,
    pub size: u64,
}

/// What a package takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PackageSize {
    pub name: String,
    pub version: String,
    pub arch: String,
    pub license: String,
    pub origin: Option<String>,
    #[serde(flatten)]
    pub share: Share,
}

/// What a directory takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DirectorySize {
    pub path: String,
    #[serde(flatten)]
    pub share: Share,
}

/// A file that gives whoever runs it more than they had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Privileged {
    pub path: String,
    /// Four octal digits.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    pub setuid: bool,
    pub setgid: bool,
    /// As `getcap` prints them; hexadecimal digits where they are not understood.
    pub capabilities: Option<String>,
}

impl Privileged {
    /// What a file gives; `None` where that is nothing.
    pub fn of(path: &str, entry: &InventoryEntry) -> Option<Self> {
        if !matches!(entry.kind, InodeKind::File { .. }) {
            return None;
        }
        let (setuid, setgid) = (entry.mode & 0o4000 != 0, entry.mode & 0o2000 != 0);
        let capabilities = entry
            .xattrs
            .get(CAPABILITY)
            .map(|value| capability::describe(value).unwrap_or_else(|| hex::encode(value)));
        (setuid || setgid || capabilities.is_some()).then(|| Self {
            path: path.to_owned(),
            mode: format!("{:04o}", entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            setuid,
            setgid,
            capabilities,
        })
    }

    /// All that an image has, by path.
    pub fn all(inventory: &Inventory) -> Vec<Self> {
        inventory.iter().filter_map(|(path, entry)| Self::of(path, entry)).collect()
    }
}

impl Inspection {
    /// Counts an image; directories are told apart down to `depth` levels below the root.
    pub fn of(image: &InspectedImage, depth: usize) -> Result<Self, ReadError> {
        let (inventory, system) = (&image.inventory, &image.system);
        let mut packaged = BTreeSet::new();
        let packages = by_package(inventory, system, &mut packaged);
        let all = || first_names(inventory);
        let unpackaged = share(all().filter(|(_, entry)| !packaged.contains(&entry.inode)));
        let (users, groups) = (system.users.clone(), system.groups.clone());
        Ok(Self {
            facts: image.volume.facts()?,
            distribution: system.distribution.clone(),
            title: system.title.clone(),
            arch: system.arch.clone(),
            counts: counts(inventory),
            packages,
            unpackaged,
            directories: by_directory(all(), depth),
            privileged: Privileged::all(inventory),
            users,
            groups,
            services: system.services.clone(),
            world: system.world.clone(),
        })
    }
}

/// Regular files by the first of their names.
fn first_names(inventory: &Inventory) -> impl Iterator<Item = (&str, &InventoryEntry)> {
    let mut seen = BTreeSet::new();
    inventory
        .iter()
        .filter(move |(_, entry)| matches!(entry.kind, InodeKind::File { .. }) && seen.insert(entry.inode))
}

fn share<'a>(files: impl Iterator<Item = (&'a str, &'a InventoryEntry)>) -> Share {
    files.fold(Share::default(), |share, (_, entry)| Share {
        files: share.files + 1,
        size: share.size.saturating_add(entry.size()),
    })
}

fn counts(inventory: &Inventory) -> Counts {
    let mut counts = Counts::default();
    for (_, entry) in inventory.iter() {
        match entry.kind {
            InodeKind::Directory => counts.directories += 1,
            InodeKind::File { .. } => counts.files += 1,
            InodeKind::Symlink { .. } => counts.symlinks += 1,
            _ => counts.others += 1,
        }
    }
    let whole = share(first_names(inventory));
    counts.hard_links = counts.files - whole.files;
    (counts.files, counts.content) = (whole.files, whole.size);
    counts
}

/// What each package takes; the inodes that packages have are collected.
fn by_package(inventory: &Inventory, system: &System, packaged: &mut BTreeSet<u32>) -> Vec<PackageSize> {
    let mut packages = Vec::new();
    for package in &system.packages {
        let mut share = Share::default();
        for file in package.files.iter().filter(|file| !file.is_directory) {
            let place = inventory.place_of(&format!("/{}", file.path));
            let Some(entry) = place.and_then(|place| inventory.get(&place)) else { continue };
            if matches!(entry.kind, InodeKind::File { .. }) && packaged.insert(entry.inode) {
                share.files += 1;
                share.size = share.size.saturating_add(entry.size());
            }
        }
        let info = &package.info;
        packages.push(PackageSize {
            name: info.name.clone(),
            version: info.version.to_string(),
            arch: info.arch.clone(),
            license: info.license.clone(),
            origin: info.origin.clone(),
            share,
        });
    }
    packages.sort_by(|a, b| b.share.size.cmp(&a.share.size).then_with(|| a.name.cmp(&b.name)));
    packages
}

fn by_directory<'a>(
    files: impl Iterator<Item = (&'a str, &'a InventoryEntry)>,
    depth: usize,
) -> Vec<DirectorySize> {
    let mut shares: BTreeMap<&str, Share> = BTreeMap::new();
    for (path, entry) in files {
        let share = shares.entry(cut(parent_of(path), depth)).or_default();
        share.files += 1;
        share.size = share.size.saturating_add(entry.size());
    }
    let path = |path: &str| if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    let mut found: Vec<_> =
        shares.into_iter().map(|(at, share)| DirectorySize { path: path(at), share }).collect();
    found.sort_by(|a, b| b.share.size.cmp(&a.share.size).then_with(|| a.path.cmp(&b.path)));
    found
}

/// The first `depth` parts of a path.
fn cut(path: &str, depth: usize) -> &str {
    path.match_indices('/').nth(depth).map_or(path, |(end, _)| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_to_its_first_directories() {
        assert_eq!(
            [0, 1, 2, 3, 9].map(|depth| cut("/usr/lib/x", depth)),
            ["", "/usr", "/usr/lib", "/usr/lib/x", "/usr/lib/x"]
        );
        assert_eq!(cut("", 2), "");
    }
}
