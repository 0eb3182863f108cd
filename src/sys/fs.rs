//! Files: written whole or not at all, errors that name the path, removal that follows no link.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic, LfsPointer};

mod space;

pub use self::space::{FreeSpace, allocated, allocated_within, existing_ancestor, free_space};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// A verb, such as `read` or `create`.
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl Diagnostic for FileError {
    fn diagnosis(&self) -> Diagnosis {
        input_diagnosis(&self.source)
    }
}

/// What to do about a system call that failed.
pub fn io_diagnosis(error: &io::Error) -> Diagnosis {
    match error.kind() {
        ErrorKind::PermissionDenied => Class::Failed.hint("run it as root, or change the owner of that path"),
        ErrorKind::StorageFull => Class::Failed.hint("free some space, then run the same command again"),
        ErrorKind::ReadOnlyFilesystem => Class::Failed.hint("that file system is mounted read-only"),
        _ => Class::Failed.no_hint(),
    }
}

/// A file that should be text and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not UTF-8")]
pub struct NotText;

impl NotText {
    /// As the error of a system call, for whoever reads a text.
    pub fn of(error: io::Error) -> io::Error {
        if error.kind() == ErrorKind::InvalidData && error.raw_os_error().is_none() {
            Self.into()
        } else {
            error
        }
    }
}

impl From<NotText> for io::Error {
    fn from(error: NotText) -> Self {
        Self::new(ErrorKind::InvalidData, error)
    }
}

/// What to do about a file that somebody named: one that is absent, of another kind or not text is a mistake of theirs.
pub fn input_diagnosis(error: &io::Error) -> Diagnosis {
    if let Some(pointer) = error.get_ref().and_then(|inner| inner.downcast_ref::<LfsPointer>()) {
        return pointer.diagnosis();
    }
    let is_text = error.get_ref().is_some_and(|inner| inner.is::<NotText>());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Class::Invalid.no_hint(),
        // A link that leads out of the project, or a pipe.
        ErrorKind::InvalidInput => Class::Invalid.no_hint(),
        ErrorKind::IsADirectory => Class::Invalid.hint("name a file, not a directory"),
        ErrorKind::InvalidData if is_text => Class::Invalid.hint("save it as UTF-8"),
        ErrorKind::InvalidData => Class::Invalid.no_hint(),
        ErrorKind::UnexpectedEof => Class::Invalid.hint("it is cut off: get that file again"),
        _ => io_diagnosis(error),
    }
}

impl FileError {
    /// For `map_err`: `fs::read(p).map_err(FileError::when("read", p))`.
    pub fn when(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { action, path, source }
    }
}

/// Which file it is, by whatever name: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

impl FileId {
    /// That of a file.
    pub fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// Whether two names, or a name and an open file, are one file.
pub fn is_same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    FileId::of(one) == FileId::of(other)
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let read = |path| fs::read(path).and_then(|bytes| refuse_pointer(&bytes).map(|()| bytes));
    read(path).map_err(FileError::when("read", path))
}

/// Opens a file to read it; a pointer of Git LFS is refused.
pub fn open(path: &Path) -> Result<File, FileError> {
    let open = || {
        let mut file = File::open(path)?;
        let mut head = Vec::new();
        (&mut file).take(128).read_to_end(&mut head)?;
        refuse_pointer(&head)?;
        file.rewind()?;
        Ok(file)
    };
    open().map_err(FileError::when("read", path))
}

/// Opens a regular file to read it; `None` where it is something else. A pipe is not waited for.
pub fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// What stands in a checkout in place of a file is never taken for the file.
pub fn refuse_pointer(head: &[u8]) -> io::Result<()> {
    LfsPointer::refuse(head).map_err(io::Error::other)
}

/// Reads a whole UTF-8 file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    text_of(path).map_err(FileError::when("read", path))
}

fn text_of(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path).map_err(NotText::of)?;
    refuse_pointer(text.as_bytes())?;
    Ok(text)
}

/// Reads a file that may be absent.
pub fn read_text_if_present(path: &Path) -> Result<Option<String>, FileError> {
    match text_of(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::when("read", path)(error)),
    }
}

/// Before a file is written that a user named: its directory must be there, as for `cp`, since one that is not is a slip.
pub fn require_dir_of(path: &Path) -> Result<(), FileError> {
    let dir = dir_of(path);
    let there = fs::metadata(dir).and_then(|meta| match meta.is_dir() {
        true => Ok(()),
        false => Err(ErrorKind::NotADirectory.into()),
    });
    there.map_err(FileError::when("write into", dir))
}

/// The names in a directory that are text; none where there is no such directory.
pub fn names_in(dir: &Path) -> Result<Vec<String>, FileError> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(FileError::when("read", dir)(error)),
    }
}

/// Makes a directory and those above it; one that is there is left as it is.
pub fn create_dir_all(path: &Path) -> Result<(), FileError> {
    create_dirs(path, 0o777)
}

/// Makes a directory that only its owner may enter, and those above it; one that is there is left as it is.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    create_dirs(path, 0o700)
}

/// Makes a directory and those above it with a mode, of which the umask is taken; one that is there is left as it is.
/// An empty one above it that somebody removes meanwhile is made again.
pub fn create_dirs(path: &Path, mode: u32) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    const ATTEMPTS: usize = 100;
    let create = || fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    let is_vanished =
        |made: &io::Result<()>| matches!(made, Err(error) if error.kind() == io::ErrorKind::NotFound);
    let made = (1..ATTEMPTS).map(|_| create()).find(|made| !is_vanished(made)).unwrap_or_else(create);
    made.map_err(FileError::when("create directory", path))
}

/// Reads a small file of the kernel's, such as one of `/proc`, whose size is not to be seen: std would ask for that, begin with 32
/// bytes, and read a dozen times. The kernel fills a page with whole lines, so that one that is less than half full was the last.
pub fn read_kernel_file(path: &Path) -> io::Result<Vec<u8>> {
    read_open_kernel_file(File::open(path)?)
}

/// Reads a file of the kernel that is open already.
pub fn read_open_kernel_file(file: File) -> io::Result<Vec<u8>> {
    read_small(file, PAGE / 2)
}

/// What the kernel fills at a time with the lines of a file of its own.
pub const PAGE: usize = 4096;

/// Reads a file that is mostly within a page, without asking how large it is: one that gives less than `short` bytes at first has
/// ended. Of one on a disk that is a page.
pub fn read_small(mut file: File, short: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PAGE];
    let length = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    bytes.truncate(length);
    if length >= short {
        file.take(u64::MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// A file that takes its name only once it is whole: dropped before [`NewFile::persist`], it leaves nothing, nor does
/// a process that is killed (`O_TMPFILE`, where the file system knows it).
pub struct NewFile {
    file: File,
    /// Where the bytes are until then.
    temporary: Temporary,
    path: PathBuf,
}

enum Temporary {
    /// A file without a name, by the way that other processes reach it.
    Nameless(PathBuf),
    Named(tempfile::TempPath),
}

/// What the names of files begin with that are not whole yet.
const NOT_WHOLE: &str = ".new-";

impl NewFile {
    /// Starts a file that will be called `path`, making its directory where it is missing.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let dir = dir_of(path);
        create_dir_all(dir)?;
        let path = path.to_owned();
        if let Some((file, temporary)) = nameless(dir) {
            return Ok(Self { file, temporary: Temporary::Nameless(temporary), path });
        }
        let named = tempfile::Builder::new().prefix(NOT_WHOLE).tempfile_in(dir);
        let (file, temporary) = named.map_err(FileError::when("create", &path))?.into_parts();
        Ok(Self { file, temporary: Temporary::Named(temporary), path })
    }

    /// The open file, read and write.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where the bytes are until the file has its name.
    pub fn temporary_path(&self) -> &Path {
        match &self.temporary {
            Temporary::Nameless(path) => path,
            Temporary::Named(path) => path,
        }
    }

    /// Sets the mode, syncs, and gives the file its name; a file of that name is replaced.
    pub fn persist(self, mode: u32) -> Result<(), FileError> {
        let path = self.path.clone();
        let named = || FileError::when("write", &path);
        self.file.sync_all().map_err(named())?;
        self.persist_unsynced(mode)?;
        File::open(dir_of(&path)).and_then(|dir| dir.sync_all()).map_err(named())
    }

    /// The same without syncing: after a loss of power, the file may be there without its bytes.
    fn persist_unsynced(self, mode: u32) -> Result<(), FileError> {
        let Self { file, temporary, path } = self;
        let named = FileError::when("write", &path);
        let finish = || -> io::Result<()> {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            match temporary {
                Temporary::Named(temporary) => temporary.persist(&path).map_err(|error| error.error),
                Temporary::Nameless(temporary) => give_name(&temporary, &path),
            }
        };
        finish().map_err(named)
    }
}

/// A file without a name in a directory; `None` where the file system or a missing `/proc` does not allow it.
fn nameless(dir: &Path) -> Option<(File, PathBuf)> {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR).ok()?);
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    path.exists().then_some((file, path))
}

/// Gives a nameless file its name. A link replaces nothing, so where there is a file already it is replaced by a
/// second name.
fn give_name(nameless: &Path, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    let link = |to: &Path| rustix::fs::linkat(CWD, nameless, CWD, to, AtFlags::SYMLINK_FOLLOW);
    match link(path) {
        Err(rustix::io::Errno::EXIST) => {
            let mut second = tempfile::Builder::new();
            let second = second.prefix(NOT_WHOLE).make_in(dir_of(path), |to| Ok(link(to)?))?;
            second.into_temp_path().persist(path).map_err(|error| error.error)
        }
        done => Ok(done?),
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has a directory's entries, as they are now, survive a loss of power.
pub fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(FileError::when("sync", path))
}

/// Which boot of this machine it is: what was not synced in an earlier one may be lost. `None` where the kernel does
/// not report it.
pub fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Writes a whole file, atomically and durably. Where it fails, the old file, if any, is still there.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut new = NewFile::create(path)?;
    new.file().write_all(bytes).map_err(FileError::when("write", path))?;
    new.persist(mode)
}

/// Writes a whole file, atomically. After a loss of power it may be there without its bytes, so that it must be one whose
/// damage is seen and costs nothing.
pub fn write_unsynced(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut new = NewFile::create(path)?;
    new.file().write_all(bytes).map_err(FileError::when("write", path))?;
    new.persist_unsynced(mode)
}

/// Removes a file or a whole directory without following links; absence is no error.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let is_dir = || fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let done = match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound && is_dir() => fs::remove_dir_all(path),
        done => done,
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Where nothing can be removed, the kernel does not look whether there is anything.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem && is_absent(path) => Ok(()),
        done => done.map_err(FileError::when("remove", path)),
    }
}

fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Makes a pipe with a name (fifo(7)) that its owner alone may open, in place of whatever has that name.
pub fn make_pipe(path: &Path) -> Result<(), FileError> {
    use rustix::fs::{CWD, FileType, Mode};
    remove(path)?;
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|error| FileError::when("create the pipe", path)(error.into()))
}

/// An exclusive lock on a file, held until it is dropped or its process dies.
#[derive(Debug)]
pub struct FileLock {
    _file: Option<File>,
}

impl FileLock {
    /// Whether somebody has the lock. Nothing is made for that, and nobody waits.
    pub fn is_held(path: &Path) -> bool {
        let is_taken = |file: File| {
            let attempt = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
            attempt == Err(rustix::io::Errno::WOULDBLOCK)
        };
        File::open(path).is_ok_and(is_taken)
    }

    /// The lock of whoever goes on without one, since its file is not there and cannot be made.
    pub fn without_file() -> Self {
        Self { _file: None }
    }

    /// Takes the lock, waiting for whoever holds it.
    pub fn wait(path: &Path) -> Result<Self, FileError> {
        Self::take(path, rustix::fs::FlockOperation::LockExclusive).map(|(lock, _)| lock)
    }

    /// Takes the lock, or gives `None` where another process holds it.
    pub fn attempt(path: &Path) -> Result<Option<Self>, FileError> {
        let (lock, held) = Self::take(path, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(held.then_some(lock))
    }

    fn take(path: &Path, how: rustix::fs::FlockOperation) -> Result<(Self, bool), FileError> {
        let open = || match File::options().create(true).truncate(false).write(true).open(path) {
            // A lock needs no right to write.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                File::open(path).map_err(|_| error)
            }
            opened => opened,
        };
        let file = match (open(), path.parent()) {
            (Err(error), Some(dir)) if error.kind() == io::ErrorKind::NotFound => {
                create_dir_all(dir)?;
                open()
            }
            (opened, _) => opened,
        };
        let file = file.map_err(FileError::when("open", path))?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => Ok((Self { _file: Some(file) }, true)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok((Self { _file: Some(file) }, false)),
            Err(error) => Err(FileError::when("lock", path)(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_persisted_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut new = NewFile::create(&dir.path().join("a/b")).unwrap();
        new.file().write_all(b"half").unwrap();
        drop(new);
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_whole_has_no_name_and_replaces_the_old_one_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for text in ["old", "new"] {
            let mut new = NewFile::create(&path).unwrap();
            new.file().write_all(text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(new.temporary_path()).unwrap(), text);
            new.persist(0o640).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_a_directory_does_not_follow_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let jail = dir.path().join("jail");
        fs::create_dir(&jail).unwrap();
        std::os::unix::fs::symlink(&outside, jail.join("link")).unwrap();
        remove(&jail).unwrap();
        remove(&jail).unwrap();
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::wait(&path).unwrap();
        assert!(FileLock::attempt(&path).unwrap().is_none());
        drop(held);
        assert!(FileLock::attempt(&path).unwrap().is_some());
    }
}
