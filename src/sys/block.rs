//! Block devices below file systems (sysfs's `dev/block`, proc(5) on mountinfo).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::cgroup::Device;
use super::fs::FileError;
use super::mount::{MountEntry, parse_mountinfo};

/// The whole device that holds a file, which is what the kernel can limit; `None` where there is none, as below a tmpfs, an
/// overlay or a network file system. Of a file system on several devices it is the one that is mounted by name.
pub fn device_of(path: &Path) -> Result<Option<Device>, FileError> {
    let named = || FileError::when("look at", path);
    let number = fs::metadata(path).map_err(named())?.dev();
    if rustix::fs::major(number) != 0 {
        return Ok(Some(whole(device(number))));
    }
    // A btrfs has numbers of its own.
    let path = fs::canonicalize(path).map_err(named())?;
    let mounts = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(mounts).map_err(FileError::when("read", mounts))?;
    let source = source_of(&parse_mountinfo(&text), &path);
    let meta =
        source.and_then(|source| fs::metadata(source).ok()).filter(|meta| meta.file_type().is_block_device());
    Ok(meta.map(|meta| whole(device(meta.rdev()))))
}

/// What is mounted where a path is.
fn source_of(mounts: &[MountEntry], path: &Path) -> Option<std::path::PathBuf> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.target));
    Some(around.max_by_key(|mount| mount.target.components().count())?.source.clone())
}

fn device(number: u64) -> Device {
    Device { major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
}

/// The disk of a partition; any other device is whole.
fn whole(device: Device) -> Device {
    let dir = Path::new("/sys/dev/block").join(device.to_string());
    let disk = || fs::read_to_string(dir.join("../dev")).ok()?.trim().parse().ok();
    if dir.join("partition").exists() { disk().unwrap_or(device) } else { device }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_at_a_path_is_that_of_the_nearest_mount() {
        let mounts = parse_mountinfo(
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:44 /sub /srv/fleet rw - btrfs /dev/vdb rw\n",
        );
        assert_eq!(source_of(&mounts, Path::new("/srv/fleet/jails")).unwrap(), Path::new("/dev/vdb"));
        assert_eq!(source_of(&mounts, Path::new("/srv/fleets")).unwrap(), Path::new("/dev/vda"));
    }

    #[test]
    fn a_file_in_memory_is_on_no_device() {
        if Path::new("/dev/shm").is_dir() {
            assert_eq!(device_of(Path::new("/dev/shm")).unwrap(), None);
        }
        assert!(device_of(Path::new("/no/such/file")).is_err());
    }
}
