//! Files that are to become a package: gathered from a directory or a tar, and brought into an order that apk can lay out.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic, is_lost_found};
use crate::sys::fs::{FileId, input_diagnosis, refuse_pointer};
use crate::sys::xz;

use super::archive::{ArchiveError, TarEntry, TarKind, TarReader};
use super::entry::{EntryError, SUM_KEY, XATTR_PREFIX, check_path, is_installed};

/// Why files cannot become a package.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: sockets cannot be packed", .0.display())]
    Socket(PathBuf),
    #[error("{}: its name is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{path}: {reason}")]
    Entry { path: String, reason: EntryError },
    #[error("its files have more than {MAX_CONTENT} bytes")]
    TooLarge,
}

impl Diagnostic for ContentsError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Read { source, .. } => input_diagnosis(source),
            Self::Socket(_) => Class::Invalid.hint(
                "remove it: the program that listens there creates it \
              again",
            ),
            Self::NotUtf8(_) => Class::Invalid.hint("rename it"),
            Self::Archive(error) => error.diagnosis(),
            Self::Entry { reason: EntryError::LostFound, .. } => {
                Class::Invalid.hint("leave it out of what is packed")
            }
            Self::Entry { .. } => Class::Invalid.no_hint(),
            Self::TooLarge => Class::Invalid.hint("split it into several packages"),
        }
    }
}

/// Most bytes of files that are packed: they are held in memory.
const MAX_CONTENT: u64 = 4 << 30;

/// First bytes of a gzip file (RFC 1952) and of an xz file.
const GZIP: &[u8] = b"\x1f\x8b";
const XZ: &[u8] = b"\xfd7zXZ\0";

/// Files by path, with their bytes. Every directory above a file has an entry, and a hard link stands after its target.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    files: BTreeMap<String, (TarEntry, Vec<u8>)>,
}

impl Contents {
    /// Everything below a directory. A checkout's modes depend on the umask and its owners on the user, so that only what a
    /// version control system keeps is taken: the owner's execute bit (0755 or 0644), setuid, setgid and sticky bits, and
    /// extended attributes of files; all is owned by root and of the epoch. [`super::PackMap`] sets other modes and
    /// owners. A socket is an error.
    pub fn from_directory(directory: &Path) -> Result<Self, ContentsError> {
        let mut contents = Self::default();
        let mut inodes = BTreeMap::new();
        contents.add_directory(directory, "", &mut inodes)?;
        contents.settled()
    }

    /// Everything in a tar, with its modes, owners, times and extended attributes.
    pub fn from_tar(tar: impl Read) -> Result<Self, ContentsError> {
        let mut contents = Self::default();
        let mut left = MAX_CONTENT;
        let mut reader = TarReader::with_sparse(tar);
        while let Some(mut entry) = reader.next_entry()? {
            entry.path = inner_path(&entry.path).to_owned();
            if entry.path.is_empty() {
                continue;
            }
            if entry.kind == TarKind::HardLink {
                entry.link = inner_path(&entry.link).to_owned();
            }
            left = left.checked_sub(entry.size).ok_or(ContentsError::TooLarge)?;
            let bytes = reader.read_whole()?;
            entry.pax.retain(|key, _| key.starts_with(XATTR_PREFIX));
            entry.mode &= 0o7777;
            contents.files.insert(entry.path.clone(), (entry, bytes));
        }
        contents.settled()
    }

    /// Everything in the file of a tar, plain or compressed by gzip or xz.
    pub fn from_tar_file(path: &Path) -> Result<Self, ContentsError> {
        let failed = |source| ContentsError::Read { path: path.to_owned(), source };
        let mut file = BufReader::new(fs::File::open(path).map_err(failed)?);
        let head = file.fill_buf().map_err(failed)?;
        refuse_pointer(head).map_err(failed)?;
        if head.starts_with(GZIP) {
            Self::from_tar(flate2::bufread::MultiGzDecoder::new(file))
        } else if head.starts_with(XZ) {
            let stream = xz::decoder(0).map_err(failed)?;
            Self::from_tar(liblzma::bufread::XzDecoder::new_stream(file, stream))
        } else {
            Self::from_tar(file)
        }
    }

    /// Leaves out what apk would not install: names that begin with a dot at the top, and files that keep a directory from
    /// being empty. Gives their names.
    pub(super) fn leave_out_ignored(&mut self) -> Vec<String> {
        let mut ignored = Vec::new();
        self.files.retain(|path, (entry, _)| {
            let stays = is_installed(path, entry.kind == TarKind::Directory);
            if !stays {
                ignored.push(path.clone());
            }
            stays
        });
        ignored
    }

    /// Leaves out a file, or a directory with all below it.
    pub fn leave_out(&mut self, path: &str) {
        let below = format!("{path}/");
        self.files.retain(|file, _| file != path && !file.starts_with(&below));
    }

    /// Sets the permission bits of a file or directory; `false` where it is not there.
    pub fn set_mode(&mut self, path: &str, mode: u16) -> bool {
        self.files.get_mut(path).map(|(entry, _)| entry.mode = u32::from(mode)).is_some()
    }

    /// Sets owner and group by name; `false` where the file is not there.
    pub fn set_owner(&mut self, path: &str, owner: &str, group: &str) -> bool {
        let set = |(entry, _): &mut (TarEntry, Vec<u8>)| {
            owner.clone_into(&mut entry.owner);
            group.clone_into(&mut entry.group);
        };
        self.files.get_mut(path).map(set).is_some()
    }

    /// Entries in the order of the archive, with the checksums that apk wants on files and symlinks.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (TarEntry, Vec<u8>)> {
        self.files.into_values().map(|(mut entry, bytes)| {
            let summed: Option<&[u8]> = match entry.kind {
                TarKind::File => Some(&bytes),
                TarKind::Symlink => Some(entry.link.as_bytes()),
                _ => None,
            };
            if let Some(summed) = summed {
                let sum = super::Checksum::of(summed).0;
                entry.pax.insert(SUM_KEY.to_owned(), hex::encode(sum).into_bytes());
            }
            (entry, bytes)
        })
    }

    /// Bytes on disk, roughly as `du` counts them: a package of files alone never seems empty.
    pub(super) fn installed_size(&self) -> u64 {
        let size = |(entry, bytes): &(TarEntry, Vec<u8>)| match entry.kind {
            TarKind::Directory => 4096,
            _ => bytes.len() as u64 + entry.link.len() as u64,
        };
        4096 + self.files.values().map(size).sum::<u64>()
    }

    fn add_directory(
        &mut self,
        directory: &Path,
        inside: &str,
        inodes: &mut BTreeMap<FileId, String>,
    ) -> Result<(), ContentsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| ContentsError::Read { path, source }
        };
        let list = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut names: Vec<_> =
            list.map_err(failed(directory))?.into_iter().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let path = directory.join(&name);
            let name = name.to_str().ok_or_else(|| ContentsError::NotUtf8(path.clone()))?;
            let inside = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
            let meta = path.symlink_metadata().map_err(failed(&path))?;
            let mut entry = plain_entry(&inside, &meta, &path)?;
            let mut bytes = Vec::new();
            match entry.kind {
                TarKind::Symlink => entry.link = link_target(&path)?,
                TarKind::File => match inodes.get(&FileId::of(&meta)) {
                    Some(first) => (entry.kind, entry.link) = (TarKind::HardLink, first.clone()),
                    None => {
                        bytes = fs::read(&path).map_err(failed(&path))?;
                        inodes.insert(FileId::of(&meta), inside.clone());
                    }
                },
                _ => {}
            }
            if matches!(entry.kind, TarKind::File | TarKind::Directory) {
                entry.pax = xattrs(&path)?;
            }
            entry.size = bytes.len() as u64;
            let is_directory = entry.kind == TarKind::Directory;
            self.files.insert(inside.clone(), (entry, bytes));
            if is_directory {
                self.add_directory(&path, &inside, inodes)?;
            }
        }
        Ok(())
    }

    /// Adds directories that are missing, puts the bytes of hard links where the first name is, and checks names.
    fn settled(mut self) -> Result<Self, ContentsError> {
        for (path, (entry, _)) in &self.files {
            let is_root_of_it = entry.kind == TarKind::Directory && !path.contains('/');
            let checked = match is_lost_found(&format!("/{path}")) && !is_root_of_it {
                true => Err(EntryError::LostFound),
                false => check_path(path),
            };
            checked
                .map_err(|reason| ContentsError::Entry { path: path.escape_debug().to_string(), reason })?;
        }
        let parents: Vec<String> = self.files.keys().flat_map(|path| parents(path)).collect();
        for parent in parents {
            let missing =
                TarEntry { path: parent.clone(), kind: TarKind::Directory, mode: 0o755, ..TarEntry::empty() };
            self.files.entry(parent).or_insert((missing, Vec::new()));
        }
        self.move_links();
        Ok(self)
    }

    fn move_links(&mut self) {
        let mut first_name: BTreeMap<String, String> = BTreeMap::new();
        for (path, (entry, _)) in &self.files {
            if entry.kind == TarKind::HardLink && *path < entry.link {
                first_name.entry(entry.link.clone()).or_insert_with(|| path.clone());
            }
        }
        for (target, first) in first_name {
            let Some((file, bytes)) = self.files.remove(&target) else { continue };
            let link = TarEntry {
                kind: TarKind::HardLink,
                link: first.clone(),
                size: 0,
                pax: BTreeMap::new(),
                ..file.clone()
            };
            self.files.insert(target.clone(), (link, Vec::new()));
            self.files.insert(first.clone(), (TarEntry { path: first.clone(), ..file }, bytes));
            for (entry, _) in
                self.files.values_mut().filter(|(e, _)| e.kind == TarKind::HardLink && e.link == target)
            {
                entry.link.clone_from(&first);
            }
        }
    }
}

/// A path of a tar without what stands for its root.
fn inner_path(path: &str) -> &str {
    let path = path.strip_prefix("./").unwrap_or(path).trim_end_matches('/');
    if path == "." { "" } else { path }
}

fn parents(path: &str) -> impl Iterator<Item = String> {
    path.match_indices('/').map(|(at, _)| path[..at].to_owned())
}

fn plain_entry(inside: &str, meta: &Metadata, path: &Path) -> Result<TarEntry, ContentsError> {
    let kind = meta.file_type();
    let kind = if kind.is_dir() {
        TarKind::Directory
    } else if kind.is_symlink() {
        TarKind::Symlink
    } else if kind.is_file() {
        TarKind::File
    } else if kind.is_fifo() {
        TarKind::Fifo
    } else if kind.is_char_device() {
        TarKind::CharDevice
    } else if kind.is_block_device() {
        TarKind::BlockDevice
    } else {
        return Err(ContentsError::Socket(path.to_owned()));
    };
    let special = meta.mode() & 0o7000;
    let mode = match kind {
        TarKind::Symlink => 0o777,
        // A sticky directory is one that all may write to.
        TarKind::Directory if special & 0o1000 != 0 => 0o777,
        TarKind::Directory => 0o755,
        _ if meta.mode() & 0o100 != 0 => 0o755,
        _ => 0o644,
    };
    let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(TarEntry { path: inside.to_owned(), kind, mode: mode | special, device, ..TarEntry::empty() })
}

fn link_target(path: &Path) -> Result<String, ContentsError> {
    let target =
        fs::read_link(path).map_err(|source| ContentsError::Read { path: path.to_owned(), source })?;
    target.into_os_string().into_string().map_err(|_| ContentsError::NotUtf8(path.to_owned()))
}

/// Extended attributes as PAX records. Those of access control lists and of SELinux belong to the machine, not to the files.
fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, ContentsError> {
    let failed =
        |error: rustix::io::Errno| ContentsError::Read { path: path.to_owned(), source: error.into() };
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(failed(error)),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|b| *b == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if name == "security.capability" || name.starts_with("user.") {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value).map_err(failed)?;
            value.truncate(length);
            found.insert(format!("{XATTR_PREFIX}{name}"), value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apk::archive_writer::TarWriter;

    fn listing(contents: Contents) -> Vec<String> {
        let line = |(entry, _): (TarEntry, Vec<u8>)| {
            let link = if entry.link.is_empty() { String::new() } else { format!(" -> {}", entry.link) };
            format!("{:o} {}{link}", entry.mode, entry.path)
        };
        contents.into_entries().map(line).collect()
    }

    #[test]
    fn every_file_has_its_directories() {
        let mut tar = TarWriter::default();
        tar.add(&TarEntry { path: "./usr/bin/x".into(), size: 1, mode: 0o4755, ..TarEntry::empty() }, b"x");
        let contents = Contents::from_tar(&tar.ended()[..]).unwrap();
        assert_eq!(listing(contents), ["755 usr", "755 usr/bin", "4755 usr/bin/x"]);
    }

    #[test]
    fn a_sparse_file_is_packed_with_its_holes() {
        let entry = |path: &str, pax: &[(&str, &str)], size| TarEntry {
            path: path.into(),
            size,
            pax: pax.iter().map(|(key, value)| (key.to_string(), value.as_bytes().to_vec())).collect(),
            ..TarEntry::empty()
        };
        let mut content = b"2\n4\n1\n8\n2\n".to_vec();
        content.resize(512, 0);
        content.extend(b"abc");
        let mut tar = TarWriter::default();
        let records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "12")];
        let named = [&records[..], &[("GNU.sparse.name", "disk.img")]].concat();
        tar.add(&entry("GNUSparseFile.1/disk.img", &named, content.len() as u64), &content);
        let records =
            [("GNU.sparse.size", "12"), ("GNU.sparse.map", "4,1,8,2"), ("GNU.sparse.numblocks", "2")];
        tar.add(&entry("old.img", &records, 3), b"abc");
        let contents = Contents::from_tar(&tar.ended()[..]).unwrap();
        let files: Vec<(String, Vec<u8>)> =
            contents.into_entries().map(|(entry, bytes)| (entry.path, bytes)).collect();
        let bytes = b"\0\0\0\0a\0\0\0bc\0\0".to_vec();
        assert_eq!(files, [("disk.img".to_owned(), bytes.clone()), ("old.img".to_owned(), bytes)]);
    }

    #[test]
    fn a_tar_is_read_whatever_it_is_compressed_by() {
        let mut tar = TarWriter::default();
        tar.add(&TarEntry { path: "a".into(), size: 1, ..TarEntry::empty() }, b"x");
        let tar = tar.ended();
        let dir = tempfile::tempdir().unwrap();
        let gzip = crate::apk::gzip::compress(&tar);
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(&tar[..], 1).read_to_end(&mut xz).unwrap();
        for (name, bytes) in [("plain", &tar), ("gzip", &gzip), ("xz", &xz)] {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            assert_eq!(listing(Contents::from_tar_file(&path).unwrap()), ["644 a"], "{name}");
        }
    }

    #[test]
    fn a_hard_link_stands_after_its_target() {
        let mut tar = TarWriter::default();
        let link = |path: &str| TarEntry {
            path: path.into(),
            kind: TarKind::HardLink,
            link: "./m".into(),
            ..TarEntry::empty()
        };
        tar.add(&TarEntry { path: "./m".into(), size: 1, ..TarEntry::empty() }, b"x");
        tar.add(&link("./a"), b"");
        tar.add(&link("./z"), b"");
        let contents = Contents::from_tar(&tar.ended()[..]).unwrap();
        assert_eq!(listing(contents), ["644 a", "644 m -> a", "644 z -> a"]);
    }

    #[test]
    fn a_directory_is_packed_alike_under_any_umask() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/motd"), "hello").unwrap();
        let mode = |mode| -> fs::Permissions { std::os::unix::fs::PermissionsExt::from_mode(mode) };
        fs::set_permissions(dir.path().join("etc/motd"), mode(0o600)).unwrap();
        fs::set_permissions(dir.path().join("etc"), mode(0o700)).unwrap();
        assert_eq!(listing(Contents::from_directory(dir.path()).unwrap()), ["755 etc", "644 etc/motd"]);
    }
}
