//! Disk: the data disks that a fleet keeps on its host are listed, saved, replaced and removed.

use std::path::{Path, PathBuf};

use crate::apply::ApplyError;
use crate::apply::disk::{self, DiskBacking, DiskFile};
use crate::apply::error::SessionDiskError;
use crate::apply::linux::LinuxHost;
use crate::apply::session_disk::{self, HeldSessionDisk, LISTED};
use crate::base::{ByteSize, GuestName, Label};
use crate::fleet::{Fleet, suggest};
use crate::sys::fs::{self as files, FileError, FileLock};
use crate::sys::interrupt;

use super::error::DataDiskError;
use super::fleet_host::OpenedHost;
use super::guests::declared;
use super::{RunError, Workspace, host};

/// A data disk, and whether the fleet still has its guest.
#[derive(Clone, Debug)]
pub struct Listed {
    pub disk: DiskFile,
    /// Whether no guest of the fleet has it.
    pub orphan: bool,
}

/// What becomes of a data disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskUse<'a> {
    /// A session brought it into this guest.
    InSession(&'a GuestName),
    Attached,
    /// No guest of the fleet has it.
    Orphan,
    /// Another was put in its place.
    SetAside,
    Free,
}

impl Listed {
    /// What becomes of it now.
    pub fn usage(&self) -> DiskUse<'_> {
        let Self { disk, orphan } = self;
        match (&disk.session, &disk.guest) {
            (Some(_), Some(guest)) if disk.attached => DiskUse::InSession(guest),
            _ if disk.attached => DiskUse::Attached,
            _ if *orphan => DiskUse::Orphan,
            _ if disk.set_aside => DiskUse::SetAside,
            _ => DiskUse::Free,
        }
    }
}

/// Every data disk, by name.
pub fn list(workspace: &Workspace<'_>) -> Result<Vec<Listed>, RunError> {
    let fleet = workspace.fleet()?;
    let disks = disk::all(&host::open(&fleet.head())?)?;
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
    let host = OpenedHost::open(workspace)?.host;
    find(name, &host)?;
    let lock = host::hold(&host.layout, workspace.report)?;
    let disk = find(name, &host)?;
    let session = disk.session.as_ref().map(|name| session_disk::hold(&host.layout, name)).transpose()?;
    // Who was given it before it was held has it.
    session.as_ref().map_or(Ok(()), |held| held.refuse_taken(&host))?;
    match disk.guest.clone().filter(|_| disk.attached) {
        Some(guest) => Err(DataDiskError::InUse(guest).into()),
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
    Err(DataDiskError::Unknown { name: name.to_owned(), hint }.into())
}

impl Unused {
    /// Writes it into a new file with the same holes.
    pub fn export(&self, to: &Path) -> Result<(), RunError> {
        if to.symlink_metadata().is_ok() {
            return Err(DataDiskError::FileExists(to.to_owned()).into());
        }
        files::require_dir_of(to)?;
        let _deferral = interrupt::defer();
        Ok(disk::export(&self.disk, to)?)
    }

    /// Removes it for good. Whoever calls this has asked.
    pub fn remove(self) -> Result<(), RunError> {
        let _deferral = interrupt::defer();
        match self.session {
            Some(held) => Ok(held.remove(&self.disk.path)?),
            None => Ok(disk::remove(&self.disk)?),
        }
    }
}

/// A file that can become a guest's disk, or one that sessions bring; the host is held, and nobody has that disk.
pub struct Import {
    host: LinuxHost,
    /// The guest, or `sessions/NAME`.
    pub name: String,
    disk: ImportTarget,
    from: PathBuf,
    /// Where the disk goes.
    pub path: PathBuf,
    _lock: FileLock,
}

enum ImportTarget {
    Guest(GuestName),
    Session(HeldSessionDisk),
}

/// Holds the host, and looks whether a file may become the disk of a guest, or with a name such as `sessions/jo` one that sessions
/// bring.
pub fn import(workspace: &Workspace<'_>, name: &str, from: &Path) -> Result<Import, RunError> {
    let fleet = workspace.fleet()?;
    let host = host::open(&fleet.head())?;
    let wanted = DiskPlace::find(name, &fleet)?;
    refuse_size(from, name, wanted.size())?;
    let lock = host::hold(&host.layout, workspace.report)?;
    let (disk, path) = match wanted {
        DiskPlace::Guest(guest, _) if host.guest(&guest).is_running() => {
            return Err(DataDiskError::InUse(guest).into());
        }
        DiskPlace::Guest(guest, _) => {
            let path = host.layout.disk(&guest);
            (ImportTarget::Guest(guest), path)
        }
        DiskPlace::Session(disk, _) => {
            let held = session_disk::hold(&host.layout, &disk)?;
            held.refuse_taken(&host)?;
            let path = held.path().to_owned();
            (ImportTarget::Session(held), path)
        }
    };
    Ok(Import { host, name: name.to_owned(), disk, from: from.to_owned(), path, _lock: lock })
}

impl Import {
    /// Whether there is such a disk, which would be lost.
    pub fn replaces(&self) -> bool {
        match &self.disk {
            ImportTarget::Guest(_) => self.path.exists(),
            ImportTarget::Session(held) => held.exists(),
        }
    }

    /// Copies the file; there must be no such disk.
    pub fn create(self) -> Result<(), RunError> {
        if self.replaces() { Err(DataDiskError::Exists(self.name).into()) } else { self.replace() }
    }

    /// Copies the file; a disk that is there is lost. Whoever calls this has asked.
    pub fn replace(self) -> Result<(), RunError> {
        let _deferral = interrupt::defer();
        match &self.disk {
            ImportTarget::Guest(guest) => Ok(self.host.guest(guest).import_disk(&self.from)?),
            ImportTarget::Session(held) => Ok(held.import(&self.from)?),
        }
    }
}

/// A disk that the fleet can have, and how large it may be.
enum DiskPlace {
    Guest(GuestName, Option<ByteSize>),
    Session(Label, ByteSize),
}

impl DiskPlace {
    fn find(name: &str, fleet: &Fleet) -> Result<Self, RunError> {
        let Some(session) = name.strip_prefix(LISTED) else {
            let guest = guest_with_disk(name, fleet)?;
            let size = fleet.guests.get(&guest).map(|spec| spec.disk.size);
            return Ok(Self::Guest(guest, size));
        };
        let place = fleet.guests.values().filter_map(|spec| spec.warm.as_ref()?.disk).max();
        match (session.parse(), place) {
            (Ok(disk), Some(place)) => Ok(Self::Session(disk, place)),
            (Ok(_), None) => Err(ApplyError::from(SessionDiskError::NoPool).into()),
            (Err(reason), _) => {
                let name = session.to_owned();
                Err(ApplyError::from(SessionDiskError::Name { name, reason }).into())
            }
        }
    }

    fn size(&self) -> Option<ByteSize> {
        match self {
            Self::Guest(_, size) => *size,
            Self::Session(_, size) => Some(*size),
        }
    }
}

/// A guest of the fleet whose disk is kept.
fn guest_with_disk(name: &str, fleet: &Fleet) -> Result<GuestName, RunError> {
    let guest = declared(name, fleet)?;
    match fleet.guests.get(&guest) {
        Some(spec) if !spec.is_ephemeral() => Ok(guest),
        _ => Err(DataDiskError::Ephemeral(guest).into()),
    }
}

/// No disk is made smaller, so that one which is too large could never be used.
fn refuse_size(from: &Path, name: &str, wanted: Option<ByteSize>) -> Result<(), RunError> {
    let meta = std::fs::metadata(from).map_err(FileError::when("read", from))?;
    if !meta.is_file() {
        return Err(DataDiskError::NoFile(from.to_owned()).into());
    }
    let size = ByteSize::from_bytes(meta.len());
    match wanted {
        Some(wanted) if size > wanted => {
            Err(DataDiskError::TooLarge { from: from.to_owned(), size, name: name.to_owned(), wanted }.into())
        }
        _ => Ok(()),
    }
}
