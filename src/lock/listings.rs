//! What packages hold, remembered in `<cache>/listings/`: an image is laid out without inflating its packages first.
//!
//! A listing is made when a package is verified, and named by the SHA-256 of the package. It saves time and vouches for
//! nothing: a package whose files are read is held against its listing, entry by entry and sum by sum.

use std::path::{Path, PathBuf};

use crate::apk::{ExpectedPackage, PackageContents};
use crate::base::Sha256;
use crate::sys::{fs as files, sealed};

/// Changes with what [`PackageContents::to_listing`] gives, or what is checked before a listing is made.
const VERSION: &str = "1";

/// The listings of a cache directory.
#[derive(Clone, Debug)]
pub struct Listings {
    dir: PathBuf,
}

impl Listings {
    /// Those of a cache.
    pub fn new(cache: &Path) -> Self {
        Self { dir: cache.join("listings").join(VERSION) }
    }

    fn path(&self, sha256: &Sha256) -> PathBuf {
        self.dir.join(sha256.to_string())
    }

    /// A package as it was remembered; `None` where it was not, or where the listing is damaged.
    pub fn find(
        &self,
        package: &Path,
        sha256: &Sha256,
        expected: &ExpectedPackage,
    ) -> Option<PackageContents> {
        let listing = sealed::read(&self.path(sha256))?;
        PackageContents::from_listing(&listing, package.to_owned(), *sha256, expected)
    }

    /// Remembers a package that was verified. Without memory it is verified again next time, so that failing is no error.
    pub fn keep(&self, sha256: &Sha256, package: &PackageContents) {
        let Ok(listing) = package.to_listing() else { return };
        let _ = sealed::write(&self.path(sha256), &listing);
    }

    /// Forgets a listing that does not fit its package.
    pub fn remove(&self, sha256: &Sha256) {
        let _ = files::remove(&self.path(sha256));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apk::{Contents, PackageInfo, pack};

    #[test]
    fn a_listing_is_of_its_package_alone() {
        let dir = tempfile::tempdir().unwrap();
        let listings = Listings::new(dir.path());
        let info = PackageInfo::new("a", "1-r0".parse().unwrap(), "noarch").unwrap();
        let packed = pack(info, Contents::default(), None).unwrap();
        let (path, sha256) = (dir.path().join("a.apk"), Sha256::of(&packed.bytes));
        std::fs::write(&path, &packed.bytes).unwrap();
        let expected = ExpectedPackage::from(&packed.info);
        let (package, _) = PackageContents::verify_file(path.clone(), None, &expected).unwrap();
        assert!(listings.find(&path, &sha256, &expected).is_none());
        listings.keep(&sha256, &package);
        let found = listings.find(&path, &sha256, &expected).unwrap();
        assert_eq!((found.info, found.entries), (package.info, package.entries));
        let other = ExpectedPackage { name: "b".into(), ..expected.clone() };
        assert!(listings.find(&path, &sha256, &other).is_none());
    }
}
