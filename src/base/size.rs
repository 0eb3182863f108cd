//! Sizes in bytes and rates in bits per second, as people write them.

use std::fmt;
use std::str::FromStr;

use super::{Found, InvalidValue};

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
        let unit = SIZE_UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => f.pad(&format!("{}{unit}", self.0 / factor)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

/// A network rate in bits per second, written `"20Mbit/s"` (decimal: 1 Mbit = 10^6 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// The most bits per second: no interface of a guest is faster, and a faster queue would let nothing go at once, since the kernel
/// counts that as time.
const FASTEST: u64 = 100_000_000_000;

impl Rate {
    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Bytes per second, at least one.
    pub const fn bytes_per_second(self) -> u64 {
        if self.0 < 16 { 1 } else { self.0 / 8 }
    }
}

/// How fast a guest may send and be sent; `None` is no limit. What is found on a host, `Found<u64>`, is in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates<R = Rate> {
    /// Of what the guest sends.
    pub up: Option<R>,
    /// Of what it gets.
    pub down: Option<R>,
}

impl<R> Default for Rates<R> {
    fn default() -> Self {
        Self { up: None, down: None }
    }
}

impl Rates {
    /// The same in bytes a second.
    pub fn bytes_per_second(self) -> Rates<u64> {
        let bytes = |rate: Option<Rate>| rate.map(Rate::bytes_per_second);
        Rates { up: bytes(self.up), down: bytes(self.down) }
    }
}

impl Rates<u64> {
    /// As they are found where all is as it should be.
    pub fn whole(self) -> Rates<Found<u64>> {
        Rates { up: self.up.map(Found::Whole), down: self.down.map(Found::Whole) }
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
        match rate {
            0 => Err(InvalidValue("must be more than zero".into())),
            1..=FASTEST => Ok(Self(rate)),
            _ => Err(InvalidValue("must be at most 100Gbit/s".into())),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}kbit/s", self.0 / 1_000)
    }
}

/// How often something may happen in a second, written `"100/s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerSecond(u32);

impl PerSecond {
    /// So many times a second; not at all where that is 0.
    pub const fn new(times: u32) -> Self {
        Self(times)
    }

    /// Times in a second.
    pub const fn times(self) -> u32 {
        self.0
    }
}

impl FromStr for PerSecond {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let digits = text.strip_suffix("/s").map(str::trim_end);
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(times @ 1..=1_000_000) => Ok(Self(times)),
            _ => Err(InvalidValue("must be from \"1/s\" to \"1000000/s\"".into())),
        }
    }
}

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units_alone() {
        assert_eq!("512MiB".parse::<ByteSize>().unwrap().bytes(), 512 << 20);
        assert_eq!("4GiB".parse::<ByteSize>().unwrap().to_string(), "4GiB");
        for wrong in ["512", "512MB", "-1MiB", "1.5GiB", "MiB", "99999999999TiB", "+1MiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_frequency_is_in_whole_times_a_second() {
        assert_eq!("100/s".parse::<PerSecond>().unwrap().to_string(), "100/s");
        for wrong in ["100", "0/s", "1000001/s", "1.5/s", "100/min", "/s", "+1/s"] {
            assert!(wrong.parse::<PerSecond>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn rates_are_decimal_and_above_zero() {
        assert_eq!("20Mbit/s".parse::<Rate>().unwrap().bits_per_second(), 20_000_000);
        assert_eq!("100Gbit/s".parse::<Rate>().unwrap().bits_per_second(), FASTEST);
        for wrong in ["20", "0Mbit/s", "20MB/s", "Mbit/s", "101Gbit/s", "999999Gbit/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?} was accepted");
        }
    }
}
