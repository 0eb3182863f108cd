//! Disks that sessions bring: each is its user's own, kept in the store, and in one guest at a time.
//!
//! A disk is in a guest for as long as a jail of that guest has a name of it: that is what is observed, and no record is asked.
//! Whoever looks for that and then gives the disk away, or removes it, holds the disk's directory locked meanwhile (flock(2)), so
//! that of two who want one disk one gets it, and nobody needs to hold the host for it. No guest's uid reaches that directory.

use crate::apply::VmmError;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::base::text::natural_order;
use crate::base::{ByteSize, GuestName, Label, Sha256, uuid_from};
use crate::host::console::SessionMount;
use crate::host::layout::{BEFORE, Layout, NOT_WHOLE};
use crate::host::logs::LogKind;
use crate::host::names::SESSION;
use crate::host::state::Machine;
use crate::image::content::Content;
use crate::image::ext4::{Ext4Options, Purpose, write_ext4};
use crate::image::tree::{Node, NodeKind, Tree};
use crate::sys::fs::{self as files, FileError};
use crate::sys::interrupt;
use crate::sys::log::{Lines, Reader, Start};
use crate::sys::process::{self, ProcessInfo};
use crate::sys::untrusted::{FileKind, HeldNode, UntrustedDir};

use super::ApplyError;
use super::control::{self, PATIENCE};
use super::error::SessionDiskError;
use super::linux::{GuestHandle, LinuxHost};

/// A session's disk that this process alone may give away or remove, whether it is there yet or not.
#[derive(Debug)]
pub struct HeldSessionDisk {
    pub name: Label,
    path: PathBuf,
    /// The disk's directory, locked.
    _dir: File,
}

/// How long it is waited for another command that holds a disk.
const HOLD_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// How long it is waited for a guest to mount one: a journal may have to be replayed on a processor that is emulated.
const MOUNT_LIMIT: Duration = Duration::from_secs(10);

/// Holds a disk, which need not be there.
///
/// # Errors
/// [`SessionDiskError::Busy`] where another command holds it for long.
pub fn hold(layout: &Layout, name: &Label) -> Result<HeldSessionDisk, ApplyError> {
    let (path, begun) = (layout.session_disk(name), Instant::now());
    let dir = layout.session_disk_dir(name);
    loop {
        files::create_private_dir(&dir)?;
        match lock(&dir).map_err(FileError::when("lock", &dir))? {
            Some(held) => return Ok(HeldSessionDisk { name: name.clone(), path, _dir: held }),
            None if begun.elapsed() >= HOLD_LIMIT => return Err(SessionDiskError::Busy(name.clone()).into()),
            None => thread::sleep(POLL),
        }
    }
}

/// Locks a directory; `None` where another has it, or where it was removed meanwhile.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{FlockOperation, flock};
    let is_gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let held = match File::open(dir) {
        Err(error) if is_gone(&error) => return Ok(None),
        opened => opened?,
    };
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    match fs::metadata(dir) {
        Ok(there) if files::is_same_file(&there, &held.metadata()?) => Ok(Some(held)),
        Ok(_) => Ok(None),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl HeldSessionDisk {
    /// Looks whether the disk is in no guest.
    ///
    /// # Errors
    /// [`SessionDiskError::Taken`] names the guest that has it.
    pub fn refuse_taken(&self, host: &LinuxHost) -> Result<(), ApplyError> {
        let disk = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            there => Some(there.map_err(FileError::when("look at", &self.path))?),
        };
        if let Some(guest) = holder(host, &self.name, disk.as_ref())? {
            return Err(SessionDiskError::Taken { disk: self.name.clone(), guest }.into());
        }
        match disk.as_ref().and_then(still_open) {
            Some(pid) => Err(SessionDiskError::StillOpen { disk: self.name.clone(), pid }.into()),
            None => Ok(()),
        }
    }

    /// Makes the disk where there is none, and lengthens a shorter one to `size` bytes; the guest grows the file system on it.
    ///
    /// # Errors
    /// Where it is longer than `size`.
    fn prepare(&self, guest: &GuestName, size: u64) -> Result<(), ApplyError> {
        let named = || FileError::when("open", &self.path);
        let disk = match File::options().read(true).write(true).open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return self.create(size),
            opened => opened.map_err(named())?,
        };
        let there = disk.metadata().map_err(named())?.len();
        if there > size {
            let [there, limit] = [there, size].map(ByteSize::from_bytes);
            let (disk, guest) = (self.name.clone(), guest.clone());
            return Err(SessionDiskError::TooLarge { disk, there, guest, limit }.into());
        }
        if there < size {
            let grown = disk.set_len(size).and_then(|()| disk.sync_all());
            grown.map_err(FileError::when("grow", &self.path))?;
        }
        Ok(())
    }

    /// An empty file system, which gets its name once it is whole.
    fn create(&self, size: u64) -> Result<(), ApplyError> {
        let new = self.path.with_file_name(format!("{NOT_WHOLE}disk"));
        let made = write_ext4(&empty(), &[], &options(&self.name, size), None, &new);
        made.map_err(|source| SessionDiskError::NotMade { disk: self.name.clone(), source })?;
        let whole = File::open(&new).and_then(|file| {
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        });
        whole.map_err(FileError::when("write", &self.path))?;
        Ok(self.path.parent().map_or(Ok(()), files::sync_dir)?)
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes one of its files for good.
    pub fn remove(self, file: &Path) -> Result<(), ApplyError> {
        Ok(files::remove(file)?)
    }
}

impl Drop for HeldSessionDisk {
    /// Where there is no disk, nothing of it stays.
    fn drop(&mut self) {
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// A home's worth of nothing: whose it is, is said by the guest that first mounts it.
fn empty() -> Tree<Content> {
    let mut tree = Tree::new();
    // The root of a tree is free.
    let _ = tree.insert("", Node::new(NodeKind::Directory, 0o700));
    tree
}

/// Longest label of an ext4 file system, in bytes.
const LABEL_MAX: usize = 16;

/// No two disks have one UUID, be they made under one name.
fn options(name: &Label, size: u64) -> Ext4Options {
    let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = Sha256::of(format!("session disk {name} {} {}", made.as_nanos(), std::process::id()));
    let (mut uuid, mut hash_seed) = ([0; 16], [0; 16]);
    let (first, last) = seed.0.split_at(16);
    uuid.copy_from_slice(first);
    hash_seed.copy_from_slice(last);
    let label = name.as_str().chars().take(LABEL_MAX).collect();
    let size = Some(ByteSize::from_bytes(size));
    Ext4Options { label, uuid: uuid_from(uuid), hash_seed, size, purpose: Purpose::ReadWrite }
}

/// The guest that has a disk of this name. One that the store has no file of any more may still be in a jail.
fn holder(host: &LinuxHost, name: &Label, disk: Option<&Metadata>) -> Result<Option<GuestName>, ApplyError> {
    if disk.is_some_and(|disk| disk.nlink() == 1) {
        return Ok(None);
    }
    host.cache.clear();
    for (guest, jails) in host.cache.all_jails(&host.layout)? {
        for id in jails {
            let there = id.root(&host.layout, &guest).join(in_jail(name));
            let is_it = |there: Metadata| disk.is_none_or(|disk| files::is_same_file(&there, disk));
            if fs::symlink_metadata(there).is_ok_and(is_it) {
                return Ok(Some(guest));
            }
        }
    }
    Ok(None)
}

/// A process of the last guest that had a disk and has it open, be it that its jail is gone: one that the kernel does not end.
fn still_open(disk: &Metadata) -> Option<u32> {
    let of_guest = process::rooted_elsewhere().into_iter().filter_map(|(pid, _)| process::inspect(pid));
    let mut of_guest = of_guest.filter(|process| process::uid(process) == Some(disk.uid()));
    let has_it = |process: &ProcessInfo| {
        HeldNode::open_in(process.id.pid, |meta| files::is_same_file(meta, disk)).is_some()
    };
    of_guest.find(has_it).map(|process| process.id.pid)
}

/// What a jail calls a session's disk, below its root.
fn in_jail(name: &Label) -> String {
    format!("{SESSION}/{name}.ext4")
}

impl GuestHandle<'_> {
    /// Looks whether a spare has a place for a session's disk, and has a disk that fits.
    ///
    /// # Errors
    /// Where it has none; nothing was done to it then.
    pub fn prepare_session_disk(self, disk: &HeldSessionDisk) -> Result<(), ApplyError> {
        let machine: Option<Machine> = self.machine()?;
        let size = machine.and_then(|machine| machine.session_disk);
        let size = size.ok_or_else(|| SessionDiskError::NoPlace { guest: self.name.clone() })?;
        disk.prepare(self.name, size)
    }

    /// Gives a guest the disk of its session.
    ///
    /// # Errors
    /// Where its VMM does not take it. The guest is then ended, and the disk free again.
    pub(super) fn attach_session_disk(
        self,
        vmm: &ProcessInfo,
        disk: &HeldSessionDisk,
    ) -> Result<(), ApplyError> {
        let machine: Option<Machine> = self.machine()?;
        let machine = machine.ok_or_else(|| VmmError::Gone(self.name.clone()))?;
        let (root, path) = (self.jail_root(vmm)?, in_jail(&disk.name));
        let link = root.join(&path);
        let size = fs::metadata(&disk.path).map_err(FileError::when("look at", &disk.path))?.len();
        fs::hard_link(&disk.path, &link).map_err(FileError::when("link", &link))?;
        let attached = self.host.scope.chown(&disk.path, machine.uid).and_then(|()| {
            control::connect(&root, &machine, vmm, PATIENCE)?.change_session_disk(&path, size)
        });
        attached.inspect_err(|_| {
            // Where it cannot be ended, the next `up` ends it; the disk is its own until then.
            if self.kill_vmm(Some(vmm)).is_ok() {
                let _ = fs::remove_file(&link);
            }
        })
    }

    /// Tells a guest that runs that the disk of its session is there: it reads a line on its serial port. One that has not read
    /// what was said before needs no more.
    pub(super) fn announce_session_disk(self) -> Result<(), ApplyError> {
        let path = self.dir().console_input();
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let told = File::options().write(true).custom_flags(flags).open(&path);
        match told.and_then(|mut pipe| pipe.write_all(b"\n")) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                Err(FileError::when("write to", path)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Waits until a guest that was told has mounted the disk of its session, as it says on its serial port. One that never said that
    /// it waits for a disk would not say more either.
    pub fn await_session_disk(self) -> Result<DiskMount, ApplyError> {
        let path = self.dir().log(LogKind::Serial);
        let named = || FileError::when("read", &path);
        let (begun, mut mount) = (Instant::now(), SessionMount::default());
        let mut log = Reader::open(&path, Start::This).map_err(named())?;
        let mut lines = Lines::default();
        loop {
            // Whoever writes without end is not read without end.
            while begun.elapsed() < MOUNT_LIMIT
                && let Some(log) = &mut log
                && let Some((time, bytes)) = log.read().map_err(named())?
            {
                lines.feed(time, &bytes, |_, line| mount.hear(line));
            }
            match mount {
                SessionMount::Mounted => return Ok(DiskMount::Mounted),
                SessionMount::Failed => return Ok(DiskMount::Failed),
                SessionMount::Untold => return Ok(DiskMount::Untold),
                SessionMount::Awaited if begun.elapsed() >= MOUNT_LIMIT => {
                    return Ok(DiskMount::Late(MOUNT_LIMIT));
                }
                SessionMount::Awaited => {
                    interrupt::end_if_asked();
                    thread::sleep(POLL);
                }
            }
        }
    }

    /// The disk of its session, where it has one: its name, and the file as the jail has it.
    pub fn session_disk(self) -> Option<(Label, HeldNode)> {
        self.session_disks().into_iter().next_back()
    }

    /// Opens the disk of its session, whether its VMM has ended or not; `None` where its session brought none.
    ///
    /// # Errors
    /// Where it brought one, as its record says, and no jail has it.
    pub fn open_session_disk(self) -> Result<Option<File>, ApplyError> {
        if let Some((_, held)) = self.session_disk() {
            return Ok(Some(held.open_to_read().map_err(FileError::when("open", held.path()))?));
        }
        match self.taken()?.and_then(|record| record.session?.disk) {
            Some(disk) => Err(SessionDiskError::NotInJail { disk, guest: self.name.clone() }.into()),
            None => Ok(None),
        }
    }

    /// Disks of sessions that its jails have, the newest last.
    fn session_disks(self) -> Vec<(Label, HeldNode)> {
        let (layout, guest) = (self.layout(), self.name);
        let mut found = Vec::new();
        for id in self.jails().unwrap_or_default() {
            let root = id.root(layout, guest);
            for file in files::names_in(&root.join(SESSION)).unwrap_or_default() {
                let name = file.strip_suffix(".ext4").and_then(|name| name.parse().ok());
                let Some(name): Option<Label> = name else { continue };
                found.extend(held_in(&root, &name).map(|held| (name, held)));
            }
        }
        found
    }

    /// Gives a session's disk that only a jail has its name in the store again, before that jail goes. What has the name instead
    /// stays, and the other is kept beside it.
    pub(super) fn relink_session_disks(self) -> Result<(), ApplyError> {
        for (name, held) in self.session_disks() {
            if held.metadata().nlink() > 1 {
                continue;
            }
            let dir = self.layout().session_disk_dir(&name);
            files::create_private_dir(&dir)?;
            for number in 0.. {
                let path = self.layout().session_disk_numbered(&name, number);
                match held.link(&path) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    linked => {
                        linked.map_err(FileError::when("link", &path))?;
                        break;
                    }
                }
            }
            files::sync_dir(&dir)?;
        }
        Ok(())
    }
}

/// A session's disk in a jail, over no link. It belongs to whom the jail's directory says nothing about, so its own owner counts.
fn held_in(root: &Path, name: &Label) -> Option<HeldNode> {
    let path = in_jail(name);
    let owner = fs::symlink_metadata(root.join(&path)).ok()?.uid();
    UntrustedDir::open(root, owner).ok()?.node(&path, FileKind::Regular).ok()
}

/// A session's disk of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDiskFile {
    pub name: Label,
    /// What `disk ls` calls it: `sessions/NAME`, and what was set aside `sessions/NAME.before-replaced`.
    pub listed: String,
    pub path: PathBuf,
    /// The guest that has it.
    pub guest: Option<GuestName>,
    /// Whether another was put in its place.
    pub set_aside: bool,
}

/// Whether a guest has mounted the disk of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMount {
    Mounted,
    /// It says that it cannot.
    Failed,
    /// It has not said so within this time.
    Late(Duration),
    /// Its image tells nothing of that.
    Untold,
}

/// What the names of sessions' disks begin with in lists.
pub const LISTED: &str = "sessions/";

/// Every session's disk of the store.
pub fn all(host: &LinuxHost) -> Result<Vec<SessionDiskFile>, ApplyError> {
    let layout = &host.layout;
    let mut found = Vec::new();
    for name in files::names_in(&layout.session_disks())? {
        let Ok(name) = name.parse::<Label>() else { continue };
        for file in files::names_in(&layout.session_disk_dir(&name))? {
            let Some(rest) = file.strip_prefix("disk").and_then(|rest| rest.strip_suffix(".ext4")) else {
                continue;
            };
            if !(rest.is_empty() || rest.starts_with(BEFORE)) {
                continue;
            }
            let path = layout.session_disk_dir(&name).join(&file);
            // One that went meanwhile is not there.
            let Ok(disk) = fs::symlink_metadata(&path) else { continue };
            let guest = holder(host, &name, Some(&disk))?;
            found.push(SessionDiskFile {
                listed: format!("{LISTED}{name}{rest}"),
                name: name.clone(),
                path,
                guest,
                set_aside: !rest.is_empty(),
            });
        }
    }
    found.sort_by(|a, b| natural_order(&a.listed, &b.listed));
    Ok(found)
}
