//! What a package says of itself, in an index record or in its `.PKGINFO`: the same fields, spelled differently.

use std::str::FromStr;

use crate::base::text::printable;
use crate::base::{InvalidValue, Sha256};

use super::dependency::{Checksum, Dependency};
use super::version::Version;

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PackageInfo {
    /// Fits a file name: no `/`, no white space, no control character, no leading dot.
    pub name: String,
    pub version: Version,
    /// `noarch`, or an architecture such as `x86_64`.
    pub arch: String,
    pub description: String,
    pub url: String,
    pub license: String,
    /// The package that this one is built from, if it is known.
    pub origin: Option<String>,
    pub maintainer: Option<String>,
    pub commit: Option<String>,
    /// Seconds since the epoch.
    pub build_date: Option<u64>,
    /// Bytes on disk, as the package says.
    pub installed_size: u64,
    pub depends: Vec<Dependency>,
    /// Install this where all of these are installed.
    pub install_if: Vec<Dependency>,
    pub provides: Vec<Dependency>,
    /// Packages whose files this one may overwrite; stands in a package alone, not in an index.
    pub replaces: Vec<Dependency>,
    pub provider_priority: Option<u64>,
    /// In a package alone.
    pub replaces_priority: Option<i64>,
    /// Directories that the trigger script watches; in a package alone.
    pub triggers: Vec<String>,
    /// Identity: SHA-1 of the compressed control member.
    pub checksum: Checksum,
    /// Bytes of the whole `.apk`.
    pub size: u64,
}

impl PackageInfo {
    /// `name-version`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// `name-version.apk`: what the file is called in a repository.
    pub fn file_name(&self) -> String {
        format!("{}-{}.apk", self.name, self.version)
    }

    /// Does this package replace files of `other`?
    pub fn replaces(&self, other: &Self) -> bool {
        self.replaces.iter().any(|dependency| {
            dependency.name == other.name
                && !dependency.conflict
                && dependency.is_met_by(Some(&other.version), &other.checksum)
        })
    }
}

/// A field that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
    #[error("field '{0}' is not known; fields whose letter is upper case must be")]
    Unknown(char),
}

/// Spelling in `.PKGINFO`, and letter in an index or (the last three) in the installed database.
const FIELDS: [(&str, char); 18] = [
    ("pkgname", 'P'),
    ("pkgver", 'V'),
    ("pkgdesc", 'T'),
    ("url", 'U'),
    ("size", 'I'),
    ("license", 'L'),
    ("arch", 'A'),
    ("depend", 'D'),
    ("install_if", 'i'),
    ("provides", 'p'),
    ("origin", 'o'),
    ("maintainer", 'm'),
    ("builddate", 't'),
    ("commit", 'c'),
    ("provider_priority", 'k'),
    ("replaces", 'r'),
    ("replaces_priority", 'q'),
    ("triggers", 'g'),
];

/// Longest text of one field: real indexes stay below 64 KiB.
const MAX_FIELD: usize = 1 << 20;

/// A package's fields as they come, in any order.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    name: Option<String>,
    version: Option<Version>,
    arch: Option<String>,
    description: String,
    url: String,
    license: String,
    origin: Option<String>,
    maintainer: Option<String>,
    commit: Option<String>,
    build_date: Option<u64>,
    installed_size: u64,
    depends: Vec<Dependency>,
    install_if: Vec<Dependency>,
    provides: Vec<Dependency>,
    replaces: Vec<Dependency>,
    provider_priority: Option<u64>,
    replaces_priority: Option<i64>,
    triggers: Vec<String>,
    checksum: Option<Checksum>,
    size: u64,
    /// `datahash` of `.PKGINFO`.
    pub(super) data_hash: Option<Sha256>,
}

impl Draft {
    /// Reads a whole `.PKGINFO`.
    pub(super) fn from_pkginfo(text: &str) -> Result<Self, InfoError> {
        let mut draft = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once(" = ") else { continue };
            if key == "datahash" {
                draft.data_hash = Some(value.parse().map_err(|error: InvalidValue| field(key, error))?);
            } else if let Some((_, letter)) = FIELDS.iter().find(|(name, _)| *name == key) {
                draft.set(*letter, value).map_err(|error| field(key, error))?;
            }
        }
        Ok(draft)
    }

    /// Reads one line of an index record.
    pub(super) fn index_line(&mut self, letter: char, value: &str) -> Result<(), InfoError> {
        match letter {
            'C' => self.checksum = Some(value.parse().map_err(|error| field(letter, error))?),
            'S' => self.size = whole(value).map_err(|error| field(letter, error))?,
            // Fields of the package alone are ignored in an index, as apk does.
            'r' | 'q' | 'g' => {}
            // A dependency that cannot be read only means that the package is not installed by itself.
            'i' => drop(self.set(letter, value)),
            letter if FIELDS.iter().any(|(_, known)| *known == letter) => {
                self.set(letter, value).map_err(|error| field(letter, error))?;
            }
            letter if letter.is_ascii_uppercase() => return Err(InfoError::Unknown(letter)),
            _ => {}
        }
        Ok(())
    }

    /// Reads one line of a record of what is installed, where fields of the package alone count too.
    pub(super) fn installed_line(&mut self, letter: char, value: &str) -> Result<(), InfoError> {
        match letter {
            'r' | 'q' | 'g' => self.set(letter, value).map_err(|error| field(letter, error)),
            letter => self.index_line(letter, value),
        }
    }

    fn set(&mut self, letter: char, value: &str) -> Result<(), String> {
        if value.len() > MAX_FIELD {
            return Err(format!("it has {} bytes", value.len()));
        }
        // Most fields are ASCII, of which a byte is enough to tell.
        let is_plain = value.bytes().all(|b| matches!(b, b' '..=b'~'));
        let control = || value.chars().find(|c| c.is_control() && *c != '\t');
        if let Some(control) = (!is_plain).then(control).flatten() {
            return Err(format!("it contains the control character {control:?}"));
        }
        let text = || value.to_owned();
        match letter {
            'P' => self.name = Some(checked(value, is_package_name)?),
            'V' => self.version = Some(version(value)?),
            'A' => self.arch = Some(checked(value, is_arch)?),
            'T' => self.description = text(),
            'U' => self.url = text(),
            'L' => self.license = text(),
            'o' => self.origin = Some(text()).filter(|origin| !origin.is_empty()),
            'm' => self.maintainer = Some(text()),
            'c' => self.commit = Some(text()),
            't' => self.build_date = Some(whole(value)?),
            'I' => self.installed_size = whole(value)?,
            'k' => self.provider_priority = Some(whole(value)?),
            'q' => {
                self.replaces_priority = Some(value.parse().map_err(|error| format!("'{value}': {error}"))?)
            }
            'g' => self.triggers.extend(value.split_ascii_whitespace().map(str::to_owned)),
            'D' => self.depends.extend(parse_dependencies(value)?),
            'i' => self.install_if.extend(parse_dependencies(value)?),
            // As apk does: what stands before the first that is no name.
            'p' => {
                let words = value.split([' ', '\n']).filter(|word| !word.is_empty());
                self.provides.extend(words.map_while(|word| Dependency::provided(word).ok()));
            }
            'r' => self.replaces.extend(parse_dependencies(value)?),
            other => unreachable!("'{other}' is not among FIELDS"),
        }
        Ok(())
    }

    /// The name and version as far as they are known, for messages.
    pub(super) fn label(&self) -> String {
        match (&self.name, &self.version) {
            (Some(name), Some(version)) => format!("{name}-{version}"),
            (Some(name), None) => name.clone(),
            _ => "a package without a name".into(),
        }
    }

    /// The package of an index record, whose identity and size stand in it.
    pub(super) fn finish_indexed(self) -> Result<PackageInfo, InfoError> {
        let (checksum, size) = (self.checksum.ok_or(InfoError::Missing("checksum"))?, self.size);
        self.finish(checksum, size)
    }

    /// The package, whose identity and size come from its bytes.
    pub(super) fn finish(self, checksum: Checksum, size: u64) -> Result<PackageInfo, InfoError> {
        Ok(PackageInfo {
            name: self.name.ok_or(InfoError::Missing("name"))?,
            version: self.version.ok_or(InfoError::Missing("version"))?,
            arch: self.arch.unwrap_or_else(|| "noarch".into()),
            description: self.description,
            url: self.url,
            license: self.license,
            origin: self.origin,
            maintainer: self.maintainer,
            commit: self.commit,
            build_date: self.build_date,
            installed_size: self.installed_size,
            depends: self.depends,
            install_if: self.install_if,
            provides: self.provides,
            replaces: self.replaces,
            provider_priority: self.provider_priority,
            replaces_priority: self.replaces_priority,
            triggers: self.triggers,
            checksum,
            size,
        })
    }
}

/// A fault of a field. Its reason may repeat the value, which is whoever made the package's: a tab is allowed in a description, and
/// stands in no message.
fn field(name: impl std::fmt::Display, reason: impl std::fmt::Display) -> InfoError {
    InfoError::Field { field: name.to_string(), reason: printable(&reason.to_string()) }
}

fn whole(value: &str) -> Result<u64, String> {
    value.parse().map_err(|error| format!("'{value}': {error}"))
}

fn parse_dependencies(value: &str) -> Result<Vec<Dependency>, String> {
    let dependencies = Dependency::parse_list(value).map_err(|error| error.to_string())?;
    match dependencies.iter().find(|dependency| dependency.tag.is_some()) {
        Some(dependency) => Err(format!("'{dependency}': a tag is allowed in the world only")),
        None => Ok(dependencies),
    }
}

fn checked(value: &str, rule: fn(&str) -> bool) -> Result<String, String> {
    if rule(value) { Ok(value.to_owned()) } else { Err(format!("'{value}' is not allowed")) }
}

/// A package's name is also a file name and a word in the world file.
pub(super) fn is_package_name(text: &str) -> bool {
    text.len() <= 200
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b))
}

fn version(value: &str) -> Result<Version, String> {
    Version::of_anyone(&checked(value, is_package_version)?).map_err(|error| error.to_string())
}

/// A package's version is a part of a file name. What holds no digit says nothing of a version.
fn is_package_version(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+~:".contains(&b))
}

/// apk's name for a kind of machine, such as `x86_64`; fits a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch(String);

/// A text that names no kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an architecture such as x86_64 or aarch64")]
pub struct InvalidArch(pub String);

impl Arch {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Arch {
    type Err = InvalidArch;

    fn from_str(text: &str) -> Result<Self, InvalidArch> {
        if is_arch(text) { Ok(Self(text.to_owned())) } else { Err(InvalidArch(text.to_owned())) }
    }
}

fn is_arch(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Lines of an index record in apk's order. As apk does, the description, the URL and the license are there even if empty.
pub(super) fn index_record(info: &PackageInfo) -> String {
    let mut lines = format!("C:{}\n", info.checksum);
    let mut line = |letter: char, value: &str| {
        if !value.is_empty() || "TUL".contains(letter) {
            lines.push_str(&format!("{letter}:{value}\n"));
        }
    };
    let number = |value: Option<u64>| value.map(|n| n.to_string()).unwrap_or_default();
    line('P', &info.name);
    line('V', info.version.as_str());
    line('A', &info.arch);
    line('S', &info.size.to_string());
    line('I', &info.installed_size.to_string());
    line('T', &info.description);
    line('U', &info.url);
    line('L', &info.license);
    line('o', info.origin.as_deref().unwrap_or_default());
    line('m', info.maintainer.as_deref().unwrap_or_default());
    line('t', &number(info.build_date));
    line('c', info.commit.as_deref().unwrap_or_default());
    line('k', &number(info.provider_priority));
    line('D', &join(&info.depends));
    line('p', &join(&info.provides));
    line('i', &join(&info.install_if));
    lines
}

/// Dependencies parted by spaces.
pub(super) fn join(dependencies: &[Dependency]) -> String {
    dependencies.iter().map(Dependency::to_string).collect::<Vec<_>>().join(" ")
}

/// The text of a `.PKGINFO`; `data_hash` is the SHA-256 of the compressed data member.
pub(super) fn pkginfo(info: &PackageInfo, data_hash: Sha256) -> String {
    let mut text = String::from("# Generated by sisforge\n");
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{key} = {value}\n"));
        }
    };
    let number = |value: Option<u64>| value.map(|n| n.to_string()).unwrap_or_default();
    line("pkgname", &info.name);
    line("pkgver", info.version.as_str());
    line("pkgdesc", &info.description);
    line("url", &info.url);
    line("builddate", &number(info.build_date));
    line("packager", "sisforge");
    line("size", &info.installed_size.to_string());
    line("arch", &info.arch);
    line("origin", info.origin.as_deref().unwrap_or_default());
    line("commit", info.commit.as_deref().unwrap_or_default());
    line("maintainer", info.maintainer.as_deref().unwrap_or_default());
    line("license", &info.license);
    line("provider_priority", &number(info.provider_priority));
    line("replaces_priority", &info.replaces_priority.map(|n| n.to_string()).unwrap_or_default());
    line("triggers", &info.triggers.join(" "));
    for (key, dependencies) in [
        ("depend", &info.depends),
        ("replaces", &info.replaces),
        ("provides", &info.provides),
        ("install_if", &info.install_if),
    ] {
        for dependency in dependencies {
            line(key, &dependency.to_string());
        }
    }
    line("datahash", &data_hash.to_string());
    text
}
