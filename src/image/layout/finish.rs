//! What comes after packages: users, links for busybox, recipes, files of `fleet.toml`, apk's settings.

use std::collections::BTreeMap;

use crate::apk::Rules;
use crate::apk::database::{self, Installed};
use crate::base::GuestPath;
use crate::fleet::{FileContent, FileSpec};
use crate::sys::fs as files;

use super::super::accounts::{ACCOUNT_FILES, AccountFiles};
use super::super::content::Content;
use super::super::recipe::{Attributes, FromRecipe, PathItem, Recipes, Service};
use super::super::tree::{Node, NodeKind, Tree};
use super::{ApkSettings, GENERATED_AT, LayoutError, inline_file, plain_directory};

/// Alpine's busybox lists here what `busybox --install -s` would link.
pub(super) const BUSYBOX_PATHS: &str = "/etc/busybox-paths.d/busybox";

/// A tree of packages being finished.
pub(super) struct Finish {
    pub tree: Tree<Content>,
    pub accounts: AccountFiles,
}

impl Finish {
    /// Writes the files of users and groups that are not as packages bring them, and holds the mode of `/etc/shadow`.
    pub(super) fn add_accounts(&mut self, brought: &BTreeMap<String, Vec<u8>>) -> Result<(), LayoutError> {
        for file in &ACCOUNT_FILES {
            let text = self.accounts.text(file);
            let is_same = brought.get(file.path).map_or(text.is_empty(), |bytes| *bytes == text.as_bytes());
            let gid = self.accounts.gid(file.group).unwrap_or(0);
            if !is_same {
                self.put(
                    "the users of recipes",
                    file.path,
                    inline_file(text.as_bytes(), file.mode).owned_by(0, gid),
                )?;
            } else if let Some(node) = self.tree.inode_mut(file.path) {
                (node.mode, node.uid, node.gid) = (file.mode, 0, gid);
            }
        }
        Ok(())
    }

    /// A link for each line that names something which is not there.
    pub(super) fn add_busybox_links(&mut self, paths: &[u8]) -> Result<(), LayoutError> {
        for line in String::from_utf8_lossy(paths).lines().map(str::trim).filter(|line| !line.is_empty()) {
            let path = format!("/{}", line.trim_start_matches('/'));
            let real = self.real_path(&path)?;
            if self.tree.get(&real).is_none() {
                let target = "/bin/busybox".to_owned();
                self.put("busybox", &path, Node::new(NodeKind::Symlink { target }, 0o777))?;
            }
        }
        Ok(())
    }

    /// Paths, then attributes, then services.
    pub(super) fn add_recipes(&mut self, recipes: &Recipes) -> Result<(), LayoutError> {
        for (path, item) in &recipes.paths {
            self.add_item(path.as_str(), item)?;
        }
        for (path, attributes) in &recipes.attributes {
            self.change(path.as_str(), attributes)?;
        }
        for ((runlevel, name), declared) in &recipes.services {
            self.set_service(runlevel, name, declared)?;
        }
        Ok(())
    }

    fn set_service(
        &mut self,
        runlevel: &str,
        name: &str,
        declared: &FromRecipe<Service>,
    ) -> Result<(), LayoutError> {
        let recipe = &declared.recipe;
        let path = format!("/etc/runlevels/{runlevel}/{name}");
        if declared.value == Service::On {
            let script = format!("/etc/init.d/{name}");
            if self.tree.get(&self.real_path(&script)?).is_none() {
                return Err(LayoutError::NoService { recipe: recipe.clone(), service: name.to_owned() });
            }
            let link = Node::new(NodeKind::Symlink { target: script }, 0o777);
            return self.put(&format!("recipe {recipe}"), &path, link);
        }
        let was_on = self.tree.remove_symlink(&self.real_path(&path)?);
        if was_on || declared.value == Service::OffAgain {
            Ok(())
        } else {
            let (recipe, service, runlevel) = (recipe.clone(), name.to_owned(), runlevel.to_owned());
            Err(LayoutError::NotOn { recipe, service, runlevel })
        }
    }

    fn add_item(&mut self, path: &str, item: &FromRecipe<PathItem>) -> Result<(), LayoutError> {
        let origin = format!("recipe {}", item.recipe);
        let node = match &item.value {
            PathItem::Symlink { target } => Node::new(NodeKind::Symlink { target: target.clone() }, 0o777),
            PathItem::File(file) => {
                let (uid, gid) = self.owner(&origin, path, &file.owner, &file.group)?;
                inline_file(&file.content, file.mode).owned_by(uid, gid)
            }
            PathItem::Directory { mode, owner, group } => {
                let (uid, gid) = self.owner(&origin, path, owner, group)?;
                Node { mode: *mode, ..plain_directory() }.owned_by(uid, gid)
            }
        };
        self.put(&origin, path, node)
    }

    fn change(&mut self, path: &str, declared: &FromRecipe<Attributes>) -> Result<(), LayoutError> {
        let origin = format!("recipe {}", declared.recipe);
        let attributes = &declared.value;
        let uid = attributes.owner.as_deref().map(|name| self.uid(&origin, path, name)).transpose()?;
        let gid = attributes.group.as_deref().map(|name| self.gid(&origin, path, name)).transpose()?;
        let real = self.real_path(path)?;
        let node = self
            .tree
            .inode_mut(&real)
            .filter(|node| matches!(node.kind, NodeKind::File { .. } | NodeKind::Directory))
            .ok_or_else(|| LayoutError::NothingToChange {
                recipe: declared.recipe.clone(),
                path: path.to_owned(),
            })?;
        node.mode = attributes.mode.unwrap_or(node.mode);
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        node.xattrs.extend(attributes.xattrs.clone());
        Ok(())
    }

    /// Files that `fleet.toml` gives an image; they come after recipes, and win.
    pub(super) fn add_files(&mut self, given: &BTreeMap<GuestPath, FileSpec>) -> Result<(), LayoutError> {
        const ORIGIN: &str = "fleet.toml";
        for (path, file) in given {
            let bytes = match &file.content {
                FileContent::Inline(text) => text.as_bytes().to_owned(),
                FileContent::File(path) => files::read(path)?,
            };
            let (uid, gid) = self.owner(ORIGIN, path.as_str(), &file.owner, &file.group)?;
            self.put(ORIGIN, path.as_str(), inline_file(&bytes, file.mode).owned_by(uid, gid))?;
        }
        Ok(())
    }

    /// What apk reads in `/etc/apk` and `/lib/apk/db`, so that it can be asked in the guest what is installed.
    pub(super) fn add_apk(
        &mut self,
        apk: &ApkSettings,
        installed: &[Installed<'_>],
        rules: Rules,
    ) -> Result<(), LayoutError> {
        const ORIGIN: &str = "apk's database";
        let (scripts, of_scripts) = database::scripts(installed, rules);
        let scripts = format!("/lib/apk/db/{scripts}");
        let repositories: String = apk.repositories.iter().map(|line| format!("{line}\n")).collect();
        let files = [
            ("/etc/apk/arch", format!("{}\n", apk.arch).into_bytes(), 0o644),
            ("/etc/apk/repositories", repositories.into_bytes(), 0o644),
            ("/etc/apk/world", database::world(&apk.world).into_bytes(), 0o644),
            ("/lib/apk/db/installed", database::installed(installed).into_bytes(), 0o644),
            ("/lib/apk/db/lock", Vec::new(), 0o600),
            (&scripts, of_scripts, 0o644),
            ("/lib/apk/db/triggers", database::triggers(installed).into_bytes(), 0o644),
        ];
        for (path, bytes, mode) in &files {
            self.put(ORIGIN, path, inline_file(bytes, *mode))?;
        }
        for (name, key) in &apk.keys {
            self.put(ORIGIN, &format!("/etc/apk/keys/{name}"), inline_file(key, 0o644))?;
        }
        self.put(ORIGIN, "/var/cache/apk", plain_directory())
    }

    /// Puts a node where a path leads, directories above made where they are missing. A directory that is there keeps its
    /// time.
    fn put(&mut self, origin: &str, path: &str, mut node: Node<Content>) -> Result<(), LayoutError> {
        let real = self.real_path(path)?;
        let failed = |source| LayoutError::Place { origin: origin.to_owned(), path: path.to_owned(), source };
        self.tree.make_parents(&real, plain_directory).map_err(failed)?;
        let there = self.tree.get(&real).filter(|there| there.is_directory() && node.is_directory());
        node.mtime = there.map_or(GENERATED_AT, |there| there.mtime);
        self.tree.insert(&real, node).map_err(failed)
    }

    fn real_path(&self, path: &str) -> Result<String, LayoutError> {
        self.tree.real_path(path).ok_or_else(|| LayoutError::LinkCircle { path: path.to_owned() })
    }

    fn owner(&self, origin: &str, path: &str, user: &str, group: &str) -> Result<(u32, u32), LayoutError> {
        Ok((self.uid(origin, path, user)?, self.gid(origin, path, group)?))
    }

    fn uid(&self, origin: &str, path: &str, name: &str) -> Result<u32, LayoutError> {
        self.accounts.uid(name).ok_or_else(|| no_account(origin, path, "user", name))
    }

    fn gid(&self, origin: &str, path: &str, name: &str) -> Result<u32, LayoutError> {
        self.accounts.gid(name).ok_or_else(|| no_account(origin, path, "group", name))
    }
}

fn no_account(origin: &str, path: &str, kind: &'static str, name: &str) -> LayoutError {
    LayoutError::NoAccount { origin: origin.to_owned(), path: path.to_owned(), kind, name: name.to_owned() }
}
