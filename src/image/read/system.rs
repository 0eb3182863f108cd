//! What the system in an image says of itself: packages, users, groups, services.

use std::collections::BTreeMap;

use crate::apk::{InstalledPackage, parse_installed};

use super::inventory::{InodeKind, Inventory};
use super::volume::Volume;
use super::{Flaw, ReadError};

/// Where apk keeps its record: before apk-tools 3, and since.
const DATABASES: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

/// Most bytes of apk's record: a thousand packages take about ten million.
const MAX_DATABASE: u64 = 256 << 20;

/// Most bytes of a file of settings.
const MAX_SETTINGS: u64 = 16 << 20;

/// The system in an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct System {
    /// `ID` of `/etc/os-release`, such as `alpine`.
    pub distribution: Option<String>,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub title: Option<String>,
    /// What apk takes the machine for, such as `x86_64`.
    pub arch: Option<String>,
    /// As apk recorded them, by name.
    pub packages: Vec<InstalledPackage>,
    /// What apk was asked for.
    pub world: Vec<String>,
    pub users: Vec<PasswdEntry>,
    pub groups: Vec<GroupEntry>,
    /// Services by OpenRC's runlevel.
    pub services: BTreeMap<String, Vec<String>>,
}

/// A line of `/etc/passwd`, and what `/etc/shadow` says of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct PasswdEntry {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
    pub password: Password,
}

/// Whether a password lets somebody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Password {
    /// No password will do.
    Locked,
    /// Everybody is let in.
    Empty,
    Set,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct GroupEntry {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

impl System {
    /// Reads what there is; an image without a system in it has none of all this.
    pub fn of(volume: &Volume, inventory: &Inventory) -> Result<Self, ReadError> {
        let text =
            |path: &str| inventory.text(volume, path, MAX_SETTINGS).map(|text| text.unwrap_or_default());
        let passwords = passwords(&text("/etc/shadow")?);
        let release = text("/etc/os-release")?;
        Ok(Self {
            distribution: release_field(&release, "ID"),
            title: release_field(&release, "PRETTY_NAME"),
            arch: Some(text("/etc/apk/arch")?.trim().to_owned()).filter(|arch| !arch.is_empty()),
            packages: packages(volume, inventory)?,
            world: text("/etc/apk/world")?.split_whitespace().map(str::to_owned).collect(),
            users: lines(&text("/etc/passwd")?).filter_map(|fields| user(&fields, &passwords)).collect(),
            groups: lines(&text("/etc/group")?).filter_map(|fields| group(&fields)).collect(),
            services: services(inventory),
        })
    }
}

fn packages(volume: &Volume, inventory: &Inventory) -> Result<Vec<InstalledPackage>, ReadError> {
    for path in DATABASES {
        if let Some(text) = inventory.text(volume, path, MAX_DATABASE)? {
            let parsed = parse_installed(&text);
            let mut packages = parsed.map_err(|error| volume.error(Flaw::at(path, error)))?;
            packages.sort_by(|one, other| one.info.name.cmp(&other.info.name));
            let twice = packages.windows(2).find(|pair| pair[0].info.name == pair[1].info.name);
            return match twice {
                Some(pair) => {
                    let name = &pair[0].info.name;
                    Err(volume.error(Flaw::at(path, format!("it has the package {name} twice"))))
                }
                None => Ok(packages),
            };
        }
    }
    Ok(Vec::new())
}

/// Lines of fields with colons between them; others, such as comments, have no second field.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn passwords(shadow: &str) -> BTreeMap<String, Password> {
    let of = |fields: Vec<&str>| {
        let [name, password, ..] = fields.as_slice() else { return None };
        Some(((*name).to_owned(), password_of(password)))
    };
    lines(shadow).filter_map(of).collect()
}

fn password_of(field: &str) -> Password {
    match field {
        "" => Password::Empty,
        // A hash begins with `$`, or is one of DES in its own alphabet.
        field if field.starts_with(['!', '*']) => Password::Locked,
        _ => Password::Set,
    }
}

fn user(fields: &[&str], passwords: &BTreeMap<String, Password>) -> Option<PasswdEntry> {
    let [name, password, uid, gid, _, home, shell] = fields else { return None };
    let password = match *password {
        // Whom `/etc/shadow` leaves out cannot log in with a password.
        "x" => passwords.get(*name).copied().unwrap_or(Password::Locked),
        field => password_of(field),
    };
    Some(PasswdEntry {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: (*home).to_owned(),
        shell: (*shell).to_owned(),
        password,
    })
}

fn group(fields: &[&str]) -> Option<GroupEntry> {
    let [name, _, gid, members] = fields else { return None };
    let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned);
    Some(GroupEntry { name: (*name).to_owned(), gid: gid.parse().ok()?, members: members.collect() })
}

/// The links of `/etc/runlevels`.
fn services(inventory: &Inventory) -> BTreeMap<String, Vec<String>> {
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, entry) in inventory.iter() {
        let Some(below) = path.strip_prefix("/etc/runlevels/") else { continue };
        match (below.split_once('/'), &entry.kind) {
            (None, InodeKind::Directory) => drop(services.entry(below.to_owned()).or_default()),
            (Some((level, name)), kind) if *kind != InodeKind::Directory && !name.contains('/') => {
                services.entry(level.to_owned()).or_default().push(name.to_owned());
            }
            _ => {}
        }
    }
    services
}

/// A field of `os-release`, its quotes taken off.
fn release_field(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    Some(value.to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_say_whether_a_password_lets_them_in() {
        let passwords = passwords("a:!:1:::\nb::1:::\nc:$6$x$y:1:::\nd:*:1:::\n");
        let of = |line: &str| lines(line).find_map(|fields| user(&fields, &passwords)).unwrap().password;
        let line = |name: &str, field: &str| format!("{name}:{field}:1:2:gecos:/home:/bin/sh");
        assert_eq!(of(&line("a", "x")), Password::Locked);
        assert_eq!(of(&line("b", "x")), Password::Empty);
        assert_eq!(of(&line("c", "x")), Password::Set);
        assert_eq!(of(&line("d", "x")), Password::Locked);
        assert_eq!(of(&line("not-in-shadow", "x")), Password::Locked);
        assert_eq!(of(&line("old", "")), Password::Empty);
        assert_eq!(of(&line("old", "*")), Password::Locked);
    }

    #[test]
    fn fields_of_os_release_lose_their_quotes() {
        let text =
            "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.22.1\nPRETTY_NAME='Alpine Linux v3.22'\nANSI=\n";
        let field = |key| release_field(text, key);
        assert_eq!(field("ID").as_deref(), Some("alpine"));
        assert_eq!(field("PRETTY_NAME").as_deref(), Some("Alpine Linux v3.22"));
        assert_eq!((field("ANSI"), field("HOME")), (None, None));
    }
}
