//! Removal of a directory that someone else may have filled: no link is followed, no mount is entered, and what cannot be
//! removed is told while the rest goes. However deep and wide it is, little memory and few descriptors are taken: a directory
//! that lies too deep is moved up to the top first.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, SeekFrom, openat2, renameat_with,
    seek, unlinkat,
};
use rustix::io::Errno;

use super::fs::FileError;

/// How many directories are open at a time, one in the other.
const DEEPEST: usize = 64;
/// Bytes of the names of one directory that are held at a time, as the kernel tells them.
const BATCH: usize = 16 << 10;
/// How often a directory is read that was not empty once all in it was removed: somebody may add to it meanwhile.
const READS: usize = 3;
/// How many failures are told; there may be a million alike.
const TOLD: usize = 20;

/// Removes a file or a whole directory; gives what is still there and why, the deepest first, each with its path. Of very many
/// failures not all are told. Absence is no error.
pub fn remove_tree(path: &Path) -> Vec<FileError> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else {
        return vec![FileError::when("remove", path)(ErrorKind::InvalidInput.into())];
    };
    match fs::File::open(parent) {
        Ok(dir) => {
            let mut removal = TreeRemoval {
                parent: dir.into(),
                base: parent.to_owned(),
                open: Vec::new(),
                moved: 0,
                left: Vec::new(),
                buffer: vec![MaybeUninit::uninit(); BATCH],
            };
            // Mostly that; what is something else is removed as that.
            removal.take(&FoundEntry { name: name.to_owned(), is_dir: true });
            while !removal.open.is_empty() {
                removal.step();
            }
            removal.left
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => vec![FileError::when("open", parent)(error)],
    }
}

/// What a directory has, as the kernel tells it.
struct FoundEntry {
    name: OsString,
    /// Whether it is known to be a directory; there are file systems that do not tell.
    is_dir: bool,
}

/// A directory that is being emptied.
struct OpenLevel {
    name: OsString,
    fd: OwnedFd,
    batch: Vec<FoundEntry>,
    /// How often it was read to its end.
    read: usize,
    /// Failures before it was entered.
    before: usize,
}

struct TreeRemoval {
    /// What the whole tree stands in, and its path.
    parent: OwnedFd,
    base: PathBuf,
    /// The directories that are open, each in the one before it.
    open: Vec<OpenLevel>,
    /// How many directories were moved to the top.
    moved: u64,
    left: Vec<FileError>,
    /// For what the kernel tells of a directory.
    buffer: Vec<MaybeUninit<u8>>,
}

impl TreeRemoval {
    /// The next name of the innermost directory, or the end of it.
    fn step(&mut self) {
        let Some(level) = self.open.last_mut() else { return };
        if level.batch.is_empty() {
            level.batch = next_entries(&level.fd, &mut self.buffer);
        }
        match level.batch.pop() {
            Some(entry) => self.take(&entry),
            None => self.leave(),
        }
    }

    /// Removes an entry of the innermost directory, or enters it where it is a directory.
    fn take(&mut self, FoundEntry { name, is_dir: known }: &FoundEntry) {
        if *known {
            return self.enter(name);
        }
        match unlinkat(self.innermost(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // What Linux and POSIX answer for a directory.
            Err(Errno::ISDIR | Errno::PERM) if is_dir(self.innermost(), name) => self.enter(name),
            Err(error) => self.report("remove", name, error),
        }
    }

    fn enter(&mut self, name: &OsStr) {
        if self.open.len() >= DEEPEST {
            return self.move_up(name);
        }
        match enter(self.innermost(), name) {
            Ok(fd) => {
                let (name, before) = (name.to_owned(), self.left.len());
                self.open.push(OpenLevel { name, fd, batch: Vec::new(), read: 0, before });
            }
            Err(Errno::NOENT) => {}
            // It is no directory any more, or never was one.
            Err(Errno::NOTDIR | Errno::LOOP) => match unlinkat(self.innermost(), name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => self.report("remove", name, error),
            },
            // Something is mounted there, and its files are not ours to remove.
            Err(Errno::XDEV) => self.report("remove", name, Errno::BUSY),
            Err(error) => self.report("open", name, error),
        }
    }

    /// Moves a directory to the top of the tree, where it is found later.
    fn move_up(&mut self, name: &OsStr) {
        loop {
            self.moved += 1;
            let new = format!(".removed-{}", self.moved);
            match renameat_with(self.innermost(), name, &self.open[0].fd, &new, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    // Reading on need not show it.
                    return self.open[0].batch.push(FoundEntry { name: new.into(), is_dir: true });
                }
                Err(Errno::EXIST) => {}
                Err(error) => return self.report("remove", name, error),
            }
        }
    }

    /// Removes the innermost directory, which has been read to its end.
    fn leave(&mut self) {
        let Some(mut level) = self.open.pop() else { return };
        level.read += 1;
        match unlinkat(self.innermost(), &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Said of what is in it.
            Err(Errno::NOTEMPTY) if self.left.len() > level.before => {}
            Err(Errno::NOTEMPTY) if level.read < READS => match seek(&level.fd, SeekFrom::Start(0)) {
                Ok(_) => self.open.push(level),
                Err(error) => self.report("read", &level.name, error),
            },
            Err(error) => self.report("remove", &level.name, error),
        }
    }

    fn innermost(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.parent.as_fd(), |level| level.fd.as_fd())
    }

    fn report(&mut self, action: &'static str, name: &OsStr, error: Errno) {
        if self.left.len() < TOLD {
            let mut path = self.base.clone();
            path.extend(self.open.iter().map(|level| &level.name));
            self.left.push(FileError::when(action, path.join(name))(error.into()));
        }
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

/// Some that come next, as many as the kernel tells at once; none at the end. They are taken together, since a directory that is
/// changed while it is read may show some twice or not at all.
fn next_entries(dir: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Vec<FoundEntry> {
    let mut entries = Vec::new();
    let mut told = RawDir::new(dir, buffer);
    // What cannot be read is told when the directory is not empty.
    while let Some(Ok(entry)) = told.next() {
        let (name, is_dir) = (entry.file_name().to_bytes(), entry.file_type() == FileType::Directory);
        if name != b"." && name != b".." {
            entries.push(FoundEntry { name: OsStr::from_bytes(name).to_owned(), is_dir });
        }
        if told.is_buffer_empty() && !entries.is_empty() {
            break;
        }
    }
    entries
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

    #[test]
    fn a_tree_of_any_depth_and_width_goes_within_few_descriptors_and_little_stack() {
        // In memory where that is there: a disk takes a millisecond for each.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let jail = dir.path().join("jail");
        fs::create_dir(&jail).unwrap();
        let mut at = OwnedFd::from(fs::File::open(&jail).unwrap());
        for level in 0..30_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            if level % 1000 == 0 {
                rustix::fs::mknodat(&at, "f", rustix::fs::FileType::RegularFile, Mode::empty(), 0).unwrap();
                // What a moved directory would be called.
                rustix::fs::mkdirat(&at, ".removed-2", Mode::empty()).unwrap();
            }
            at = enter(at.as_fd(), OsStr::new("d")).unwrap();
        }
        for number in 0..2500 {
            fs::write(jail.join(number.to_string()), "").unwrap();
        }
        fs::set_permissions(&jail, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        // A thread of its own has 64 KiB for all of it.
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let left = small.spawn(move || remove_tree(&jail)).unwrap().join().unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_nobody_may_enter_goes_too() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: only root may enter every directory");
        }
        let dir = tempfile::tempdir().unwrap();
        let jail = dir.path().join("jail");
        fs::create_dir_all(jail.join("a/b")).unwrap();
        for path in [jail.join("a/b"), jail.join("a"), jail.clone()] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        }
        assert!(remove_tree(&jail).is_empty());
        assert!(!jail.exists());
    }
}
