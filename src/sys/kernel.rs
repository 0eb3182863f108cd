//! What the kernel and the host's files tell of a machine: `/proc`, `/sys`, accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

/// A small file, without its end of line; `None` where it cannot be read.
pub fn value(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A switch such as `/sys/module/kvm_intel/parameters/nested`: `Y`, `N`, or a number of which 0 is off.
pub fn switch(path: impl AsRef<Path>) -> Option<bool> {
    match value(path)?.as_str() {
        "Y" => Some(true),
        "N" => Some(false),
        number => Some(number.parse::<i64>().ok()? != 0),
    }
}

/// Names and values of the files in a directory.
pub fn values(dir: impl AsRef<Path>) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, value(entry.path())?))).collect()
}

/// Kernel modules, those that are built in included, whose name begins so.
pub fn modules(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/sys/module").into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    names
}

/// Values of a field of `/proc/cpuinfo`, such as `microcode`, over all processors.
pub fn parse_cpuinfo(text: &str, field: &str) -> BTreeSet<String> {
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == field).then(|| value.trim().to_owned())
    };
    text.lines().filter_map(value).collect()
}

/// A field of `/proc/meminfo`: bytes, or pages for `HugePages_`.
pub fn parse_meminfo(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?.trim();
    match value.strip_suffix(" kB") {
        Some(kib) => Some(kib.parse::<u64>().ok()? * 1024),
        None => value.parse().ok(),
    }
}

/// What `/proc/swaps` lists, by its file or device.
pub fn parse_swaps(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

/// Accounts and groups (passwd(5), group(5)) whose number is in a range, in words.
pub fn parse_accounts(text: &str, what: &str, range: &RangeInclusive<u32>) -> Vec<String> {
    let taken = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        range.contains(&id).then(|| format!("{what} {name} ({id})"))
    };
    text.lines().filter_map(taken).collect()
}

/// Subordinate ids (subuid(5)) that lie in a range, in words.
pub fn parse_subordinates(text: &str, what: &str, range: &RangeInclusive<u32>) -> Vec<String> {
    let taken = |line: &str| {
        let mut fields = line.split(':');
        let (name, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (first, count): (u64, u64) = (first.parse().ok()?, count.trim().parse().ok()?);
        let last = first.checked_add(count)?.checked_sub(1)?;
        let overlaps = first <= u64::from(*range.end()) && last >= u64::from(*range.start());
        overlaps.then(|| format!("{what} of {name} ({first}-{last})"))
    };
    text.lines().filter_map(taken).collect()
}

/// Controllers of cgroups, as version 2 names them: those of version 2 where it has any, and those that are mounted as
/// version 1. `read` gives the `cgroup.controllers` of a mount point.
pub fn parse_controllers(mounts: &str, read: impl Fn(&Path) -> Option<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, target, kind, options, ..] = fields[..] else { continue };
        match kind {
            "cgroup2" => {
                let text =
                    read(&super::mount::unescape(target).join("cgroup.controllers")).unwrap_or_default();
                found.extend(text.split_whitespace().map(str::to_owned));
            }
            "cgroup" => {
                found.extend(
                    options.split(',').map(|name| if name == "blkio" { "io" } else { name }.to_owned()),
                );
            }
            _ => {}
        }
    }
    found
}

/// Whether an ELF file for x86-64 or arm64 runs without an interpreter, that is without shared libraries; `None` where it
/// is no such file.
pub fn is_static(path: &Path) -> Option<bool> {
    use std::io::Read;
    const HEADERS: u64 = 4096;
    let mut head = Vec::new();
    fs::File::open(path).ok()?.take(HEADERS).read_to_end(&mut head).ok()?;
    let header = goblin::elf::Elf::parse_header(&head).ok()?;
    let elf = goblin::elf::Elf::lazy_parse(header).ok()?;
    let context = goblin::container::Ctx::new(elf.header.container().ok()?, elf.header.endianness().ok()?);
    let (offset, count) = (usize::try_from(header.e_phoff).ok()?, usize::from(header.e_phnum));
    let segments = goblin::elf::ProgramHeader::parse(&head, offset, count, context).ok()?;
    Some(!segments.iter().any(|segment| segment.p_type == goblin::elf::program_header::PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_all_processors_are_read() {
        let text =
            "processor\t: 0\nflags\t\t: fpu vmx\nmicrocode\t: 0x1\n\nprocessor\t: 1\nmicrocode\t: 0x2\n";
        assert_eq!(parse_cpuinfo(text, "microcode"), BTreeSet::from(["0x1".into(), "0x2".into()]));
        assert_eq!(parse_cpuinfo(text, "flags").first().unwrap(), "fpu vmx");
    }

    #[test]
    fn memory_is_in_bytes_and_huge_pages_are_counted() {
        let text = "MemTotal:       16 kB\nMemAvailable:    8 kB\nHugePages_Free:      512\n";
        assert_eq!(parse_meminfo(text, "MemAvailable"), Some(8192));
        assert_eq!(parse_meminfo(text, "HugePages_Free"), Some(512));
        assert_eq!(parse_meminfo(text, "Mem"), None);
    }

    #[test]
    fn swap_is_named() {
        assert_eq!(parse_swaps("Filename\tType\tSize\n/dev/sda2  partition 1 0 -2\n"), ["/dev/sda2"]);
        assert_eq!(parse_swaps("Filename\tType\tSize\n"), [""; 0]);
    }

    #[test]
    fn accounts_in_the_range_are_named_and_so_are_ids_that_overlap_with_it() {
        let range = 200_000..=265_535;
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:200001:100::/:/bin/sh\nbroken\n";
        assert_eq!(parse_accounts(passwd, "user", &range), ["user ann (200001)"]);
        let subuid = "ann:100000:65536\nbob:165536:65536\ncy:265536:1\nzero:200000:0\n";
        assert_eq!(parse_subordinates(subuid, "ids", &range), ["ids of bob (165536-231071)"]);
    }

    #[test]
    fn controllers_of_both_versions_have_one_name() {
        let mounts = "cgroup /a cgroup rw,blkio 0 0\ncgroup2 /b cgroup2 rw 0 0\ntmpfs /c tmpfs rw,cpu 0 0\n";
        let found = parse_controllers(mounts, |path| {
            (path == Path::new("/b/cgroup.controllers")).then(|| "pids memory\n".into())
        });
        assert!(["io", "memory", "pids"].iter().all(|name| found.contains(*name)), "{found:?}");
        assert!(!found.contains("cpu") && !found.contains("blkio"), "{found:?}");
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let dir = tempfile::tempdir().unwrap();
        let tiny = dir.path().join("tiny");
        fs::write(&tiny, crate::sys::tiny_guest::elf("x", crate::sys::tiny_guest::Then::Halt)).unwrap();
        assert_eq!(is_static(&tiny), Some(true));
        assert_eq!(is_static(Path::new("/bin/sh")), Some(false));
        assert_eq!(is_static(Path::new("/etc/passwd")), None);
    }
}
