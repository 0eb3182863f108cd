//! Recipes: templates and data that turn packages into a guest. Several are composed into one list of changes; two that
//! want different things in one place are an error that names both.

mod attribute;
pub(super) mod capability;
mod compose;
mod load;
mod parameters;
mod render;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{GuestPath, KernelOption, Label, Sha256};
use crate::fleet::{GivenParameter, InvalidFile, ParameterValue, Problem, ScriptName};
use crate::sys::fs::FileError;

pub use schema::schema;

use super::container::{IdMap, SubIds};

/// Parameters given to recipes, by name; what is not given keeps its default.
pub type Parameters = BTreeMap<String, GivenParameter>;

/// Why recipes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("there is no {path}")]
    Missing { path: String },
    #[error("{path} is not UTF-8")]
    NotUtf8 { path: String },
    #[error("{}", summary(files, given))]
    Invalid {
        /// Recipes and templates, each with its problems.
        files: Vec<InvalidFile>,
        /// Problems of the parameters given, with the places that came with them.
        given: Vec<Problem>,
    },
}

impl Diagnostic for RecipeError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Missing { .. } => Class::Invalid.no_hint(),
            Self::NotUtf8 { .. } => Class::Invalid.hint("save it as UTF-8"),
            Self::Invalid { .. } => Class::Invalid.no_hint(),
        }
    }

    fn problems(&self) -> &[InvalidFile] {
        match self {
            Self::File(_) | Self::Missing { .. } | Self::NotUtf8 { .. } => &[],
            Self::Invalid { files, .. } => files,
        }
    }
}

/// Every message, for those who show no places.
fn summary(files: &[InvalidFile], given: &[Problem]) -> String {
    let of_file = |file: &InvalidFile| {
        let lines = file.problems.iter().map(|problem| {
            let (line, _) = file.line_column(problem.span.start);
            format!("{}:{line}: {}", file.path.display(), problem.message)
        });
        lines.collect::<Vec<_>>()
    };
    let given = given.iter().map(|problem| problem.message.clone());
    files.iter().flat_map(of_file).chain(given).collect::<Vec<_>>().join("\n")
}

/// Recipes of one image, rendered and composed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipes {
    digests: BTreeMap<Label, Sha256>,
    packages: BTreeSet<String>,
    needs: Vec<(Label, KernelOption)>,
    /// What stands where in the image.
    pub(super) paths: BTreeMap<GuestPath, FromRecipe<PathItem>>,
    pub(super) attributes: BTreeMap<GuestPath, FromRecipe<Attributes>>,
    pub(super) groups: BTreeMap<String, FromRecipe<Group>>,
    pub(super) users: BTreeMap<String, FromRecipe<User>>,
    /// By runlevel and name.
    pub(super) services: BTreeMap<(String, String), FromRecipe<Service>>,
    /// Files of the home, by path below it (`/.config/x`).
    pub(super) home: BTreeMap<GuestPath, FromRecipe<FileItem>>,
    /// Values of all parameters.
    parameters: BTreeMap<String, ParameterValue>,
    /// Bodies of scripts that were read, and by which recipe's rule.
    reviewed: BTreeMap<(ScriptName, Sha256), Label>,
}

/// A value and the recipe that it comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FromRecipe<T> {
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
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes {
    pub mode: Option<u16>,
    pub owner: Option<String>,
    pub group: Option<String>,
    /// Extended attributes, `security.capability` among them.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What becomes of a service in a runlevel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    On,
    /// A package has it on, and it is to be off.
    Off,
    /// An extended recipe has it on, and it is to be off.
    OffAgain,
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

    /// Values of all parameters, by name.
    pub fn parameters(&self) -> &BTreeMap<String, ParameterValue> {
        &self.parameters
    }

    /// The recipe whose rule covers a script with this body.
    pub fn reviewer(&self, script: &ScriptName, sha256: &Sha256) -> Option<&Label> {
        self.reviewed.get(&(script.clone(), *sha256))
    }

    /// Uid and gid of a user of the recipes.
    pub fn ids_of(&self, name: &str) -> Option<(u32, u32)> {
        let user = &self.users.iter().find(|(user, _)| user.as_str() == name)?.1.value;
        Some((user.uid, self.groups.get(&user.group)?.value.gid))
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
