//! The host's memory, from `/proc/meminfo` (`Documentation/filesystems/proc.rst` in the kernel's sources).

use std::path::Path;

use super::fs::{FileError, read_text};

/// Bytes of huge pages, 2 MiB each, that nobody has taken.
///
/// # Errors
/// Where `/proc/meminfo` cannot be read.
pub fn free_huge_pages() -> Result<u64, FileError> {
    Ok(parse_free_huge_pages(&read_text(Path::new("/proc/meminfo"))?))
}

/// Nothing where the host has no huge pages, or ones of another size as its default.
fn parse_free_huge_pages(text: &str) -> u64 {
    let value = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    match (value("Hugepagesize"), value("HugePages_Free"), value("HugePages_Rsvd")) {
        (Some(2048), Some(free), reserved) => free.saturating_sub(reserved.unwrap_or(0)) << 21,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_huge_pages_are_those_that_nobody_has_taken_or_reserved() {
        let text = "MemTotal: 8 kB\nHugePages_Total:      64\nHugePages_Free:       40\nHugePages_Rsvd:        8\nHugepagesize:       2048 kB\n";
        assert_eq!(parse_free_huge_pages(text), 64 << 20);
        assert_eq!(parse_free_huge_pages(&text.replace("2048", "1048576")), 0);
        assert_eq!(parse_free_huge_pages("MemTotal: 8 kB\n"), 0);
    }
}
