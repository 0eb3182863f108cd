//! Mounts: tmpfs for data that must not outlive its guest, and what is mounted where (proc(5), mount(2)).

use std::ffi::{CString, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{FileError, create_dir_all, io_diagnosis, read_text};

/// A mount that could not be made, removed or listed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot {action} {}{}", path.display(), hint(.source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    File(#[from] FileError),
}

impl Diagnostic for MountError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Io { source, .. } => io_diagnosis(source),
            Self::File(error) => error.diagnosis().of(Class::Failed),
        }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::PermissionDenied => " (this needs root, and CAP_SYS_ADMIN in a container)",
        ErrorKind::ResourceBusy => " (a process still uses it)",
        _ => "",
    }
}

/// One line of `/proc/PID/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor` of the file system.
    pub device: String,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Such as `tmpfs`.
    pub kind: String,
    /// What is mounted: a block device, or a word that the file system chose.
    pub source: PathBuf,
}

/// Reads `/proc/PID/mountinfo`, in the kernel's order: a later mount hides an earlier one at the same place.
pub fn parse_mountinfo(text: &str) -> Vec<MountEntry> {
    let entry = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        let (mut fields, mut rest) = (fields.split(' ').skip(2), rest.split(' '));
        Some(MountEntry {
            device: fields.next()?.to_owned(),
            root: unescape(fields.next()?),
            target: unescape(fields.next()?),
            kind: rest.next()?.to_owned(),
            source: unescape(rest.next()?),
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash in paths.
pub fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|digits| {
            bytes[at] == b'\\'
                && matches!(digits[0], b'0'..=b'3')
                && digits.iter().all(|d| matches!(d, b'0'..=b'7'))
        });
        if let Some(digits) = octal {
            plain.push(digits.iter().fold(0, |value, digit| value * 8 + (digit - b'0')));
            at += 4;
        } else {
            plain.push(bytes[at]);
            at += 1;
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

fn mounts() -> Result<Vec<MountEntry>, MountError> {
    Ok(parse_mountinfo(&read_text(Path::new("/proc/self/mountinfo"))?))
}

/// The real path of a directory that may be absent.
fn resolved(dir: &Path) -> PathBuf {
    std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

/// Mounts a tmpfs of at most `size` bytes at `dir`, which is made where it is missing. Set-user-id bits, devices and
/// programs on it have no effect. A tmpfs that is mounted there already is left as it is.
pub fn tmpfs(dir: &Path, size: u64, uid: u32, gid: u32, mode: u32) -> Result<(), MountError> {
    create_dir_all(dir)?;
    let place = resolved(dir);
    let top = mounts()?.into_iter().rev().find(|entry| entry.target == place);
    if top.is_some_and(|entry| entry.kind == "tmpfs") {
        return Ok(());
    }
    let failed = |source| MountError::Io { action: "mount a tmpfs at", path: dir.to_owned(), source };
    let options = format!("size={size},uid={uid},gid={gid},mode={mode:o}");
    let options = CString::new(options).map_err(|error| failed(error.into()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", &place, "tmpfs", flags, options.as_c_str())
        .map_err(|error| failed(error.into()))
}

/// Unmounts all that is mounted at `dir` itself; nothing mounted there, or no such directory, is fine. What is still in
/// use after two seconds is an error.
pub fn unmount(dir: &Path) -> Result<(), MountError> {
    let mut patience = 40;
    loop {
        match rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW) {
            // There may be another one below it.
            Ok(()) => {}
            // What `umount2` answers for a directory that is no mount point, and for one that is not there.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if patience > 0 => {
                patience -= 1;
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => {
                return Err(MountError::Io { action: "unmount", path: dir.to_owned(), source: error.into() });
            }
        }
    }
}

/// The mount points at `dir` and below it, deepest first; one that is mounted over appears as often as it is.
pub fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>, MountError> {
    Ok(below(&mounts()?, &resolved(dir)))
}

fn below(mounts: &[MountEntry], dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        mounts.iter().map(|entry| entry.target.clone()).filter(|target| target.starts_with(dir)).collect();
    paths.sort_by_key(|path| (std::cmp::Reverse(path.components().count()), path.clone()));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = r"
21 26 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
26 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
60 26 0:48 / /srv/jail/a\040b/root/disk rw,nosuid shared:33 master:2 - tmpfs tmpfs rw,size=4096k
61 26 254:0 /jail /srv/jail rw - ext4 /dev/vda rw,discard
62 26 0:49 / /srv/jailer rw - tmpfs tmpfs rw
";

    #[test]
    fn mounts_below_a_directory_come_deepest_first() {
        let mounts = parse_mountinfo(MOUNTINFO);
        assert_eq!(
            below(&mounts, Path::new("/srv/jail")),
            [Path::new("/srv/jail/a b/root/disk"), Path::new("/srv/jail")]
        );
    }

    #[test]
    fn optional_fields_do_not_shift_the_others() {
        let entry = parse_mountinfo(MOUNTINFO).into_iter().find(|entry| entry.device == "0:48").unwrap();
        assert_eq!(entry.kind, "tmpfs");
        let bound =
            parse_mountinfo(MOUNTINFO).into_iter().find(|entry| entry.root == Path::new("/jail")).unwrap();
        assert_eq!(bound.target, Path::new("/srv/jail"));
    }

    #[test]
    fn octal_escapes_are_undone_and_nothing_else() {
        assert_eq!(unescape(r"/a\040b\134c\011d"), Path::new("/a b\\c\td"));
        assert_eq!(unescape(r"/a\9\04"), Path::new(r"/a\9\04"));
    }

    #[test]
    fn unmounting_what_is_not_mounted_is_fine() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        unmount(dir.path()).unwrap();
        unmount(&dir.path().join("absent")).unwrap();
    }
}
