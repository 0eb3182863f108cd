//! What the processes of a cgroup have used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{BLKIO, Hierarchy, IO, read};
use crate::sys::process;

/// Of all processes that were in a cgroup since it was made. `None` where the kernel does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Option<Duration>,
    /// Bytes in use, page cache included.
    pub memory: Option<u64>,
    pub io: Option<IoUsage>,
}

/// Bytes that passed between a cgroup and block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoUsage {
    pub read: u64,
    pub written: u64,
}

impl Hierarchy {
    /// Every figure of a cgroup as the kernel writes it, by `CONTROLLER/FILE`; of version 2, by the file alone. What cannot be read is
    /// left out.
    pub fn figures(&self, path: &str) -> BTreeMap<String, String> {
        let dirs: Vec<(String, PathBuf)> = match self {
            Self::V2 { root } => vec![(String::new(), root.join(path))],
            Self::V1 { mounts } => {
                mounts.iter().map(|(name, mount)| (format!("{name}/"), mount.join(path))).collect()
            }
        };
        let mut figures = BTreeMap::new();
        for (controller, dir) in dirs {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
                let text = is_file.then(|| read(&entry.path())).flatten();
                if let (Some(text), Ok(name)) = (text, entry.file_name().into_string()) {
                    figures.insert(format!("{controller}{name}"), text);
                }
            }
        }
        figures
    }

    /// What a cgroup has used so far.
    pub fn usage(&self, path: &str) -> Usage {
        let text = |controller: &str, file: &str| read(&self.dir(controller, path)?.join(file));
        let (cpu, io) = match self {
            Self::V2 { .. } => (text("cpu", "cpu.stat").and_then(|text| cpu_v2(&text)), text(IO, "io.stat")),
            // Version 1 counts in `cpuacct`, in which no cgroup is made here.
            Self::V1 { .. } => (self.processor_time(path), text(BLKIO, "blkio.throttle.io_service_bytes")),
        };
        Usage { cpu, memory: self.memory_current(path), io: io.map(|text| io_usage(&text)) }
    }

    /// Of the processes that are in a cgroup; `None` where there is none.
    fn processor_time(&self, path: &str) -> Option<Duration> {
        let pids = self.procs(path);
        let times: Option<Duration> = pids.iter().map(|pid| process::processor_time(*pid)).sum();
        times.filter(|_| !pids.is_empty())
    }
}

/// Of `cpu.stat`: `usage_usec 1234`.
fn cpu_v2(text: &str) -> Option<Duration> {
    super::parse_counter(text, "usage_usec").map(Duration::from_micros)
}

/// Of `io.stat`, `254:0 rbytes=1 wbytes=2 ...`, or of `blkio.throttle.io_service_bytes`, `254:0 Read 1`: the sum of all devices.
fn io_usage(text: &str) -> IoUsage {
    let words: Vec<&str> = text.split_whitespace().collect();
    let v2 = |name: &str| {
        words.iter().filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok()).sum::<u64>()
    };
    let v1 = |name: &str| {
        let pairs = words.windows(2).filter(|pair| pair[0] == name);
        pairs.filter_map(|pair| pair[1].parse::<u64>().ok()).sum::<u64>()
    };
    IoUsage { read: v2("rbytes=") + v1("Read"), written: v2("wbytes=") + v1("Write") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_what_was_read_and_written() {
        let v2 = "254:0 rbytes=4096 wbytes=512 rios=1 wios=1 dbytes=0 dios=0\n7:0 rbytes=1 wbytes=0 rios=1 wios=0\n";
        assert_eq!(io_usage(v2), IoUsage { read: 4097, written: 512 });
        let v1 = "254:0 Read 4096\n254:0 Write 512\n254:0 Sync 0\n254:0 Total 4608\nTotal 4608\n";
        assert_eq!(io_usage(v1), IoUsage { read: 4096, written: 512 });
        assert_eq!(io_usage(""), IoUsage::default());
        assert_eq!(cpu_v2("usage_usec 1500\nuser_usec 1000\n"), Some(Duration::from_micros(1500)));
    }
}
