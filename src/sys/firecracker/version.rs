//! The versions of Firecracker and of its jailer.

use std::fmt;
use std::panic::resume_unwind;
use std::str::FromStr;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::tool::{self, Tool, ToolError};

/// A release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirecrackerVersion {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
}

impl fmt::Display for FirecrackerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for FirecrackerVersion {
    type Err = ();

    /// `1.16.1`; what a development build has behind it (`-dev`, `-dirty`) is passed over.
    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Vec<u64> =
            numbers.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| ())?;
        match numbers[..] {
            [major, minor, patch] => Ok(Self { major, minor, patch }),
            _ => Err(()),
        }
    }
}

/// A version that is not known.
#[derive(Debug, thiserror::Error)]
pub enum UnknownVersion {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("cannot read a version from {text:?}, the answer of {program} --version")]
    Text { program: &'static str, text: String },
}

impl Diagnostic for UnknownVersion {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::Text { .. } => Class::Failed.hint("install firecracker and jailer of one release"),
        }
    }
}

/// The versions of `firecracker` and `jailer`; `None` where one of them is not installed.
pub fn installed() -> Result<Option<(FirecrackerVersion, FirecrackerVersion)>, UnknownVersion> {
    if ["firecracker", "jailer"].iter().any(|program| tool::find(program).is_none()) {
        return Ok(None);
    }
    let (vmm, jailer) = std::thread::scope(|scope| {
        let jailer = scope.spawn(|| version_of("jailer"));
        (version_of("firecracker"), jailer.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    Ok(Some((vmm?, jailer?)))
}

/// The version of `firecracker` or `jailer`.
pub fn version_of(program: &'static str) -> Result<FirecrackerVersion, UnknownVersion> {
    let text = Tool::new(program).arg("--version").text()?;
    parse(program, &text).ok_or_else(|| UnknownVersion::Text {
        program,
        text: text.lines().next().unwrap_or_default().to_owned(),
    })
}

/// Reads `Firecracker v1.16.1`, behind which other lines may come, such as one of the log.
fn parse(program: &str, text: &str) -> Option<FirecrackerVersion> {
    let first = text.lines().next()?;
    let (name, version) = first.split_once(" v")?;
    if !name.eq_ignore_ascii_case(program) {
        return None;
    }
    version.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_the_first_line() {
        let of = |major, minor, patch| Some(FirecrackerVersion { major, minor, patch });
        let text = "Firecracker v1.16.1\n\n2026-11-25T17:55:37.816853715 [anonymous-instance:main] Firecracker exiting successfully. exit_code=0\n";
        assert_eq!(parse("firecracker", text), of(1, 16, 1));
        assert_eq!(parse("jailer", "Jailer v1.10.0\n\n"), of(1, 10, 0));
        assert_eq!(parse("firecracker", "Firecracker v1.17.0-dev\n"), of(1, 17, 0));
        let old = "Firecracker v1.4.0\n\nSupported snapshot data format versions: 0.23.0, 0.24.0\n";
        assert_eq!(parse("firecracker", old), of(1, 4, 0));
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in ["", "Firecracker", "Firecracker v1.16", "Jailer v1.16.1", "Firecracker vx.y.z"] {
            assert_eq!(parse("firecracker", text), None, "{text:?}");
        }
    }
}
