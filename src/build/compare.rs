//! Whether a build gives the same bytes again: `build --check`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::sys::fs::FileError;

use super::artifacts::OutDir;
use super::builder::{BuildError, Builder, Built, Missing, Selection};

/// What building twice has shown of an artifact.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    #[serde(flatten)]
    pub built: Built,
    /// Offset of the first byte that differs; `None` where all are the same.
    pub first_difference: Option<u64>,
}

impl Builder<'_> {
    /// Builds what is selected, and then a second time from nothing in a new directory below `scratch`, which should not be
    /// in `out/`; compares byte by byte.
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
            Ok(Comparison { built, first_difference })
        };
        first.into_iter().zip(second).map(compare).collect()
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
