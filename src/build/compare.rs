//! Whether a build gives the same bytes again, and the file systems that were wanted: `build --check`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::image::read_back::ReadBack;
use crate::sys::e2fsck::{self, Verdict};
use crate::sys::fs::FileError;

use super::artifacts::{Artifact, ArtifactKind, OutDir};
use super::builder::{BuildError, Builder, Built, Missing, Selection};

/// What building twice has shown of an artifact.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    #[serde(flatten)]
    pub built: Built,
    /// Offset of the first byte that differs; `None` where all are the same.
    pub first_difference: Option<u64>,
    /// What is in the file system, and what was to be; a kernel holds none.
    pub file_system: Option<FileSystemCheck>,
}

/// What reading a file system back has shown.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FileSystemCheck {
    /// Against the tree that it was made of.
    pub read_back: ReadBack,
    pub e2fsck: Verdict,
}

impl Comparison {
    /// Whether nothing was found that is not as it should be.
    pub fn is_good(&self) -> bool {
        let is_good = |check: &FileSystemCheck| {
            check.read_back.mismatches.is_empty() && !matches!(check.e2fsck, Verdict::Faulty(_))
        };
        self.first_difference.is_none() && self.file_system.as_ref().is_none_or(is_good)
    }
}

impl Builder<'_> {
    /// Builds what is selected, and then a second time from nothing in a new directory below `scratch`, which should not be
    /// in `out/`; compares byte by byte. File systems are read back, too, and held against the trees that they were made of.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn check_reproducible(
        &self,
        what: &Selection,
        scratch: &Path,
    ) -> Result<Vec<Comparison>, BuildError> {
        let first = self.build(what)?;
        let dir = tempfile::Builder::new()
            .prefix("sisforge-check-")
            .tempdir_in(scratch)
            .map_err(FileError::when("create a directory in", scratch))?;
        let out = OutDir::open(dir.path())?;
        let second = Builder { out: &out, missing: Missing::Build, ..*self }.build(what)?;
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
            ArtifactKind::Disk => {
                let plans = self.disk_plans()?;
                let Some(plan) = plans.iter().find(|plan| plan.name == built.name) else { return Ok(None) };
                plan.read_back(key, path, self.jobs)?
            }
        };
        let e2fsck = e2fsck::check(path).map_err(BuildError::E2fsck)?;
        Ok(Some(FileSystemCheck { read_back, e2fsck }))
    }
}

/// Offset of the first byte in which two files differ; that of the shorter one's end where it is the beginning of the other.
///
/// # Errors
/// Where one cannot be read.
pub fn first_difference(one: &Path, two: &Path) -> Result<Option<u64>, FileError> {
    let open = |path: &Path| File::open(path).map_err(FileError::when("open", path));
    let (mut a, mut b) = (open(one)?, open(two)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut offset = 0;
    loop {
        read_chunk(&mut a, &mut left).map_err(FileError::when("read", one))?;
        read_chunk(&mut b, &mut right).map_err(FileError::when("read", two))?;
        if left != right {
            let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset + same as u64));
        }
        if left.is_empty() {
            return Ok(None);
        }
        offset += left.len() as u64;
    }
}

fn read_chunk(file: &mut File, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    file.take(1 << 20).read_to_end(chunk).map(drop)
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
    }
}
