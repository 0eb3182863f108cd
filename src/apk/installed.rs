//! Reads `/lib/apk/db/installed`, apk's record of what is installed: what [`super::database`] writes, and what apk itself does.
//! The text comes out of an image and is not trusted.

use crate::base::{Class, Diagnosis, Diagnostic};

use super::dependency::Checksum;
use super::entry::check_path;
use super::info::{Draft, InfoError, PackageInfo};

/// A package that a root says it has.
#[derive(Clone, Debug, PartialEq)]
pub struct InstalledPackage {
    pub info: PackageInfo,
    /// `@tag` of the repository that it came from, without the `@`.
    pub tag: Option<String>,
    /// Directories and files in the order of the record.
    pub files: Vec<RecordedFile>,
}

/// One path of a package, as apk recorded it when it was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFile {
    /// Without a leading slash; `""` is the root.
    pub path: String,
    pub is_directory: bool,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// SHA-1 of a file's bytes or of a symlink's target; devices and old records have none.
    pub sha1: Option<Checksum>,
    /// Digest of extended attributes, where there are any.
    pub xattrs: Option<Checksum>,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}{}: {reason}", package.as_deref().map(|name| format!(" (package {name})")).unwrap_or_default())]
pub struct InstalledError {
    /// Counted from 1.
    pub line: usize,
    pub package: Option<String>,
    #[source]
    pub reason: InstalledReason,
}

impl Diagnostic for InstalledError {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum InstalledReason {
    #[error("it is not a letter, a colon and a value")]
    Shape,
    #[error("{0:?} cannot be the path of a file")]
    Path(String),
    #[error("{0:?} is not uid:gid:mode")]
    Permissions(String),
    #[error("{0:?} is not a checksum")]
    Sum(String),
    #[error("it comes before the file or directory that it describes")]
    Order,
    #[error(transparent)]
    Info(#[from] InfoError),
}

/// Reads a whole record.
pub fn parse_installed(text: &str) -> Result<Vec<InstalledPackage>, InstalledError> {
    let mut packages = Vec::new();
    let mut open: Option<Reading> = None;
    for (number, line) in text.lines().chain([""]).enumerate() {
        let failed = |reason, reading: Option<&Reading>| InstalledError {
            line: number + 1,
            package: reading.map(|reading| reading.draft.label()),
            reason,
        };
        if line.is_empty() {
            if let Some(reading) = open.take() {
                let label = reading.draft.label();
                let package = reading.finish().map_err(|error| InstalledError {
                    line: number + 1,
                    package: Some(label),
                    reason: error.into(),
                })?;
                packages.push(package);
            }
            continue;
        }
        let reading = open.get_or_insert_default();
        if let Err(reason) = reading.line(line) {
            return Err(failed(reason, Some(reading)));
        }
    }
    Ok(packages)
}

/// A package whose lines are being read.
#[derive(Default)]
struct Reading {
    draft: Draft,
    tag: Option<String>,
    files: Vec<RecordedFile>,
    /// The directory that files stand in.
    directory: Option<String>,
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), InstalledReason> {
        let mut letters = line.chars();
        let (Some(letter), Some(':')) = (letters.next(), letters.next()) else {
            return Err(InstalledReason::Shape);
        };
        let value = letters.as_str();
        match letter {
            'F' => self.add(value.to_owned(), true, 0o755),
            'R' => {
                let directory = self.directory.as_deref().ok_or(InstalledReason::Order)?;
                let path =
                    if directory.is_empty() { value.to_owned() } else { format!("{directory}/{value}") };
                if value.contains('/') || value.is_empty() {
                    return Err(InstalledReason::Path(path));
                }
                self.add(path, false, 0o644)
            }
            'M' => self.set_permissions(true, value),
            'a' => self.set_permissions(false, value),
            'Z' => {
                let sum = value.parse().map_err(|_| InstalledReason::Sum(value.to_owned()))?;
                self.last(false)?.sha1 = Some(sum);
                Ok(())
            }
            's' => {
                self.tag = Some(value.to_owned()).filter(|tag| !tag.is_empty());
                Ok(())
            }
            // Marks of a package whose files or scripts apk could not bring out: nothing that is looked at.
            'f' => Ok(()),
            letter => Ok(self.draft.installed_line(letter, value)?),
        }
    }

    fn add(&mut self, path: String, is_directory: bool, mode: u16) -> Result<(), InstalledReason> {
        if !path.is_empty() && check_path(&path).is_err() {
            return Err(InstalledReason::Path(path));
        }
        if is_directory {
            self.directory = Some(path.clone());
        }
        self.files.push(RecordedFile { path, is_directory, mode, uid: 0, gid: 0, sha1: None, xattrs: None });
        Ok(())
    }

    fn last(&mut self, is_directory: bool) -> Result<&mut RecordedFile, InstalledReason> {
        let last = self.files.last_mut().filter(|file| file.is_directory == is_directory);
        last.ok_or(InstalledReason::Order)
    }

    /// Reads `uid:gid:mode` and, behind it, the digest of attributes.
    fn set_permissions(&mut self, is_directory: bool, value: &str) -> Result<(), InstalledReason> {
        let wrong = || InstalledReason::Permissions(value.to_owned());
        let mut fields = value.splitn(4, ':');
        let mut number = |radix| {
            let field = fields.next().ok_or_else(wrong)?;
            u32::from_str_radix(field, radix).map_err(|_| wrong())
        };
        let (uid, gid, mode) = (number(10)?, number(10)?, number(8)?);
        let mode = u16::try_from(mode).ok().filter(|mode| *mode <= 0o7777).ok_or_else(wrong)?;
        let xattrs = fields.next().map(|sum| sum.parse().map_err(|_| wrong())).transpose()?;
        let file = self.last(is_directory)?;
        (file.uid, file.gid, file.mode, file.xattrs) = (uid, gid, mode, xattrs);
        Ok(())
    }

    fn finish(self) -> Result<InstalledPackage, InfoError> {
        Ok(InstalledPackage { info: self.draft.finish_indexed()?, tag: self.tag, files: self.files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn record(files: &str) -> String {
        format!("C:{ZERO}\nP:b\nV:1-r0\nA:x86_64\nL:MIT\no:b\nr:a<2\nq:5\ns:edge\n{files}\n")
    }

    #[test]
    fn a_record_is_read_with_its_files() {
        let text = record(&format!(
            "F:\nR:init\nF:usr\nM:0:5:2750\nR:b\na:5:0:4755:{ZERO}\nZ:{ZERO}\nR:plain\nf:S\n"
        ));
        let packages = parse_installed(&text).unwrap();
        let [package] = packages.as_slice() else { panic!("{packages:?}") };
        assert_eq!((package.info.id(), package.tag.as_deref()), ("b-1-r0".to_owned(), Some("edge")));
        assert_eq!((package.info.replaces.len(), package.info.replaces_priority), (1, Some(5)));
        let seen: Vec<_> = package
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.is_directory, file.mode, file.uid, file.gid))
            .collect();
        assert_eq!(
            seen,
            [
                ("", true, 0o755, 0, 0),
                ("init", false, 0o644, 0, 0),
                ("usr", true, 0o2750, 0, 5),
                ("usr/b", false, 0o4755, 5, 0),
                ("usr/plain", false, 0o644, 0, 0),
            ]
        );
        assert!(package.files[3].sha1.is_some() && package.files[3].xattrs.is_some());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_with_its_package() {
        let error = |files: &str| parse_installed(&record(files)).unwrap_err().to_string();
        assert_eq!(
            error("R:x\n"),
            "line 10 (package b-1-r0): it comes before the file or directory that it describes"
        );
        assert_eq!(error("F:usr\nZ:x\n"), "line 11 (package b-1-r0): \"x\" is not a checksum");
        assert_eq!(error("F:../etc\n"), "line 10 (package b-1-r0): \"../etc\" cannot be the path of a file");
        assert_eq!(error("F:a\nR:b/c\n"), "line 11 (package b-1-r0): \"a/b/c\" cannot be the path of a file");
        assert_eq!(error("F:a\nM:0:0:99\n"), "line 11 (package b-1-r0): \"0:0:99\" is not uid:gid:mode");
        assert_eq!(
            error("F:a\nM:0:0:17777\n"),
            "line 11 (package b-1-r0): \"0:0:17777\" is not uid:gid:mode"
        );
        assert_eq!(error("nonsense\n"), "line 10 (package b-1-r0): it is not a letter, a colon and a value");
        assert_eq!(
            parse_installed("P:x\n\n").unwrap_err().to_string(),
            "line 2 (package x): it has no checksum"
        );
    }
}
