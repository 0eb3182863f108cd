//! `recipes/NAME/recipe.toml` as it is written: each value well-formed, nothing rendered or compared yet.
//!
//! Texts may hold parameters, as templates do: `path = "/home/{{ user }}"`. `content` alone is taken as it is.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use crate::base::problem::{Problem, Problems, Read, suggest};
use crate::base::{KernelOption, Label};
use crate::fleet::reader::{
    FieldSchema, FromToml, List, Named, Section, Value, file_schema, key, section, section_schema, unexpected,
};
use crate::fleet::scalar::{Count, Mode, OneOrMore, ParameterName, ScriptDigest, WorldEntry, choices};
use crate::fleet::{ParameterValue, ScriptMoment};

/// The JSON Schema of `recipe.toml` (draft 2020-12).
pub fn schema() -> serde_json::Value {
    file_schema::<RecipeFile>("recipe.toml")
}

section! {
    /// A recipe: data and templates that turn packages into a guest; no code. Texts may hold parameters, as in
    /// "/home/{{ user }}".
    pub struct RecipeFile {
        /// One line for people.
        description: Spanned<String>,
        /// Recipes that this one needs; they come with it.
        extends: List<Label>,
        /// Values for parameters of the recipes that it extends.
        set: Named<ParameterName, Spanned<ParameterValue>>,
        /// Parameters that templates and texts may name, also those of recipes that extend this one.
        parameters: Named<ParameterName, ParameterSection>,
        /// Packages, as in apk's world.
        packages: List<WorldEntry>,
        /// Directories.
        directory: Vec<Read<DirectorySection>>,
        /// Files.
        file: Vec<Read<RecipeFileSection>>,
        /// Symbolic links.
        symlink: Vec<Read<SymlinkSection>>,
        /// Changes to files and directories that packages or recipes bring.
        attribute: Vec<Read<AttributeSection>>,
        /// Groups.
        group: Vec<Read<GroupSection>>,
        /// Users.
        user: Vec<Read<UserSection>>,
        /// OpenRC services, on or off.
        service: Vec<Read<ServiceSection>>,
        /// Files of the home, on the data disk.
        home: Vec<Read<HomeSection>>,
        /// What the recipe needs of the kernel.
        kernel: Option<RecipeKernelSection>,
        /// Reviewed package scripts: none ever runs, and what they would do is covered or not needed.
        script: Vec<Read<ScriptSection>>,
    }

    /// A parameter.
    pub struct ParameterSection {
        /// One line for people.
        description: String,
        /// The type of its values; that of `default` unless given.
        kind as "type": Option<ParameterKind>,
        /// Its value if nothing else is set. Without one, it must be set.
        default: Option<Spanned<ParameterValue>>,
        /// Least value of an integer.
        min: Option<Integer>,
        /// Largest value of an integer.
        max: Option<Integer>,
        /// The only values of a string, or of the elements of a list.
        choices: Option<Vec<Read<String>>>,
    }

    /// A directory.
    pub struct DirectorySection {
        /// Where it stands.
        path: Spanned<String>,
        /// Permissions in octal; 0o755 unless given.
        mode: Option<Mode>,
        /// Owner; root unless given.
        owner: Option<Spanned<String>>,
        /// Group; root unless given.
        group: Option<Spanned<String>>,
    }

    /// A file: a template, a content or a copy.
    pub struct RecipeFileSection {
        /// Where it stands.
        path: Spanned<String>,
        /// A file beside recipe.toml, rendered.
        template: Option<Spanned<Label>>,
        /// The text itself, taken as it is.
        content: Option<Spanned<String>>,
        /// A file beside recipe.toml, copied as it is.
        copy: Option<Spanned<Label>>,
        /// Permissions in octal; 0o644 unless given.
        mode: Option<Mode>,
        /// Owner; root unless given.
        owner: Option<Spanned<String>>,
        /// Group; root unless given.
        group: Option<Spanned<String>>,
    }

    /// A file of the home, owned by its user: a template, a content or a copy.
    pub struct HomeSection {
        /// Below the home.
        path: Spanned<String>,
        /// A file beside recipe.toml, rendered.
        template: Option<Spanned<Label>>,
        /// The text itself, taken as it is.
        content: Option<Spanned<String>>,
        /// A file beside recipe.toml, copied as it is.
        copy: Option<Spanned<Label>>,
        /// Permissions in octal; 0o644 unless given.
        mode: Option<Mode>,
    }

    /// A symbolic link.
    pub struct SymlinkSection {
        /// Where it stands.
        path: Spanned<String>,
        /// What it leads to.
        target: Spanned<String>,
    }

    /// Changes to a file or directory that a package or recipe brings; what is not given stays.
    pub struct AttributeSection {
        /// Where it stands.
        path: Spanned<String>,
        /// Permissions in octal.
        mode: Option<Mode>,
        /// Owner.
        owner: Option<Spanned<String>>,
        /// Group.
        group: Option<Spanned<String>>,
        /// Capabilities, as for setcap: "cap_setuid=ep".
        capabilities: Option<Spanned<String>>,
        /// Extended attributes by name, as setfattr writes them: text, 0x and hexadecimal digits, or 0s and base64.
        xattrs: Named<String, Spanned<String>>,
    }

    /// A group.
    pub struct GroupSection {
        /// Its name.
        name: Spanned<String>,
        /// Its number.
        gid: Spanned<Number>,
    }

    /// A user.
    pub struct UserSection {
        /// Its name.
        name: Spanned<String>,
        /// Its number.
        uid: Spanned<Number>,
        /// Name of its group.
        group: Spanned<String>,
        /// Its home directory.
        home: Spanned<String>,
        /// Its shell.
        shell: Spanned<String>,
        /// Its full name.
        gecos: Option<Spanned<String>>,
        /// Second field of /etc/shadow: "!" (the default) allows no login by password; "*" allows none either, but
        /// keys.
        password: Option<Spanned<String>>,
        /// Its subordinate ids; the one user who has them owns the data disk.
        subids: Option<SubIdsSection>,
    }

    /// Subordinate user and group ids.
    pub struct SubIdsSection {
        /// The first.
        start: Spanned<Count<1, 4294967295>>,
        /// How many.
        count: Count<1, 4294967295>,
    }

    /// An OpenRC service.
    pub struct ServiceSection {
        /// Its name: that of a script in /etc/init.d.
        name: Spanned<String>,
        /// The runlevel that starts it: sysinit, boot, default or shutdown.
        runlevel: Spanned<String>,
        /// false removes it from the runlevel that a package or an extended recipe has added it to; true unless given.
        enabled: Option<bool>,
    }

    /// What the recipe needs of the kernel.
    pub struct RecipeKernelSection {
        /// Options that must be on, with or without CONFIG_.
        needs: List<KernelOption>,
    }

    /// A script of a package that need not run.
    pub struct ScriptSection {
        /// The package.
        package: Spanned<String>,
        /// When apk would run it.
        kind: ScriptMoment,
        /// SHA-256 of each reviewed version of the script.
        sha256: OneOrMore<ScriptDigest>,
        /// Why it need not run: what covers it, or why it is not needed.
        because: Spanned<String>,
    }
}

/// The type of a parameter's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    String,
    Integer,
    Boolean,
    List,
}

choices! {
    ParameterKind { "string" => String, "integer" => Integer, "boolean" => Boolean, "list" => List }
}

impl ParameterKind {
    /// The kind that a value is of.
    pub fn of(value: &ParameterValue) -> Self {
        match value {
            ParameterValue::Text(_) => Self::String,
            ParameterValue::Integer(_) => Self::Integer,
            ParameterValue::Boolean(_) => Self::Boolean,
            ParameterValue::List(_) => Self::List,
        }
    }

    /// What a value is, with its article.
    pub fn words(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
            Self::List => "a list of strings",
        }
    }
}

/// A whole number of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integer(pub i64);

impl FromToml for Integer {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match ParameterValue::from_toml(value, problems)? {
            ParameterValue::Integer(number) => Ok(Self(number)),
            _ => Err(unexpected(value, "an integer", problems)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer" })
    }
}

/// A number, or a text that renders to one.
#[derive(Clone, Debug)]
pub enum Number {
    Plain(u32),
    Template(String),
}

impl FromToml for Number {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::String(text) => Ok(Self::Template(text.clone().into_owned())),
            DeValue::Integer(_) => {
                Count::<0, { u32::MAX }>::from_toml(value, problems).map(|count| Self::Plain(count.0))
            }
            _ => Err(unexpected(value, "a number, or a text such as \"{{ uid }}\"", problems)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 0, "maximum": u32::MAX })
    }
}
