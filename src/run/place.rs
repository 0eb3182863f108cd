//! Places in files that people wrote.

use std::ops::Range;
use std::path::PathBuf;

use crate::fleet::SourceText;

/// A place in a file; both numbers from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
}

/// Where something is in `fleet.toml`.
pub(super) fn file_place(source: &SourceText, place: &Range<usize>) -> FilePlace {
    let (line, column) = source.line_column(place.start);
    FilePlace { file: source.path.clone(), line, column }
}
