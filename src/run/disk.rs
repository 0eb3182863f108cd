//! Disk: the data disks that a fleet keeps on its host are listed, saved, replaced and removed.

use std::path::{Path, PathBuf};

use crate::apply::disk::{self, DiskBacking, DiskFile};
use crate::apply::linux::LinuxHost;
use crate::apply::session_disk::{self, HeldSessionDisk};
use crate::base::{ByteSize, GuestName};
use crate::fleet::{Fleet, suggest};
use crate::sys::fs::{FileError, FileLock};
use crate::sys::interrupt;

use super::fleet_host::Located;
use super::guests::declared;
use super::{RunError, Workspace, host};

/// A data disk, and whether the fleet still has its guest.
#[derive(Clone, Debug)]
pub struct Listed {
    pub disk: DiskFile,
    /// Whether no guest of the fleet has it.
    pub orphan: bool,
}

/// Every data disk, by name.
pub fn list(workspace: &Workspace<'_>) -> Result<Vec<Listed>, RunError> {
    let fleet = workspace.fleet()?;
    let disks = disk::all(&host::open(&fleet.host, &fleet.name)?)?;
    let is_orphan = |disk: &DiskFile| {
        disk.session.is_none() && disk.guest.as_ref().is_some_and(|guest| !fleet.guests.contains_key(guest))
    };
    let listed = |disk: DiskFile| Listed { orphan: is_orphan(&disk), disk };
    Ok(disks.into_iter().map(listed).collect())
}

/// A kept disk that no guest runs on; the host is held, so that none is started.
pub struct Unused {
    pub disk: DiskFile,
    _lock: FileLock,
    /// Of one that sessions bring: sessions begin without holding the host.
    session: Option<HeldSessionDisk>,
}

/// Holds the host, with a kept disk of this name on it that nobody has, whether the fleet still has its guest or not.
pub fn unused(workspace: &Workspace<'_>, name: &str) -> Result<Unused, RunError> {
    let host = Located::find(workspace)?.host;
    find(name, &host)?;
    let lock = host::hold(&host.layout, workspace.report)?;
    let disk = find(name, &host)?;
    let session = disk.session.as_ref().map(|name| session_disk::hold(&host.layout, name)).transpose()?;
    // Who was given it before it was held has it.
    session.as_ref().map_or(Ok(()), |held| held.refuse_taken(&host))?;
    match disk.guest.clone().filter(|_| disk.attached) {
        Some(guest) => Err(RunError::DiskInUse(guest)),
        None => Ok(Unused { disk, _lock: lock, session }),
    }
}

fn find(name: &str, host: &LinuxHost) -> Result<DiskFile, RunError> {
    let mut kept = disk::all(host)?;
    kept.retain(|disk| disk.backing == DiskBacking::File);
    if let Some(index) = kept.iter().position(|disk| disk.name == name) {
        return Ok(kept.swap_remove(index));
    }
    let hint = suggest("disks", name, kept.iter().map(|disk| disk.name.as_str()));
    Err(RunError::UnknownDisk { name: name.to_owned(), hint })
}

impl Unused {
    /// Writes it into a new file with the same holes.
    pub fn export(&self, to: &Path) -> Result<(), RunError> {
        if to.symlink_metadata().is_ok() {
            return Err(RunError::FileExists(to.to_owned()));
        }
        let _hold = interrupt::hold();
        Ok(disk::export(&self.disk, to)?)
    }

    /// Removes it for good. Whoever calls this has asked.
    pub fn remove(self) -> Result<(), RunError> {
        let _hold = interrupt::hold();
        match self.session {
            Some(held) => Ok(held.remove(&self.disk.path)?),
            None => Ok(disk::remove(&self.disk)?),
        }
    }
}

/// A file that can become a guest's disk; the host is held, and the guest is not running.
pub struct Import {
    host: LinuxHost,
    pub guest: GuestName,
    from: PathBuf,
    /// Where the disk goes.
    pub path: PathBuf,
    _lock: FileLock,
}

/// Holds the host, and looks whether a file may become the disk of a guest.
pub fn import(workspace: &Workspace<'_>, guest: &str, from: &Path) -> Result<Import, RunError> {
    let fleet = workspace.fleet()?;
    let host = host::open(&fleet.host, &fleet.name)?;
    let guest = guest_with_disk(guest, &fleet)?;
    refuse_size(from, &fleet, &guest)?;
    let lock = host::hold(&host.layout, workspace.report)?;
    if host.guest(&guest).is_running() {
        return Err(RunError::DiskInUse(guest));
    }
    let path = host.layout.disk(&guest);
    Ok(Import { host, guest, from: from.to_owned(), path, _lock: lock })
}

impl Import {
    /// Whether the guest has a disk, which would be lost.
    pub fn replaces(&self) -> bool {
        self.path.exists()
    }

    /// Copies the file; the guest must not have a disk.
    pub fn create(self) -> Result<(), RunError> {
        if self.replaces() { Err(RunError::DiskExists(self.guest)) } else { self.replace() }
    }

    /// Copies the file; a disk that is there is lost. Whoever calls this has asked.
    pub fn replace(self) -> Result<(), RunError> {
        let _hold = interrupt::hold();
        Ok(self.host.guest(&self.guest).import_disk(&self.from)?)
    }
}

/// A guest of the fleet whose disk is kept.
fn guest_with_disk(name: &str, fleet: &Fleet) -> Result<GuestName, RunError> {
    let guest = declared(name, fleet)?;
    match fleet.guests.get(&guest) {
        Some(spec) if !spec.is_ephemeral() => Ok(guest),
        _ => Err(RunError::EphemeralDisk(guest)),
    }
}

/// No disk is made smaller, so that one which is too large could never be used.
fn refuse_size(from: &Path, fleet: &Fleet, guest: &GuestName) -> Result<(), RunError> {
    let meta = std::fs::metadata(from).map_err(FileError::when("read", from))?;
    if !meta.is_file() {
        return Err(RunError::NoFile(from.to_owned()));
    }
    let size = ByteSize::from_bytes(meta.len());
    match fleet.guests.get(guest).map(|spec| spec.disk.size) {
        Some(wanted) if size > wanted => {
            Err(RunError::DiskTooLarge { from: from.to_owned(), size, guest: guest.clone(), wanted })
        }
        _ => Ok(()),
    }
}
