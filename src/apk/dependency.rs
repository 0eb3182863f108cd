//! What packages and the world ask for, and the checksums that identify packages.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use compact_str::CompactString;
use sha1::Digest as _;

use super::version::Version;

/// One dependency of a package or of the world: `[!]name[op version][@tag]`. The same form, without `!`, says what a package
/// provides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dependency {
    /// An index has a hundred thousand of these: most fit without memory of their own.
    pub name: CompactString,
    /// `!`: whatever matches must not be there.
    pub conflict: bool,
    pub constraint: Constraint,
    /// `@tag`, without the `@`: from a tagged repository. In the world alone.
    pub tag: Option<CompactString>,
}

/// Which versions fit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constraint {
    Any,
    Version {
        operator: Operator,
        version: Version,
    },
    /// `><Q1...`: this very package.
    Checksum(Checksum),
}

/// Comparisons of which one must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operator {
    pub less: bool,
    pub equal: bool,
    pub greater: bool,
    /// `~`: the version is a prefix of the other.
    pub fuzzy: bool,
}

impl Operator {
    fn parse(text: &str) -> Self {
        let has = |c| text.contains(c);
        Self { less: has('<'), equal: has('=') || has('~'), greater: has('>'), fuzzy: has('~') }
    }

    /// Does `candidate` fit `wanted`?
    pub fn holds(self, candidate: &Version, wanted: &Version) -> bool {
        let order = if self.fuzzy { candidate.compare_fuzzy(wanted) } else { candidate.compare(wanted) };
        match order {
            Ordering::Less => self.less,
            Ordering::Equal => self.equal,
            Ordering::Greater => self.greater,
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.less {
            f.write_str("<")?;
        }
        if self.greater {
            f.write_str(">")?;
        }
        match (self.fuzzy, self.equal) {
            (true, _) => f.write_str("~"),
            (false, true) => f.write_str("="),
            _ => Ok(()),
        }
    }
}

/// A text that is no dependency.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a dependency such as podman, podman~5, podman>=5.0 or !podman")]
pub struct InvalidDependency(pub String);

impl Dependency {
    /// Any version of a name.
    pub fn any(name: impl Into<CompactString>) -> Self {
        Self { name: name.into(), conflict: false, constraint: Constraint::Any, tag: None }
    }

    /// The version that this provides, where it stands in a list of what is provided.
    pub fn provided_version(&self) -> Option<&Version> {
        match &self.constraint {
            Constraint::Version { version, .. } => Some(version),
            _ => None,
        }
    }

    /// Reads what a package provides. A version that apk cannot read, as in `pc:x264=v2.4`, is no fault: the name stays.
    ///
    /// # Errors
    /// Where there is no name.
    pub fn provided(text: &str) -> Result<Self, InvalidDependency> {
        let invalid = || InvalidDependency(text.to_owned());
        text.parse().or_else(|error| match text.split_once('=') {
            Some((name, version)) if is_name(name) => {
                let version = Version::of_anyone(version).map_err(|_| invalid())?;
                let constraint = Constraint::Version { operator: Operator::parse("="), version };
                Ok(Self { constraint, ..Self::any(name) })
            }
            _ => Err(error),
        })
    }

    /// Reads dependencies parted by white space.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidDependency> {
        text.split([' ', '\n']).filter(|word| !word.is_empty()).map(str::parse).collect()
    }

    /// Is this dependency met where a package with this checksum has its name in this version (`None`: without one)?
    /// A conflict is met where nothing of it is there.
    ///
    /// A name without a version meets no dependency for a version (apk 2.14).
    pub fn is_met_by(&self, version: Option<&Version>, checksum: &Checksum) -> bool {
        let matches = match (&self.constraint, version) {
            (Constraint::Any, _) => true,
            (Constraint::Checksum(wanted), _) => wanted == checksum,
            (Constraint::Version { .. }, None) => false,
            (Constraint::Version { operator, version: wanted }, Some(version)) => {
                operator.holds(version, wanted)
            }
        };
        matches != self.conflict
    }

    /// The same of a name without a version where that stands below every version, as apk 3 has it.
    pub fn is_met_from_below(&self, checksum: &Checksum) -> bool {
        match &self.constraint {
            Constraint::Version { operator, .. } => operator.less != self.conflict,
            Constraint::Any | Constraint::Checksum(_) => self.is_met_by(None, checksum),
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'=' | b'~' | b'@' | b'!');
    !text.is_empty() && text.bytes().all(is_plain)
}

impl FromStr for Dependency {
    type Err = InvalidDependency;

    fn from_str(text: &str) -> Result<Self, InvalidDependency> {
        let invalid = || InvalidDependency(text.to_owned());
        let body = text.strip_prefix('!').unwrap_or(text);
        let is_operator = |b: u8| matches!(b, b'<' | b'>' | b'=' | b'~');
        let (name, rest) = body.split_at(body.bytes().position(is_operator).unwrap_or(body.len()));
        let (operator, value) =
            rest.split_at(rest.bytes().position(|b| !is_operator(b)).unwrap_or(rest.len()));
        let constraint = match operator {
            "" => Constraint::Any,
            "><" => Constraint::Checksum(value.parse().map_err(|_| invalid())?),
            // apk takes both together for a checksum, whatever else stands beside them.
            operator if operator.contains('<') && operator.contains('>') => return Err(invalid()),
            operator => Constraint::Version {
                operator: Operator::parse(operator),
                version: value.parse().map_err(|_| invalid())?,
            },
        };
        let (name, tag) = match name.split_once('@') {
            Some((name, tag)) if is_name(tag) => (name, Some(tag.into())),
            Some(_) => return Err(invalid()),
            None => (name, None),
        };
        if !is_name(name) {
            return Err(invalid());
        }
        Ok(Self { name: name.into(), conflict: body.len() != text.len(), constraint, tag })
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bang = if self.conflict { "!" } else { "" };
        write!(f, "{bang}{}", self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, "@{tag}")?;
        }
        match &self.constraint {
            Constraint::Any => Ok(()),
            Constraint::Version { operator, version } => write!(f, "{operator}{version}"),
            Constraint::Checksum(checksum) => write!(f, "><{checksum}"),
        }
    }
}

/// A SHA-1 as apk writes it, `Q1` and base64: of a package's compressed control member (its identity), of a file,
/// or of a symlink's target.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Checksum(pub [u8; 20]);

/// A text that is no checksum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is {what}", text = .0, what = what_else(.0))]
pub struct InvalidChecksum(pub String);

/// What a text is that is no checksum. apk 3 reads a SHA-256 of a package in an index, and then finds the package damaged; apk 2.14
/// unpacks it and cannot write it down. That of a package in apk 3's own format is a shortened one, and written as a SHA-1 is.
fn what_else(text: &str) -> &'static str {
    match text.get(..2) {
        Some("Q2" | "X2") => {
            "a SHA-256, by which no apk can install a package: its repository must list the SHA-1 (Q1)"
        }
        _ => "not a checksum: Q1 and 28 characters of base64",
    }
}

/// As apk reads it: what the last character says beyond the last byte counts for nothing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

impl Checksum {
    /// Of these bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha1::Sha1::digest(bytes).into())
    }

    /// The same in hexadecimal digits, `X1` before them.
    pub fn to_hex(&self) -> String {
        format!("X1{}", hex::encode(self.0))
    }
}

impl FromStr for Checksum {
    type Err = InvalidChecksum;

    fn from_str(text: &str) -> Result<Self, InvalidChecksum> {
        let bytes = if let Some(base64) = text.strip_prefix("Q1") {
            BASE64.decode(base64).ok()
        } else if let Some(digits) = text.strip_prefix("X1") {
            hex::decode(digits).ok()
        } else {
            None
        };
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| InvalidChecksum(text.to_owned()))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Q1{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_and_written_alike() {
        for text in [
            "podman",
            "podman~5",
            "podman>=5.0-r1",
            "!podman",
            "!podman<5",
            "so:libc.musl-x86_64.so.1=1",
            "cmd:[=1.35.0-r17",
            "podman@edge",
            "podman@edge>5",
            "/bin/sh",
            "pc:libfoo<=2",
            "py3.10:setuptools=60",
            "a><Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "a<~2",
            "a>~2",
        ] {
            assert_eq!(text.parse::<Dependency>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_dependency_is_refused() {
        for wrong in ["", "!", "=1", "a=", "a=b", "a b", "a@", "a\u{7}", "a><Q1", "a=1=2", "a<>1", "a<=>1"] {
            assert!(wrong.parse::<Dependency>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_name_without_a_version_meets_only_a_dependency_without_one() {
        let any = Checksum([0; 20]);
        let dependency = |text: &str| text.parse::<Dependency>().unwrap();
        assert!(dependency("a").is_met_by(None, &any));
        assert!(!dependency("a<2").is_met_by(None, &any));
        assert!(dependency("!a<2").is_met_by(None, &any));
        assert!(dependency("a<2").is_met_by(Some(&"1".parse().unwrap()), &any));
        assert!(!dependency("!a").is_met_by(Some(&"1".parse().unwrap()), &any));
    }
}
