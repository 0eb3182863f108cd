//! Files out of a tar that nobody vouches for, as one from a guest: nothing but regular files and directories is made, all of them
//! below one path, and no more than was allowed.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use crate::base::text::printable;

use super::fs::FileError;

/// Why a tar was not unpacked to its end.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("what came is no tar: {0}")]
    Damaged(#[source] io::Error),
    #[error("what came has {} in it, which was not asked for", .0)]
    Stray(String),
    #[error("there is more than {limit} bytes of it")]
    TooMuch { limit: u64 },
}

/// What was unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Links, devices, pipes and sockets, which were left out.
    pub left_out: Vec<String>,
}

/// What an entry counts for beside its content, so that empty ones come to an end too.
const ENTRY: u64 = 512;

/// Unpacks `name` and what is below it, as `target`. Files that are there are written over. Modes lose what lies above the permissions
/// (set-uid and the like), owners are whoever runs this, times are now.
pub fn unpack(tar: impl Read, name: &str, target: &Path, limit: u64) -> Result<Unpacked, UnpackError> {
    let mut done = Unpacked::default();
    let mut left = limit;
    let too_much = || UnpackError::TooMuch { limit };
    for entry in tar::Archive::new(tar).entries().map_err(UnpackError::Damaged)? {
        let mut entry = entry.map_err(UnpackError::Damaged)?;
        left = left.checked_sub(ENTRY).ok_or_else(too_much)?;
        let path = entry.path().map_err(UnpackError::Damaged)?.into_owned();
        let to = placed(&path, name, target).ok_or_else(|| UnpackError::Stray(shown(&path)))?;
        let mode = entry.header().mode().map_err(UnpackError::Damaged)? & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => directory(&to, mode)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let size = regular(&mut entry, &to, mode, left)?;
                left = left.checked_sub(size).ok_or_else(too_much)?;
                (done.files, done.bytes) = (done.files + 1, done.bytes + size);
            }
            EntryType::XGlobalHeader => {}
            _ => done.left_out.push(shown(&path)),
        }
    }
    Ok(done)
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Where an entry belongs: `name` and what is below it alone, without a way up.
fn placed(path: &Path, name: &str, target: &Path) -> Option<PathBuf> {
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    if parts.next()? != Component::Normal(name.as_ref()) {
        return None;
    }
    parts.try_fold(target.to_owned(), |to, part| match part {
        Component::Normal(part) => Some(to.join(part)),
        _ => None,
    })
}

fn directory(to: &Path, mode: u32) -> Result<(), UnpackError> {
    let made = match fs::create_dir(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && to.is_dir() => return Ok(()),
        made => made,
    };
    // Whoever unpacks must get into it.
    made.and_then(|()| fs::set_permissions(to, Permissions::from_mode(mode | 0o700)))
        .map_err(FileError::when("make", to))?;
    Ok(())
}

/// Gives its size, of which no more than `left` and one byte more was written.
fn regular(from: &mut impl Read, to: &Path, mode: u32, left: u64) -> Result<u64, UnpackError> {
    let mut file = File::create(to).map_err(FileError::when("write", to))?;
    // One that was there may be readable for others.
    file.set_permissions(Permissions::from_mode(mode)).map_err(FileError::when("write", to))?;
    let size = io::copy(&mut from.take(left + 1), &mut file).map_err(FileError::when("write", to))?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar of these entries; a path may be what `tar` itself refuses to write.
    fn tar_of(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_size(content.len() as u64);
            if *kind == EntryType::Symlink {
                header.set_link_name("/etc").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_directory_gets_its_new_name_and_no_more_rights_than_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let tar = tar_of(&[
            (EntryType::Directory, "./d", b""),
            (EntryType::Regular, "./d/f", b"hello"),
            (EntryType::Symlink, "./d/l", b""),
            (EntryType::Fifo, "./d/p\x1b", b""),
        ]);
        let done = unpack(&tar[..], "d", &dir.path().join("e"), 1 << 20).unwrap();
        assert_eq!((done.files, done.bytes), (1, 5));
        assert_eq!(done.left_out.len(), 2);
        assert!(!done.left_out[1].contains('\x1b'));
        let file = dir.path().join("e/f");
        assert_eq!(fs::read(&file).unwrap(), b"hello");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("in/d");
        fs::create_dir(dir.path().join("in")).unwrap();
        for path in ["../x", "d/../../x", "/etc/x", "x", "d/../d"] {
            let tar = tar_of(&[(EntryType::Regular, path, b"bad")]);
            let error = unpack(&tar[..], "d", &target, 1 << 20).unwrap_err();
            assert!(matches!(error, UnpackError::Stray(_)), "{path}: {error}");
        }
        // A link that came before cannot carry what comes behind it.
        let tar = tar_of(&[(EntryType::Symlink, "d", b""), (EntryType::Regular, "d/x", b"bad")]);
        assert!(unpack(&tar[..], "d", &target, 1 << 20).is_err());
        assert_eq!(fs::read_dir(dir.path().join("in")).unwrap().count(), 0);
    }

    #[test]
    fn it_ends_where_more_comes_than_was_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("d");
        let tar = tar_of(&[(EntryType::Regular, "d", &[1; 5000])]);
        assert!(unpack(&tar[..], "d", &target, 6000).is_ok());
        let error = unpack(&tar[..], "d", &target, 4000).unwrap_err();
        assert!(matches!(error, UnpackError::TooMuch { limit: 4000 }), "{error}");
        let many = tar_of(&[(EntryType::Directory, "d", &b""[..]); 20]);
        assert!(unpack(&many[..], "d", &dir.path().join("e"), 4000).is_err());
    }
}
