//! What the kernel tells of a machine: `/proc` and `/sys`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
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

/// What `/proc/swaps` lists, by its file or device.
pub fn parse_swaps(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
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
    fn swap_is_named() {
        assert_eq!(parse_swaps("Filename\tType\tSize\n/dev/sda2  partition 1 0 -2\n"), ["/dev/sda2"]);
        assert_eq!(parse_swaps("Filename\tType\tSize\n"), [""; 0]);
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
}
