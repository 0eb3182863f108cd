//! The host's processor as `/proc/cpuinfo` shows it (proc(5)), on x86-64.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::fs::{FileError, read_text};

/// What two processors must have in common to go on with each other's guests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Such as `GenuineIntel`.
    pub vendor: String,
    /// The brand string, such as `AMD EPYC 9R14`.
    pub model: String,
    /// Family, model and stepping, such as `26.17.1`: many models may share a brand string.
    pub signature: String,
    /// SHA-256, in hexadecimal, of the sorted names of what it can do; microcode and the kernel change them.
    pub flags: String,
}

/// The processor of this host; that of the first CPU speaks for all.
pub fn this_host() -> Result<Cpu, FileError> {
    Ok(parse_cpuinfo(&read_text(Path::new("/proc/cpuinfo"))?))
}

/// Reads the first processor of `/proc/cpuinfo`; what is not told is empty.
pub fn parse_cpuinfo(text: &str) -> Cpu {
    let first = text.split("\n\n").next().unwrap_or_default();
    let value = |key: &str| {
        let pairs = first.lines().filter_map(|line| line.split_once(':'));
        pairs.into_iter().find_map(|(name, value)| (name.trim() == key).then(|| value.trim().to_owned()))
    };
    let of = |key: &str| value(key).unwrap_or_default();
    let flags: BTreeSet<_> = of("flags").split_whitespace().map(str::to_owned).collect();
    let flags = flags.into_iter().collect::<Vec<_>>().join(" ");
    Cpu {
        vendor: of("vendor_id"),
        model: of("model name"),
        signature: [of("cpu family"), of("model"), of("stepping")].join("."),
        flags: hex::encode(sha2::Sha256::digest(flags)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 17\n\
        model name\t: AMD EPYC\nstepping\t: 1\nflags\t\t: fpu sse2 sse\n\nprocessor\t: 1\nvendor_id\t: Other\n";

    #[test]
    fn a_processor_is_told_by_its_first_cpu() {
        let cpu = parse_cpuinfo(TEXT);
        let told = (cpu.vendor.as_str(), cpu.model.as_str(), cpu.signature.as_str());
        assert_eq!(told, ("AuthenticAMD", "AMD EPYC", "26.17.1"));
        assert_eq!(parse_cpuinfo("").model, "");
    }

    #[test]
    fn the_order_of_its_flags_plays_no_part_and_each_of_them_does() {
        assert_eq!(parse_cpuinfo(&TEXT.replace("sse2 sse", "sse sse2")), parse_cpuinfo(TEXT));
        assert_ne!(parse_cpuinfo(&TEXT.replace(" sse2", "")).flags, parse_cpuinfo(TEXT).flags);
    }
}
