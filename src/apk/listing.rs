//! What is remembered of a package: all but the bytes of its files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::Sha256;

use super::dependency::Checksum;
use super::entry::Entry;
use super::info::Draft;
use super::package::{ExpectedPackage, PackageContents};
use super::scripts::Script;
use super::stored::Stored;

/// What is remembered of a package.
#[derive(Serialize, Deserialize)]
struct Listing {
    pkginfo: String,
    checksum: [u8; 20],
    size: u64,
    scripts: Vec<Script>,
    entries: Vec<Entry>,
    data: usize,
}

impl PackageContents {
    /// What is worth remembering of a package that was verified: all but the bytes of its files.
    pub fn to_listing(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(&Listing {
            pkginfo: self.pkginfo.clone(),
            checksum: self.info.checksum.0,
            size: self.info.size,
            scripts: self.scripts.clone(),
            entries: self.entries.clone(),
            data: self.data,
        })
    }

    /// A package as it was remembered, without opening its file; `None` where the listing is of another package, or damaged.
    ///
    /// When the files are read, all of it is held against the package: the SHA-256 of the whole, and every entry.
    pub fn from_listing(
        listing: &[u8],
        path: PathBuf,
        sha256: Sha256,
        expected: &ExpectedPackage,
    ) -> Option<Self> {
        let listing: Listing = postcard::from_bytes(listing).ok()?;
        let info = Draft::from_pkginfo(&listing.pkginfo).ok()?;
        let info = info.finish(Checksum(listing.checksum), listing.size).ok()?;
        let is_meant = ExpectedPackage::from(&info) == *expected;
        is_meant.then_some(Self {
            info,
            scripts: listing.scripts,
            entries: listing.entries,
            pkginfo: listing.pkginfo,
            bytes: Stored::File(path),
            sha256: Some(sha256),
            data: listing.data,
        })
    }
}
