//! Files that stand in place of a package or an index, and are none: each has words of its own, so that nothing is called damaged
//! that is not.

use crate::base::{Class, Diagnosis, Diagnostic, LfsPointer};

/// What a file is instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignFormat {
    #[error(
        "it is in apk 3's own format (ADB), and sisforge reads version 2, which Alpine's repositories have"
    )]
    Adb,
    #[error("it is an HTML page (perhaps a login page, or a 'not found' page) instead of a package or index")]
    WebPage,
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
            Self::WebPage => Class::Invalid.hint(
                "look at its address with a browser: something else \
              answers there",
            ),
            Self::Lfs(error) => error.diagnosis(),
        }
    }
}

impl ForeignFormat {
    /// Refuses what is known to be something else, by its first bytes.
    pub fn refuse(bytes: &[u8]) -> Result<(), Self> {
        LfsPointer::refuse(bytes)?;
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
        let begins = |with: &str| {
            text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
        };
        if bytes.starts_with(b"ADB") {
            Err(Self::Adb)
        } else if ["<!doctype html", "<html", "<head", "<?xml", "<!--"].into_iter().any(begins) {
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
        for other in [&b""[..], b"\x1f\x8b\x08", b"AD", b"<"] {
            assert_eq!(ForeignFormat::refuse(other), Ok(()));
        }
    }
}
