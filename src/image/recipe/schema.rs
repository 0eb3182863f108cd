//! `recipes/NAME/recipe.toml` as it is written.
//!
//! Texts may hold parameters, as templates do: `path = "/home/{{ user }}"`. `content` alone is taken as it is.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fleet::{KernelOption, Label};

/// A recipe: templates and data, no code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipeFile {
    /// One line for people.
    #[serde(rename = "description")]
    pub _description: String,
    /// Recipes that this one needs; they come first.
    #[serde(default)]
    pub extends: Vec<Label>,
    /// Entries of apk's world.
    #[serde(default)]
    pub packages: Vec<String>,
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterEntry>,
    #[serde(default)]
    pub directory: Vec<DirectoryEntry>,
    #[serde(default)]
    pub file: Vec<FileEntry>,
    #[serde(default)]
    pub symlink: Vec<SymlinkEntry>,
    #[serde(default)]
    pub attribute: Vec<AttributeEntry>,
    #[serde(default)]
    pub group: Vec<GroupEntry>,
    #[serde(default)]
    pub user: Vec<UserEntry>,
    #[serde(default)]
    pub service: Vec<ServiceEntry>,
    /// Files of the user's home, on the data disk.
    #[serde(default)]
    pub home: Vec<HomeEntry>,
    #[serde(default)]
    pub kernel: KernelEntry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParameterEntry {
    #[serde(rename = "description")]
    pub _description: String,
    pub default: ParameterValue,
}

/// Value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(untagged)]
pub enum ParameterValue {
    Number(i64),
    Text(String),
}

/// A number, or a text that renders to one.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Plain(u32),
    Template(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectoryEntry {
    pub path: String,
    #[serde(default = "mode_0755")]
    pub mode: u16,
    #[serde(default = "root")]
    pub owner: String,
    #[serde(default = "root")]
    pub group: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub path: String,
    /// A file beside `recipe.toml`, rendered.
    pub template: Option<String>,
    /// Instead of a template: the text itself.
    pub content: Option<String>,
    #[serde(default = "mode_0644")]
    pub mode: u16,
    #[serde(default = "root")]
    pub owner: String,
    #[serde(default = "root")]
    pub group: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HomeEntry {
    /// Below the home.
    pub path: String,
    pub template: Option<String>,
    pub content: Option<String>,
    #[serde(default = "mode_0644")]
    pub mode: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SymlinkEntry {
    pub path: String,
    pub target: String,
}

/// Changes a file that a package brings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttributeEntry {
    pub path: String,
    pub mode: Option<u16>,
    pub owner: Option<String>,
    pub group: Option<String>,
    /// As `setcap` has it: `cap_setuid=ep`.
    pub capabilities: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupEntry {
    pub name: String,
    pub gid: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserEntry {
    pub name: String,
    pub uid: Number,
    pub group: String,
    pub home: String,
    pub shell: String,
    #[serde(default)]
    pub gecos: String,
    /// Second field of `/etc/shadow`; `!` and `*` admit no password.
    #[serde(default = "locked")]
    pub password: String,
    /// The user's subordinate ids; who has them owns the data disk.
    pub subids: Option<SubIdsEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubIdsEntry {
    pub start: u32,
    pub count: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceEntry {
    pub name: String,
    pub runlevel: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KernelEntry {
    #[serde(default)]
    pub needs: Vec<KernelOption>,
}

fn mode_0755() -> u16 {
    0o755
}

fn mode_0644() -> u16 {
    0o644
}

fn root() -> String {
    "root".into()
}

fn locked() -> String {
    "!".into()
}
