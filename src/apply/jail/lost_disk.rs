//! Kept disks whose name in the store is gone, or leads to another file, while a VMM or a jail has them: none is lost with those.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apply::ApplyError;
use crate::apply::linux::GuestHandle;
use crate::host::names::DISK;
use crate::host::snapshot as frozen;
use crate::host::state::{Machine, MachineDisk};
use crate::sys::fs::{self as files, FileError};
use crate::sys::process::{self, ProcessInfo, Signal};
use crate::sys::sparse;
use crate::sys::untrusted::{FileKind, HeldNode, UntrustedDir};

use crate::apply::jail_id::JailId;

/// How long a VMM may take to stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a kept disk is that the store does not have by its guest's name.
pub(in crate::apply) enum Astray {
    /// In a jail, with which it would go.
    InJail(HeldNode),
    /// No file system has a name of it any more: a VMM has it open, with which it would go. The kernel gives it none again.
    OnlyOpen(HeldNode),
}

impl GuestHandle<'_> {
    /// The disk of a guest that is to keep it, where it is astray. While a VMM runs, that is whose disk it is; otherwise the store
    /// decides, if it has one.
    pub(in crate::apply) fn astray_disk(
        self,
        machine: &Machine,
        vmm: Option<&ProcessInfo>,
        jails: &[JailId],
    ) -> Option<Astray> {
        if machine.disk != MachineDisk::Kept {
            return None;
        }
        let used = vmm.and_then(|vmm| self.jail_in_use(jails, vmm));
        let jails = used.as_ref().map_or(jails, std::slice::from_ref);
        let named = fs::symlink_metadata(self.layout().disk(self.name)).ok();
        let in_jail = self.disk_in_jail(machine, jails);
        if in_jail
            .as_ref()
            .zip(named.as_ref())
            .is_some_and(|(held, named)| files::is_same_file(held.metadata(), named))
        {
            return None;
        }
        let given = self.given_inode();
        // Before the jail was taken back, its uid may have put anything there.
        let is_given =
            |held: &HeldNode| given.map_or(named.is_none(), |given| given == held.metadata().ino());
        match in_jail.filter(is_given) {
            // It has its place in the snapshot until that is consumed, also where the guest has no disk of its own: what it wrote
            // there would be in a snapshot that can still be restored.
            Some(held) if self.is_of_snapshot(machine, &held) => None,
            Some(held) => (vmm.is_some() || named.is_none()).then_some(Astray::InJail(held)),
            None => self.disk_only_open(machine, vmm?, given).map(Astray::OnlyOpen),
        }
    }

    /// Whether a disk is still that of the snapshot from which a machine goes on.
    fn is_of_snapshot(self, machine: &Machine, held: &HeldNode) -> bool {
        let layout = self.layout();
        let dirs = machine.restored_from.as_ref().map(|name| {
            let all = [layout.ready_snapshot(name), layout.consumed_snapshot(name)];
            all.map(|dir| dir.join(frozen::DISK))
        });
        let is_it = |path: PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|there| files::is_same_file(held.metadata(), &there))
        };
        dirs.into_iter().flatten().any(is_it)
    }

    /// The newest that jails have.
    fn disk_in_jail(self, machine: &Machine, jails: &[JailId]) -> Option<HeldNode> {
        let held = |id: &JailId| {
            let root = id.root(self.layout(), self.name);
            UntrustedDir::open(&root, machine.uid)?.node(DISK, FileKind::Regular)
        };
        jails.iter().rev().find_map(|id| held(id).ok())
    }

    fn disk_only_open(self, machine: &Machine, vmm: &ProcessInfo, given: Option<u64>) -> Option<HeldNode> {
        let store = fs::metadata(self.layout().jails_root_of_fleet()).ok()?.dev();
        HeldNode::open_in(vmm.id.pid, |meta| {
            let is_given = given.is_none_or(|given| given == meta.ino());
            meta.is_file()
                && meta.nlink() == 0
                && meta.uid() == machine.uid
                && meta.dev() == store
                && is_given
        })
    }

    /// Gives the disk of a jail, where it is astray, its name in the store again. What has that name instead is kept beside it.
    pub(in crate::apply) fn relink_disk(self) -> Result<(), ApplyError> {
        // Of a machine that is not known, nobody knows whether it keeps a disk.
        let machine = self.seen_machine().ok().flatten();
        let Some(machine) = machine.filter(|machine| machine.disk == MachineDisk::Kept) else {
            return Ok(());
        };
        let jails = self.jails()?;
        let path = self.layout().disk(self.name);
        let vmm = self.vmm();
        // Mostly so: the disk of the newest jail has its name in the store.
        if vmm.is_none() && self.is_named(self.disk_in_jail(&machine, &jails).as_ref()) {
            return Ok(());
        }
        match self.astray_disk(&machine, vmm.as_ref(), &jails) {
            Some(Astray::InJail(held)) => {
                self.set_aside()?;
                files::create_private_dir(&self.layout().disks())?;
                held.link(&path).map_err(FileError::when("link", &path))?;
            }
            Some(Astray::OnlyOpen(_)) => return Ok(()),
            None => match self.last_of_jails(&machine, &jails) {
                Some(held) => self.keep_beside(|beside| held.link(beside))?,
                None => return Ok(()),
            },
        }
        Ok(files::sync_dir(&self.layout().disks())?)
    }

    fn is_named(self, held: Option<&HeldNode>) -> bool {
        let named = fs::symlink_metadata(self.layout().disk(self.name)).ok();
        held.zip(named).is_some_and(|(held, named)| files::is_same_file(held.metadata(), &named))
    }

    /// A kept disk that only a jail has while another has its name, from which nothing runs.
    fn last_of_jails(self, machine: &Machine, jails: &[JailId]) -> Option<HeldNode> {
        let held = self.disk_in_jail(machine, jails).filter(|held| held.metadata().nlink() == 1)?;
        let given = self.given_inode();
        (given == Some(held.metadata().ino()) && machine.disk == MachineDisk::Kept).then_some(held)
    }

    /// Takes the guest's name from whatever file of the store has it. One that has no other name is kept beside it.
    fn set_aside(self) -> Result<(), ApplyError> {
        let path = self.layout().disk(self.name);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Ok(there) if there.nlink() == 1 => self.keep_beside(|beside| fs::hard_link(&path, beside))?,
            _ => {}
        }
        Ok(files::remove(&path)?)
    }

    /// Gives a disk the first free name beside that of the guest.
    fn keep_beside(self, link: impl Fn(&Path) -> io::Result<()>) -> Result<(), ApplyError> {
        for number in 1.. {
            let beside = self.layout().replaced_disk(self.name, number);
            match link(&beside) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                linked => return Ok(linked.map_err(FileError::when("keep", &beside))?),
            }
        }
        Ok(())
    }

    /// Takes hold of the disk that only a VMM has open, which is to be stopped, and writes a copy of it into the store first:
    /// whoever is killed afterwards has lost no more than what the guest wrote since. `None` where no disk is astray so.
    ///
    /// # Errors
    /// Where it cannot be copied; the VMM must then not be stopped.
    pub(in crate::apply) fn rescue_disk(
        self,
        machine: Option<&Machine>,
        vmm: &ProcessInfo,
    ) -> Result<Option<File>, ApplyError> {
        let Some(machine) = machine else { return Ok(None) };
        let astray = self.astray_disk(machine, Some(vmm), &self.jails()?);
        let Some(Astray::OnlyOpen(held)) = astray else { return Ok(None) };
        let disk = held.open_to_read().map_err(FileError::when("open", held.path()))?;
        self.set_aside()?;
        // As whole as a disk is after a loss of power. One that does not stop is about to be ended, and its disk is all that there is.
        let _ = process::stop(vmm.id, PATIENCE);
        let copied = self.copy_back(&disk);
        let _ = process::send_signal(vmm.id, Signal::CONT);
        copied.map(|()| Some(disk))
    }

    /// Makes a file the guest's disk in the store, whatever signal comes.
    ///
    /// # Errors
    /// Where it cannot be copied; what was there is then still there.
    pub(in crate::apply) fn copy_back(self, disk: &File) -> Result<(), ApplyError> {
        let path = self.layout().disk(self.name);
        let named = || FileError::when("copy the data disk to", &path);
        files::create_private_dir(&self.layout().disks())?;
        let mut new = files::NewFile::create(&path)?;
        sparse::copy_to_the_end(disk, new.file()).map_err(named())?;
        let uid = disk.metadata().map_err(named())?.uid();
        self.host.scope.chown(new.temporary_path(), uid)?;
        Ok(new.persist(0o600)?)
    }
}
