//! What a cgroup allows, written to the kernel's files of both versions and read back from them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{BLKIO, CgroupError, Hierarchy, IO, limit_text, parse_cpu_max, parse_limit, read, write};

/// What a cgroup may use; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; the kernel rounds down to whole pages.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// So many microseconds of CPU time in each period of so many.
    pub cpu_quota: Option<(u64, u64)>,
    /// Share of the CPU against the cgroups beside it where there is not enough for all: 1 to 10000, and
    /// [`EVEN_WEIGHT`] where nobody is preferred.
    pub cpu_weight: u64,
    /// By block device; one that is not named is not limited.
    pub io: BTreeMap<Device, IoLimits>,
}

impl Limits {
    /// No limit at all.
    pub const NONE: Self =
        Self { memory: None, pids: None, cpu_quota: None, cpu_weight: EVEN_WEIGHT, io: BTreeMap::new() };
}

/// The kernel's default of `cpu.weight`.
pub const EVEN_WEIGHT: u64 = 100;
/// The kernel's default of version 1's `cpu.shares`, which means the same.
const EVEN_SHARES: u64 = 1024;

/// A whole block device by its numbers, `major:minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// What may be read and written in a second; `None` is no limit. Version 1 limits what is written past the page cache
/// alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoLimits {
    pub read_bytes: Option<u64>,
    pub write_bytes: Option<u64>,
    pub read_operations: Option<u64>,
    pub write_operations: Option<u64>,
}

impl IoLimits {
    /// No limit at all.
    pub const NONE: Self =
        Self { read_bytes: None, write_bytes: None, read_operations: None, write_operations: None };

    /// Each value with its name in `io.max` and its file of version 1.
    fn values(&mut self) -> [(&'static str, &'static str, &mut Option<u64>); 4] {
        [
            ("rbps", "blkio.throttle.read_bps_device", &mut self.read_bytes),
            ("wbps", "blkio.throttle.write_bps_device", &mut self.write_bytes),
            ("riops", "blkio.throttle.read_iops_device", &mut self.read_operations),
            ("wiops", "blkio.throttle.write_iops_device", &mut self.write_operations),
        ]
    }
}

impl std::str::FromStr for Device {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once(':').ok_or(())?;
        Ok(Self { major: major.parse().map_err(drop)?, minor: minor.parse().map_err(drop)? })
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Hierarchy {
    pub(super) fn set(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        match self {
            Self::V2 { root } => set_v2(&root.join(path), limits)?,
            Self::V1 { .. } => self.set_v1(path, limits)?,
        }
        self.set_io(path, limits)
    }

    fn set_v1(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        let set = |controller: &str, file: &str, value: &str| match self.dir(controller, path) {
            Some(dir) => write(&dir.join(file), value),
            None => Ok(()),
        };
        self.set_memory_v1(path, limits.memory)?;
        set("pids", "pids.max", &limit_text(limits.pids))?;
        set("cpu", "cpu.shares", &shares(limits.cpu_weight).to_string())?;
        // No limit first: a quota that fits the new period may not fit the old one.
        set("cpu", "cpu.cfs_quota_us", "-1")?;
        match limits.cpu_quota {
            Some((quota, period)) => {
                set("cpu", "cpu.cfs_period_us", &period.to_string())?;
                set("cpu", "cpu.cfs_quota_us", &quota.to_string())
            }
            None => Ok(()),
        }
    }

    /// Memory with swap may never be less than memory alone, so that it is no limit while the latter changes.
    fn set_memory_v1(&self, path: &str, limit: Option<u64>) -> Result<(), CgroupError> {
        let Some(dir) = self.dir("memory", path) else { return Ok(()) };
        let limit = limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
        // Absent on a kernel that does not account swap.
        let with_swap = Some(dir.join("memory.memsw.limit_in_bytes")).filter(|file| file.exists());
        if let Some(file) = &with_swap {
            write(file, "-1")?;
        }
        write(&dir.join("memory.limit_in_bytes"), &limit)?;
        if let Some(file) = &with_swap {
            write(file, &limit)?;
        }
        let swappiness = dir.join("memory.swappiness");
        if swappiness.exists() { write(&swappiness, "0") } else { Ok(()) }
    }

    fn set_io(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        let there = self.io(path).unwrap_or_default();
        if there == limits.io {
            return Ok(());
        }
        let controller = if matches!(self, Self::V2 { .. }) { IO } else { BLKIO };
        let Some(dir) = self.dir(controller, path).filter(|dir| self.has_io(dir)) else {
            return Err(CgroupError::NoIo);
        };
        let gone =
            there.keys().filter(|device| !limits.io.contains_key(device)).map(|d| (d, &IoLimits::NONE));
        for (device, io) in limits.io.iter().chain(gone) {
            let mut io = *io;
            match self {
                Self::V2 { .. } => {
                    let words = io.values().map(|(name, _, value)| format!("{name}={}", limit_text(*value)));
                    write(&dir.join("io.max"), &format!("{device} {}", words.join(" ")))?;
                }
                Self::V1 { .. } => {
                    for (_, file, value) in io.values() {
                        // Zero is no limit there.
                        write(&dir.join(file), &format!("{device} {}", value.unwrap_or(0)))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn has_io(&self, dir: &Path) -> bool {
        let file = if matches!(self, Self::V2 { .. }) { "io.max" } else { "blkio.throttle.read_bps_device" };
        dir.join(file).exists()
    }

    /// The limits as the kernel holds them; `None` where the cgroup is missing from any hierarchy that must be there.
    pub fn limits(&self, path: &str) -> Option<Limits> {
        let dir = |controller| self.dir(controller, path);
        let (cpu, memory, pids) = (dir("cpu")?, dir("memory")?, dir("pids")?);
        let pids = parse_limit(&read(&pids.join("pids.max"))?)?;
        let number = |file: &str| read(&cpu.join(file))?.trim().parse::<u64>().ok();
        let io = self.io(path).unwrap_or_default();
        Some(match self {
            Self::V2 { .. } => Limits {
                memory: parse_limit(&read(&memory.join("memory.max"))?)?,
                pids,
                cpu_quota: parse_cpu_max(&read(&cpu.join("cpu.max"))?)?,
                cpu_weight: number("cpu.weight")?,
                io,
            },
            Self::V1 { .. } => Limits {
                memory: parse_limit(&read(&memory.join("memory.limit_in_bytes"))?)?,
                pids,
                // -1, no limit, is no u64.
                cpu_quota: number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us")),
                cpu_weight: weight(number("cpu.shares")?),
                io,
            },
        })
    }

    /// `None` where nothing can be limited.
    fn io(&self, path: &str) -> Option<BTreeMap<Device, IoLimits>> {
        let mut found: BTreeMap<Device, IoLimits> = BTreeMap::new();
        match self {
            Self::V2 { root } => {
                for line in read(&root.join(path).join("io.max"))?.lines() {
                    let Some((device, words)) = line.split_once(' ') else { continue };
                    let Ok(device) = device.parse() else { continue };
                    for (name, _, value) in found.entry(device).or_insert(IoLimits::NONE).values() {
                        let text =
                            words.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
                        *value = text.and_then(parse_limit).flatten();
                    }
                }
            }
            Self::V1 { .. } => {
                let dir = self.dir(BLKIO, path)?;
                for (_, file, _) in IoLimits::NONE.clone().values() {
                    for line in read(&dir.join(file))?.lines() {
                        let Some((device, number)) = line.split_once(' ') else { continue };
                        let (Ok(device), Ok(number)) = (device.parse(), number.trim().parse()) else {
                            continue;
                        };
                        let limits = found.entry(device).or_insert(IoLimits::NONE);
                        for (_, _, value) in limits.values().into_iter().filter(|(_, of, _)| *of == file) {
                            *value = Some(number);
                        }
                    }
                }
            }
        }
        found.retain(|_, limits| *limits != IoLimits::NONE);
        Some(found)
    }
}

/// Both have their default in the middle; version 1 counts in finer steps, so no weight is lost.
fn shares(weight: u64) -> u64 {
    (weight * EVEN_SHARES).div_ceil(EVEN_WEIGHT).max(2)
}

fn weight(shares: u64) -> u64 {
    shares * EVEN_WEIGHT / EVEN_SHARES
}

fn set_v2(dir: &Path, limits: &Limits) -> Result<(), CgroupError> {
    write(&dir.join("memory.max"), &limit_text(limits.memory))?;
    for (name, value) in [("memory.swap.max", "0"), ("memory.oom.group", "1")] {
        let file = dir.join(name);
        // Absent on a kernel without swap, or older than 4.19.
        if file.exists() {
            write(&file, value)?;
        }
    }
    write(&dir.join("pids.max"), &limit_text(limits.pids))?;
    write(&dir.join("cpu.weight"), &limits.cpu_weight.to_string())?;
    let cpu = match limits.cpu_quota {
        Some((quota, period)) => format!("{quota} {period}"),
        None => "max".to_owned(),
    };
    write(&dir.join("cpu.max"), &cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_survives_version_1() {
        assert!((1..=10_000).all(|each| weight(shares(each)) == each));
        assert_eq!(shares(EVEN_WEIGHT), EVEN_SHARES);
    }
}
