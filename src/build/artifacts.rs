//! The `out/` directory: artifacts under their keys, complete or not there, with links by name.
//!
//! ```text
//! out/kernel/<key>/vmlinux config build.log artifact.json
//! out/image/<key>/rootfs.ext4 artifact.json
//! out/disk/<key>/disk.ext4 artifact.json
//! out/containers/<key>/images.ext4 artifact.json
//! out/image/surf -> <key>
//! out/.work/...             builds under way; nothing here is ever trusted
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::text::json;
use crate::base::{GuestName, Label};
use crate::sys::digest::{digest_like, verity_digest};
use crate::sys::fs::{self as files, FileError, FileLock};

use super::key::BuildKey;
use crate::base::FileDigest;

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactKind {
    Kernel,
    Image,
    Disk,
    /// A store of container images.
    Containers,
}

impl ArtifactKind {
    /// Its folder in `out/`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Image => "image",
            Self::Disk => "disk",
            Self::Containers => "containers",
        }
    }

    /// The file that the artifact is about.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Kernel => "vmlinux",
            Self::Image => "rootfs.ext4",
            Self::Disk => "disk.ext4",
            Self::Containers => "images.ext4",
        }
    }
}

/// A finished artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    pub kind: ArtifactKind,
    pub key: BuildKey,
    /// The file, absolute.
    pub path: PathBuf,
    pub digest: FileDigest,
    /// In bytes, holes included.
    pub size: u64,
    /// Whether it was there before.
    pub cached: bool,
    /// Whether it was taken from a registry just now, and not built.
    pub pulled: bool,
}

impl Artifact {
    /// Whether its file is there. Of one that is foreseen the digest may be known before that.
    pub fn is_there(&self) -> bool {
        self.digest.is_built() && self.path.exists()
    }
}

/// What a whole fleet runs on.
#[derive(Clone, Debug)]
pub struct Artifacts {
    pub kernel: Artifact,
    pub images: BTreeMap<Label, Artifact>,
    /// The data disk that each guest begins with.
    pub disks: BTreeMap<GuestName, Artifact>,
    /// The container images that each guest finds, if there are any.
    pub containers: BTreeMap<GuestName, Artifact>,
}

impl Artifacts {
    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Artifact> {
        let Self { kernel, images, disks, containers } = self;
        std::iter::once(kernel).chain(images.values()).chain(disks.values()).chain(containers.values())
    }

    /// What of them is not built yet, in words.
    pub fn unbuilt(&self) -> Vec<String> {
        let is_unbuilt = |artifact: &Artifact| !artifact.is_there();
        let kernel = is_unbuilt(&self.kernel).then(|| "the kernel".to_owned());
        let images = self.images.iter().filter(|(_, image)| is_unbuilt(image));
        let images = images.map(|(name, _)| format!("the image {name}"));
        let disks = self.disks.values().any(is_unbuilt).then(|| "data disks".to_owned());
        let containers = self.containers.values().any(is_unbuilt).then(|| "container images".to_owned());
        kernel.into_iter().chain(images).chain(disks).chain(containers).collect()
    }
}

/// What making an artifact's file gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltFile {
    pub digest: FileDigest,
    /// In bytes, holes included.
    pub size: u64,
}

impl BuiltFile {
    /// Of a file that was not hashed while it was written.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        verity_digest(path).map(|(digest, size)| Self { digest, size })
    }
}

/// `artifact.json`, beside the file.
#[derive(Serialize, Deserialize)]
struct ArtifactRecord {
    #[serde(alias = "sha256")]
    digest: FileDigest,
    size: u64,
    /// The boot of the machine in which the file was written, not synced: waiting for a disk takes longer than making an
    /// image. After another boot, which may follow a loss of power, the file is hashed once before it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// How the file was when its digest was found out. One that is otherwise, or was never noted, is hashed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<FileIdentity>,
}

/// What changes with a file's bytes, whoever writes them: times in seconds and nanoseconds. That of the change cannot be set
/// by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileIdentity {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    fn of(meta: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

const RECORD: &str = "artifact.json";

/// The `out/` directory.
#[derive(Clone, Debug)]
pub struct OutDir {
    root: PathBuf,
    /// Whether an artifact that was written to since it was made counts as none.
    verifies: bool,
}

impl OutDir {
    /// Opens the directory, making it where it is missing.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        files::create_dir_all(root)?;
        let root = fs::canonicalize(root).map_err(FileError::when("open", root))?;
        Ok(Self { root, verifies: true })
    }

    /// The directory as it is, be it that it is not there.
    pub fn look(root: &Path) -> Result<Self, FileError> {
        match fs::canonicalize(root) {
            Ok(root) => Ok(Self { root, verifies: true }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let root = std::path::absolute(root).map_err(FileError::when("look for", root))?;
                Ok(Self { root, verifies: true })
            }
            Err(error) => Err(FileError::when("open", root)(error)),
        }
    }

    /// The same directory, with each artifact as it is by now: for whoever compares its bytes. Nothing is made from one of them.
    #[must_use]
    pub fn unverified(&self) -> Self {
        Self { verifies: false, ..self.clone() }
    }

    /// Where an artifact is or will be.
    pub fn dir_of(&self, kind: ArtifactKind, key: &BuildKey) -> PathBuf {
        self.root.join(kind.folder()).join(key.to_string())
    }

    /// The finished artifact of a key, if there is one. Only whole artifacts ever have their key's name.
    pub fn find(&self, kind: ArtifactKind, key: &BuildKey) -> Option<Artifact> {
        let (path, BuiltFile { digest, size }) = whole(kind, &self.dir_of(kind, key), self.verifies)?;
        Some(Artifact { kind, key: *key, path, digest, size, cached: true, pulled: false })
    }

    /// The file of the artifact that a name leads to now, for the next one to be made from.
    pub fn named(&self, kind: ArtifactKind, name: &Label) -> Option<PathBuf> {
        let dir = self.root.join(kind.folder()).join(name.as_str());
        self.verifies.then(|| whole(kind, &dir, true))?.map(|(path, _)| path)
    }

    /// Gives the artifact of a key, made by `make` in an empty directory where it is not there yet. Processes
    /// that want the same key wait for each other. Where `make` fails, nothing stands under the key.
    pub fn obtain<E: From<FileError>>(
        &self,
        kind: ArtifactKind,
        key: &BuildKey,
        make: impl FnOnce(&Path) -> Result<BuiltFile, E>,
    ) -> Result<Artifact, E> {
        if let Some(found) = self.find(kind, key) {
            return Ok(found);
        }
        self.clear_left_over()?;
        let _lock = FileLock::wait(&self.root.join(".work").join(format!("{}-{key}.lock", kind.folder())))?;
        if let Some(found) = self.find(kind, key) {
            return Ok(found);
        }
        // Another that was waited for may have been killed.
        files::remove(&self.root.join(".work").join(format!("{}-{key}", kind.folder())))?;
        let work = self.scratch(&format!("{}-{key}", kind.folder()), 0)?;
        let made = make(work.path())?;
        self.store(kind, key, &work, made).map_err(E::from)
    }

    /// Removes what killed builds left, of whatever key: nobody holds their locks any more.
    fn clear_left_over(&self) -> Result<(), FileError> {
        let work = self.root.join(".work");
        files::create_dir_all(&work)?;
        for entry in fs::read_dir(&work).map_err(FileError::when("read", &work))?.flatten() {
            let path = entry.path();
            let dir = path.with_extension("");
            if path.extension().is_some_and(|extension| extension == "lock")
                && dir.is_dir()
                && let Some(_held) = FileLock::attempt(&path)?
            {
                files::remove(&dir)?;
            }
        }
        Ok(())
    }

    /// Where things are kept that no artifact depends on, such as the log of a build that failed.
    pub fn notes(&self) -> Result<PathBuf, FileError> {
        let notes = self.root.join(".work").join("notes");
        files::create_dir_all(&notes)?;
        Ok(notes)
    }

    /// An empty directory below `out/.work`, removed when it is dropped; its name ends with so many random letters.
    pub(super) fn scratch(&self, prefix: &str, letters: usize) -> Result<tempfile::TempDir, FileError> {
        let work = self.root.join(".work");
        files::create_dir_all(&work)?;
        tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(letters)
            .tempdir_in(&work)
            .map_err(FileError::when("create a directory in", &work))
    }

    fn store(
        &self,
        kind: ArtifactKind,
        key: &BuildKey,
        work: &tempfile::TempDir,
        BuiltFile { digest, size }: BuiltFile,
    ) -> Result<Artifact, FileError> {
        let boot = files::boot_id();
        let file = work.path().join(kind.file_name());
        if boot.is_none() {
            File::open(&file).and_then(|file| file.sync_all()).map_err(FileError::when("sync", &file))?;
        }
        let meta = fs::metadata(&file).map_err(FileError::when("read", &file))?;
        write_record(
            work.path(),
            &ArtifactRecord { digest, size, boot, stamp: Some(FileIdentity::of(&meta)) },
        )?;
        let dir = self.dir_of(kind, key);
        files::create_dir_all(&self.root.join(kind.folder()))?;
        files::remove(&dir)?;
        set_mode(work.path(), 0o755)?;
        fs::rename(work.path(), &dir).map_err(FileError::when("create", &dir))?;
        let path = dir.join(kind.file_name());
        Ok(Artifact { kind, key: *key, path, digest, size, cached: false, pulled: false })
    }

    /// Lets `out/<kind>/<name>` lead to an artifact.
    pub fn link(&self, artifact: &Artifact, name: &Label) -> Result<(), FileError> {
        let link = self.root.join(artifact.kind.folder()).join(name.as_str());
        let target = PathBuf::from(artifact.key.to_string());
        if fs::read_link(&link).is_ok_and(|there| there == target) {
            return Ok(());
        }
        let named = || FileError::when("link", &link);
        let scratch = self.scratch("link-", 8)?;
        let new = scratch.path().join("link");
        std::os::unix::fs::symlink(&target, &new).map_err(named())?;
        fs::rename(&new, &link).map_err(named())
    }
}

/// The file of an artifact's directory, if it is whole, and what it is. One that `verifies` is hashed where its bytes may be
/// others than when it was made.
fn whole(kind: ArtifactKind, dir: &Path, verifies: bool) -> Option<(PathBuf, BuiltFile)> {
    let record: ArtifactRecord = serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()?;
    let path = dir.join(kind.file_name());
    let meta = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let made = BuiltFile { digest: record.digest, size: meta.len() };
    if verifies && made.size != record.size {
        return None;
    }
    let stamp = Some(FileIdentity::of(&meta));
    let is_of_this_boot = record.boot.is_none() || record.boot == files::boot_id();
    let is_known = is_of_this_boot && record.stamp == stamp && record.digest.is_verity();
    if !verifies || is_known {
        return Some((path, made));
    }
    if digest_like(&record.digest, &path).ok()? != (made.digest, made.size) {
        return None;
    }
    // An earlier sisforge noted another kind of digest.
    let digest = if made.digest.is_verity() { made.digest } else { verity_digest(&path).ok()?.0 };
    let boot = record.boot.clone().filter(|_| is_of_this_boot);
    // Without this record it is hashed again next time.
    let _ = write_record(dir, &ArtifactRecord { digest, boot, stamp, ..record });
    Some((path, BuiltFile { digest, ..made }))
}

fn write_record(dir: &Path, record: &ArtifactRecord) -> Result<(), FileError> {
    files::write_unsynced(&dir.join(RECORD), json(record).as_bytes(), 0o644)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(FileError::when("set the mode of", path))
}

#[cfg(test)]
mod tests {
    use std::io;

    use crate::sys::verity::digest_of_bytes;

    use super::super::key::KeyBuilder;
    use super::*;

    fn key() -> BuildKey {
        KeyBuilder::new("image").finish()
    }

    #[test]
    fn a_build_that_failed_leaves_nothing_that_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutDir::open(dir.path()).unwrap();
        let failed: Result<Artifact, FileError> = out.obtain(ArtifactKind::Image, &key(), |work| {
            fs::write(work.join("rootfs.ext4"), "half").unwrap();
            Err(FileError::when("write", work)(io::Error::other("disk full")))
        });
        assert!(failed.is_err());
        assert_eq!(out.find(ArtifactKind::Image, &key()), None);
        let left: Vec<_> = fs::read_dir(dir.path().join(".work"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn what_a_killed_build_left_goes_with_the_next_build_and_what_is_being_built_stays() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutDir::open(dir.path()).unwrap();
        let work = dir.path().join(".work");
        let names = ["kernel-0123", "kernel-4567"];
        names.iter().for_each(|name| fs::create_dir_all(work.join(name).join("src")).unwrap());
        fs::write(work.join("kernel-0123.lock"), "").unwrap();
        let _held = FileLock::wait(&work.join("kernel-4567.lock")).unwrap();
        let make = |work: &Path| {
            fs::write(work.join("rootfs.ext4"), "bytes").map_err(FileError::when("write", work))?;
            BuiltFile::of(&work.join("rootfs.ext4"))
        };
        out.obtain(ArtifactKind::Image, &key(), make).unwrap();
        assert_eq!(names.map(|name| work.join(name).exists()), [false, true]);
    }

    #[test]
    fn a_key_is_built_once_and_can_be_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutDir::open(dir.path()).unwrap();
        let make = |work: &Path| {
            fs::write(work.join("rootfs.ext4"), "bytes").map_err(FileError::when("write", work))?;
            BuiltFile::of(&work.join("rootfs.ext4"))
        };
        let first = out.obtain(ArtifactKind::Image, &key(), make).unwrap();
        let second: Artifact = out
            .obtain(ArtifactKind::Image, &key(), |_| -> Result<BuiltFile, FileError> {
                panic!("built twice")
            })
            .unwrap();
        assert_eq!((first.cached, second.cached), (false, true));
        assert_eq!(first.digest, digest_of_bytes(b"bytes"));
        out.link(&second, &"surf".parse().unwrap()).unwrap();
        out.link(&second, &"surf".parse().unwrap()).unwrap();
        assert_eq!(fs::read(dir.path().join("image/surf/rootfs.ext4")).unwrap(), b"bytes");
    }

    #[test]
    fn after_another_boot_a_file_is_hashed_before_it_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutDir::open(dir.path()).unwrap();
        let make = |work: &Path| {
            fs::write(work.join("rootfs.ext4"), "bytes").map_err(FileError::when("write", work))?;
            BuiltFile::of(&work.join("rootfs.ext4"))
        };
        let made: Artifact = out.obtain(ArtifactKind::Image, &key(), make).unwrap();
        let record = out.dir_of(ArtifactKind::Image, &key());
        let other_boot = || {
            let boot = Some("another".to_owned());
            let stamp = fs::metadata(&made.path).ok().as_ref().map(FileIdentity::of);
            write_record(&record, &ArtifactRecord { digest: made.digest, size: made.size, boot, stamp })
                .unwrap();
        };
        other_boot();
        assert!(out.find(ArtifactKind::Image, &key()).is_some());
        assert!(!fs::read_to_string(record.join(RECORD)).unwrap().contains("another"), "hashed once");
        // What a loss of power leaves: the length without the bytes.
        fs::write(&made.path, [0; 5]).unwrap();
        other_boot();
        assert_eq!(out.find(ArtifactKind::Image, &key()), None);
    }

    #[test]
    fn a_file_that_was_written_to_is_hashed_before_it_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutDir::open(dir.path()).unwrap();
        let make = |work: &Path| {
            fs::write(work.join("rootfs.ext4"), "bytes").map_err(FileError::when("write", work))?;
            BuiltFile::of(&work.join("rootfs.ext4"))
        };
        let made: Artifact = out.obtain(ArtifactKind::Image, &key(), make).unwrap();
        // Another file of the same bytes, as a copy of out/ has it.
        fs::copy(&made.path, dir.path().join("copy")).unwrap();
        fs::rename(dir.path().join("copy"), &made.path).unwrap();
        assert!(out.find(ArtifactKind::Image, &key()).is_some());
        let before = fs::metadata(&made.path).unwrap();
        fs::write(&made.path, "bytez").unwrap();
        let times = fs::FileTimes::new().set_modified(before.modified().unwrap());
        File::options().write(true).open(&made.path).unwrap().set_times(times).unwrap();
        assert_eq!(out.find(ArtifactKind::Image, &key()), None);
        let again: Artifact = out.obtain(ArtifactKind::Image, &key(), make).unwrap();
        assert_eq!((again.cached, fs::read(&again.path).unwrap()), (false, b"bytes".to_vec()));
    }
}
