//! Packages one after the other, by apk's rules on who owns what.
//!
//! apk 2 (`apk_db_install_archive_entry` and `apk_db_dir_apply_diri_permissions` of apk-tools 2.14) and apk 3
//! (`apk_pkg_replaces_file` and `apk_pkg_replaces_dir`) differ in two things. An image that holds apk 2 is laid out by its
//! rules, so that the apk inside finds what it would have made; every other by those of apk 3.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::apk::database::{Installed, Owned};
use crate::apk::{Entry, EntryKind, PackageContents, PackageInfo, Rules};

use super::super::accounts::AccountFiles;
use super::super::content::Content;
use super::super::tree::{Node, NodeKind, Tree};
use super::LayoutError;

/// Packages laid out into a tree.
pub(super) struct Packages<'a> {
    packages: &'a [PackageContents],
    pub tree: Tree<Content>,
    /// Which package's which entry a path of the tree is.
    owners: BTreeMap<String, (usize, usize)>,
    pub rules: Rules,
    /// By apk 2, every entry of a directory has a say in its owner and mode.
    claims: BTreeMap<String, Vec<(usize, usize)>>,
}

/// What becomes of a file that is there already.
#[derive(Debug, PartialEq, Eq)]
enum Precedence {
    /// The arriving package takes it.
    Take,
    /// It stays, and the arriving package does without.
    Keep,
    Clash,
}

impl<'a> Packages<'a> {
    pub(super) fn lay_out(packages: &'a [PackageContents]) -> Result<Self, LayoutError> {
        let mut laid = Self {
            packages,
            tree: Tree::new(),
            owners: BTreeMap::new(),
            rules: Rules::of(packages.iter().map(|package| &package.info)),
            claims: BTreeMap::new(),
        };
        for (number, package) in packages.iter().enumerate() {
            for (index, entry) in package.entries.iter().enumerate().filter(|(_, entry)| entry.is_installed())
            {
                match entry.kind {
                    EntryKind::Directory => laid.add_directory(number, index, entry)?,
                    _ => laid.add_file(number, index, entry)?,
                }
            }
        }
        Ok(laid)
    }

    fn info(&self, package: usize) -> &PackageInfo {
        &self.packages[package].info
    }

    /// Where an entry lands. A directory that an earlier package made a symlink is entered, as it would be on disk.
    fn place(&self, path: &str) -> Result<String, LayoutError> {
        let path = format!("/{path}");
        self.tree.real_path(&path).ok_or(LayoutError::LinkCircle { path })
    }

    fn add_directory(&mut self, package: usize, index: usize, entry: &Entry) -> Result<(), LayoutError> {
        let path = self.place(&entry.path)?;
        if self.rules == Rules::Apk2 {
            self.claims.entry(path.clone()).or_default().push((package, index));
        }
        let takes = match self.tree.get(&path).map(|node| &node.kind) {
            None => true,
            Some(NodeKind::Directory) => {
                let owner = self.owners.get(&path).map(|(owner, _)| self.info(*owner));
                self.rules == Rules::Apk3
                    && owner.is_none_or(|owner| takes_directory(owner, self.info(package)))
            }
            Some(NodeKind::Symlink { .. }) if self.leads_to_directory(&path) => return Ok(()),
            Some(kind) => return Err(self.kind_clash(&path, kind.name(), "directory", package)),
        };
        if takes { self.put(package, index, &path, node(package, index, entry)) } else { Ok(()) }
    }

    /// Whether a path that is a symlink leads to a directory.
    fn leads_to_directory(&self, path: &str) -> bool {
        let inside = self.tree.real_path(&format!("{path}/."));
        inside.is_some_and(|inside| self.tree.get(&inside).is_some_and(Node::is_directory))
    }

    fn add_file(&mut self, package: usize, index: usize, entry: &Entry) -> Result<(), LayoutError> {
        let path = self.place(&entry.path)?;
        let mut node = node(package, index, entry);
        if let NodeKind::HardLink { target } = &mut node.kind {
            *target = self.place(target.trim_start_matches('/'))?;
            let owner = self.owners.get(target).map_or(package, |(owner, _)| *owner);
            if owner != package {
                return Err(LayoutError::LostLinkTarget {
                    package: self.info(package).id(),
                    path,
                    target: target.clone(),
                    owner: self.info(owner).id(),
                });
            }
        }
        if let Some(there) = self.tree.get(&path) {
            if there.is_directory() {
                return Err(self.kind_clash(&path, "directory", node.kind.name(), package));
            }
            let owner = self.owners.get(&path).map_or(package, |(owner, _)| *owner);
            match precedence(self.info(owner), self.info(package), self.rules) {
                Precedence::Take => {}
                Precedence::Keep => return Ok(()),
                Precedence::Clash => {
                    let (first, second) = (self.info(owner).id(), self.info(package).id());
                    return Err(LayoutError::Clash { path, first, second });
                }
            }
        }
        self.put(package, index, &path, node)
    }

    fn put(
        &mut self,
        package: usize,
        index: usize,
        path: &str,
        node: Node<Content>,
    ) -> Result<(), LayoutError> {
        self.tree.insert(path, node).map_err(|source| LayoutError::Place {
            origin: format!("package {}", self.info(package).id()),
            path: path.to_owned(),
            source,
        })?;
        self.owners.insert(path.to_owned(), (package, index));
        Ok(())
    }

    fn kind_clash(
        &self,
        path: &str,
        there: &'static str,
        arriving: &'static str,
        package: usize,
    ) -> LayoutError {
        let first = self.owners.get(path).map_or_else(String::new, |(owner, _)| self.info(*owner).id());
        LayoutError::KindClash {
            path: path.to_owned(),
            there,
            first,
            arriving,
            second: self.info(package).id(),
        }
    }

    /// The bytes of some files of the tree, by path; what is not there, or is no file of a package, is left out.
    pub(super) fn read(&self, paths: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, LayoutError> {
        let mut wanted: BTreeMap<usize, BTreeMap<usize, &str>> = BTreeMap::new();
        for path in paths {
            let kind = self.tree.get(path).map(|node| &node.kind);
            if let Some(NodeKind::File { content: Content::Streamed { source, entry }, .. }) = kind {
                wanted.entry(*source).or_default().insert(*entry, path);
            }
        }
        let mut found = BTreeMap::new();
        for (package, entries) in wanted {
            let package = &self.packages[package];
            package.each_file(|entry, reader| -> Result<(), LayoutError> {
                let Some(path) = entries.get(&entry) else { return Ok(()) };
                let path = (*path).to_owned();
                let mut bytes = Vec::new();
                if let Err(source) = reader.read_to_end(&mut bytes) {
                    return Err(LayoutError::Read { package: package.info.id(), path, source });
                }
                found.insert(path, bytes);
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// What each package owns, for apk's database. `listed` are the packages as their repositories list them; `tags` are those
    /// of the repositories, by package name.
    pub(super) fn installed<'t>(
        &self,
        listed: &'t [PackageInfo],
        tags: &'t BTreeMap<String, String>,
        accounts: &AccountFiles,
    ) -> Vec<Installed<'t>>
    where
        'a: 't,
    {
        let kept: BTreeSet<(usize, usize)> = self.owners.values().copied().collect();
        let of = |((number, package), info): ((usize, &'a PackageContents), &'t PackageInfo)| {
            let sums: BTreeMap<&str, _> =
                package.entries.iter().map(|entry| (entry.path.as_str(), entry.sha1)).collect();
            let entries = package.entries.iter().enumerate().filter(|(index, entry)| {
                (entry.kind == EntryKind::Directory && entry.is_installed())
                    || kept.contains(&(number, *index))
            });
            let owned = entries.map(|(_, entry)| {
                let (uid, gid) = owner(entry, accounts);
                Owned {
                    path: &entry.path,
                    is_directory: entry.kind == EntryKind::Directory,
                    mode: mode(entry),
                    uid,
                    gid,
                    sha1: match &entry.kind {
                        EntryKind::HardLink { target } => sums.get(target.as_str()).copied().flatten(),
                        _ => entry.sha1,
                    },
                    xattrs: &entry.xattrs,
                }
            });
            Installed {
                info,
                scripts: &package.scripts,
                tag: tags.get(&info.name).map(String::as_str),
                owned: owned.collect(),
            }
        };
        self.packages.iter().enumerate().zip(listed).map(of).collect()
    }

    /// Owners by name where the image knows the name, else by number.
    pub(super) fn resolve_owners(&mut self, accounts: &AccountFiles) {
        for (path, (package, index)) in &self.owners {
            let entry = &self.packages[*package].entries[*index];
            if let Some(node) = self.tree.get_mut(path) {
                (node.uid, node.gid) = owner(entry, accounts);
            }
        }
        for (path, claims) in &self.claims {
            let entries = claims.iter().map(|(package, index)| &self.packages[*package].entries[*index]);
            let claims = entries.map(|entry| (owner(entry, accounts), entry.mode));
            if let Some(node) = self.tree.get_mut(path).filter(|node| node.is_directory())
                && let Some(((uid, gid), mode)) = least(claims)
            {
                (node.uid, node.gid, node.mode) = (uid, gid, mode);
            }
        }
    }
}

/// The owner and mode of a directory by apk 2: the smallest owner, and what all entries of that owner allow.
fn least(claims: impl Iterator<Item = ((u32, u32), u16)>) -> Option<((u32, u32), u16)> {
    claims.reduce(|least, claim| match claim.0.cmp(&least.0) {
        Ordering::Less => claim,
        Ordering::Equal => (least.0, least.1 & claim.1),
        Ordering::Greater => least,
    })
}

fn owner(entry: &Entry, accounts: &AccountFiles) -> (u32, u32) {
    let (uid, gid) = (accounts.uid(&entry.owner), accounts.gid(&entry.group));
    (uid.unwrap_or(entry.uid), gid.unwrap_or(entry.gid))
}

/// The kernel gives every symlink one mode.
fn mode(entry: &Entry) -> u16 {
    if matches!(entry.kind, EntryKind::Symlink { .. }) { 0o777 } else { entry.mode }
}

fn node(package: usize, index: usize, entry: &Entry) -> Node<Content> {
    let mut kind = entry.kind.map(|()| Content::Streamed { source: package, entry: index });
    if let NodeKind::HardLink { target } = &mut kind {
        target.insert(0, '/');
    }
    Node {
        kind,
        mode: mode(entry),
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.clone(),
    }
}

/// How much a package insists on a file of another: nothing where it does not replace it.
fn priority(package: &PackageInfo, over: &PackageInfo) -> i64 {
    if package.replaces(over) { package.replaces_priority.unwrap_or(0) } else { -1 }
}

fn same_origin(one: &PackageInfo, other: &PackageInfo) -> bool {
    one.origin.as_deref().is_some_and(|origin| !origin.is_empty() && other.origin.as_deref() == Some(origin))
}

fn precedence(there: &PackageInfo, arriving: &PackageInfo, rules: Rules) -> Precedence {
    let (there_prio, arriving_prio) = (priority(there, arriving), priority(arriving, there));
    let same_origin = same_origin(there, arriving);
    if there.name == arriving.name || (same_origin && rules == Rules::Apk2) {
        Precedence::Take
    } else if there_prio > arriving_prio {
        Precedence::Keep
    } else if arriving_prio >= 0 || same_origin {
        Precedence::Take
    } else {
        Precedence::Clash
    }
}

/// Whether a package that arrives becomes the owner of a directory, and so of its mode.
fn takes_directory(there: &PackageInfo, arriving: &PackageInfo) -> bool {
    let priority = |package: &PackageInfo| package.replaces_priority.unwrap_or(0);
    if there.name == arriving.name {
        return true;
    }
    if priority(there) != priority(arriving) {
        return priority(there) < priority(arriving);
    }
    if same_origin(there, arriving) {
        let is_named_like_it = |package: &PackageInfo| package.origin.as_deref() == Some(&package.name);
        if is_named_like_it(there) || is_named_like_it(arriving) {
            return is_named_like_it(arriving);
        }
    }
    arriving.name < there.name
}
