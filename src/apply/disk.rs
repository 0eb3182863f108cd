//! Kept data disks: made, grown, listed, and never given to two guests.
//!
//! A disk takes its name only once it is whole and synced, so that whoever is killed at whatever moment leaves the old one, or
//! the new one, and nothing between.

use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::text::natural_order;
use crate::base::{ByteSize, FileDigest, GuestName, Label};
use crate::fleet::VmmKind;
use crate::host::jail::kept_disk;
use crate::host::layout::{BEFORE, vmm_folder};
use crate::host::names::DISK;
use crate::host::observed::ObservedHost;
use crate::host::state::{Machine, MachineDisk};
use crate::host::wanted::WantedHost;
use crate::image::read;
use crate::plan::GuestScope;
use crate::sys::fs::{self as files, FileError};
use crate::sys::untrusted::{FileKind, UntrustedDir};

use super::ApplyError;
use super::jail::inner_root;
use super::linux::{GuestHandle, LinuxHost, Scope, copy};
use super::record::{self, Record};
use super::session_disk::{self, HeldSessionDisk, SessionDiskFile};

impl GuestHandle<'_> {
    /// Copies a stored disk to be a guest's own; one that is there is left as it is.
    pub(super) fn create_disk(self, base: &FileDigest, uid: u32) -> Result<(), ApplyError> {
        let (layout, scope, guest) = (self.layout(), self.host.scope, self.name);
        let target = layout.disk(guest);
        if target.exists() {
            return Ok(());
        }
        files::create_private_dir(&layout.disks())?;
        let mut new = files::NewFile::create(&target)?;
        copy(&layout.file(base), new.file())?;
        scope.chown(new.temporary_path(), uid)?;
        let size = new.file().metadata().map_err(FileError::when("look at", &target))?.len();
        new.persist(0o600)?;
        if scope == Scope::WholeHost { self.remember_size(size) } else { Ok(()) }
    }

    /// Gives a guest's disk to a uid, and to nobody else.
    pub(super) fn give_disk(self, uid: u32) -> Result<(), ApplyError> {
        let (layout, scope, guest) = (self.layout(), self.host.scope, self.name);
        let path = layout.disk(guest);
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .map_err(FileError::when("set the mode of", &path))?;
        scope.chown(&path, uid)
    }

    /// Lengthens a guest's disk to so many bytes. Its file system is grown by the guest, which alone trusts what is on it.
    pub(super) fn grow_disk(self, size: u64) -> Result<(), ApplyError> {
        let path = self.layout().disk(self.name);
        let named = || FileError::when("grow", &path);
        let disk = File::options().write(true).open(&path).map_err(named())?;
        if disk.metadata().map_err(named())?.len() < size {
            disk.set_len(size).map_err(named())?;
            disk.sync_all().map_err(named())?;
        }
        self.remember_size(size)
    }

    /// Looks whether the disk that a machine of a guest is to have stands in the jail of another guest, of whatever fleet of this
    /// store.
    pub(super) fn refuse_shared_disk(self, machine: &Machine) -> Result<(), ApplyError> {
        let (layout, guest) = (self.layout(), self.name);
        let path = kept_disk(guest, machine, layout);
        let disk = fs::metadata(&path).map_err(FileError::when("look at", &path))?;
        if disk.nlink() == 1 {
            return Ok(());
        }
        let own: Vec<PathBuf> = self.jails()?.into_iter().map(|id| id.root(layout, guest)).collect();
        let fleets =
            files::names_in(layout.jails_root())?.into_iter().map(|name| layout.jails_root().join(name));
        for fleet in fleets {
            for vmm in VmmKind::ALL {
                let jails = fleet.join("jails").join(vmm_folder(vmm));
                for id in files::names_in(&jails)? {
                    let root = jails.join(id).join("root");
                    if !own.contains(&root) && holds(&root, &disk) {
                        return Err(ApplyError::DiskShared { guest: guest.clone(), other: root.join(DISK) });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a jail's own data disk is this one: a link of its uid to the jail of another says nothing.
fn holds(root: &Path, disk: &Metadata) -> bool {
    let there = UntrustedDir::open(root, disk.uid()).and_then(|jail| jail.node(DISK, FileKind::Regular));
    there.is_ok_and(|there| files::is_same_file(there.metadata(), disk))
}

/// Where a data disk is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBacking {
    /// In the store, for good.
    File,
    /// In the jail, with which it goes.
    Jail,
    /// In RAM, within the jail.
    Tmpfs,
}

/// A data disk that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// What `disk export` and `disk rm` call it: the guest, or `GUEST.before-SNAPSHOT` where a restore put another in its place;
    /// `sessions/NAME` where sessions bring it.
    pub name: String,
    /// Whose it is; of one that sessions bring, the guest that has it.
    pub guest: Option<GuestName>,
    /// By which name sessions bring it.
    pub session: Option<Label>,
    pub path: PathBuf,
    pub backing: DiskBacking,
    /// In bytes, holes included.
    pub size: u64,
    /// Bytes that it takes of its host.
    pub used: u64,
    /// User of the host.
    pub uid: u32,
    /// Of the file system; `None` where it is none that can be read.
    pub label: Option<String>,
    /// Whether a VMM runs that has it.
    pub attached: bool,
    /// Whether a restore or a session put another in its place.
    pub set_aside: bool,
}

/// Every data disk of a fleet, by guest.
pub fn all(host: &LinuxHost) -> Result<Vec<DiskFile>, ApplyError> {
    let layout = &host.layout;
    host.cache.clear();
    let mut found = Vec::new();
    for file in files::names_in(&layout.disks())? {
        let Some(name) = file.strip_suffix(".ext4") else { continue };
        let (guest, set_aside) = match name.split_once(BEFORE) {
            Some((guest, _)) => (guest, true),
            None => (name, false),
        };
        if let Ok(guest) = guest.parse() {
            let path = layout.disks().join(&file);
            // One that went meanwhile is not there.
            let Ok(disk) = File::open(&path) else { continue };
            let (disk, name) =
                (host.guest(&guest).describe_disk(path, &disk, |_| DiskBacking::File), name.to_owned());
            found.extend(disk.map(|disk| DiskFile {
                attached: disk.attached && !set_aside,
                set_aside,
                name,
                ..disk
            }));
        }
    }
    let store = fs::metadata(layout.jails_root_of_fleet()).map(|meta| meta.dev()).ok();
    let kept =
        |disk: &Metadata| if Some(disk.dev()) == store { DiskBacking::Jail } else { DiskBacking::Tmpfs };
    for (guest, jails) in host.cache.all_jails(layout)? {
        // That of a kept disk is another name of it.
        if let Some(newest) = jails.last().filter(|_| !layout.disk(&guest).exists()) {
            let root = newest.root(layout, &guest);
            let disk = host.guest(&guest).disk_in(&root);
            found.extend(disk.and_then(|(path, disk)| host.guest(&guest).describe_disk(path, &disk, kept)));
        }
    }
    found.extend(session_disk::all(host)?.into_iter().filter_map(of_session));
    found.sort_by(|a, b| natural_order(&a.name, &b.name));
    Ok(found)
}

/// A disk that sessions bring. Whichever guest has it, it is attached: nobody may touch it before that guest's jail is gone.
fn of_session(disk: SessionDiskFile) -> Option<DiskFile> {
    let file = File::open(&disk.path).ok()?;
    let meta = file.metadata().ok()?;
    let SessionDiskFile { name, listed, path, guest, set_aside } = disk;
    let (size, used, uid, attached) = (meta.len(), files::allocated(&meta), meta.uid(), guest.is_some());
    let (session, backing, label) = (Some(name), DiskBacking::File, read::label(&file));
    Some(DiskFile {
        name: listed,
        guest,
        session,
        path,
        backing,
        size,
        used,
        uid,
        label,
        attached,
        set_aside,
    })
}

impl GuestHandle<'_> {
    /// The data disk of a jail, and where it is seen. A jail without a record was never entered; in any other its uid may have
    /// put something else there.
    fn disk_in(self, root: &Path) -> Option<(PathBuf, File)> {
        let machine = self.machine().ok().flatten()?;
        let root = match machine.disk {
            MachineDisk::Ephemeral { in_memory: true, .. } => inner_root(root, &self.vmm()?),
            MachineDisk::Ephemeral { .. } | MachineDisk::Kept => root.to_owned(),
        };
        Some((root.join(DISK), UntrustedDir::open(&root, machine.uid).ok()?.file(DISK).ok()?))
    }

    fn describe_disk(
        self,
        path: PathBuf,
        disk: &File,
        backing: impl Fn(&Metadata) -> DiskBacking,
    ) -> Option<DiskFile> {
        let guest = self.name;
        let meta = disk.metadata().ok()?;
        let attached = self.is_running();
        let (size, used) = (meta.len(), files::allocated(&meta));
        let (name, guest, backing, uid) =
            (guest.to_string(), Some(guest.clone()), backing(&meta), meta.uid());
        let label = read::label(disk);
        let (session, set_aside) = (None, false);
        Some(DiskFile { name, guest, session, path, backing, size, used, uid, label, attached, set_aside })
    }
}

impl GuestHandle<'_> {
    /// Whether a guest's VMM runs, or something else in its cgroup or jail that may have its disk.
    pub fn is_running(self) -> bool {
        let found = self.occupants();
        found.vmm.is_some() || found.strays
    }
}

/// Writes a disk into a new file with the same holes.
///
/// # Errors
/// Where it cannot be read or written; there is then no new file.
pub fn export(disk: &DiskFile, to: &Path) -> Result<(), ApplyError> {
    let mut new = files::NewFile::create(to)?;
    copy(&disk.path, new.file())?;
    Ok(new.persist(0o600)?)
}

/// A copy of a file that can be a disk, which has no name yet.
fn checked_copy(from: &Path, to: &Path) -> Result<files::NewFile, ApplyError> {
    let mut new = files::NewFile::create(to)?;
    copy(from, new.file())?;
    // The copy and not the original, which may change meanwhile.
    let copied = File::open(new.temporary_path()).map_err(FileError::when("read", from))?;
    read::check_file_system(&copied)
        .map_err(|source| ApplyError::NoFileSystem { path: from.to_owned(), source })?;
    Ok(new)
}

impl HeldSessionDisk {
    /// Makes a copy of a file the disk, in place of one that is there. A session makes it as long as its place.
    ///
    /// # Errors
    /// Where it is no ext4 file system, or cannot be copied; the old disk is then still there.
    pub fn import(&self, from: &Path) -> Result<(), ApplyError> {
        Ok(checked_copy(from, self.path())?.persist(0o600)?)
    }
}

/// Removes a kept disk for good.
pub fn remove(disk: &DiskFile) -> Result<(), ApplyError> {
    Ok(files::remove(&disk.path)?)
}

impl GuestHandle<'_> {
    /// Removes what is kept of a guest that is gone for good: its disk, its logs and its records.
    pub fn purge(self) -> Result<(), ApplyError> {
        files::remove(&self.layout().disk(self.name))?;
        Ok(files::remove(&self.dir())?)
    }

    /// Makes a file a guest's disk, in place of one that is there. Its owner is set when the guest next starts.
    ///
    /// # Errors
    /// Where it is no ext4 file system, or cannot be copied; the old disk is then still there.
    pub fn import_disk(self, from: &Path) -> Result<(), ApplyError> {
        let (layout, guest) = (self.layout(), self.name);
        files::create_private_dir(&layout.disks())?;
        let mut new = checked_copy(from, &layout.disk(guest))?;
        let size = new.file().metadata().map_err(FileError::when("read", from))?.len();
        new.persist(0o600)?;
        self.remember_size(size)
    }
}

/// `disk.json`: how many bytes the host gave a guest's disk. Its VMM may have made the file longer or shorter since.
#[derive(Serialize, Deserialize)]
struct GivenSize {
    size: u64,
    /// The file that was put into the guest's newest jail; `None` in records of before, and of a disk that was in none.
    #[serde(default)]
    inode: Option<u64>,
}

impl Record for GivenSize {}

impl GuestHandle<'_> {
    /// Remembers how many bytes the host gave the guest's disk.
    fn remember_size(self, size: u64) -> Result<(), ApplyError> {
        files::create_private_dir(&self.dir())?;
        Ok(record::write(&self.dir().disk_record(), &GivenSize { size, inode: None })?)
    }

    /// Remembers that a disk of so many bytes is about to have the place of the guest's. Where somebody is killed before it is said
    /// which of the two is there, the larger size counts: of the smaller one, no more than its file has.
    pub(super) fn expect_size(self, size: u64) -> Result<(), ApplyError> {
        match self.given() {
            Some(given) if given.size < size => {
                Ok(record::write(&self.dir().disk_record(), &GivenSize { size, ..given })?)
            }
            // Without a size, the file's own counts.
            _ => Ok(()),
        }
    }

    /// Remembers which file is the disk of a guest that has a jail, and how many bytes the host gave it.
    pub(super) fn remember_given(self, size: u64, inode: u64) -> Result<(), ApplyError> {
        Ok(record::write(&self.dir().disk_record(), &GivenSize { size, inode: Some(inode) })?)
    }

    /// Remembers the size of a kept disk that was made before sizes were remembered, while no VMM can change it.
    pub(super) fn know_size(self) -> Result<(), ApplyError> {
        match fs::metadata(self.layout().disk(self.name)) {
            Ok(disk) if !self.dir().disk_record().exists() => self.remember_size(disk.len()),
            _ => Ok(()),
        }
    }

    /// Remembers which file the guest's newest jail has for its kept disk, whose size is known.
    pub(super) fn remember_inode(self, inode: u64) -> Result<(), ApplyError> {
        match self.given() {
            Some(given) if given.inode != Some(inode) => {
                let given = GivenSize { inode: Some(inode), ..given };
                Ok(record::write(&self.dir().disk_record(), &given)?)
            }
            // Without a size, the file's own counts.
            _ => Ok(()),
        }
    }

    /// The file that the guest's newest jail was given for its kept disk, where that is known.
    pub(super) fn given_inode(self) -> Option<u64> {
        self.given()?.inode
    }

    /// The size of the guest's kept disk whose file has `length` bytes. What a VMM added to it does not count; what it cut off is
    /// missing.
    pub(super) fn given_size(self, length: u64) -> u64 {
        self.given().map_or(length, |given| given.size.min(length))
    }

    /// A record that cannot be read is as good as none: what counts is then what is there.
    fn given(self) -> Option<GivenSize> {
        record::read(&self.dir().disk_record()).ok().flatten()
    }
}

/// What a user is to know where the kept disks of a fleet may grow beyond what the store has free: those of these guests as
/// they are wanted, those of others as they are.
pub fn promises(
    host: &LinuxHost,
    observed: &ObservedHost,
    wanted: &WantedHost,
    guests: GuestScope<'_>,
) -> Option<String> {
    let dir = files::existing_ancestor(host.layout.jails_root())?;
    let free = files::free_space(dir).ok()?.bytes;
    let mut promised = 0;
    let mut missing = 0;
    let own = wanted.guests.iter().filter(|(guest, _)| guests.contains(guest));
    let own = own.filter_map(|(guest, want)| Some((guest, want.disk?.size)));
    let others = observed.guests.iter().filter(|(guest, _)| !guests.contains(guest));
    let others = others.filter_map(|(guest, have)| Some((guest, have.disk?.size)));
    for (guest, size) in own.chain(others) {
        let used = fs::metadata(host.layout.disk(guest)).map_or(0, |meta| files::allocated(&meta));
        promised += size;
        missing += size.saturating_sub(used);
    }
    (missing > free).then(|| {
        format!(
            "the data disks may grow to {} together, but {} has {} left for them: when it is full, guests \
             get write errors",
            ByteSize::from_bytes(promised),
            dir.display(),
            ByteSize::from_mib(free >> 20),
        )
    })
}
