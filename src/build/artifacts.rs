//! The `out/` directory: artifacts under their keys, complete or not there, with links by name.
//!
//! ```text
//! out/kernel/<key>/vmlinux config build.log artifact.json
//! out/image/<key>/rootfs.ext4 artifact.json
//! out/disk/<key>/disk.ext4 artifact.json
//! out/image/surf -> <key>
//! out/.work/...             builds under way; nothing here is ever trusted
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fleet::{GuestName, Label, Sha256};
pub use crate::lock::digest::digest_file;
use crate::sys::fs::{self as files, FileError, FileLock};

use super::key::BuildKey;

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactKind {
    Kernel,
    Image,
    Disk,
}

impl ArtifactKind {
    /// Its folder in `out/`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Image => "image",
            Self::Disk => "disk",
        }
    }

    /// The file that the artifact is about.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Kernel => "vmlinux",
            Self::Image => "rootfs.ext4",
            Self::Disk => "disk.ext4",
        }
    }
}

/// A finished artifact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Artifact {
    pub kind: ArtifactKind,
    #[serde(serialize_with = "as_text")]
    pub key: BuildKey,
    /// The file, absolute.
    pub path: PathBuf,
    pub sha256: Sha256,
    /// In bytes, holes included.
    pub size: u64,
    /// Whether it was there before.
    pub cached: bool,
}

/// What a whole fleet runs on.
#[derive(Clone, Debug)]
pub struct Artifacts {
    pub kernel: Artifact,
    pub images: BTreeMap<Label, Artifact>,
    /// The data disk that each guest begins with.
    pub disks: BTreeMap<GuestName, Artifact>,
}

fn as_text<S: serde::Serializer>(key: &BuildKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// `artifact.json`, beside the file.
#[derive(Serialize, Deserialize)]
struct Record {
    sha256: Sha256,
    size: u64,
}

const RECORD: &str = "artifact.json";

/// The `out/` directory.
#[derive(Clone, Debug)]
pub struct OutDir {
    root: PathBuf,
}

impl OutDir {
    /// Opens the directory, making it where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        files::create_dir_all(root)?;
        let root = fs::canonicalize(root).map_err(FileError::when("open", root))?;
        Ok(Self { root })
    }

    /// Where an artifact is or will be.
    pub fn dir_of(&self, kind: ArtifactKind, key: &BuildKey) -> PathBuf {
        self.root.join(kind.folder()).join(key.to_string())
    }

    /// The finished artifact of a key, if there is one. Only whole artifacts ever have their key's name.
    pub fn find(&self, kind: ArtifactKind, key: &BuildKey) -> Option<Artifact> {
        let dir = self.dir_of(kind, key);
        let record: Record = serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()?;
        let path = dir.join(kind.file_name());
        let size = fs::metadata(&path).ok()?.len();
        (size == record.size).then_some(Artifact {
            kind,
            key: *key,
            path,
            sha256: record.sha256,
            size,
            cached: true,
        })
    }

    /// Gives the artifact of a key, made by `make` in an empty directory where it is not there yet. Processes
    /// that want the same key wait for each other.
    ///
    /// # Errors
    /// Those of `make`, and of the file system; nothing then stands under the key.
    pub fn obtain<E: From<FileError>>(
        &self,
        kind: ArtifactKind,
        key: &BuildKey,
        make: impl FnOnce(&Path) -> Result<(), E>,
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
        make(work.path())?;
        self.store(kind, key, &work).map_err(E::from)
    }

    /// Removes what killed builds left, of whatever key: nobody holds their locks any more.
    fn clear_left_over(&self) -> Result<(), FileError> {
        let work = self.root.join(".work");
        files::create_dir_all(&work)?;
        for entry in fs::read_dir(&work).map_err(FileError::when("read", &work))?.flatten() {
            let path = entry.path();
            let dir = path.with_extension("");
            if path.extension().is_some_and(|extension| extension == "lock") && dir.is_dir() {
                if let Some(_held) = FileLock::attempt(&path)? {
                    files::remove(&dir)?;
                }
            }
        }
        Ok(())
    }

    /// Where things are kept that no artifact depends on, such as the log of a build that failed.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn notes(&self) -> Result<PathBuf, FileError> {
        let notes = self.root.join(".work").join("notes");
        files::create_dir_all(&notes)?;
        Ok(notes)
    }

    /// An empty directory below `out/.work`, removed when it is dropped; its name ends with so many random letters.
    fn scratch(&self, prefix: &str, letters: usize) -> Result<tempfile::TempDir, FileError> {
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
    ) -> Result<Artifact, FileError> {
        let made = work.path().join(kind.file_name());
        let (sha256, size) = digest_file(&made)?;
        let record = serde_json::to_vec(&Record { sha256, size })
            .map_err(|error| FileError::when("describe", &made)(error.into()))?;
        File::open(&made).and_then(|file| file.sync_all()).map_err(FileError::when("sync", &made))?;
        files::write(&work.path().join(RECORD), &record, 0o644)?;
        let dir = self.dir_of(kind, key);
        files::create_dir_all(&self.root.join(kind.folder()))?;
        files::remove(&dir)?;
        set_mode(work.path(), 0o755)?;
        fs::rename(work.path(), &dir).map_err(FileError::when("create", &dir))?;
        Ok(Artifact { kind, key: *key, path: dir.join(kind.file_name()), sha256, size, cached: false })
    }

    /// Lets `out/<kind>/<name>` lead to an artifact.
    ///
    /// # Errors
    /// Where the link cannot be made.
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

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(FileError::when("set the mode of", path))
}

#[cfg(test)]
mod tests {
    use std::io;

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
            fs::write(work.join("rootfs.ext4"), "bytes").map_err(FileError::when("write", work))
        };
        out.obtain(ArtifactKind::Image, &key(), make).unwrap();
        assert_eq!(names.map(|name| work.join(name).exists()), [false, true]);
    }

    #[test]
    fn a_key_is_built_once_and_can_be_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutDir::open(dir.path()).unwrap();
        let make = |work: &Path| {
            fs::write(work.join("rootfs.ext4"), "bytes").map_err(FileError::when("write", work))
        };
        let first = out.obtain(ArtifactKind::Image, &key(), make).unwrap();
        let second: Artifact = out
            .obtain(ArtifactKind::Image, &key(), |_| -> Result<(), FileError> { panic!("built twice") })
            .unwrap();
        assert_eq!((first.cached, second.cached), (false, true));
        assert_eq!(first.sha256, Sha256::of("bytes"));
        out.link(&second, &"surf".parse().unwrap()).unwrap();
        out.link(&second, &"surf".parse().unwrap()).unwrap();
        assert_eq!(fs::read(dir.path().join("image/surf/rootfs.ext4")).unwrap(), b"bytes");
    }
}
