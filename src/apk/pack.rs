//! Makes packages: control and data members, their hashes, and a signature where a key is given. The same bytes for the same
//! files.

use crate::base::{Class, Diagnosis, Diagnostic, Sha256};

use super::archive::TarEntry;
use super::archive_writer::TarWriter;
use super::contents::Contents;
use super::dependency::{Checksum, Dependency, InvalidDependency};
use super::gzip;
use super::index::signature_member;
use super::info::{InfoError, PackageInfo, is_package_name, pkginfo};
use super::package::{PackageContents, PackageError};
use super::signature::{KeyError, SigningKey};
use super::version::Version;

/// Why a package cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error(
        "'{0}' cannot be the name of a package: letters, digits and '+-._', beginning with a letter or digit"
    )]
    Name(String),
    #[error(transparent)]
    Dependency(#[from] InvalidDependency),
    #[error(transparent)]
    Info(#[from] InfoError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Made(#[from] PackageError),
}

impl Diagnostic for PackError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Name(_) | Self::Dependency(_) | Self::Info(_) => Class::Invalid.no_hint(),
            Self::Key(error) => error.diagnosis(),
            Self::Made(error) => error.diagnosis(),
        }
    }
}

/// A package that was made.
#[derive(Clone, Debug)]
pub struct Packed {
    pub info: PackageInfo,
    /// The whole `.apk`.
    pub bytes: Vec<u8>,
    /// What a person should know: scripts and dependencies that were dropped, and so on.
    pub notes: Vec<String>,
}

impl PackageInfo {
    /// A package of this name and nothing else; size and checksum are filled in by [`pack`].
    pub fn new(name: &str, version: Version, arch: &str) -> Result<Self, PackError> {
        if !is_package_name(name) {
            return Err(PackError::Name(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            version,
            arch: arch.to_owned(),
            description: String::new(),
            url: String::new(),
            license: String::new(),
            origin: None,
            maintainer: None,
            commit: None,
            build_date: None,
            installed_size: 0,
            depends: Vec::new(),
            install_if: Vec::new(),
            provides: Vec::new(),
            replaces: Vec::new(),
            provider_priority: None,
            replaces_priority: None,
            triggers: Vec::new(),
            checksum: Checksum([0; 20]),
            size: 0,
        })
    }

    /// Adds what `--provides` and `--depends` say, each like a dependency: `shadow-subids=4.13`.
    pub fn extend(&mut self, provides: &[String], depends: &[String]) -> Result<(), PackError> {
        for text in provides {
            self.provides.push(text.parse::<Dependency>()?);
        }
        for text in depends {
            self.depends.push(text.parse::<Dependency>()?);
        }
        Ok(())
    }
}

/// Makes the `.apk` of these files, and checks it as if someone else had made it.
pub fn pack(
    mut info: PackageInfo,
    mut contents: Contents,
    key: Option<&SigningKey>,
) -> Result<Packed, PackError> {
    let ignored = contents.leave_out_ignored();
    info.installed_size = contents.installed_size();
    let mut tar = TarWriter::default();
    for (entry, bytes) in contents.into_entries() {
        tar.add(&entry, &bytes);
    }
    let data = gzip::compress(&tar.ended());
    let control = control_member(&info, &data);
    let mut bytes = match key {
        Some(key) => signature_member(key, &control)?,
        None => Vec::new(),
    };
    bytes.extend_from_slice(&control);
    bytes.extend_from_slice(&data);
    let made = PackageContents::inspect(bytes.as_slice().into())?;
    let notes = ignored.into_iter().map(|path| format!("left out {path}, which apk would not install"));
    Ok(Packed { info: made.info, bytes, notes: notes.collect() })
}

fn control_member(info: &PackageInfo, data: &[u8]) -> Vec<u8> {
    let text = pkginfo(info, Sha256::of(data));
    let mut tar = TarWriter::default();
    let entry = TarEntry { path: ".PKGINFO".into(), size: text.len() as u64, ..TarEntry::empty() };
    tar.add(&entry, text.as_bytes());
    gzip::compress(&tar.unended())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(mtime: i64) -> Contents {
        let mut tar = TarWriter::default();
        let mut file =
            TarEntry { path: "./usr/bin/newuidmap".into(), size: 3, mode: 0o755, mtime, ..TarEntry::empty() };
        file.pax.insert("SCHILY.xattr.security.capability".into(), b"\x01\0\0\x02\n\0".to_vec());
        tar.add(&file, b"ELF");
        Contents::from_tar(&tar.ended()[..]).unwrap()
    }

    fn info() -> PackageInfo {
        let mut info = PackageInfo::new("uidmap", "4.13-r0".parse().unwrap(), "x86_64").unwrap();
        info.extend(&["shadow-subids=4.13".into()], &["libc6".into(), "!uidmap-old".into()]).unwrap();
        info
    }

    #[test]
    fn a_package_keeps_what_it_was_made_of() {
        let packed = pack(info(), contents(7), None).unwrap();
        let package = PackageContents::inspect(packed.bytes.into()).unwrap();
        assert_eq!(package.info.provides, info().provides);
        assert_eq!(package.info.depends, info().depends);
        let file = &package.entries[2];
        assert_eq!((file.path.as_str(), file.mode, file.mtime), ("usr/bin/newuidmap", 0o755, 7));
        assert_eq!(file.xattrs["security.capability"], b"\x01\0\0\x02\n\0");
        let mut seen = Vec::new();
        package
            .each_file(|index, reader| {
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                seen.push((index, text));
                Ok::<_, PackageError>(())
            })
            .unwrap();
        assert_eq!(seen, [(2, "ELF".to_owned())]);
    }

    #[test]
    fn what_apk_would_not_install_is_left_out_and_told() {
        let mut tar = TarWriter::default();
        for path in [".gitignore", ".git/x", "a/.keep_me", "a/.keep_", "a/.profile"] {
            tar.add(&TarEntry { path: path.into(), ..TarEntry::empty() }, b"");
        }
        let packed = pack(info(), Contents::from_tar(&tar.ended()[..]).unwrap(), None).unwrap();
        let package = PackageContents::inspect(packed.bytes.into()).unwrap();
        let paths: Vec<&str> = package.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["a", "a/.keep_", "a/.profile"]);
        assert_eq!(packed.notes.len(), 4, "{:?}", packed.notes);
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let bytes = |mtime| pack(info(), contents(mtime), None).unwrap().bytes;
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }
}
