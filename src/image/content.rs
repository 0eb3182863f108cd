//! Where the bytes of an image's files come from: they stay where they are until the image is written.

use std::io::BufRead;
use std::sync::Arc;

use crate::apk::PackageContents;
use crate::base::Sha256;

use super::error::Ext4Error;

/// The bytes of one regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Entry `entry` of the source numbered `source`: a file of a package, or of a container layer.
    Streamed { source: usize, entry: usize },
    /// Generated, or read from the project.
    Inline(Arc<[u8]>),
}

/// Called with an entry's number and its bytes. What it does not read is skipped.
pub type Visit<'a> = &'a mut dyn FnMut(usize, &mut dyn BufRead) -> Result<(), Ext4Error>;

/// An archive whose files can be read only one after the other.
pub trait SequentialArchive: Sync {
    /// Visits every regular file in archive order.
    fn each_file(&self, visit: Visit<'_>) -> Result<(), Ext4Error>;

    /// SHA-256 of the archive, where its files may be taken from an image that already has them.
    fn sha256(&self) -> Option<Sha256> {
        None
    }
}

impl SequentialArchive for PackageContents {
    fn each_file(&self, visit: Visit<'_>) -> Result<(), Ext4Error> {
        PackageContents::each_file(self, visit)
    }

    fn sha256(&self) -> Option<Sha256> {
        PackageContents::sha256(self)
    }
}
