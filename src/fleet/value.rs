//! Values that are only ever made by parsing, so that no later code re-checks a string.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not the value it was meant to be: a whole sentence part, such as
/// `must be 1 to 11 of a-z, 0-9 and '-'`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

/// Declares a string type that holds only what `$check` accepts.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_name(text: &str, longest: usize, extra: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=longest).contains(&text.len())
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-' || extra.contains(&b))
}

text_type!(
    /// Name of a guest: 1 to 11 of `a-z0-9-`, so that `sis-<name>` fits the kernel's 15 bytes for an interface.
    GuestName,
    |t| is_name(t, 11, b""),
    "must be 1 to 11 of a-z, 0-9 and '-', beginning with a letter or digit"
);
text_type!(
    /// Name of a fleet: names the nft table, the cgroup and the state directory.
    FleetName,
    |t| is_name(t, 32, b""),
    "must be 1 to 32 of a-z, 0-9 and '-', beginning with a letter or digit"
);
text_type!(
    /// Name of a declared thing: an image, a disk, a network, a recipe, a kernel base or fragment.
    Label,
    |t| is_name(t, 64, b"_."),
    "must be 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
);
text_type!(
    /// Name of a snapshot, and of its directory in the store.
    SnapshotName,
    |t| is_name(t, 64, b"_."),
    "must be 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
);
text_type!(
    /// Name of a network interface: 1 to 15 bytes, no `/`, no white space (Linux `dev_valid_name`).
    InterfaceName,
    |t| (1..=15).contains(&t.len())
        && t != "."
        && t != ".."
        && t.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'"'),
    "must be 1 to 15 printable characters without '/', ':' and white space"
);
text_type!(
    /// Absolute path inside a guest, without `.`, `..`, doubled or trailing slashes, or control characters.
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
    KernelOption,
    |t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b.is_ascii_lowercase()),
    "must be a kernel option such as NET or CONFIG_NET"
);

impl KernelOption {
    /// Parses a name with or without its `CONFIG_` prefix.
    ///
    /// # Errors
    /// Where the rest holds anything but letters, digits and `_`.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.strip_prefix("CONFIG_").unwrap_or(text).parse()
    }
}

/// A size in bytes, written with a binary unit: `"512MiB"`, `"4GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const SIZE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl ByteSize {
    /// A size of so many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of so many MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in whole MiB, rounded down.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }
}

impl FromStr for ByteSize {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || {
            InvalidValue("must be a whole number with a binary unit, such as \"512MiB\" or \"4GiB\"".into())
        };
        let (digits, factor) = SIZE_UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))
            .ok_or_else(wrong)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(factor).map(Self).ok_or_else(|| InvalidValue("is larger than 2^64 bytes".into()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0 % factor == 0);
        match unit {
            Some((unit, factor)) => f.pad(&format!("{}{unit}", self.0 / factor)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

/// A network rate in bits per second, written `"20Mbit/s"` (decimal: 1 Mbit = 10^6 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || InvalidValue("must be a rate such as \"20Mbit/s\" (kbit/s, Mbit/s or Gbit/s)".into());
        let (digits, factor) = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)]
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))
            .ok_or_else(wrong)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let rate = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)?;
        if rate == 0 { Err(InvalidValue("must be more than zero".into())) } else { Ok(Self(rate)) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}kbit/s", self.0 / 1_000)
    }
}

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Digest of a whole text.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl FromStr for Sha256 {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map(|()| Self(bytes))
            .map_err(|_| InvalidValue("must be a SHA-256 digest: 64 hexadecimal digits".into()))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
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
    fn sizes_take_binary_units_alone() {
        assert_eq!("512MiB".parse::<ByteSize>().unwrap().bytes(), 512 << 20);
        assert_eq!("4GiB".parse::<ByteSize>().unwrap().to_string(), "4GiB");
        for wrong in ["512", "512MB", "-1MiB", "1.5GiB", "MiB", "99999999999TiB", "+1MiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_guest_path_cannot_leave_the_guest() {
        assert!("/etc/motd".parse::<GuestPath>().is_ok());
        for wrong in ["etc/motd", "/", "/etc/../x", "/etc//x", "/etc/", "/a\nb"] {
            assert!(wrong.parse::<GuestPath>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn rates_are_decimal_and_above_zero() {
        assert_eq!("20Mbit/s".parse::<Rate>().unwrap().bits_per_second(), 20_000_000);
        for wrong in ["20", "0Mbit/s", "20MB/s", "Mbit/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?} was accepted");
        }
    }
}
