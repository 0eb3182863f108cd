//! Debian packages become apk packages, all of a call together, so that their dependencies fit each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::contents::Contents;
use super::debian::{Deb, DebError};
use super::dependency::{Dependency, InvalidDependency};
use super::info::PackageInfo;
use super::pack::{PackError, Packed, pack};
use super::signature::SigningKey;
use crate::sys::fs::{self, FileError};

/// Why packages cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {reason}", .path.display())]
    Deb { path: PathBuf, reason: DebError },
    #[error("{}: {reason}", .path.display())]
    Pack { path: PathBuf, reason: PackError },
    #[error("{}: {reason}", .path.display())]
    Map { path: PathBuf, reason: String },
    #[error("{}: [package.{package}] {what} '{file}', which is not in it", .path.display())]
    NotThere { path: PathBuf, package: String, what: &'static str, file: String },
    #[error("{} and {} are both {name}", .first.display(), .second.display())]
    Twice { name: String, first: PathBuf, second: PathBuf },
}

impl Diagnostic for ConvertError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Deb { reason, .. } => reason.diagnosis(),
            Self::Pack { reason, .. } => reason.diagnosis(),
            Self::Map { .. } => Class::Invalid.no_hint(),
            Self::NotThere { .. } => Class::Invalid.hint("`dpkg-deb --contents` lists what is in it"),
            Self::Twice { .. } => Class::Invalid.hint("give only one of them"),
        }
    }
}

/// What to change when packages are made: a small TOML file.
///
/// ```toml
/// [all]                                   # of every package
/// leave-out = ["usr/share/doc"]           # files, or directories with all below them
/// drop-depends = ["debconf"]
/// [package.uidmap]                        # of this one, besides
/// provides = ["shadow-subids=4.13"]
/// depends = ["busybox"]
/// modes = { "usr/bin/newuidmap" = 0o755 }
/// owners = { "etc/shadow" = "root:shadow" }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PackMap {
    pub all: Changes,
    pub package: BTreeMap<String, Changes>,
}

/// Changes to one package, or to all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Changes {
    /// Names besides those that the package provides itself, such as `shadow-subids=4.13`.
    pub provides: Vec<String>,
    /// Dependencies besides its own.
    pub depends: Vec<String>,
    /// Names whose clause is dropped from its dependencies.
    pub drop_depends: Vec<String>,
    /// Paths without a leading slash.
    pub leave_out: Vec<String>,
    /// Permission bits by path.
    pub modes: BTreeMap<String, u16>,
    /// `owner:group` by path.
    pub owners: BTreeMap<String, String>,
}

impl PackMap {
    /// Reads a map.
    pub fn read(path: &Path) -> Result<Self, ConvertError> {
        let text = fs::read_text(path)?;
        toml::from_str(&text)
            .map_err(|error| ConvertError::Map { path: path.to_owned(), reason: error.to_string() })
    }

    /// Applies what is said of all packages and of this one. A mode or owner for a file that is not there is an error.
    pub fn apply(
        &self,
        path: &Path,
        info: &mut PackageInfo,
        contents: &mut Contents,
    ) -> Result<(), ConvertError> {
        let own = self.package.get(&info.name);
        for changes in std::iter::once(&self.all).chain(own) {
            changes.leave_out.iter().for_each(|file| contents.leave_out(file));
            info.extend(&changes.provides, &changes.depends)
                .map_err(|reason| ConvertError::Pack { path: path.to_owned(), reason })?;
        }
        let Some(own) = own else { return Ok(()) };
        let missing = |what, file: &String| ConvertError::NotThere {
            path: path.to_owned(),
            package: info.name.clone(),
            what,
            file: file.clone(),
        };
        for (file, mode) in &own.modes {
            if !contents.set_mode(file, mode & 0o7777) {
                return Err(missing("sets the mode of", file));
            }
        }
        for (file, owner) in &own.owners {
            let (owner, group) = owner.split_once(':').unwrap_or((owner, owner));
            if !contents.set_owner(file, owner, group) {
                return Err(missing("sets the owner of", file));
            }
        }
        Ok(())
    }

    fn drops(&self, package: &str, dependency: &str) -> bool {
        let own = self.package.get(package);
        let mut lists = std::iter::once(&self.all).chain(own).map(|changes| &changes.drop_depends);
        lists.any(|names| names.iter().any(|name| name == dependency))
    }
}

/// What becomes of a dependency that names nothing in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownDependency {
    /// Its first alternative stays: another repository may have it.
    Keep,
    /// It is dropped, with a note.
    Ignore,
}

/// Makes an apk package of each `.deb`. Alternatives (`a | b`) are decided by what is in the call: the first that is one of the
/// packages, or is provided by one, which is then depended on by its own name. Maintainer scripts, conflicts and version
/// constraints are dropped; conffiles are plain files. Two files of the same package are an error.
pub fn convert_debs(
    paths: &[PathBuf],
    map: &PackMap,
    missing: UnknownDependency,
    key: Option<&SigningKey>,
) -> Result<Vec<Packed>, ConvertError> {
    let debs = paths.par_iter().map(|path| read_deb(path)).collect::<Result<Vec<_>, _>>()?;
    let names = Names::of(paths, &debs, map)?;
    let convert = |(path, deb): (&PathBuf, &Deb)| names.convert(path, deb, map, missing, key);
    paths.par_iter().zip(&debs).map(convert).collect()
}

fn read_deb(path: &Path) -> Result<Deb, ConvertError> {
    Deb::read(fs::read(path)?).map_err(|reason| ConvertError::Deb { path: path.to_owned(), reason })
}

/// Names that the packages of a call have or provide.
struct Names<'a> {
    packages: BTreeMap<&'a str, &'a Path>,
    /// By provided name, the first package that provides it.
    provided: BTreeMap<String, &'a str>,
}

impl<'a> Names<'a> {
    fn of(paths: &'a [PathBuf], debs: &'a [Deb], map: &PackMap) -> Result<Self, ConvertError> {
        let mut names = Self { packages: BTreeMap::new(), provided: BTreeMap::new() };
        for (path, deb) in paths.iter().zip(debs) {
            let name = deb.field("Package");
            if let Some(first) = names.packages.insert(name, path) {
                let (name, first, second) = (name.to_owned(), first.to_owned(), path.clone());
                return Err(ConvertError::Twice { name, first, second });
            }
            let invalid =
                |error: InvalidDependency| ConvertError::Pack { path: path.clone(), reason: error.into() };
            let extra = map.package.get(name).map(|changes| changes.provides.as_slice()).unwrap_or_default();
            for text in extra {
                let dependency: Dependency = text.parse().map_err(invalid)?;
                names.provided.entry(dependency.name.into()).or_insert(name);
            }
            for provided in deb.provides() {
                names.provided.entry(provided.to_owned()).or_insert(name);
            }
        }
        Ok(names)
    }

    /// The package that a dependency on `name` is met by.
    fn package(&self, name: &str) -> Option<&'a str> {
        let own = self.packages.get_key_value(name).map(|(name, _)| *name);
        own.or_else(|| self.provided.get(name).copied())
    }

    fn convert(
        &self,
        path: &Path,
        deb: &Deb,
        map: &PackMap,
        missing: UnknownDependency,
        key: Option<&SigningKey>,
    ) -> Result<Packed, ConvertError> {
        let wrong = |reason| ConvertError::Deb { path: path.to_owned(), reason };
        let unpacked = |reason| ConvertError::Pack { path: path.to_owned(), reason };
        let version = deb.version().map_err(wrong)?;
        let arch = deb.architecture().map_err(wrong)?;
        let mut info = PackageInfo::new(deb.field("Package"), version, arch).map_err(unpacked)?;
        deb.field("Description").clone_into(&mut info.description);
        deb.field("Homepage").clone_into(&mut info.url);
        info.origin = Some(deb.source().to_owned());
        info.maintainer = Some(deb.field("Maintainer").to_owned()).filter(|name| !name.is_empty());
        // To apk a package owns its name: none may have it beside it, as sysvinit-utils has lsb-base.
        let is_free = |name: &&str| !self.packages.contains_key(name);
        info.provides = deb.provides().into_iter().filter(is_free).map(Dependency::any).collect();
        let mut notes = Vec::new();
        info.depends = self.depends(deb, map, missing, &mut notes);
        let mut contents = deb.contents().map_err(wrong)?;
        map.apply(path, &mut info, &mut contents)?;
        if !deb.scripts.is_empty() {
            notes.push(format!("dropped its scripts: {}", deb.scripts.join(", ")));
        }
        let packed = pack(info, contents, key).map_err(unpacked)?;
        notes.extend(packed.notes);
        Ok(Packed { info: packed.info, bytes: packed.bytes, notes })
    }

    fn depends(
        &self,
        deb: &Deb,
        map: &PackMap,
        missing: UnknownDependency,
        notes: &mut Vec<String>,
    ) -> Vec<Dependency> {
        let package = deb.field("Package");
        let mut names = BTreeSet::new();
        for clause in deb.depends() {
            if clause.iter().any(|name| map.drops(package, name)) {
                continue;
            }
            match (clause.iter().find_map(|name| self.package(name)), missing) {
                (Some(name), _) if name == package => {}
                (Some(name), _) => drop(names.insert(name)),
                (None, UnknownDependency::Keep) => drop(names.insert(clause[0])),
                (None, UnknownDependency::Ignore) => {
                    notes.push(format!("dropped its dependency {}", clause.join(" | ")))
                }
            }
        }
        names.into_iter().map(Dependency::any).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apk::archive::TarEntry;
    use crate::apk::archive_writer::TarWriter;

    fn deb(dir: &Path, name: &str, control: &str) -> PathBuf {
        let text = format!("Package: {name}\nVersion: 1:2.0-1\nArchitecture: all\n{control}");
        let mut tar = TarWriter::default();
        tar.add(
            &TarEntry { path: "./control".into(), size: text.len() as u64, ..TarEntry::empty() },
            text.as_bytes(),
        );
        tar.add(&TarEntry { path: "./postinst".into(), ..TarEntry::empty() }, b"");
        let mut data = TarWriter::default();
        let file = format!("./usr/share/doc/{name}/copyright");
        data.add(&TarEntry { path: file, size: 1, ..TarEntry::empty() }, b"c");
        data.add(&TarEntry { path: format!("./usr/bin/{name}"), size: 1, ..TarEntry::empty() }, b"b");
        let mut builder = ar::Builder::new(Vec::new());
        for (member, bytes) in [("control.tar", tar.ended()), ("data.tar", data.ended())] {
            builder.append(&ar::Header::new(member.into(), bytes.len() as u64), &bytes[..]).unwrap();
        }
        let path = dir.join(format!("{name}.deb"));
        std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
        path
    }

    fn dependencies(packed: &Packed) -> String {
        packed.info.depends.iter().map(Dependency::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn alternatives_are_decided_by_what_is_in_the_call() {
        let dir = tempfile::tempdir().unwrap();
        let control =
            "Depends: mawk | awk, libc6 (>= 2.34) | libc6.1, init (>= 1), debconf (>= 0.5) | debconf-2.0\n";
        let paths = [
            deb(dir.path(), "tool", control),
            deb(dir.path(), "gawk", "Provides: awk\n"),
            deb(dir.path(), "libc6", "Provides: libc (= 2.36), gawk\n"),
        ];
        let map: PackMap = toml::from_str("[all]\ndrop-depends = ['debconf']").unwrap();
        let packed = convert_debs(&paths, &map, UnknownDependency::Keep, None).unwrap();
        assert_eq!(dependencies(&packed[0]), "gawk init libc6");
        assert_eq!(packed[0].notes, ["dropped its scripts: postinst"]);
        assert_eq!(packed[2].info.provides, [Dependency::any("libc")]);
        let packed = convert_debs(&paths, &map, UnknownDependency::Ignore, None).unwrap();
        assert_eq!(dependencies(&packed[0]), "gawk libc6");
        assert_eq!(packed[0].notes[0], "dropped its dependency init");
    }

    #[test]
    fn a_map_changes_what_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [deb(dir.path(), "uidmap", "")];
        let map = |text: &str| toml::from_str::<PackMap>(text).unwrap();
        let good = map(
            "[all]\nleave-out = ['usr/share']\n[package.uidmap]\nprovides = ['subids=4']\nmodes = { 'usr/bin/uidmap' = 0o755 }",
        );
        let packed = convert_debs(&paths, &good, UnknownDependency::Keep, None).unwrap().remove(0);
        let package = crate::apk::PackageContents::inspect(packed.bytes.into()).unwrap();
        let files: Vec<_> = package.entries.iter().map(|entry| (entry.path.as_str(), entry.mode)).collect();
        assert_eq!(files, [("usr", 0o755), ("usr/bin", 0o755), ("usr/bin/uidmap", 0o755)]);
        assert_eq!(package.info.provides[0].to_string(), "subids=4");
        let wrong = map("[package.uidmap]\nmodes = { 'usr/bin/other' = 0o755 }");
        let error = convert_debs(&paths, &wrong, UnknownDependency::Keep, None).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("[package.uidmap] sets the mode of 'usr/bin/other', which is not in it")
        );
    }
}
