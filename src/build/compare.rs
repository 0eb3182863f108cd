//! Whether a build gives the same bytes again, and the file systems that were wanted: `build --check`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::image::read_back::ReadBack;
use crate::sys::e2fsck::{self, FsckOutcome};
use crate::sys::fs::FileError;
use crate::sys::sparse;

use super::artifacts::{Artifact, ArtifactKind, OutDir};
use super::builder::{Builder, Built, MissingArtifact, Selection};
use super::error::BuildError;

/// What building twice has shown of an artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub built: Built,
    /// Offset of the first byte that differs; `None` where all are the same.
    pub first_difference: Option<u64>,
    /// What is in the file system, and what was to be; a kernel holds none.
    pub file_system: Option<FileSystemCheck>,
}

/// What reading a file system back has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSystemCheck {
    /// Against the tree that it was made of.
    pub read_back: ReadBack,
    pub e2fsck: FsckOutcome,
}

impl Comparison {
    /// Whether nothing was found that is not as it should be.
    pub fn is_good(&self) -> bool {
        let is_good = |check: &FileSystemCheck| {
            check.read_back.mismatches.is_empty() && !matches!(check.e2fsck, FsckOutcome::Faulty(_))
        };
        self.first_difference.is_none() && self.file_system.as_ref().is_none_or(is_good)
    }
}

impl Builder<'_> {
    /// Builds what is selected, and then a second time from nothing in a new directory below `scratch`, which should not be
    /// in `out/`; compares byte by byte. File systems are read back, too, and held against the trees that they were made of.
    pub fn check_reproducible(
        &self,
        what: &Selection,
        scratch: &Path,
    ) -> Result<Vec<Comparison>, BuildError> {
        // What was written to since must be told, and not be built again in silence.
        let first = Builder { out: &self.out.unverified(), ..*self }.build(what)?;
        let dir = tempfile::Builder::new()
            .prefix("sisforge-check-")
            .tempdir_in(scratch)
            .map_err(FileError::when("create a directory in", scratch))?;
        let out = OutDir::open(dir.path())?;
        let second = Builder { out: &out, missing: MissingArtifact::BuildAgain, ..*self }.build(what)?;
        let compare = |(built, again): (Built, Built)| {
            let first_difference = first_difference(&built.artifact.path, &again.artifact.path)?;
            let file_system = self.check_file_system(&built)?;
            Ok(Comparison { built, first_difference, file_system })
        };
        first.into_iter().zip(second).map(compare).collect()
    }

    fn check_file_system(&self, built: &Built) -> Result<Option<FileSystemCheck>, BuildError> {
        let Artifact { kind, key, path, .. } = &built.artifact;
        let read_back = match kind {
            ArtifactKind::Kernel => return Ok(None),
            ArtifactKind::Image => {
                self.image_plan(&built.name)?.read_back(key, path, &self.repositories(), self.jobs)?
            }
            ArtifactKind::Disk | ArtifactKind::Containers => {
                let plans = self.disk_plans()?;
                let Some(plan) = plans.iter().find(|plan| plan.name == built.name) else { return Ok(None) };
                match plan.images()?.filter(|_| *kind == ArtifactKind::Containers) {
                    Some(images) => images.read_back(key, path, self.puller(), self.jobs)?,
                    None => plan.read_back(key, path, self.jobs)?,
                }
            }
        };
        let e2fsck = e2fsck::check(path).map_err(BuildError::E2fsck)?;
        Ok(Some(FileSystemCheck { read_back, e2fsck }))
    }
}

/// Offset of the first byte in which two files differ; that of the shorter one's end where it is the beginning of the other.
/// What is a hole in both is not read.
pub fn first_difference(one: &Path, two: &Path) -> Result<Option<u64>, FileError> {
    let open = |path: &Path| File::open(path).map_err(FileError::when("open", path));
    let length = |file: &File| file.metadata().map(|meta| meta.len());
    let runs = |file: &File, path| sparse::data_runs(file).map_err(FileError::when("read", path));
    let (a, b) = (open(one)?, open(two)?);
    let (left, right) = (
        length(&a).map_err(FileError::when("read", one))?,
        length(&b).map_err(FileError::when("read", two))?,
    );
    let mut all = runs(&a, one)?;
    all.extend(runs(&b, two)?);
    all.sort_unstable();
    let common = left.min(right);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let mut done = 0;
    for (offset, length) in all {
        let end = (offset + length).min(common);
        done = done.max(offset);
        while done < end {
            let count = (end - done).min(1 << 20) as usize;
            read_at(&a, &mut here, done, count).map_err(FileError::when("read", one))?;
            read_at(&b, &mut there, done, count).map_err(FileError::when("read", two))?;
            if let Some(at) = here.iter().zip(&there).position(|(a, b)| a != b) {
                return Ok(Some(done + at as u64));
            }
            done += count as u64;
        }
    }
    Ok((left != right).then_some(common))
}

fn read_at(file: &File, bytes: &mut Vec<u8>, offset: u64, count: usize) -> io::Result<()> {
    bytes.resize(count, 0);
    file.read_exact_at(bytes, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let mut bytes = vec![0; (1 << 20) + 10];
        std::fs::write(&one, &bytes).unwrap();
        std::fs::write(&two, &bytes).unwrap();
        assert_eq!(first_difference(&one, &two).unwrap(), None);
        std::fs::write(&two, &bytes[..7]).unwrap();
        assert_eq!(first_difference(&one, &two).unwrap(), Some(7));
        bytes[(1 << 20) + 5] = 1;
        std::fs::write(&two, &bytes).unwrap();
        assert_eq!(first_difference(&one, &two).unwrap(), Some((1 << 20) + 5));
        // The same bytes with other holes.
        let length = bytes.len() as u64;
        File::create(&one).unwrap().set_len(length).unwrap();
        std::fs::write(&two, vec![0; bytes.len()]).unwrap();
        assert_eq!(first_difference(&one, &two).unwrap(), None);
        File::options().write(true).open(&one).unwrap().write_all_at(b"x", 600_000).unwrap();
        assert_eq!(first_difference(&two, &one).unwrap(), Some(600_000));
        File::create(&one).unwrap().set_len(length + 1).unwrap();
        assert_eq!(first_difference(&one, &two).unwrap(), Some(length));
    }
}
