//! Jail directories: laid out from data, removed without following a link.

mod lost_disk;

use crate::apply::VmmError;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::base::diagnostic::one_line;
use crate::fleet::VmmKind;
use crate::host::jail::{Jail, JailEntryKind, jail};
use crate::host::layout::{Layout, vmm_folder};
use crate::host::logs::LogKind;
use crate::host::names::DISK;
use crate::host::state::{Machine, MachineDisk};
use crate::sys::fs::{self as files, FileError};
use crate::sys::jailer;
use crate::sys::mount;
use crate::sys::process::{self, DirId, ProcessInfo};
use crate::sys::remove::remove_tree;
use crate::sys::untrusted::UntrustedDir;

use super::ApplyError;
use super::jail_id::JailId;
use super::linux::{GuestHandle, Scope, copy};

pub(super) use lost_disk::Astray;

impl GuestHandle<'_> {
    /// The jails of one guest, by their attempts.
    pub fn jails(self) -> Result<Vec<JailId>, ApplyError> {
        self.host.cache.jails(self.layout(), self.name)
    }

    /// The jail that a guest's VMM lives in, of those that are there: where its root is. One that is only about to enter its
    /// jail (QEMU opens its files first) is on its way to the newest.
    pub fn jail_in_use(self, jails: &[JailId], vmm: &ProcessInfo) -> Option<JailId> {
        let (layout, guest) = (self.layout(), self.name);
        let is_root = |id: &&JailId| DirId::of(&id.root(layout, guest)) == vmm.root;
        let lives_in = |id: &&JailId| process::is_rooted_in(vmm.id.pid, &id.root(layout, guest));
        if let Some(id) = jails.iter().find(is_root).filter(|_| vmm.root.is_some()) {
            return Some(*id);
        }
        if vmm.root == DirId::own_root() {
            return jails.last().copied();
        }
        jails.iter().find(lives_in).copied()
    }

    /// Lays out a new jail for a machine, and gives its id. The jails of earlier attempts go as far as they can: what is
    /// left of one is in nobody's way, and the next [`Self::remove_old_jails`] tells it.
    ///
    /// # Errors
    /// Where something cannot be made; what was made is removed with the jail.
    pub fn create_jail(self, machine: &Machine) -> Result<JailId, ApplyError> {
        let (layout, scope, guest) = (self.layout(), self.host.scope, self.name);
        self.end_keeper()?;
        self.relink_disk()?;
        self.relink_session_disks()?;
        let earlier = self.jails()?;
        for id in &earlier {
            self.clear(*id);
        }
        let attempt = earlier.last().map_or(0, |id| id.attempt) + 1;
        let id = JailId { attempt, vmm: machine.vmm };
        files::create_private_dir(&self.dir())?;
        // Known before it is there, so that what is half made is removed as well.
        let there = earlier.into_iter().filter(|earlier| earlier.dir(layout, guest).exists());
        self.host.cache.set_jails(guest, there.chain([id]).collect());
        lay_out(&jail(guest, machine, layout), scope, &id.root(layout, guest))?;
        Ok(id)
    }
}

/// The root of a jail as its VMM sees it: what is mounted there in the VMM's own namespace, nobody else has.
pub(super) fn inner_root(root: &Path, vmm: &ProcessInfo) -> PathBuf {
    let seen = PathBuf::from(format!("/proc/{}/root", vmm.id.pid));
    // One that has not entered its jail yet (QEMU opens its files first) sees it where everybody does.
    let below =
        if vmm.root == DirId::own_root() { root.strip_prefix("/").unwrap_or(root) } else { Path::new(".") };
    seen.join(below)
}

/// Lays out a jail below `root`.
pub fn lay_out(jail: &Jail, scope: Scope, root: &Path) -> Result<(), ApplyError> {
    // Others may pass through, whatever the umask; the jails' own parent lets only root in.
    files::create_dirs(root, 0o755)?;
    for dir in root.ancestors().take(2) {
        fs::set_permissions(dir, Permissions::from_mode(0o755))
            .map_err(FileError::when("set the mode of", dir))?;
    }
    for entry in &jail.entries {
        // What is in memory is made with the VMM, in its own mount namespace.
        if scope == Scope::WholeHost && jail.is_in_memory(entry) {
            continue;
        }
        let path = root.join(entry.path);
        let failed = |action: &'static str| FileError::when(action, &path);
        match &entry.kind {
            JailEntryKind::OwnDirectory => {
                directory(&path, 0o700)?;
                scope.chown(&path, jail.uid)?;
            }
            JailEntryKind::Directory | JailEntryKind::Tmpfs { .. } => directory(&path, 0o755)?,
            JailEntryKind::SharedLink { from } => {
                fs::hard_link(from.path(), &path).map_err(failed("link"))?
            }
            JailEntryKind::OwnLink { from } => {
                scope.chown(from, jail.uid)?;
                fs::hard_link(from, &path).map_err(failed("link"))?;
            }
            JailEntryKind::OwnCopy { from } => {
                let new = File::options().write(true).create_new(true).mode(0o600).open(&path);
                copy(from.path(), &new.map_err(failed("create"))?)?;
                scope.chown(&path, jail.uid)?;
            }
            JailEntryKind::OwnBlank { size } => write_blank(&path, *size, scope, jail.uid)?,
            JailEntryKind::Pipe => {
                files::make_pipe(&path)?;
                scope.chown(&path, jail.uid)?;
            }
            // What a loss of power leaves of a jail is cleared away, so that nothing of it need be synced.
            JailEntryKind::Bytes(bytes) => write_new(&path, bytes).map_err(failed("write"))?,
        }
    }
    Ok(())
}

/// A new file of zeros, of this uid.
fn write_blank(path: &Path, size: u64, scope: Scope, uid: u32) -> Result<(), ApplyError> {
    let made = File::create_new(path).and_then(|file| {
        file.set_len(size)?;
        file.set_permissions(Permissions::from_mode(0o600))
    });
    made.map_err(FileError::when("create", path))?;
    scope.chown(path, uid)
}

/// A new file, which nobody looks at before it is whole.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o444))
}

fn directory(path: &Path, mode: u32) -> Result<(), ApplyError> {
    fs::create_dir(path).map_err(FileError::when("create", path))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(FileError::when("set the mode of", path))?)
}

/// Makes a directory root's.
fn take_back(dir: &File, path: &Path) -> Result<(), FileError> {
    // Before as well: the jailer lets its owner alone in, and a VMM that starts meanwhile would not reach its files.
    let taken = dir.set_permissions(Permissions::from_mode(0o755)).and_then(|()| {
        std::os::unix::fs::fchown(dir, Some(0), Some(0))?;
        dir.set_permissions(Permissions::from_mode(0o755))
    });
    taken.map_err(FileError::when("take back", path))
}

impl GuestHandle<'_> {
    /// Takes the root of the jail that a VMM runs in back from its uid, to which Firecracker's jailer gives it: from then on that
    /// uid can make, move and remove nothing there, but in the directories that it has.
    ///
    /// # Errors
    /// Where the VMM is in none of the guest's jails, or its root cannot be changed.
    pub(super) fn take_back_root(self, vmm: &ProcessInfo) -> Result<PathBuf, ApplyError> {
        let root = self.jail_root(vmm)?;
        let dir = File::open(&root).map_err(FileError::when("take back", &root))?;
        take_back(&dir, &root)?;
        Ok(root)
    }

    /// Takes back all of the jail once the VMM has made its sockets: from then on its uid can make no file anywhere, so that it fills
    /// no file system but by its disks.
    ///
    /// # Errors
    /// As [`take_back_root`](Self::take_back_root); what stands in the place of a directory is left as it is.
    pub(super) fn take_back_jail(self, vmm: &ProcessInfo) -> Result<(), ApplyError> {
        let root = self.take_back_root(vmm)?;
        let jail = UntrustedDir::open(&root, 0)?;
        for name in jailer::FOLDERS.into_iter().filter(|name| !name.is_empty()) {
            if let Some(dir) = jail.directory(name) {
                take_back(&dir, &root.join(name))?;
            }
        }
        Ok(())
    }
}

impl GuestHandle<'_> {
    /// Unmounts and removes one jail as far as it can; gives what is left, in words. Earlier versions of this program mounted
    /// disks there.
    fn clear(self, id: JailId) -> Vec<String> {
        let dir = id.dir(self.layout(), self.name);
        let mounted = match self.host.cache.mounts_below(self.layout(), &dir) {
            Ok(mounted) => mounted,
            Err(error) => return vec![one_line(&error)],
        };
        let unmounted = mounted.iter().filter_map(|target| mount::unmount(target).err());
        let mut left: Vec<_> = unmounted.map(|error| one_line(&error)).collect();
        left.extend(remove_tree(&dir).iter().map(|error| one_line(error)));
        left
    }

    fn clear_jails(self, jails: &[JailId]) -> Result<(), ApplyError> {
        let (layout, guest) = (self.layout(), self.name);
        let left: Vec<_> = jails.iter().flat_map(|id| self.clear(*id)).collect();
        let is_gone = |id: &JailId| left.is_empty() && jails.contains(id);
        let is_there = |id: &JailId| !is_gone(id) && id.dir(layout, guest).exists();
        if !self.host.cache.set_jails(guest, self.jails()?.into_iter().filter(is_there).collect()) {
            remove_parents(layout);
        }
        if left.is_empty() { Ok(()) } else { Err(VmmError::NotRemoved { guest: guest.clone(), left }.into()) }
    }

    /// Unmounts and removes whatever jails a guest has, and the records of what ran in them.
    ///
    /// # Errors
    /// Names all that cannot be unmounted or removed; the rest is gone.
    pub fn remove_jails(self) -> Result<(), ApplyError> {
        // It reads from pipes that stand there.
        self.end_keeper()?;
        self.relink_disk()?;
        self.relink_session_disks()?;
        // Before the jails, by which whoever is killed here is found again.
        for record in self.record_files() {
            files::remove(&record)?;
        }
        self.host.cache.forget_machine(self.name);
        self.clear_jails(&self.jails()?)
    }

    /// What is kept of a VMM beside its jail and its logs.
    fn record_files(self) -> impl Iterator<Item = PathBuf> {
        let dir = self.dir();
        let [serial, vmm] = [LogKind::Serial, LogKind::Vmm].map(|kind| dir.pipe(kind));
        let others = [dir.console_input(), serial, vmm, dir.keeper(), dir.machine()];
        dir.records_of_vmm().into_iter().chain(others)
    }

    /// Whether anything of that is there.
    pub(super) fn has_records(self) -> Result<bool, ApplyError> {
        let there = files::names_in(&self.dir())?;
        let is_there = |path: PathBuf| {
            path.file_name().is_some_and(|name| there.iter().any(|file| name == file.as_str()))
        };
        Ok(self.record_files().any(is_there))
    }

    /// Removes the jails of earlier attempts beside the one that is in use.
    pub fn remove_old_jails(self, vmm: &ProcessInfo) -> Result<(), ApplyError> {
        let mut jails = self.jails()?;
        let used = self.jail_in_use(&jails, vmm);
        jails.retain(|id| Some(*id) != used);
        self.relink_session_disks()?;
        self.clear_jails(&jails)
    }
}

/// Removes the directories that jails stand in where they are empty, so that nothing is left of a fleet that is down.
pub fn remove_parents(layout: &Layout) {
    let jails = layout.jails();
    for vmm in VmmKind::ALL {
        // One that is in use stays.
        let _ = fs::remove_dir(jails.join(vmm_folder(vmm)));
    }
    let _ = fs::remove_dir(jails);
}

impl GuestHandle<'_> {
    /// The chroot that a VMM runs in.
    pub fn jail_root(self, vmm: &ProcessInfo) -> Result<PathBuf, ApplyError> {
        let (layout, guest) = (self.layout(), self.name);
        let id = self.jail_in_use(&self.jails()?, vmm);
        Ok(id.ok_or_else(|| VmmError::NoJail(guest.clone()))?.root(layout, guest))
    }

    /// Opens the data disk of a guest whose VMM may have ended. What had one in its jail has it there until the jail goes.
    pub fn open_disk_left(self, machine: Option<&Machine>) -> Result<File, ApplyError> {
        if let Some((machine, vmm)) = machine.zip(self.vmm()) {
            return self.open_disk(machine, &vmm);
        }
        let (layout, guest) = (self.layout(), self.name);
        match machine.map(|machine| (machine.uid, machine.disk)) {
            Some((uid, MachineDisk::Ephemeral { in_memory: false, .. })) => {
                let newest = self.jails()?.pop().ok_or_else(|| VmmError::DiskGone(guest.clone()))?;
                Ok(UntrustedDir::open(&newest.root(layout, guest), uid)?.file(DISK)?)
            }
            Some((_, MachineDisk::Ephemeral { .. })) => Err(VmmError::DiskGone(guest.clone()).into()),
            Some((_, MachineDisk::Kept)) | None => {
                let path = layout.disk(guest);
                Ok(File::open(&path).map_err(FileError::when("open", &path))?)
            }
        }
    }

    /// Opens the data disk of a guest whose VMM runs: a kept one by the name that the store has for it, any other through the
    /// jail, in which the guest's uid may have put something else in its place.
    pub(super) fn open_disk(self, machine: &Machine, vmm: &ProcessInfo) -> Result<File, ApplyError> {
        let path = match machine.disk {
            MachineDisk::Kept => {
                let path = self.layout().disk(self.name);
                return Ok(File::open(&path).map_err(FileError::when("open", &path))?);
            }
            MachineDisk::Ephemeral { in_memory: true, .. } => inner_root(&self.jail_root(vmm)?, vmm),
            MachineDisk::Ephemeral { .. } => self.jail_root(vmm)?,
        };
        let root = UntrustedDir::open(&path, machine.uid)?;
        // Held before, so that it is the root of this process and of no later one that has its number.
        if !process::lives(vmm.id) {
            return Err(VmmError::Gone(self.name.clone()).into());
        }
        Ok(root.file(DISK)?)
    }
}
