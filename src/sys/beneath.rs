//! One door to files below a directory that somebody else has filled: no link leads out of it, nothing but a regular file
//! is opened, and nothing that waits for somebody, such as a pipe, is waited for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::fs::FileError;

/// A link that leads out of a directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is a link to {}, which is outside of {}", link.display(), target.display(), dir.display())]
pub struct LeadsOut {
    pub link: PathBuf,
    pub target: PathBuf,
    pub dir: PathBuf,
}

/// Opens a regular file below `dir`; `path` is relative to it, and may have links that stay below.
///
/// # Errors
/// Names the path. Absence is an [`io::ErrorKind::NotFound`], as always.
pub fn open(dir: &Path, path: &Path) -> Result<File, FileError> {
    let full = dir.join(path);
    let opened = || -> io::Result<File> {
        let below = File::open(dir)?;
        // Without waiting: a pipe has somebody at its other end, or nobody.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(openat2(below, path, flags, Mode::empty(), resolve)?);
        match file.metadata()?.file_type() {
            kind if kind.is_file() => Ok(file),
            kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        }
    };
    opened().map_err(FileError::when("read", full))
}

/// Reads such a file, of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and where it is longer.
pub fn read(dir: &Path, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let named = || FileError::when("read", dir.join(path));
    let mut bytes = Vec::new();
    open(dir, path)?.take(limit + 1).read_to_end(&mut bytes).map_err(named())?;
    if bytes.len() as u64 > limit {
        return Err(named()(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {limit} bytes"),
        )));
    }
    Ok(bytes)
}

/// Where a path, which begins with `dir`, really is; relative to `dir` without its links. `None` where there is nothing.
///
/// # Errors
/// A link on the way that leads out of `dir`, as a [`LeadsOut`]; else what the file system says.
pub fn find(dir: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    match without_links(dir, path) {
        Some(Ok(inside)) => return Ok(Some(inside)),
        Some(Err(error)) if is_absent(&error) => return Ok(None),
        _ => {}
    }
    let (below, real) = match (fs::canonicalize(dir), fs::canonicalize(path)) {
        (Ok(below), Ok(real)) => (below, real),
        (Err(error), _) | (_, Err(error)) => return if is_absent(&error) { Ok(None) } else { Err(error) },
    };
    match real.strip_prefix(&below) {
        Ok(inside) => Ok(Some(inside.to_owned())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, leaving(dir, &below, path, real))),
    }
}

/// What follows `dir` in a path, where no link is on the way: so one call tells of nearly every file of a project. What is absent then
/// is so for good; any other error says nothing.
fn without_links(dir: &Path, path: &Path) -> Option<io::Result<PathBuf>> {
    let inside: PathBuf = path.strip_prefix(dir).ok()?.components().collect();
    if inside.as_os_str().is_empty() || inside.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    // Not with NOFOLLOW, by which PATH opens a link.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let below =
        rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let found = openat2(below, &inside, flags, Mode::empty(), resolve);
    Some(found.map(|_| inside).map_err(io::Error::from))
}

/// The first link on the way of a path that leads out.
fn leaving(dir: &Path, below: &Path, path: &Path, real: PathBuf) -> LeadsOut {
    let mut way = PathBuf::new();
    for part in path.components() {
        way.push(part);
        let is_link = fs::symlink_metadata(&way).is_ok_and(|meta| meta.is_symlink());
        if !is_link || !way.starts_with(dir) {
            continue;
        }
        if let Ok(target) = fs::canonicalize(&way)
            && !target.starts_with(below)
        {
            return LeadsOut { link: way, target, dir: dir.to_owned() };
        }
    }
    LeadsOut { link: path.to_owned(), target: real, dir: dir.to_owned() }
}

/// Whether a path leads nowhere, rather than somewhere that cannot be read.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A path without `.` and `..`, as if it had no links.
pub fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_stay_below_are_followed_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("outside"));
        fs::create_dir_all(inside.join("a")).unwrap();
        fs::write(&outside, "secret").unwrap();
        fs::write(inside.join("a/file"), "x").unwrap();
        symlink("a/file", inside.join("stays")).unwrap();
        symlink("../outside", inside.join("leaves")).unwrap();
        symlink("a/../../outside", inside.join("a/leaves")).unwrap();
        assert_eq!(read(&inside, Path::new("stays"), 1).unwrap(), b"x");
        assert!(read(&inside, Path::new("a/file"), 0).is_err(), "it is too long");
        for path in ["leaves", "a/leaves", "../outside", "/etc/passwd"] {
            assert!(open(&inside, Path::new(path)).is_err(), "{path} was opened");
        }
        assert_eq!(find(&inside, &inside.join("stays")).unwrap(), Some("a/file".into()));
        for path in ["a/file", "a/./file", "a/../a/file"] {
            assert_eq!(find(&inside, &inside.join(path)).unwrap(), Some("a/file".into()), "{path}");
        }
        symlink("a", inside.join("dir")).unwrap();
        assert_eq!(find(&inside, &inside.join("dir/file")).unwrap(), Some("a/file".into()));
        for path in ["none", "none/file", "a/none", "a/file/x", "dir/none"] {
            assert_eq!(find(&inside, &inside.join(path)).unwrap(), None, "{path}");
        }
        let error = find(&inside, &inside.join("leaves")).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("in/leaves is a link to ") && said.contains("/outside, which is"), "{said}");
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        crate::sys::fs::make_pipe(&dir.path().join("pipe")).unwrap();
        let error = open(dir.path(), Path::new("pipe")).unwrap_err();
        assert!(error.source.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn dots_are_taken_out_of_paths() {
        assert_eq!(without_dots(Path::new("/a/./b/../../c")), Path::new("/c"));
        assert_eq!(without_dots(Path::new("/../a")), Path::new("/a"));
    }
}
