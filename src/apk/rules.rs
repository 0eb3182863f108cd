//! Two apks, of which each image has one: where they decide differently, its own decides.

use super::info::PackageInfo;

/// Whose rules hold. Alpine has apk-tools 2.14 up to 3.22, and 3 from 3.23 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// apk-tools 2.14.
    Apk2,
    /// apk-tools 3.
    Apk3,
}

impl Rules {
    /// Those of the newest apk-tools among these packages; those of apk 3 where there is none.
    pub fn of<'a>(packages: impl Iterator<Item = &'a PackageInfo>) -> Self {
        let apk = packages.filter(|package| package.name == "apk-tools").map(|package| &package.version);
        let newest = apk.reduce(|a, b| if b.compare(a).is_gt() { b } else { a });
        if newest.is_some_and(|version| version.as_str().starts_with("2.")) { Self::Apk2 } else { Self::Apk3 }
    }
}
