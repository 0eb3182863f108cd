//! Recipes: templates and data that turn packages into a guest. Several are composed into one list of changes; two that
//! want different things in one place are an error that names both.

pub(super) mod capability;
mod compose;
mod render;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::{GuestPath, KernelOption, Label, Sha256};
use crate::sys::fs::FileError;

pub use schema::ParameterValue;

use super::container::{IdMap, SubIds};

/// Parameters given to recipes, by name; what is not given keeps its default.
pub type Parameters = BTreeMap<String, ParameterValue>;

/// Why recipes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("there is no {path}")]
    Missing { path: String },
    #[error("{path} is no recipe")]
    Parse { path: String, source: toml::de::Error },
    #[error("{path}: {problem}")]
    Invalid { path: String, problem: String },
    #[error("{path} cannot be rendered")]
    Render { path: String, source: minijinja::Error },
    #[error("recipes extend each other in a circle: {}", .names.iter().map(Label::as_str).collect::<Vec<_>>().join(" -> "))]
    Circle { names: Vec<Label> },
    #[error("recipes {first} and {second} want different things of {what}")]
    Conflict { what: String, first: Label, second: Label },
    #[error("no recipe has a parameter {name:?}; {hint}")]
    UnknownParameter { name: String, hint: String },
    #[error("parameter {name:?} must be a {kind}, as its default is")]
    ParameterKind { name: String, kind: &'static str },
}

/// Recipes of one image, rendered and composed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipes {
    digests: BTreeMap<Label, Sha256>,
    packages: BTreeSet<String>,
    needs: Vec<(Label, KernelOption)>,
    /// What stands where in the image.
    pub(super) paths: BTreeMap<GuestPath, Declared<PathItem>>,
    pub(super) attributes: BTreeMap<GuestPath, Declared<Attributes>>,
    pub(super) groups: BTreeMap<String, Declared<Group>>,
    pub(super) users: BTreeMap<String, Declared<User>>,
    /// By runlevel and name.
    pub(super) services: BTreeMap<(String, String), Declared<()>>,
    /// Files of the home, by path below it (`/.config/x`).
    pub(super) home: BTreeMap<GuestPath, Declared<FileItem>>,
}

/// A value and the recipe that it comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Declared<T> {
    pub recipe: Label,
    pub value: T,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PathItem {
    Directory { mode: u16, owner: String, group: String },
    File(FileItem),
    Symlink { target: String },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileItem {
    pub content: Vec<u8>,
    pub mode: u16,
    pub owner: String,
    pub group: String,
}

/// Changes to a file that is there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attributes {
    pub mode: Option<u16>,
    pub owner: Option<String>,
    pub group: Option<String>,
    /// Value of `security.capability`.
    pub capabilities: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub gid: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct User {
    pub uid: u32,
    pub group: String,
    pub home: String,
    pub shell: String,
    pub gecos: String,
    pub password: String,
    pub subids: Option<SubIds>,
}

impl Recipes {
    /// Entries of apk's world that the recipes bring, sorted.
    pub fn world(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(String::as_str)
    }

    /// Kernel options that must be on, and the recipes that say so.
    pub fn kernel_needs(&self) -> &[(Label, KernelOption)] {
        &self.needs
    }

    /// Digest of every file that a recipe reads; extended recipes have their own.
    pub fn digests(&self) -> &BTreeMap<Label, Sha256> {
        &self.digests
    }

    /// Ids of the one user whose home is the data disk, if the recipes have such a user.
    pub fn owner(&self) -> Option<IdMap> {
        let user = self.users.values().map(|user| &user.value).find(|user| user.subids.is_some())?;
        let subids = user.subids?;
        let gid = self.groups.get(&user.group)?.value.gid;
        Some(IdMap { uid: user.uid, gid, subuids: subids, subgids: subids })
    }
}

#[cfg(test)]
mod tests;
