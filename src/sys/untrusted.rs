//! The one door to what somebody else may put in place of a file: a directory that another user may change, such as the root
//! of a jail, whose every name may lead anywhere a moment after it was looked at.
//!
//! A node is taken hold of first without being opened (`O_PATH`), below the directory and over no link (openat2(2)), then
//! looked at, and only then opened, as that very inode. So no pipe is waited for, no device is touched, and no file is read
//! that does not belong to whom it should.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::fs::FileError;

/// A directory whose content is not to be trusted, held open.
#[derive(Debug)]
pub struct UntrustedDir {
    fd: OwnedFd,
    path: PathBuf,
    owner: u32,
}

/// What a node is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Regular,
    Pipe,
    Socket,
}

impl FileKind {
    fn is(self, meta: &Metadata) -> bool {
        let kind = meta.file_type();
        match self {
            Self::Regular => kind.is_file(),
            Self::Pipe => kind.is_fifo(),
            Self::Socket => kind.is_socket(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Regular => "a regular file",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
        }
    }
}

/// A node that was looked at and is as expected. It stays that node whatever becomes of its name.
#[derive(Debug)]
pub struct HeldNode {
    fd: OwnedFd,
    meta: Metadata,
}

const LINK: &str = "it is a symbolic link";
/// How often a lookup is tried that somebody's renaming disturbs.
const ATTEMPTS: usize = 100;

impl UntrustedDir {
    /// A directory that itself stands where its path says: whoever may change what is in it may not move it. What is in it is
    /// to be `owner`'s; a socket may be root's, which its listener was before.
    pub fn open(path: &Path, owner: u32) -> Result<Self, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| FileError::when("open", path)(error.into()))?;
        Ok(Self { fd, path: path.to_owned(), owner })
    }

    /// Takes hold of what is at a relative path.
    pub fn node(&self, name: &str, expected: FileKind) -> Result<HeldNode, FileError> {
        let named = || FileError::when("open", self.path.join(name));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = || openat2(&self.fd, name, flags, Mode::empty(), beneath);
        let opened =
            (1..ATTEMPTS).map(|_| open()).find(|got| !matches!(got, Err(Errno::AGAIN))).unwrap_or_else(open);
        let fd = opened.map_err(|error| match error {
            Errno::LOOP => named()(io::Error::other(LINK)),
            error => named()(error.into()),
        })?;
        let node = HeldNode::of(fd).map_err(named())?;
        let owner = node.meta.uid();
        // Taken hold of itself where it is the last of the path.
        if node.meta.is_symlink() {
            Err(named()(io::Error::other(LINK)))
        } else if !expected.is(&node.meta) {
            Err(named()(io::Error::other(format!("it is not {}", expected.word()))))
        } else if owner != self.owner && !(owner == 0 && expected == FileKind::Socket) {
            Err(named()(io::Error::other(format!("it belongs to uid {owner} instead of {}", self.owner))))
        } else {
            Ok(node)
        }
    }

    /// Opens a directory; `None` where there is none, or something else in its place, such as a link.
    pub fn directory(&self, name: &str) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.fd, name, flags, Mode::empty(), beneath).ok().map(File::from)
    }

    /// Opens a regular file for reading.
    pub fn file(&self, name: &str) -> Result<File, FileError> {
        let node = self.node(name, FileKind::Regular)?;
        node.open_to_read().map_err(FileError::when("open", self.path.join(name)))
    }
}

impl HeldNode {
    /// What is at a path, a link itself where there is one.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::of(rustix::fs::open(path, flags, Mode::empty())?)
    }

    /// The first that a process has open and that is wanted. Nothing is opened but a hold on it.
    pub fn open_in(pid: u32, is_wanted: impl Fn(&Metadata) -> bool) -> Option<Self> {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let hold =
            |path: PathBuf| Self::of(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
        all.filter_map(|entry| hold(entry.path()).ok()).find(|node| is_wanted(&node.meta))
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
        // A descriptor that opened nothing can still be asked what it holds.
        let held = File::from(fd);
        Ok(Self { meta: held.metadata()?, fd: held.into() })
    }

    /// What it was when it was looked at.
    pub fn metadata(&self) -> &Metadata {
        &self.meta
    }

    /// A path that leads to this node and to no other, for as long as it is held.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// Where something has that name, or no file system has both.
    pub fn link(&self, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::linkat(CWD, self.path(), CWD, to, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Opens it for reading. Nobody at the other end of a pipe is waited for.
    pub fn open_to_read(&self) -> io::Result<File> {
        self.open(File::options().read(true))
    }

    /// Opens it for reading and writing: nobody's end then breaks a pipe.
    pub fn open_to_write(&self) -> io::Result<File> {
        self.open(File::options().read(true).write(true))
    }

    fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        options.custom_flags(flags).open(self.path())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn why(dir: &UntrustedDir, name: &str) -> String {
        dir.file(name).unwrap_err().source.to_string()
    }

    #[test]
    fn a_file_is_read_below_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/disk"), "bytes").unwrap();
        let mut text = String::new();
        let door = UntrustedDir::open(dir.path(), own()).unwrap();
        door.file("data/disk").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
        assert_eq!(door.file("data/none").unwrap_err().source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_link_leads_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let (jail, outside) = (dir.path().join("jail"), dir.path().join("outside"));
        for path in [&jail, &outside] {
            fs::create_dir(path).unwrap();
        }
        fs::write(outside.join("disk"), "a secret").unwrap();
        fs::write(jail.join("own"), "its own").unwrap();
        symlink(&outside, jail.join("data")).unwrap();
        symlink(outside.join("disk"), jail.join("disk")).unwrap();
        symlink("own", jail.join("beside")).unwrap();
        let door = UntrustedDir::open(&jail, own()).unwrap();
        for name in ["data/disk", "disk", "beside"] {
            assert_eq!(why(&door, name), "it is a symbolic link", "{name}");
        }
        for name in ["../outside/disk", outside.join("disk").to_str().unwrap()] {
            assert_eq!(door.file(name).unwrap_err().source.raw_os_error(), Some(18), "{name}: EXDEV");
        }
        symlink(&jail, dir.path().join("link")).unwrap();
        UntrustedDir::open(&dir.path().join("link"), own()).unwrap_err();
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened_and_no_pipe_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let door = UntrustedDir::open(dir.path(), own()).unwrap();
        super::super::fs::make_pipe(&dir.path().join("pipe")).unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        for name in ["pipe", "directory", "socket"] {
            assert_eq!(why(&door, name), "it is not a regular file", "{name}");
        }
        door.node("pipe", FileKind::Pipe).unwrap().open_to_write().unwrap();
        door.node("socket", FileKind::Socket).unwrap();
    }

    #[test]
    fn what_belongs_to_somebody_else_is_not_opened() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: only root gives files away");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("disk"), "bob's").unwrap();
        std::os::unix::fs::chown(dir.path().join("disk"), Some(4002), None).unwrap();
        let door = |uid| UntrustedDir::open(dir.path(), uid).unwrap();
        assert_eq!(why(&door(4001), "disk"), "it belongs to uid 4002 instead of 4001");
        door(4002).file("disk").unwrap();
    }
}
