//! Files that stand in place of a package or an index, and are none: each has words of its own, so that nothing is called damaged
//! that is not.

use crate::base::{Class, Diagnosis, Diagnostic, LfsPointer, web_page};

/// What a file is instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignFormat {
    #[error(
        "it is in apk 3's own format (ADB), and sisforge reads version 2, which Alpine's repositories have"
    )]
    Adb,
    #[error("it is an HTML page (perhaps a login page, or a 'not found' page) instead of a package or index")]
    WebPage,
    #[error("it is empty")]
    Empty,
    #[error(transparent)]
    Lfs(#[from] LfsPointer),
}

impl Diagnostic for ForeignFormat {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Adb => Class::Invalid.hint(
                "`abuild` and `sisforge apk pack` make packages of version 2; `apk index` and `sisforge apk \
                 index` an APKINDEX.tar.gz",
            ),
            Self::WebPage => Class::Invalid.hint(web_page::HINT),
            Self::Empty => Class::Invalid.hint(
                "get it again; `sisforge apk pack` and `sisforge apk index` make the packages and the index of your own repository",
            ),
            Self::Lfs(error) => error.diagnosis(),
        }
    }
}

impl ForeignFormat {
    /// Refuses what is known to be something else, by its first bytes.
    pub fn refuse(bytes: &[u8]) -> Result<(), Self> {
        LfsPointer::refuse(bytes)?;
        if bytes.is_empty() {
            Err(Self::Empty)
        } else if bytes.starts_with(b"ADB") {
            Err(Self::Adb)
        } else if web_page::is(bytes) {
            Err(Self::WebPage)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_something_else_is_told_by_its_beginning() {
        assert_eq!(ForeignFormat::refuse(b"ADB.pckg"), Err(ForeignFormat::Adb));
        for page in ["<!DOCTYPE html><p>", "\u{feff}\n <html lang=en>", "<?xml version='1.0'?>"] {
            assert_eq!(ForeignFormat::refuse(page.as_bytes()), Err(ForeignFormat::WebPage), "{page}");
        }
        assert_eq!(ForeignFormat::refuse(b""), Err(ForeignFormat::Empty));
        for other in [&b"\n"[..], b"\x1f\x8b\x08", b"AD", b"<"] {
            assert_eq!(ForeignFormat::refuse(other), Ok(()));
        }
    }
}
