//! Debian packages: a `.deb` read into its control fields and its files (`deb(5)`, `deb-control(5)`), and Debian's versions as
//! apk's.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fs::input_diagnosis;
use crate::sys::xz;

use super::archive::{ArchiveError, TarReader};
use super::contents::{Contents, ContentsError};
use super::version::Version;

/// Largest control member, inflated.
const MAX_CONTROL: u64 = 16 << 20;

/// What is wrong with a `.deb`.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    #[error("it is not a Debian package: {0}")]
    Ar(#[source] io::Error),
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("{member} is compressed with {method}, which is not supported; xz, gzip and none are")]
    Compression { member: String, method: String },
    #[error("{member}: {reason}")]
    Member { member: String, reason: ArchiveError },
    #[error("data: {0}")]
    Contents(#[from] ContentsError),
    #[error("architecture '{0}' is not known")]
    Architecture(String),
    #[error("version '{0}' cannot be written as an apk version")]
    Version(String),
}

impl Diagnostic for DebError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Ar(error) => input_diagnosis(error),
            Self::Compression { .. } => Class::Invalid.hint(
                "build it again, for example with `dpkg-deb \
              --build -Zxz`",
            ),
            Self::Member { reason, .. } => reason.diagnosis(),
            Self::Contents(error) => error.diagnosis(),
            Self::Version(_) => Class::Invalid.hint("give one with --pkgver"),
            Self::Missing(_) | Self::Architecture(_) => Class::Invalid.no_hint(),
        }
    }
}

/// A `.deb`'s control fields; its files are read by [`Deb::contents`].
#[derive(Clone, Debug)]
pub struct Deb {
    bytes: Vec<u8>,
    fields: BTreeMap<String, String>,
    /// Maintainer scripts, which no apk runs: `postinst` and the like.
    pub scripts: Vec<String>,
}

impl Deb {
    /// Reads the control member of a whole `.deb`.
    pub fn read(bytes: Vec<u8>) -> Result<Self, DebError> {
        let mut fields = BTreeMap::new();
        let mut scripts = Vec::new();
        with_member(&bytes, "control.tar", |member, tar| {
            let failed = |reason| DebError::Member { member: member.to_owned(), reason };
            let mut reader = TarReader::new(tar.take(MAX_CONTROL));
            while let Some(entry) = reader.next_entry().map_err(failed)? {
                match entry.path.trim_start_matches("./") {
                    "control" => {
                        let mut text = String::new();
                        reader.read_to_string(&mut text).map_err(|error| failed(error.into()))?;
                        fields = parse_control(&text);
                    }
                    script @ ("preinst" | "postinst" | "prerm" | "postrm" | "triggers" | "config") => {
                        scripts.push(script.to_owned());
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        scripts.sort();
        if !fields.contains_key("Package") {
            return Err(DebError::Missing("Package field"));
        }
        Ok(Self { bytes, fields, scripts })
    }

    /// A control field, or an empty text.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The version as apk's.
    pub fn version(&self) -> Result<Version, DebError> {
        map_version(self.field("Version")).ok_or_else(|| DebError::Version(self.field("Version").to_owned()))
    }

    /// The architecture by apk's name.
    pub fn architecture(&self) -> Result<&'static str, DebError> {
        Ok(match self.field("Architecture") {
            "all" => "noarch",
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            "armhf" => "armv7",
            "i386" => "x86",
            "ppc64el" => "ppc64le",
            "riscv64" => "riscv64",
            "s390x" => "s390x",
            other => return Err(DebError::Architecture(other.to_owned())),
        })
    }

    /// The name of the source package.
    pub fn source(&self) -> &str {
        let source = self.field("Source").split(' ').next().unwrap_or_default();
        if source.is_empty() { self.field("Package") } else { source }
    }

    /// Clauses of `Pre-Depends` and `Depends`, each a list of alternative names. Debian's version constraints are dropped: they
    /// hold for the versions of one Debian release, which all packages of a call come from.
    pub fn depends(&self) -> Vec<Vec<&str>> {
        let clauses = self.field("Pre-Depends").split(',').chain(self.field("Depends").split(','));
        clauses
            .map(|clause| clause.split('|').map(name_of).filter(|name| !name.is_empty()).collect::<Vec<_>>())
            .filter(|names| !names.is_empty())
            .collect()
    }

    /// Names that the package provides. Their versions are dropped: in Debian several packages may provide the same name, while
    /// to apk one that does so with a version owns it.
    pub fn provides(&self) -> Vec<&str> {
        self.field("Provides").split(',').map(name_of).filter(|name| !name.is_empty()).collect()
    }

    /// The files.
    pub fn contents(&self) -> Result<Contents, DebError> {
        let mut contents = Contents::default();
        with_member(&self.bytes, "data.tar", |_, tar| {
            contents = Contents::from_tar(tar)?;
            Ok(())
        })?;
        Ok(contents)
    }
}

/// The name in `libc6:any (>= 2.34)`.
fn name_of(item: &str) -> &str {
    let item = item.trim_start();
    &item[..item.find([' ', ':', '(', '[', '\n']).unwrap_or(item.len())]
}

/// Fields of a control file; of one that spans lines, the first.
fn parse_control(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with([' ', '\t']));
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// Gives the tar of one member, `control.tar.*` or `data.tar.*`, decompressed.
fn with_member(
    bytes: &[u8],
    stem: &'static str,
    read: impl FnOnce(&str, &mut dyn Read) -> Result<(), DebError>,
) -> Result<(), DebError> {
    let mut archive = ar::Archive::new(bytes);
    while let Some(entry) = archive.next_entry() {
        let mut entry = entry.map_err(DebError::Ar)?;
        let name = String::from_utf8_lossy(entry.header().identifier()).trim_end_matches('/').to_owned();
        let Some(method) = name.strip_prefix(stem) else { continue };
        return match method {
            "" => read(&name, &mut entry),
            ".gz" => read(&name, &mut flate2::read::GzDecoder::new(entry)),
            ".xz" => {
                let stream = xz::decoder(0).map_err(DebError::Ar)?;
                read(&name, &mut liblzma::read::XzDecoder::new_stream(entry, stream))
            }
            other => Err(DebError::Compression { member: name.clone(), method: other[1..].to_owned() }),
        };
    }
    Err(DebError::Missing(stem))
}

/// Suffixes that mean the same to both after `~`, and version control systems that apk knows.
const PRE_RELEASES: [&str; 4] = ["alpha", "beta", "pre", "rc"];
const REPOSITORIES: [&str; 4] = ["cvs", "svn", "git", "hg"];
/// apk 2 takes no number of 18 digits.
const MAX_DIGITS: usize = 17;

/// Maps a Debian version to one of apk, keeping the order where apk has words for it.
///
/// The epoch is dropped. The leading `1.2.3` stays; every number after it becomes a suffix `_pN`, which is later than the plain
/// version, and after `~` a suffix `_preN`, which is earlier (or `_alphaN`, `_betaN`, `_rcN` where Debian says so). Words
/// without a number, such as `dfsg`, are dropped. `4.3.1+ds1-8+deb12u1` becomes `4.3.1_p1_p8_p12_p1-r0`.
pub fn map_version(debian: &str) -> Option<Version> {
    let debian = debian.split_once(':').map_or(debian, |(_, rest)| rest).trim();
    let mut rest = debian;
    let mut mapped = String::new();
    loop {
        let (digits, after) = split_run(rest, |b| b.is_ascii_digit());
        mapped.push_str(&digits[..digits.len().min(MAX_DIGITS)]);
        rest = after;
        let next = after.as_bytes();
        match (next.first(), next.get(1)) {
            (Some(b'.'), Some(b'0'..=b'9')) => {
                mapped.push('.');
                rest = &after[1..];
            }
            // A letter alone belongs to the version: 1.1.1n.
            (Some(letter @ b'a'..=b'z'), after_it) if !after_it.is_some_and(u8::is_ascii_alphanumeric) => {
                mapped.push(char::from(*letter));
                rest = &after[1..];
                break;
            }
            _ => break,
        }
    }
    let mut before_release = false;
    while !rest.is_empty() {
        let (separators, after) = split_run(rest, |b| !b.is_ascii_alphanumeric());
        before_release |= separators.contains('~');
        let (word, after) = split_run(after, |b| b.is_ascii_alphabetic());
        let (digits, after) = split_run(after, |b| b.is_ascii_digit());
        rest = after;
        let word = word.to_ascii_lowercase();
        let suffix = match word.as_str() {
            word if before_release && PRE_RELEASES.contains(&word) => word,
            _ if before_release => "pre",
            word if REPOSITORIES.contains(&word) => word,
            _ if digits.is_empty() => continue,
            _ => "p",
        };
        before_release = false;
        let digits = digits.trim_start_matches('0');
        let digits = if digits.is_empty() { "0" } else { &digits[..digits.len().min(MAX_DIGITS)] };
        mapped.push_str(&format!("_{suffix}{digits}"));
    }
    format!("{mapped}-r0").parse().ok()
}

fn split_run(text: &str, fits: fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !fits(b)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_versions_become_apk_versions() {
        for (debian, apk) in [
            ("4.3.1+ds1-8+deb12u1", "4.3.1_p1_p8_p12_p1-r0"),
            ("1:1.35.0-4+deb12u1+b1", "1.35.0_p4_p12_p1_p1-r0"),
            ("2.36-9+deb12u14", "2.36_p9_p12_p14-r0"),
            ("1:4.13+dfsg1-1+deb12u2", "4.13_p1_p1_p12_p2-r0"),
            ("1.1.1n-0+deb11u5", "1.1.1n_p0_p11_p5-r0"),
            ("1:9.2p1-2+deb12u3", "9.2_p1_p2_p12_p3-r0"),
            ("0~20230304", "0_pre20230304-r0"),
            ("2.0~rc1-1", "2.0_rc1_p1-r0"),
            ("1.0+git20201010-1", "1.0_git20201010_p1-r0"),
            ("20230311", "20230311-r0"),
            ("6.4-4", "6.4_p4-r0"),
        ] {
            assert_eq!(map_version(debian).unwrap().as_str(), apk, "{debian}");
        }
        assert_eq!(map_version("v1"), None);
    }

    #[test]
    fn mapped_versions_keep_their_order() {
        let ascending =
            ["1.0~beta1-1", "1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-1+deb12u1", "1.0-2", "1.0.1-1", "1.1-1"];
        for pair in ascending.windows(2) {
            let [earlier, later] = [map_version(pair[0]).unwrap(), map_version(pair[1]).unwrap()];
            assert!(earlier.compare(&later).is_lt(), "{earlier} < {later}");
        }
    }

    #[test]
    fn a_package_that_is_compressed_otherwise_is_refused_by_name() {
        let mut builder = ar::Builder::new(Vec::new());
        for name in ["debian-binary", "control.tar.zst"] {
            builder.append(&ar::Header::new(name.into(), 0), io::empty()).unwrap();
        }
        let error = Deb::read(builder.into_inner().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "control.tar.zst is compressed with zst, which is not supported; xz, gzip and none are"
        );
    }
}
