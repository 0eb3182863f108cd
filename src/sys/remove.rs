//! Removal of a directory that someone else may have filled: no link is followed, no mount is entered, and what cannot be
//! removed is told while the rest goes.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, openat2, unlinkat};
use rustix::io::Errno;

use super::fs::FileError;

/// Removes a file or a whole directory; gives what is still there and why, the deepest first, each with its path. Absence
/// is no error.
pub fn remove_tree(path: &Path) -> Vec<FileError> {
    let mut left = Vec::new();
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else {
        return vec![FileError::when("remove", path)(ErrorKind::InvalidInput.into())];
    };
    match fs::File::open(parent) {
        Ok(dir) => remove_at(dir.as_fd(), name, path, &mut left),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => left.push(FileError::when("open", parent)(error)),
    }
    left
}

fn remove_at(dir: BorrowedFd<'_>, name: &OsStr, path: &Path, left: &mut Vec<FileError>) {
    let failed = |action, error: Errno| FileError::when(action, path)(io::Error::from(error));
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return,
        // What Linux and POSIX answer for a directory.
        Err(Errno::ISDIR | Errno::PERM) if is_dir(dir, name) => {}
        Err(error) => return left.push(failed("remove", error)),
    }
    let before = left.len();
    match enter(dir, name) {
        Ok(below) => {
            for name in names(&below) {
                remove_at(below.as_fd(), &name, &path.join(&name), left);
            }
        }
        // Something is mounted there, and its files are not ours to remove.
        Err(Errno::XDEV) => return left.push(failed("remove", Errno::BUSY)),
        Err(error) => return left.push(failed("open", error)),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        // Said of what is in it.
        Err(Errno::NOTEMPTY) if left.len() > before => {}
        Err(error) => left.push(failed("remove", error)),
    }
}

fn is_dir(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn enter(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

/// All names first: a directory that is changed while it is read may show some twice or not at all.
fn names(dir: &OwnedFd) -> Vec<std::ffi::OsString> {
    let entries = Dir::read_from(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
    names.filter(|name| name != "." && name != "..").collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_tree_goes_without_what_its_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, jail) = (dir.path().join("outside"), dir.path().join("jail"));
        fs::create_dir_all(jail.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::write(jail.join("a/b/file"), "x").unwrap();
        symlink(&outside, jail.join("a/link")).unwrap();
        assert!(remove_tree(&jail).is_empty());
        assert!(remove_tree(&jail).is_empty(), "absence is fine");
        assert!(remove_tree(&jail.join("no/such")).is_empty());
        assert!(!jail.exists() && outside.join("kept").exists());
        symlink(&outside, &jail).unwrap();
        assert!(remove_tree(&jail).is_empty());
        assert!(!jail.exists() && outside.join("kept").exists());
    }

    #[test]
    fn what_cannot_be_removed_is_named_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let jail = dir.path().join("jail");
        fs::create_dir_all(jail.join("a/b")).unwrap();
        for file in ["a/first", "a/held", "a/b/last", "z"] {
            fs::write(jail.join(file), "x").unwrap();
        }
        let chattr = |flag: &str| {
            let run = Command::new("chattr").arg(flag).arg(jail.join("a/held")).output();
            run.is_ok_and(|output| output.status.success())
        };
        if !chattr("+i") {
            return eprintln!("SKIPPED: no file can be made immutable here");
        }
        let left = remove_tree(&jail);
        chattr("-i");
        let paths: Vec<_> = left.iter().map(|error| error.path.clone()).collect();
        assert_eq!(paths, [jail.join("a/held")]);
        assert!(!jail.join("a/first").exists() && !jail.join("a/b").exists() && !jail.join("z").exists());
        assert!(remove_tree(&jail).is_empty());
    }
}
