//! Version numbers and their order, after apk-tools (`doc/apk-package.5`, `src/version.c` of 2.14 and 3.0).
//!
//! `digits{.digits}*[a-z]?(_suffix[n])*(~hex)?(-rN)?`, where digits may follow the letter (apk 2 alone), with the suffixes
//! alpha < beta < pre < rc < (none) < cvs < svn < git < hg < p.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An apk version, such as `1.2.3_rc1-r0`. Equal by text; in [`Version::compare`], apk's order,
/// different texts can be equal, such as `01` and `1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    text: CompactString,
    /// Whether apk can read it. What it cannot, such as `v1.2` or `1.0foo`, stands below all that it can.
    is_readable: bool,
}

/// A text that is no apk version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an apk version such as 1.2.3_rc1-r0")]
pub struct InvalidVersion(pub String);

impl Version {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What someone calls a version, readable or not: packages and what they provide have such, and apk takes them.
    ///
    /// # Errors
    /// Where it is empty, longer than 128 bytes, or holds what is not printable ASCII.
    pub fn of_anyone(text: &str) -> Result<Self, InvalidVersion> {
        let is_word = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let odd = || is_word.then(|| Self { text: text.into(), is_readable: false });
        text.parse().or_else(|error| odd().ok_or(error))
    }

    /// apk's order.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.compared(other, false)
    }

    /// apk's order, but equal where `prefix` ends and was equal so far: `1.2.3` is equal to the prefix `1.2`.
    pub fn compare_fuzzy(&self, prefix: &Self) -> Ordering {
        self.compared(prefix, true)
    }

    fn compared(&self, other: &Self, fuzzy: bool) -> Ordering {
        match (self.is_readable, other.is_readable) {
            (true, true) | (false, false) => compare(&self.text, &other.text, fuzzy),
            (readable, _) => readable.cmp(&!readable),
        }
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut parts = Parts::new(text);
        loop {
            match parts.step() {
                Part::End => return Ok(Self { text: text.into(), is_readable: true }),
                Part::Invalid => return Err(InvalidVersion(text.to_owned())),
                _ => {}
            }
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_anyone(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Suffixes in their order; those before `NO_SUFFIX` mark a version before the plain one.
const SUFFIXES: [&str; 10] = ["alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p"];
const NO_SUFFIX: usize = 4;

/// One part of a version. Parts that are numbers keep their digits: a leading zero changes how they compare.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part<'a> {
    First(&'a str),
    Number(&'a str),
    Letter(u8),
    /// Index into `SUFFIXES`.
    Suffix(usize),
    SuffixNumber(&'a str),
    Hash(&'a str),
    Revision(&'a str),
    End,
    Invalid,
}

impl Part<'_> {
    /// Where versions differ in the kind of a part, the lower rank is the greater version.
    fn rank(self) -> u8 {
        match self {
            Self::First(_) => 0,
            Self::Number(_) => 1,
            Self::Letter(_) => 2,
            Self::Suffix(_) => 3,
            Self::SuffixNumber(_) => 4,
            Self::Hash(_) => 5,
            Self::Revision(_) => 6,
            Self::End => 7,
            Self::Invalid => 8,
        }
    }

    fn is_pre_release(self) -> bool {
        matches!(self, Self::Suffix(index) if index < NO_SUFFIX)
    }

    /// Order of two parts of the same kind.
    fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) if a.starts_with('0') || b.starts_with('0') => a.cmp(b),
            (Self::First(a), Self::First(b))
            | (Self::Number(a), Self::Number(b))
            | (Self::SuffixNumber(a), Self::SuffixNumber(b))
            | (Self::Revision(a), Self::Revision(b)) => numeric(a).cmp(&numeric(b)),
            (Self::Letter(a), Self::Letter(b)) => a.cmp(&b),
            (Self::Suffix(a), Self::Suffix(b)) => a.cmp(&b),
            (Self::Hash(a), Self::Hash(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}

fn numeric(digits: &str) -> u64 {
    digits.bytes().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0')))
}

/// Reads a version part by part.
struct Parts<'a> {
    rest: &'a str,
    rank: Option<u8>,
}

impl<'a> Parts<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, rank: None }
    }

    fn step(&mut self) -> Part<'a> {
        let part = self.read().unwrap_or(Part::Invalid);
        self.rank = Some(part.rank());
        part
    }

    fn read(&mut self) -> Option<Part<'a>> {
        let Some(before) = self.rank else { return self.digits().map(Part::First) };
        let Some(first) = self.rest.bytes().next() else { return Some(Part::End) };
        match first {
            b'a'..=b'z' if before <= 1 => {
                self.rest = &self.rest[1..];
                Some(Part::Letter(first))
            }
            b'.' if before <= 1 => {
                self.rest = &self.rest[1..];
                self.digits().map(Part::Number)
            }
            // `6.8.0p2`: apk 3 no longer takes it in a dependency, but Alpine has such packages.
            b'0'..=b'9' if before == 2 => self.digits().map(Part::Number),
            b'0'..=b'9' if before == 3 => self.digits().map(Part::SuffixNumber),
            b'_' if before <= 4 => {
                let name = self.run(1, |b| b.is_ascii_lowercase());
                let index = SUFFIXES.iter().position(|suffix| *suffix == name)?;
                (index != NO_SUFFIX).then_some(Part::Suffix(index))
            }
            b'~' if before < 5 => {
                let hash = self.run(1, |b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                (!hash.is_empty()).then_some(Part::Hash(hash))
            }
            b'-' if before < 6 && self.rest.starts_with("-r") => {
                self.rest = &self.rest[2..];
                self.digits().map(Part::Revision)
            }
            _ => None,
        }
    }

    /// Takes `skip` bytes and then all that fit.
    fn run(&mut self, skip: usize, fits: fn(u8) -> bool) -> &'a str {
        let body = &self.rest[skip..];
        let (taken, rest) = body.split_at(body.bytes().position(|b| !fits(b)).unwrap_or(body.len()));
        self.rest = rest;
        taken
    }

    fn digits(&mut self) -> Option<&'a str> {
        let digits = self.run(0, |b| b.is_ascii_digit());
        (!digits.is_empty()).then_some(digits)
    }
}

fn compare(a: &str, b: &str, fuzzy: bool) -> Ordering {
    let (mut parts_a, mut parts_b) = (Parts::new(a), Parts::new(b));
    loop {
        let (a, b) = (parts_a.step(), parts_b.step());
        if a.rank() != b.rank() {
            return match (a, b) {
                (_, Part::End) if fuzzy => Ordering::Equal,
                (a, _) if a.is_pre_release() => Ordering::Less,
                (_, b) if b.is_pre_release() => Ordering::Greater,
                (a, b) => b.rank().cmp(&a.rank()),
            };
        }
        match a.order(b) {
            Ordering::Equal if matches!(a, Part::End | Part::Invalid) => return Ordering::Equal,
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn what_apk_cannot_read_stands_below_what_it_can() {
        let odd = |text: &str| Version::of_anyone(text).unwrap();
        for text in ["1.2.3-beta.1", "v1.2", "1.0foo", "99-x"] {
            assert_eq!(odd(text).compare(&version("0")), Ordering::Less, "{text}");
            assert_eq!(version("0_alpha").compare_fuzzy(&odd(text)), Ordering::Greater, "{text}");
            assert_eq!(odd(text).compare(&odd(text)), Ordering::Equal, "{text}");
        }
        assert_eq!(odd("1.0foo").compare(&odd("1.1foo")), Ordering::Less);
        assert_eq!(odd("1.0"), version("1.0"));
        for wrong in ["", "1 2", "1\u{1b}[2J", "\u{f6}"] {
            assert!(Version::of_anyone(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn versions_stand_in_apks_order() {
        let ascending = [
            "0.1_alpha",
            "0.1_beta1",
            "0.1_beta2",
            "0.1_pre1",
            "0.1_rc1",
            "0.1-r0",
            "0.1-r1",
            "0.1_cvs1",
            "0.1_git20200101",
            "0.1_p1",
            "0.1_p1_p2",
            "0.1a",
            "0.1.01",
            "0.1.1",
            "0.1.9",
            "0.1.10",
            "0.2",
            "1_rc1",
            "1_rc1_p1",
            "1",
            "1.0",
            "10",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(version(a).compare(&version(b)), i.cmp(&j), "{a} against {b}");
            }
        }
    }

    #[test]
    fn leading_zeros_compare_as_text_but_not_in_front() {
        assert_eq!(version("1.007").compare(&version("1.01")), Ordering::Less);
        assert_eq!(version("1.1").compare(&version("1.01")), Ordering::Greater);
        assert_eq!(version("01").compare(&version("1")), Ordering::Equal);
    }

    #[test]
    fn a_fuzzy_match_is_a_prefix_of_whole_parts() {
        for (full, prefix, equal) in [
            ("1.2.3-r4", "1.2", true),
            ("1.2.3-r4", "1.2.3", true),
            ("1.20", "1.2", false),
            ("1.2_rc1", "1.2", true),
            ("1.2", "1.2.3", false),
        ] {
            assert_eq!(version(full).compare_fuzzy(&version(prefix)).is_eq(), equal, "{full} ~ {prefix}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for wrong in [
            "",
            "a",
            "1.",
            "1_foo",
            "1-r",
            "1-r1-r2",
            "1.0bc",
            "1~",
            "1~xyz",
            "1 ",
            "1/2",
            "1_p1.2",
            "1-1",
            "0.1_beta1.1",
        ] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?} was accepted");
        }
        for right in [
            "1",
            "1.2.3",
            "1a",
            "1.2b_p3-r4",
            "6.8.0p2-r4",
            "6.3_p20220521-r0",
            "1_rc1~abc123-r0",
            "20220614-r0",
        ] {
            assert!(right.parse::<Version>().is_ok(), "{right:?} was refused");
        }
    }
}
