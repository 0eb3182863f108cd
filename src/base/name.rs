//! Names: values that are only ever made by parsing, so that no later code re-checks a string.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::text::natural_order;

/// Why a text is not the value it was meant to be: a whole sentence part, such as
/// `must be 1 to 11 of a-z, 0-9 and '-'`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

/// Declares a string type that holds only what `$check` accepts.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidValue($rule.to_owned()))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        serde_as_text!($name);
    };
}

fn is_name(text: &str, longest: usize, extra: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=longest).contains(&text.len())
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-' || extra.contains(&b))
}

text_type!(
    /// Name of a guest: 1 to 11 of `a-z0-9-`, so that `sis-<name>` fits the kernel's 15 bytes for an interface. Names are ordered as
    /// people count ([`natural_order`]): `v-2` comes before `v-10`.
    GuestName,
    |t| is_name(t, 11, b""),
    "must be 1 to 11 of a-z, 0-9 and '-', beginning with a letter or digit"
);
text_type!(
    /// Name of a fleet: names the nft table, the cgroup and the state directory.
    #[derive(PartialOrd, Ord)]
    FleetName,
    |t| is_name(t, 32, b""),
    "must be 1 to 32 of a-z, 0-9 and '-', beginning with a letter or digit"
);
text_type!(
    /// Name of a declared thing: an image, a disk, a network, a recipe, a kernel base or fragment.
    #[derive(PartialOrd, Ord)]
    Label,
    |t| is_name(t, 64, b"_."),
    "must be 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
);
text_type!(
    /// Name of a snapshot, and of its directory in the store.
    #[derive(PartialOrd, Ord)]
    SnapshotName,
    |t| is_name(t, 64, b"_."),
    "must be 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
);
text_type!(
    /// Name of a network interface: 1 to 15 bytes, no `/`, no white space (Linux `dev_valid_name`).
    #[derive(PartialOrd, Ord)]
    InterfaceName,
    |t| (1..=15).contains(&t.len())
        && t != "."
        && t != ".."
        && t.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'"'),
    "must be 1 to 15 printable characters without '/', ':' and white space"
);
text_type!(
    /// Absolute path inside a guest, without `.`, `..`, doubled or trailing slashes, or control characters.
    #[derive(PartialOrd, Ord)]
    GuestPath,
    |t| t.len() > 1
        && t.len() < 4096
        && t.starts_with('/')
        && !t.chars().any(char::is_control)
        && t[1..].split('/').all(|part| !part.is_empty() && part != "." && part != ".."),
    "must be an absolute path without '.', '..', doubled slashes or control characters"
);
text_type!(
    /// Name of a kernel option without the `CONFIG_` prefix.
    #[derive(PartialOrd, Ord)]
    KernelOption,
    |t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b.is_ascii_lowercase()),
    "must be a kernel option such as NET or CONFIG_NET"
);

/// Whether a name can be part of host names (RFC 1123), and of names that sisforge puts together with `-`. Guests that an earlier
/// sisforge started may have others.
pub fn is_host_label(name: &str) -> bool {
    !name.starts_with('-') && !name.ends_with('-') && !name.contains("--")
}

impl Ord for GuestName {
    fn cmp(&self, other: &Self) -> Ordering {
        natural_order(&self.0, &other.0)
    }
}

impl PartialOrd for GuestName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl GuestName {
    /// A guest as `fleet.toml` may name one.
    pub fn declared(text: &str) -> Result<Self, InvalidValue> {
        let name: Self = text.parse()?;
        if is_host_label(text) {
            Ok(name)
        } else {
            Err(InvalidValue(
                "must be of a-z and 0-9 with single '-' between them, as in host names".to_owned(),
            ))
        }
    }
}

impl KernelOption {
    /// Parses a name with or without its `CONFIG_` prefix.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.strip_prefix("CONFIG_").unwrap_or(text).parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_name_fits_an_interface_name() {
        assert!("alice".parse::<GuestName>().is_ok());
        assert!("kiosk-19".parse::<GuestName>().is_ok());
        for wrong in ["", "twelve-bytes", "Alice", "-a", "a/b", "a.b", "ä"] {
            assert!(wrong.parse::<GuestName>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn what_is_declared_is_part_of_host_names() {
        assert!(GuestName::declared("kiosk-19").is_ok());
        for wrong in ["a-", "a--b", "sisforge--a", "a---1", "-a", "a.b"] {
            assert!(GuestName::declared(wrong).is_err(), "{wrong:?} was accepted");
        }
        // What an earlier sisforge left on a host keeps its name.
        assert!("a--b".parse::<GuestName>().is_ok());
    }

    #[test]
    fn a_guest_path_cannot_leave_the_guest() {
        assert!("/etc/motd".parse::<GuestPath>().is_ok());
        for wrong in ["etc/motd", "/", "/etc/../x", "/etc//x", "/etc/", "/a\nb"] {
            assert!(wrong.parse::<GuestPath>().is_err(), "{wrong:?} was accepted");
        }
    }
}
