//! Digests of inputs, remembered: a kernel tarball of 130 MB is not read again for as long as nobody touches it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::Digest as _;

use crate::base::Sha256;
use crate::sys::digest::sha256_of_file;
use crate::sys::fs::{self as files, FileError};

/// Digest of a file's bytes, or of a directory's sorted paths, execute bits, link targets and contents; where it stands,
/// who owns it and when it was written play no part.
pub fn digest_tree(path: &Path) -> Result<Sha256, FileError> {
    if !path.is_dir() {
        return sha256_of_file(path).map(|(sha256, _)| sha256);
    }
    let mut hasher = sha2::Sha256::new();
    let mut add = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for file in sorted_files(path)? {
        let meta = metadata(&file)?;
        if meta.is_symlink() {
            add(b"link");
            let target = fs::read_link(&file).map_err(FileError::when("read", &file))?;
            add(target.as_os_str().as_encoded_bytes());
        } else if !meta.is_file() {
            let named = FileError::when("read", file);
            return Err(named(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "it is not a regular file",
            )));
        } else {
            add(if meta.mode() & 0o100 != 0 { b"program" } else { b"file" });
            add(&sha256_of_file(&file)?.0.0);
        }
        add(file.strip_prefix(path).unwrap_or(&file).as_os_str().as_encoded_bytes());
    }
    Ok(Sha256(hasher.finalize().into()))
}

/// Files and links below a directory, sorted by path; version control is left out.
pub fn sorted_files(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        let named = || FileError::when("read", &dir);
        for entry in fs::read_dir(&dir).map_err(named())? {
            let entry = entry.map_err(named())?;
            let kind = entry.file_type().map_err(named())?;
            if entry.file_name() == ".git" {
                continue;
            }
            if kind.is_dir() { waiting.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn metadata(path: &Path) -> Result<Metadata, FileError> {
    fs::symlink_metadata(path).map_err(FileError::when("read", path))
}

/// Remembers digests in `<cache>/digests/`, one small file for each path, so that processes do not get in each other's way.
///
/// A digest is taken from memory where device, inode, size, modification and change time are what they were, which is
/// how Git and make tell as well; the change time cannot be set by hand. For a directory, that holds for every file below it.
/// What changed within the last two seconds is not remembered: a clock's tick could hide another change.
#[derive(Clone, Debug)]
pub struct Digests {
    dir: PathBuf,
}

/// Coarsest time stamp of a file system that people build on (FAT).
const SETTLED: Duration = Duration::from_secs(2);

impl Digests {
    /// The memory in a cache directory.
    pub fn new(cache: &Path) -> Self {
        Self { dir: cache.join("digests") }
    }

    /// The digest of a file or directory, as [`digest_tree`] gives it. Failing to remember costs time only, and is no
    /// error.
    pub fn of(&self, path: &Path) -> Result<Sha256, FileError> {
        self.of_at(path, SystemTime::now())
    }

    fn of_at(&self, path: &Path, now: SystemTime) -> Result<Sha256, FileError> {
        let absolute = std::path::absolute(path).map_err(FileError::when("find", path))?;
        let record = self.dir.join(Sha256::of(absolute.as_os_str().as_encoded_bytes()).to_string());
        let before = PathState::of(path)?;
        let text = fs::read_to_string(&record).unwrap_or_default();
        if let Some((stamp, sha256)) = text.trim_end().split_once(' ')
            && stamp == before.state.to_string()
            && let Ok(sha256) = sha256.parse()
        {
            return Ok(sha256);
        }
        let sha256 = digest_tree(path)?;
        if before.is_settled(now) && PathState::of(path)?.state == before.state {
            // Without memory, the file is read again next time.
            let _ = files::write(&record, format!("{} {sha256}\n", before.state).as_bytes(), 0o644);
        }
        Ok(sha256)
    }
}

/// The state of a file or of all files below a directory, without their bytes.
struct PathState {
    state: Sha256,
    /// Seconds since the epoch of the last change.
    changed: i64,
}

impl PathState {
    fn of(path: &Path) -> Result<Self, FileError> {
        let followed = fs::metadata(path).map_err(FileError::when("read", path))?;
        let files = if followed.is_dir() { sorted_files(path)? } else { Vec::new() };
        let mut hasher = sha2::Sha256::new();
        let mut changed = i64::MIN;
        let mut add = |path: &Path, meta: &Metadata| {
            let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
            let numbers = [meta.dev(), meta.ino(), meta.size(), u64::from(meta.mode())];
            hasher.update(format!("{path:?} {numbers:?} {times:?}\n"));
            changed = changed.max(meta.ctime());
        };
        add(path, &followed);
        for file in &files {
            add(file, &metadata(file)?);
        }
        Ok(Self { state: Sha256(hasher.finalize().into()), changed })
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(self.changed.max(0).unsigned_abs());
        now > changed + SETTLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_by_its_contents_not_its_place() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("Kconfig"), "x").unwrap();
        }
        let one = digest_tree(&dir.path().join("one")).unwrap();
        assert_eq!(one, digest_tree(&dir.path().join("two")).unwrap());
        fs::write(dir.path().join("two/Kconfig"), "y").unwrap();
        assert_ne!(one, digest_tree(&dir.path().join("two")).unwrap());
    }

    #[test]
    fn a_digest_is_remembered_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, digests) = (dir.path().join("linux.tar"), Digests::new(dir.path()));
        let record = || fs::read_dir(dir.path().join("digests")).ok()?.next()?.ok().map(|entry| entry.path());
        fs::write(&file, "one").unwrap();
        assert_eq!(digests.of(&file).unwrap(), Sha256::of("one"));
        assert_eq!(record(), None, "a file that was written just now may change within the same tick");

        let later = SystemTime::now() + Duration::from_secs(10);
        assert_eq!(digests.of_at(&file, later).unwrap(), Sha256::of("one"));
        let record = record().unwrap();
        let told = fs::read_to_string(&record).unwrap();
        fs::write(&record, told.replace(&Sha256::of("one").to_string(), &Sha256::of("told").to_string()))
            .unwrap();
        assert_eq!(digests.of(&file).unwrap(), Sha256::of("told"), "the file was read again");
        fs::write(&file, "two").unwrap();
        assert_eq!(digests.of(&file).unwrap(), Sha256::of("two"));
    }
}
