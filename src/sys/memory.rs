//! The host's memory, from `/proc/meminfo` (`Documentation/filesystems/proc.rst` in the kernel's sources).

use std::path::Path;

use super::fs::{FileError, read_text};

/// Huge pages of 2 MiB that a host has set aside, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePagePool {
    pub total: u64,
    /// Those that nobody has taken or reserved. What has mapped some and not touched them yet has taken none.
    pub free: u64,
}

/// The host's huge pages.
pub fn huge_pages() -> Result<HugePagePool, FileError> {
    Ok(parse_huge_pages(&read_text(Path::new("/proc/meminfo"))?))
}

/// Bytes that programs can have without any being swapped out; `None` where the kernel does not report it.
pub fn available() -> Option<u64> {
    parse_available(&read_text(Path::new("/proc/meminfo")).ok()?)
}

/// Bytes of RAM and swap together; `None` where the kernel does not report it.
pub fn total() -> Option<u64> {
    parse_total(&read_text(Path::new("/proc/meminfo")).ok()?)
}

fn parse_available(text: &str) -> Option<u64> {
    parse_kib(text, "MemAvailable:")
}

fn parse_total(text: &str) -> Option<u64> {
    Some(parse_kib(text, "MemTotal:")? + parse_kib(text, "SwapTotal:").unwrap_or(0))
}

fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix(key))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().ok()? << 10)
}

/// Nothing where the host has no huge pages, or ones of another size as its default.
fn parse_huge_pages(text: &str) -> HugePagePool {
    let value = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    match (value("Hugepagesize"), value("HugePages_Total"), value("HugePages_Free")) {
        (Some(2048), Some(total), Some(free)) => {
            let reserved = value("HugePages_Rsvd").unwrap_or(0);
            HugePagePool { total: total << 21, free: free.saturating_sub(reserved) << 21 }
        }
        _ => HugePagePool::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_in_bytes() {
        assert_eq!(parse_available("MemTotal:       16 kB\nMemAvailable:    8 kB\n"), Some(8192));
        assert_eq!(parse_available("MemTotal:       16 kB\n"), None);
        assert_eq!(parse_total("MemTotal:       16 kB\nSwapTotal:       8 kB\n"), Some(24 << 10));
    }

    #[test]
    fn free_huge_pages_are_those_that_nobody_has_taken_or_reserved() {
        let text = "MemTotal: 8 kB\nHugePages_Total:      64\nHugePages_Free:       40\nHugePages_Rsvd:        8\nHugepagesize:       2048 kB\n";
        assert_eq!(parse_huge_pages(text), HugePagePool { total: 128 << 20, free: 64 << 20 });
        assert_eq!(parse_huge_pages(&text.replace("2048", "1048576")), HugePagePool::default());
        assert_eq!(parse_huge_pages("MemTotal: 8 kB\n"), HugePagePool::default());
    }
}
