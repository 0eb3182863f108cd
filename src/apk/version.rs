//! Version numbers and their order.

use std::fmt;

/// A valid apk version, such as `1.2.3_rc1-r0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
