//! Going on from a snapshot: checked, consumed, loaded, in this order.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::apply::ApplyError;
use crate::apply::control::{self, LoadFlags, PATIENCE, VmmControl};
use crate::apply::linux::GuestHandle;
use crate::apply::record::{self, Freezing, Ready};
use crate::base::SnapshotName;
use crate::base::time::now;
use crate::host::layout::Layout;
use crate::host::ledger::{Fate, LedgerEvent};
use crate::host::snapshot::{
    self as parts, DISK, FileRecord, MEMORY, Obstacle, RESTORED, Restored, STATE, SnapshotManifest,
};
use crate::host::state::{Machine, MachineDisk};
use crate::host::versions;
use crate::sys::digest::digest_like;
use crate::sys::fs::{self as files, FileError};
use crate::sys::process::ProcessInfo;
use crate::sys::{ip, netns};

use super::ledger::{self, HeldLedger};
use super::seal::is_unwritten;
use super::{SnapshotError, shelf};

/// How long a VMM may take until it listens.
const CONTROL_LIMIT: Duration = Duration::from_secs(20);
/// How long one may take to say whether it runs; whoever asks has other guests to look at.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);
/// The kernel asks at its next tick, of 10 ms at most: what is sent before is answered to where the host was, and sent again after a
/// second.
const TICK: Duration = Duration::from_millis(12);
/// How long one attempt to reach a guest's sshd may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const SSH_PORT: u16 = 22;

/// Checks whether every file of a snapshot that can be restored is what its manifest tells; all that are not are named.
pub fn check_files(
    layout: &Layout,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<Vec<Obstacle>, ApplyError> {
    check_unless(layout, name, manifest, |_, _| false)
}

/// Finds what is wrong with a snapshot's files, and does not read those to which nobody wrote since, as their seals tell: what their
/// disk lost since is not found.
pub fn check_seals(
    layout: &Layout,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<Vec<Obstacle>, ApplyError> {
    check_unless(layout, name, manifest, is_unwritten)
}

fn check_unless(
    layout: &Layout,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
    is_known: impl Fn(&Path, &FileRecord) -> bool,
) -> Result<Vec<Obstacle>, ApplyError> {
    let mut found = Vec::new();
    for (file, record) in &manifest.files {
        let path = layout.ready_snapshot(name).join(file);
        if is_known(&path, record) {
            continue;
        }
        if !path.exists() {
            found.push(Obstacle::Missing(file.clone()));
        } else if digest_like(&record.digest, &path)? != (record.digest, record.size) {
            found.push(Obstacle::Damaged(file.clone()));
        }
    }
    Ok(found)
}

/// Finds what is wrong with the sizes of a snapshot's files, which takes no time.
pub fn check_sizes(layout: &Layout, name: &SnapshotName, manifest: &SnapshotManifest) -> Vec<Obstacle> {
    let size = |file: &String| fs::metadata(layout.ready_snapshot(name).join(file)).map(|meta| meta.len());
    let obstacle = |(file, record): (&String, &FileRecord)| match size(file) {
        Err(_) => Some(Obstacle::Missing(file.clone())),
        Ok(size) => Some(Obstacle::Damaged(file.clone())).filter(|_| size != record.size),
    };
    manifest.files.iter().filter_map(obstacle).collect()
}

/// Whether the ledger lets a snapshot be restored.
pub fn may_restore(
    layout: &Layout,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<(), ApplyError> {
    check_unused(name, ledger::look(layout)?.fate(manifest.id()))
}

pub(super) fn check_unused(name: &SnapshotName, fate: Option<&Fate>) -> Result<(), ApplyError> {
    match fate {
        Some(fate) if fate.is_open() => Ok(()),
        Some(Fate { line }) => Err(SnapshotError::Spent { name: name.clone(), line: line.clone() }.into()),
        None => Err(SnapshotError::Unknown(name.clone()).into()),
    }
}

/// A snapshot that was there when the plan was made.
fn gone(name: &SnapshotName, error: ApplyError) -> ApplyError {
    match error {
        ApplyError::Snapshot(SnapshotError::NotFound(_)) => SnapshotError::Gone(name.clone()).into(),
        other => other,
    }
}

impl GuestHandle<'_> {
    /// Takes a snapshot out of those that can be restored, and gives its disk to the guest. From the first line on, no other
    /// restore finds it.
    pub(in crate::apply) fn consume_snapshot(
        self,
        name: &SnapshotName,
        keeps_disk: bool,
    ) -> Result<(), ApplyError> {
        let (layout, guest) = (self.layout(), self.name);
        let (ready, consumed) = (layout.ready_snapshot(name), layout.consumed_snapshot(name));
        files::create_private_dir(&layout.consumed_snapshots())?;
        let mut ledger = HeldLedger::open(layout)?;
        let manifest = shelf::ready_manifest(layout, name).map_err(|error| gone(name, error))?;
        let id = manifest.id();
        check_unused(name, ledger.fate(id))?;
        self.check_ended(name, &manifest)?;
        match fs::rename(&ready, &consumed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::Gone(name.clone()).into());
            }
            renamed => renamed.map_err(FileError::when("consume", &ready))?,
        }
        let (snapshot, as_guest) = (name.clone(), Some(guest.clone()));
        if let Err(error) = ledger.add(LedgerEvent::Restored { id, snapshot, guest: as_guest }) {
            // Nothing came of it yet.
            fs::rename(&consumed, &ready).map_err(FileError::when("keep", &ready))?;
            return Err(error);
        }
        drop(ledger);
        files::sync_dir(&layout.consumed_snapshots())?;
        files::sync_dir(&layout.ready_snapshots())?;
        record::write(&consumed.join(RESTORED), &Restored { guest: guest.clone(), at: now() })?;
        if keeps_disk { self.take_over_disk(name, &manifest) } else { Ok(()) }
    }

    /// Checks whether the guest that was saved does not stand paused any more for this snapshot: once that is consumed, nothing says
    /// that it must not go on.
    fn check_ended(self, name: &SnapshotName, manifest: &SnapshotManifest) -> Result<(), ApplyError> {
        let saved = &manifest.guest;
        let marker: Option<Freezing> = record::read(&self.layout().guest(saved).freezing())?;
        let is_paused = marker.is_some_and(|marker| marker.snapshot == *name);
        if saved != self.name && is_paused && self.host.guest(saved).vmm().is_some() {
            return Err(SnapshotError::StillPaused { name: name.clone(), guest: saved.clone() }.into());
        }
        Ok(())
    }

    /// Puts the snapshot's disk, which holds what its manifest says, in the place of the guest's, which keeps a name of its own
    /// unless it holds the same. At no moment is there none.
    fn take_over_disk(self, name: &SnapshotName, manifest: &SnapshotManifest) -> Result<(), ApplyError> {
        let (layout, guest) = (self.layout(), self.name);
        let (from, disk) = (layout.consumed_snapshot(name).join(DISK), layout.disk(guest));
        files::create_private_dir(&layout.disks())?;
        let is_same = |record: &FileRecord| Ok(digest_like(&record.digest, &disk)?.0 == record.digest);
        if disk.exists() && !manifest.files.get(DISK).map_or(Ok::<_, ApplyError>(false), is_same)? {
            let aside = (1..).map(|number| layout.disk_before(guest, name, number));
            for aside in aside {
                match fs::hard_link(&disk, &aside) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    linked => {
                        linked.map_err(FileError::when("keep", &aside))?;
                        break;
                    }
                }
            }
        }
        let new = fs::metadata(&from).map_err(FileError::when("look at", &from))?;
        let size = manifest.disk_size().unwrap_or(new.len());
        self.expect_size(size)?;
        fs::rename(&from, &disk).map_err(FileError::when("replace", &disk))?;
        self.remember_given(size, new.ino())?;
        Ok(files::sync_dir(&layout.disks())?)
    }
}

impl GuestHandle<'_> {
    /// The size of the disk that a machine brings along from a snapshot that is not consumed yet.
    pub(in crate::apply) fn frozen_disk_size(self, machine: &Machine) -> Option<u64> {
        shelf::ready_manifest(self.layout(), machine.restored_from.as_ref()?).ok()?.disk_size()
    }

    /// Has the VMM load the snapshot that its machine goes on from.
    pub(in crate::apply) fn load_frozen(self, machine: &Machine) -> Result<(), ApplyError> {
        let host = self.host;
        let Some(name) = &machine.restored_from else { return Ok(()) };
        let layout = &host.layout;
        let attempt = || -> Result<(), ApplyError> {
            let manifest =
                shelf::consumed(layout, name)?.ok_or_else(|| SnapshotError::NotFound(name.clone()))?;
            let path = layout.consumed_snapshot(name).join(STATE);
            let state = File::open(&path).map_err(FileError::when("open", &path))?;
            let mut control = self.await_control(machine)?;
            let limit = parts::time_limit(machine.memory_mib);
            control.load(machine, &flags(machine, &manifest), &state, limit)
        };
        attempt().map_err(|source| self.without_snapshot(machine, source))
    }
}

fn flags(machine: &Machine, manifest: &SnapshotManifest) -> LoadFlags {
    let (vmm, kernel) = (&manifest.origin.vmm_version, &manifest.origin.kernel);
    LoadFlags {
        other_tap: machine.tap != manifest.machine.tap,
        clock_realtime: versions::can_forward_clock(vmm, kernel),
    }
}

impl GuestHandle<'_> {
    /// The control socket of a VMM that was just started, once it listens.
    pub(in crate::apply) fn await_control(
        self,
        machine: &Machine,
    ) -> Result<Box<dyn VmmControl>, ApplyError> {
        let guest = self.name;
        let end = Instant::now() + CONTROL_LIMIT;
        loop {
            let Some(vmm) = self.vmm() else {
                return Err(SnapshotError::NoVmm(guest.clone()).into());
            };
            // It is in its jail a moment after it is there.
            let connect = || control::connect(&self.jail_root(&vmm)?, machine, &vmm, PATIENCE);
            match connect() {
                Ok(control) => return Ok(control),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// Says that a snapshot is gone, and where its disk is.
    fn without_snapshot(self, machine: &Machine, source: ApplyError) -> ApplyError {
        let (layout, guest) = (self.layout(), self.name);
        let Some(snapshot) = machine.restored_from.clone() else { return source };
        let in_snapshot = layout.consumed_snapshot(&snapshot).join(DISK);
        let in_place = || (machine.disk == MachineDisk::Kept).then(|| layout.disk(guest));
        let disk = Some(in_snapshot).filter(|path| path.exists()).or_else(in_place);
        SnapshotError::LostOnRestore { snapshot, guest: guest.clone(), disk, source: Box::new(source) }.into()
    }

    /// Whether a VMM that was started for a snapshot has loaded it.
    pub(in crate::apply) fn has_loaded(self, machine: &Machine, vmm: &ProcessInfo) -> bool {
        let runs = || control::connect(&self.jail_root(vmm)?, machine, vmm, LOOK_LIMIT)?.runs();
        runs().unwrap_or(false)
    }

    /// Waits until a guest that went on from a snapshot runs, and can be reached where it has an sshd. What it said when it
    /// booted is in the snapshot.
    pub(in crate::apply) fn await_restored(self, machine: &Machine) -> Result<(), ApplyError> {
        let host = self.host;
        let layout = &host.layout;
        let attempt = || -> Result<(), ApplyError> {
            let vmm = self.vmm();
            let vmm = vmm.ok_or(SnapshotError::DoesNotRun)?;
            if !self.has_loaded(machine, &vmm) {
                return Err(SnapshotError::DoesNotRun.into());
            }
            let manifest = machine.restored_from.as_ref().map(|name| shelf::consumed(layout, name));
            let (host_key, containers) =
                manifest.transpose()?.flatten().map_or_else(Default::default, |m| (m.host_key, m.containers));
            let answer = || await_answer(machine, host_key.is_some(), host.ready_timeout);
            netns::within(&layout.netns(), answer)??;
            let ready = Ready { vmm: vmm.id, host_key, containers };
            self.take_back_jail(&vmm)?;
            Ok(record::write(&self.dir().ready(), &ready)?)
        };
        attempt().map_err(|source| self.without_snapshot(machine, source))
    }
}

/// Tells the guest the hardware address of the host, whose end of the TAP has another than before, and waits until its sshd answers
/// where it has one.
///
/// The host would ask for the guest, and tell its own address by that, were it not told the guest's by QEMU, which announces it, and
/// by the guest itself: it asks only when what it knows has grown old, and until then, for six seconds, the guest answers to where the
/// host was.
fn await_answer(machine: &Machine, has_sshd: bool, limit: Duration) -> Result<(), ApplyError> {
    // A guest without a network stack needs none of it.
    let tell = || ip::probe_neighbour(machine.tap.as_str(), machine.ip, machine.mac.0);
    let _ = tell();
    if has_sshd {
        std::thread::sleep(TICK);
    }
    let end = Instant::now() + limit;
    let answers =
        || TcpStream::connect_timeout(&SocketAddr::from((machine.ip, SSH_PORT)), CONNECT_LIMIT).is_ok();
    while has_sshd && !answers() {
        if Instant::now() > end {
            return Err(SnapshotError::DoesNotAnswer.into());
        }
        let _ = tell();
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Removes the files of a snapshot whose guest came up. Its manifest stays, to tell that it was there; a disk that is still
/// in it was copied.
pub(in crate::apply) fn remove_restored(layout: &Layout, name: &SnapshotName) -> Result<(), ApplyError> {
    let dir = layout.consumed_snapshot(name);
    Ok([MEMORY, STATE, DISK].iter().try_for_each(|file| files::remove(&dir.join(file)))?)
}
