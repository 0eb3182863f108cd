//! Layout: packages in install order, then links for busybox, then recipes, then the files of `fleet.toml`, then what apk
//! itself keeps. What packages bring lies as `apk add` would lay it, without a script being run.

mod finish;
mod packages;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::apk::{Dependency, PackageContents, PackageError, PackageInfo};
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{GuestPath, Label};
use crate::fleet::FileSpec;
use crate::sys::fs::{FileError, input_diagnosis};

use super::accounts::{ACCOUNT_FILES, AccountError, AccountFiles};
use super::content::{Content, SequentialArchive};
use super::recipe::Recipes;
use super::tree::{Node, NodeKind, Tree, TreeError};

use finish::BUSYBOX_PATHS;
use packages::Packages;

/// Time of everything that is generated, in seconds since the epoch. What packages bring keeps its own.
pub(super) const GENERATED_AT: i64 = 0;

/// What apk finds in the image about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApkSettings {
    /// Such as `x86_64`.
    pub arch: String,
    /// Dependencies of recipes and image together.
    pub world: Vec<Dependency>,
    /// Lines of `/etc/apk/repositories`.
    pub repositories: Vec<String>,
    /// Public keys by file name.
    pub keys: BTreeMap<String, Vec<u8>>,
    /// `@tag`s, without the `@`, of the repositories that packages come from, by package name.
    pub tags: BTreeMap<String, String>,
}

/// A root file system that is laid out and not written yet.
#[derive(Debug)]
pub struct Rootfs<'a> {
    pub tree: Tree<Content>,
    packages: &'a [PackageContents],
}

/// Why a root file system cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("{path} is in package {first} and in package {second}, and neither replaces the other")]
    Clash { path: String, first: String, second: String },
    #[error("{path} is a {there} of package {first}, and a {arriving} of package {second}")]
    KindClash { path: String, there: &'static str, first: String, arriving: &'static str, second: String },
    #[error("package {package}: {path} is a hard link to {target}, which package {owner} has replaced")]
    LostLinkTarget { package: String, path: String, target: String, owner: String },
    #[error("package {package}: {path} cannot be read")]
    Read { package: String, path: String, source: std::io::Error },
    #[error("{path} leads through a loop of symlinks, or out of the root")]
    LinkCircle { path: String },
    #[error("{origin} cannot put {path} into the image")]
    Place { origin: String, path: String, source: TreeError },
    #[error("recipe {recipe} changes {path}, which no package installs as a file or directory")]
    NothingToChange { recipe: Label, path: String },
    #[error("recipe {recipe} starts the service {service}, but there is no /etc/init.d/{service}")]
    NoService { recipe: Label, service: String },
    #[error("recipe {recipe} turns off the service {service}, which is not in the runlevel {runlevel}")]
    NotOn { recipe: Label, service: String, runlevel: String },
    #[error("{origin}: {path} should belong to the {kind} {name}, which the image does not have")]
    NoAccount { origin: String, path: String, kind: &'static str, name: String },
    #[error(
        "package {package} comes without {BUSYBOX_PATHS}, the list of its links: the image would have no /sbin/init"
    )]
    NoBusyboxLinks { package: String },
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Diagnostic for LayoutError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Read { source, .. } => input_diagnosis(source),
            Self::Package(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Place { source, .. } => source.diagnosis(),
            Self::Account(error) => error.diagnosis(),
            Self::Clash { .. } | Self::KindClash { .. } => Class::Invalid
                .hint("remove one of the two of the image's `packages`, or of those of its recipes"),
            Self::NothingToChange { .. } => {
                Class::Invalid.hint("add the package that installs it, or remove it from the recipe")
            }
            Self::NoService { .. } => {
                Class::Invalid.hint("add the package that installs it, such as NAME-openrc")
            }
            Self::NotOn { .. } => Class::Invalid.hint("remove it from the recipe"),
            Self::NoAccount { .. } => {
                Class::Invalid.hint("add a recipe with that account, or give the file to another")
            }
            Self::NoBusyboxLinks { .. } => Class::Invalid.hint(
                "take busybox from Alpine 3.18 or later, or add a package with that file: a path for each line, such \
                 as sbin/init",
            ),
            Self::LostLinkTarget { .. } | Self::LinkCircle { .. } => Class::Invalid.no_hint(),
        }
    }
}

impl Rootfs<'_> {
    /// What the tree's contents are numbered by.
    pub fn sources(&self) -> Vec<&dyn SequentialArchive> {
        self.packages.iter().map(|package| package as &dyn SequentialArchive).collect()
    }
}

/// Lays out a root file system.
///
/// `packages` stand in the order in which apk would install them; `files` are those of the image in `fleet.toml`. Where
/// two things clash, the error names both.
pub fn rootfs<'a>(
    packages: &'a [PackageContents],
    recipes: &Recipes,
    files: &BTreeMap<GuestPath, FileSpec>,
    apk: &ApkSettings,
) -> Result<Rootfs<'a>, LayoutError> {
    let mut laid = Packages::lay_out(packages)?;
    let needed: Vec<&str> = ACCOUNT_FILES.iter().map(|file| file.path).chain([BUSYBOX_PATHS]).collect();
    let brought = laid.read(&needed)?;
    let accounts = AccountFiles::merge(&brought, recipes)?;
    laid.resolve_owners(&accounts);
    let listed: Vec<PackageInfo> =
        packages.iter().map(|package| as_listed(&package.info, &apk.arch)).collect();
    let installed = laid.installed(&listed, &apk.tags, &accounts);
    let rules = laid.rules;
    let mut finish = finish::Finish { tree: laid.tree, accounts };
    finish.add_accounts(&brought)?;
    match brought.get(BUSYBOX_PATHS) {
        Some(paths) => finish.add_busybox_links(paths)?,
        None => refuse_unlinked_busybox(packages)?,
    }
    finish.add_recipes(recipes)?;
    finish.add_files(files)?;
    finish.add_apk(apk, &installed, rules)?;
    Ok(Rootfs { tree: finish.tree, packages })
}

/// Before Alpine 3.18 busybox brings no list of its links, and only its script could make them.
fn refuse_unlinked_busybox(packages: &[PackageContents]) -> Result<(), LayoutError> {
    match packages.iter().find(|package| package.info.name == "busybox") {
        Some(package) => Err(LayoutError::NoBusyboxLinks { package: package.info.id() }),
        None => Ok(()),
    }
}

/// A package as its repository lists it, which is what apk records: one for any machine stands under the repository's own
/// (`apk index --rewrite-arch`).
fn as_listed(info: &PackageInfo, arch: &str) -> PackageInfo {
    let arch = if info.arch == "noarch" { arch } else { &info.arch };
    PackageInfo { arch: arch.to_owned(), ..info.clone() }
}

/// A file of generated bytes.
fn inline_file(bytes: &[u8], mode: u16) -> Node<Content> {
    let content = Content::Inline(Arc::from(bytes));
    Node { mtime: GENERATED_AT, ..Node::new(NodeKind::File { size: bytes.len() as u64, content }, mode) }
}

/// A directory that nobody brings.
fn plain_directory() -> Node<Content> {
    Node { mtime: GENERATED_AT, ..Node::new(NodeKind::Directory, 0o755) }
}

#[cfg(test)]
mod tests;
