//! Users and groups: what packages bring in `/etc`, and what recipes add to it.

use std::collections::BTreeMap;

use crate::base::Label;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::recipe::{FromRecipe, Recipes, User};

/// Files of users and groups, and how a name is resolved.
#[derive(Clone, Debug, Default)]
pub(super) struct AccountFiles {
    passwd: AccountTable,
    group: AccountTable,
    shadow: AccountTable,
    subuid: AccountTable,
    subgid: AccountTable,
}

/// One of the files, by its place in the image.
pub(super) struct AccountFile {
    pub path: &'static str,
    pub mode: u16,
    /// Name of the group that owns it.
    pub group: &'static str,
}

/// Modes are those of Alpine's baselayout and Debian's base-passwd.
pub(super) const ACCOUNT_FILES: [AccountFile; 5] = [
    AccountFile { path: "/etc/passwd", mode: 0o644, group: "root" },
    AccountFile { path: "/etc/group", mode: 0o644, group: "root" },
    AccountFile { path: "/etc/shadow", mode: 0o640, group: "shadow" },
    AccountFile { path: "/etc/subuid", mode: 0o644, group: "root" },
    AccountFile { path: "/etc/subgid", mode: 0o644, group: "root" },
];

/// What every system has, whatever packages bring.
const ROOT_PASSWD: &str = "root:x:0:0:root:/root:/bin/sh";
const ROOT_SHADOW: &str = "root:*::0:::::";
const ROOT_GROUP: &str = "root:x:0:root";
const SHADOW_GROUP: &str = "shadow:x:42:";

/// Why users and groups do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("{path} is not UTF-8")]
    Text { path: &'static str },
    #[error("{path}: {name} of recipe {recipe} has the number {number}, which {other} already has")]
    NumberTaken { path: &'static str, name: String, recipe: Label, number: u32, other: String },
    #[error("{path}: {name} has the number {there}, but recipe {recipe} sets {number}")]
    OtherNumber { path: &'static str, name: String, recipe: Label, number: u32, there: String },
    #[error("user {user} of recipe {recipe}: there is no group {group}")]
    NoGroup { user: String, recipe: Label, group: String },
}

impl Diagnostic for AccountError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Text { .. } => Class::Invalid.no_hint(),
            Self::NumberTaken { .. } | Self::OtherNumber { .. } => {
                Class::Invalid.hint("give it another number in the recipe")
            }
            Self::NoGroup { .. } => Class::Invalid.hint("declare it as a [[group]] of the recipe"),
        }
    }
}

/// Lines of fields with colons between them; the first names the line.
#[derive(Clone, Debug, Default, PartialEq)]
struct AccountTable {
    lines: Vec<String>,
}

impl AccountTable {
    fn parse(text: &str) -> Self {
        Self { lines: text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect() }
    }

    fn field<'a>(&'a self, name: &str, field: usize) -> Option<&'a str> {
        let line = self.lines.iter().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(field)
    }

    /// The name of the line whose third field is a number.
    fn name_of(&self, number: u32) -> Option<&str> {
        let has =
            |line: &&String| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(number);
        self.lines.iter().find(has).and_then(|line| line.split(':').next())
    }

    /// Puts a line in place of the one of its name, or behind all.
    fn set(&mut self, line: String) {
        let name = line.split(':').next().unwrap_or_default();
        match self.lines.iter_mut().find(|old| old.split(':').next() == Some(name)) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
    }

    /// Puts a line behind all unless there is one of its name.
    fn default_line(&mut self, line: &str) {
        let name = line.split(':').next().unwrap_or_default();
        if self.field(name, 0).is_none() {
            self.lines.push(line.to_owned());
        }
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

impl AccountFiles {
    /// Merges the users and groups of recipes, by number, into the files that packages bring (by path).
    pub(super) fn merge(
        brought: &BTreeMap<String, Vec<u8>>,
        recipes: &Recipes,
    ) -> Result<Self, AccountError> {
        let read = |path: &'static str| match brought.get(path).map(|bytes| std::str::from_utf8(bytes)) {
            None => Ok(AccountTable::default()),
            Some(Ok(text)) => Ok(AccountTable::parse(text)),
            Some(Err(_)) => Err(AccountError::Text { path }),
        };
        let mut accounts = Self {
            passwd: read("/etc/passwd")?,
            group: read("/etc/group")?,
            shadow: read("/etc/shadow")?,
            subuid: read("/etc/subuid")?,
            subgid: read("/etc/subgid")?,
        };
        accounts.passwd.default_line(ROOT_PASSWD);
        accounts.shadow.default_line(ROOT_SHADOW);
        accounts.group.default_line(ROOT_GROUP);
        accounts.group.default_line(SHADOW_GROUP);
        accounts.lock_empty_passwords();
        let mut groups: Vec<_> = recipes.groups.iter().collect();
        groups.sort_by_key(|(name, group)| (group.value.gid, name.as_str()));
        for (name, group) in groups {
            check(&accounts.group, "/etc/group", name, &group.recipe, group.value.gid)?;
            accounts.group.default_line(&format!("{name}:x:{}:", group.value.gid));
        }
        let mut users: Vec<_> = recipes.users.iter().collect();
        users.sort_by_key(|(name, user)| (user.value.uid, name.as_str()));
        for (name, user) in users {
            accounts.add_user(name, user)?;
        }
        Ok(accounts)
    }

    fn add_user(&mut self, name: &str, declared: &FromRecipe<User>) -> Result<(), AccountError> {
        let user = &declared.value;
        check(&self.passwd, "/etc/passwd", name, &declared.recipe, user.uid)?;
        let gid = self.gid(&user.group).ok_or_else(|| AccountError::NoGroup {
            user: name.to_owned(),
            recipe: declared.recipe.clone(),
            group: user.group.clone(),
        })?;
        let User { uid, gecos, home, shell, password, .. } = user;
        self.passwd.set(format!("{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}"));
        self.shadow.set(format!("{name}:{password}::0:::::"));
        if let Some(ids) = user.subids {
            self.subuid.set(format!("{name}:{}:{}", ids.start, ids.count));
            self.subgid.set(format!("{name}:{}:{}", ids.start, ids.count));
        }
        Ok(())
    }

    /// An empty password lets everybody in; no image has one.
    fn lock_empty_passwords(&mut self) {
        for line in &mut self.shadow.lines {
            if let Some((name, rest)) = line.split_once("::").filter(|(name, _)| !name.contains(':')) {
                *line = format!("{name}:*:{rest}");
            }
        }
    }

    /// The number of a user.
    pub(super) fn uid(&self, name: &str) -> Option<u32> {
        self.passwd.field(name, 2)?.parse().ok()
    }

    /// The number of a group.
    pub(super) fn gid(&self, name: &str) -> Option<u32> {
        self.group.field(name, 2)?.parse().ok()
    }

    /// The text of one of [`ACCOUNT_FILES`].
    pub(super) fn text(&self, file: &AccountFile) -> String {
        match file.path {
            "/etc/passwd" => &self.passwd,
            "/etc/group" => &self.group,
            "/etc/shadow" => &self.shadow,
            "/etc/subuid" => &self.subuid,
            _ => &self.subgid,
        }
        .text()
    }
}

fn check(
    table: &AccountTable,
    path: &'static str,
    name: &str,
    recipe: &Label,
    number: u32,
) -> Result<(), AccountError> {
    let (name_text, recipe) = (name.to_owned(), recipe.clone());
    match table.field(name, 2) {
        Some(there) if there.parse() != Ok(number) => {
            Err(AccountError::OtherNumber { path, name: name_text, recipe, number, there: there.to_owned() })
        }
        Some(_) => Ok(()),
        None => match table.name_of(number) {
            Some(other) => Err(AccountError::NumberTaken {
                path,
                name: name_text,
                recipe,
                number,
                other: other.to_owned(),
            }),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::SourceFiles;
    use crate::image::recipe::Parameters;

    fn recipes(text: &str) -> Recipes {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("recipes/r")).unwrap();
        std::fs::write(dir.path().join("recipes/r/recipe.toml"), format!("description = \"\"\n{text}"))
            .unwrap();
        Recipes::load(&["r".parse().unwrap()], &Parameters::new(), &SourceFiles::new(dir.path())).unwrap()
    }

    fn merged(brought: &[(&str, &str)], text: &str) -> Result<AccountFiles, AccountError> {
        let brought =
            brought.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_owned())).collect();
        AccountFiles::merge(&brought, &recipes(text))
    }

    const USER: &str = "group = [{ name = \"u\", gid = 1000 }]\n[[user]]\nname = \"user\"\nuid = 1000\ngroup = \"u\"\n\
        home = \"/home/u\"\nshell = \"/bin/sh\"\nsubids = { start = 100000, count = 65536 }\n";

    #[test]
    fn lines_of_packages_stay_and_those_of_recipes_follow() {
        let brought = [
            ("/etc/passwd", "root:x:0:0:root:/root:/bin/ash\nnobody:x:65534:65534::/:/bin/false\n"),
            ("/etc/group", "root:x:0:root\nshadow:x:42:\nwheel:x:10:root\n"),
            ("/etc/shadow", "root:*::0:::::\n"),
        ];
        let accounts = merged(&brought, USER).unwrap();
        let text = |path| accounts.text(ACCOUNT_FILES.iter().find(|file| file.path == path).unwrap());
        assert_eq!(text("/etc/passwd"), format!("{}user:x:1000:1000::/home/u:/bin/sh\n", brought[0].1));
        assert_eq!(text("/etc/group"), format!("{}u:x:1000:\n", brought[1].1));
        assert_eq!(text("/etc/shadow"), "root:*::0:::::\nuser:!::0:::::\n");
        assert_eq!(text("/etc/subuid"), "user:100000:65536\n");
        assert_eq!(
            (accounts.uid("nobody"), accounts.gid("wheel"), accounts.uid("x")),
            (Some(65534), Some(10), None)
        );
    }

    #[test]
    fn a_name_or_a_number_that_is_taken_is_an_error() {
        let passwd = |line: &str| {
            let file = format!("{line}\n");
            merged(&[("/etc/passwd", &file)], USER).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(passwd("user:x:1000:1000:::"), Ok(()));
        assert_eq!(
            passwd("user:x:1:1:::").unwrap_err(),
            "/etc/passwd: user has the number 1, but recipe r sets 1000"
        );
        assert_eq!(
            passwd("v:x:1000:1:::").unwrap_err(),
            "/etc/passwd: user of recipe r has the number 1000, which v already has"
        );
    }

    #[test]
    fn no_image_has_an_empty_password() {
        let accounts = merged(&[("/etc/shadow", "root:::0:::::\nbin:!::0:::::\n")], "").unwrap();
        assert_eq!(accounts.text(&ACCOUNT_FILES[2]), "root:*::0:::::\nbin:!::0:::::\n");
    }
}
