//! What a guest's jail holds, as data: kernel, root image and container images, which many guests share, by hard link,
//! the guest's own disk, what its VMM writes, nothing else. Names inside a jail never change, because a snapshot refers
//! to them.

use std::path::{Path, PathBuf};

use crate::base::{FileDigest, GuestName};
use crate::fleet::{MachineFile, VmmKind};

use super::layout::Layout;
use super::names::{
    CONFIG, CPU_TEMPLATE, DISK, IMAGES, KERNEL, METADATA, RESTORED_MEMORY, RESTORED_STATE, ROOTFS, RUN,
    SECCOMP, SESSION, SESSION_EMPTY,
};
use super::snapshot;
use super::state::{Machine, MachineDisk};
use super::vmm;

/// One thing in a jail, by its path below the jail's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailEntry {
    pub path: &'static str,
    pub kind: JailEntryKind,
}

/// What it is. Shared inodes are root's and 0444; what the VMM may write is its uid's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JailEntryKind {
    /// 0700, of the guest's uid.
    OwnDirectory,
    /// 0755, of root: the guest's uid can put nothing in the place of what stands there.
    Directory,
    /// A tmpfs of this many bytes, 0755, of root.
    Tmpfs { size: u64 },
    /// Another name of an immutable file.
    SharedLink { from: JailSource },
    /// Another name of a file that belongs to the guest's uid (0600) and to no other jail.
    OwnLink { from: PathBuf },
    /// A copy, 0600, of the guest's uid.
    OwnCopy { from: JailSource },
    /// A file of zeros that has the place of a disk until there is one, 0600, of the guest's uid.
    OwnBlank { size: u64 },
    /// A pipe (FIFO), 0600, of the guest's uid, at whose other end logs are kept.
    Pipe,
    /// Bytes that root wrote, 0444.
    Bytes(Vec<u8>),
}

/// A file outside a jail that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JailSource {
    /// In the store, where it has the name of its digest.
    Stored { path: PathBuf, digest: FileDigest },
    /// In a snapshot, whose manifest tells its digest.
    Snapshot(PathBuf),
}

impl JailSource {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Stored { path, .. } | Self::Snapshot(path) => path,
        }
    }

    /// What it holds, where that is known without its snapshot.
    pub fn digest(&self) -> Option<FileDigest> {
        match self {
            Self::Stored { digest, .. } => Some(*digest),
            Self::Snapshot(_) => None,
        }
    }
}

/// A whole jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    pub guest: GuestName,
    pub vmm: VmmKind,
    pub uid: u32,
    /// Parents stand before children.
    pub entries: Vec<JailEntry>,
}

/// A file in a tmpfs of a jail: the tmpfs is mounted, and the file copied into it, by whoever becomes the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFile<'a> {
    /// Of the tmpfs, below the jail's root.
    pub dir: &'static str,
    /// Of the tmpfs, in bytes.
    pub size: u64,
    /// Below the jail's root.
    pub path: &'static str,
    pub from: &'a Path,
}

impl Jail {
    /// Whether an entry stands in a tmpfs.
    pub fn is_in_memory(&self, entry: &JailEntry) -> bool {
        self.memory_files().any(|file| file.path == entry.path)
    }

    /// All that does.
    pub fn memory_files(&self) -> impl Iterator<Item = MemoryFile<'_>> {
        let tmpfs = |entry: &JailEntry| match entry.kind {
            JailEntryKind::Tmpfs { size } => Some((entry.path, size)),
            _ => None,
        };
        self.entries.iter().filter_map(tmpfs).flat_map(move |(dir, size)| {
            self.entries.iter().filter_map(move |entry| match &entry.kind {
                JailEntryKind::OwnCopy { from } if Path::new(entry.path).starts_with(dir) => {
                    Some(MemoryFile { dir, size, path: entry.path, from: from.path() })
                }
                _ => None,
            })
        })
    }
}

/// Room beside the disk in a tmpfs, for the file system's own blocks.
const TMPFS_MARGIN: u64 = 1 << 20;

/// Of what has the place of a session's disk: from and to none at all, Linux tells nobody of a disk's other size.
const BLANK_SIZE: u64 = 4096;

fn session_place() -> [JailEntry; 2] {
    let blank = JailEntry { path: SESSION_EMPTY, kind: JailEntryKind::OwnBlank { size: BLANK_SIZE } };
    [JailEntry { path: SESSION, kind: JailEntryKind::Directory }, blank]
}

/// The file that the jail of a machine with a kept disk links: that of the snapshot it goes on from, which is not consumed yet,
/// whether the guest has one already or not.
pub fn kept_disk(guest: &GuestName, machine: &Machine, layout: &Layout) -> PathBuf {
    let frozen = machine.restored_from.as_ref();
    frozen.map_or_else(|| layout.disk(guest), |name| layout.ready_snapshot(name).join(snapshot::DISK))
}

/// The jail of a machine.
pub fn jail(guest: &GuestName, machine: &Machine, layout: &Layout) -> Jail {
    let entry = |path, kind| JailEntry { path, kind };
    // Before the VMM starts, a snapshot is not consumed yet; what has another name by then is the same file.
    let from_snapshot = |file: &str| Some(layout.ready_snapshot(machine.restored_from.as_ref()?).join(file));
    let stored = |digest: &FileDigest| JailSource::Stored { path: layout.file(digest), digest: *digest };
    let mut entries = vec![
        entry(RUN, JailEntryKind::OwnDirectory),
        entry(KERNEL, JailEntryKind::SharedLink { from: stored(&machine.kernel) }),
        entry(ROOTFS, JailEntryKind::SharedLink { from: stored(&machine.image) }),
    ];
    if let Some(images) = &machine.images {
        entries.push(entry(IMAGES, JailEntryKind::SharedLink { from: stored(images) }));
    }
    let (dir, disk) = match machine.disk {
        MachineDisk::Kept => {
            let from = kept_disk(guest, machine, layout);
            (JailEntryKind::Directory, JailEntryKind::OwnLink { from })
        }
        MachineDisk::Ephemeral { base, size, in_memory } => {
            let tmpfs = JailEntryKind::Tmpfs { size: size + TMPFS_MARGIN };
            let from = from_snapshot(snapshot::DISK).map_or_else(|| stored(&base), JailSource::Snapshot);
            (if in_memory { tmpfs } else { JailEntryKind::Directory }, JailEntryKind::OwnCopy { from })
        }
    };
    entries.extend([entry("data", dir), entry(DISK, disk)]);
    entries.extend(machine.session_disk.into_iter().flat_map(|_| session_place()));
    let vmm = vmm::of(machine.vmm);
    let in_jail = |file| from_snapshot(file).filter(|_| vmm.has_snapshot_in_jail());
    for (path, file) in [(RESTORED_MEMORY, snapshot::MEMORY), (RESTORED_STATE, snapshot::STATE)] {
        let link = |path| JailEntryKind::SharedLink { from: JailSource::Snapshot(path) };
        entries.extend(in_jail(file).map(|from| entry(path, link(from))));
    }
    entries.extend(vmm.configuration(machine).map(|bytes| entry(CONFIG, JailEntryKind::Bytes(bytes))));
    entries.extend(vmm.pipes(machine).into_iter().map(|path| entry(path, JailEntryKind::Pipe)));
    for (file, digest) in machine.spec.files() {
        entries.push(entry(name_of(file), JailEntryKind::SharedLink { from: stored(digest) }));
    }
    Jail { guest: guest.clone(), vmm: machine.vmm, uid: machine.uid, entries }
}

/// Where a jail has a file of its machine.
fn name_of(file: MachineFile) -> &'static str {
    match file {
        MachineFile::CpuTemplate => CPU_TEMPLATE,
        MachineFile::Seccomp => SECCOMP,
        MachineFile::Metadata => METADATA,
    }
}
