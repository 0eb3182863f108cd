//! Where the files of an image lie, beside it in `out/`: the next image takes from there what has not changed.
//!
//! An image is taken from only if nobody touched it since it was written, which its size and modification time tell, as Git
//! and make do. What is taken is of the very package that the next image is made of too; its bytes were checked when they were
//! written.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::image::ext4::{Earlier, FileExtents};
use crate::sys::fs::FileError;
use crate::sys::sealed;

/// The file beside an image. An earlier sisforge wrote `files` without digests, and `extents` with each byte of a digest by itself.
const FILES: &str = "places";

#[derive(Serialize, Deserialize)]
struct EarlierRecord {
    state: State,
    placed: Vec<FileExtents>,
}

/// What changes with a file's bytes.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct State {
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl State {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { size: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) })
    }
}

/// Notes where the files of an image lie.
pub(super) fn keep(image: &Path, placed: Vec<FileExtents>) -> Result<(), FileError> {
    let state =
        File::open(image).and_then(|file| State::of(&file)).map_err(FileError::when("read", image))?;
    let path = image.with_file_name(FILES);
    let record = EarlierRecord { state, placed };
    let bytes = postcard::to_allocvec(&record)
        .map_err(|error| FileError::when("describe", &path)(std::io::Error::other(error)))?;
    sealed::write(&path, &bytes)
}

/// An image that was written before, if nobody touched it since.
pub(super) fn open(path: &Path) -> Option<Earlier> {
    let record: EarlierRecord = postcard::from_bytes(&sealed::read(&path.with_file_name(FILES))?).ok()?;
    let image = File::open(path).ok()?;
    let is_untouched = State::of(&image).ok()? == record.state;
    is_untouched.then(|| Earlier::new(image, record.placed).ok())?
}
