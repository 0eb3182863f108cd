//! Making a snapshot. The guest stands still while its memory is written and its disk is copied, and goes on whatever
//! fails.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::apply::control::{self, PATIENCE, PAUSE_LIMIT, VmmControl};
use crate::apply::linux::{GuestHandle, LinuxHost};
use crate::apply::record::{self, Freezing, Ready, Unreadable};
use crate::apply::{ApplyError, preflight};
use crate::base::time::now;
use crate::base::{GuestName, Sha256, SnapshotName};
use crate::host::layout::Layout;
use crate::host::ledger::{LedgerEvent, SnapshotId};
use crate::host::names::{FROZEN_MEMORY, FROZEN_STATE};
use crate::host::observed::Paused;
use crate::host::snapshot::{
    self as parts, CORE, DISK, MANIFEST, MEMORY, SESSION_DISK, STATE, SavedPages, SnapshotManifest,
    SnapshotOrigin,
};
use crate::host::state::{Machine, MachineDisk};
use crate::host::vmm;
use crate::sys::cgroup::Limits;
use crate::sys::fs::{self as files, FileError};
use crate::sys::process::ProcessInfo;
use crate::sys::remove::remove_tree;
use crate::sys::report::{Report, Task, Unit};
use crate::sys::writeback::EarlyWriteback;
use crate::sys::{kernel, sparse, ssh};

use super::ledger::HeldLedger;
use super::seal::seal;
use super::{SnapshotError, origin, shelf};

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotRequest<'a> {
    pub guest: &'a GuestName,
    pub name: &'a SnapshotName,
    /// Whether the guest must not go on beside its snapshot.
    pub stop: bool,
    /// Whether its memory is written as an ELF core too, where the VMM's state has it in a form that no other program reads.
    pub core: bool,
}

/// A snapshot that is whole.
#[derive(Debug)]
pub struct MadeSnapshot {
    pub manifest: SnapshotManifest,
    /// What a restore would find here now.
    pub here: SnapshotOrigin,
}

/// How long a guest may take to write back what it has not yet.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
/// Where random bytes come from (random(4)).
const RANDOM: &str = "/dev/urandom";
/// How often a guest that should go on is told so.
const RESUME_ATTEMPTS: usize = 3;

/// A guest that runs, and whose snapshot is to be made.
pub(super) struct Subject {
    pub process: ProcessInfo,
    pub machine: Machine,
    ready: Ready,
    root: PathBuf,
    disk: File,
    /// What its cgroup allows.
    limits: Option<Limits>,
}

/// Freezes a guest. One that is to stop is left paused, with its snapshot whole: whoever calls this ends it. Any other
/// goes on as soon as all is copied. Gives what was made, and for how long the guest stood still.
///
/// # Errors
/// Where the guest is not running, the name is taken, there is no room, or something fails; the guest then goes on, and
/// nothing is left of the snapshot.
pub fn create(
    host: &LinuxHost,
    request: &SnapshotRequest<'_>,
    report: &dyn Report,
) -> Result<(MadeSnapshot, Duration), ApplyError> {
    freeze(host, request, report, |written, task| describe(host, request, written, task))
}

/// A guest whose files were written and that goes on already, unless it is to stop.
pub(super) struct FrozenFiles<'a> {
    pub subject: &'a Subject,
    pub origin: SnapshotOrigin,
    /// What a restore would find.
    pub here: SnapshotOrigin,
    /// Where the files are.
    pub dir: &'a Path,
}

/// Freezes a guest, and has `finish` make of what was written what it is to be. Where anything fails, nothing of that is left.
/// Gives that, and for how long the guest stood still.
pub(super) fn freeze<T>(
    host: &LinuxHost,
    request: &SnapshotRequest<'_>,
    report: &dyn Report,
    finish: impl FnOnce(FrozenFiles<'_>, &dyn Task) -> Result<T, ApplyError>,
) -> Result<(T, Duration), ApplyError> {
    let Prepared { subject, origin, here } = prepare(host, request)?;
    let task = report.begin(&format!("freeze {}", request.guest), None, Unit::Steps);
    host.guest(request.guest).quiesce(&subject, &*task, report);

    let dir = host.layout.new_snapshot(request.name);
    let made = write_all(host, request, (&subject, &origin), &dir, &*task).and_then(|still| {
        let written = FrozenFiles { subject: &subject, origin, here, dir: &dir };
        Ok((finish(written, &*task)?, still))
    });
    match made {
        Ok((made, still)) => {
            if !request.stop {
                host.guest(request.guest).limit_again(&subject);
            }
            task.finish(&format!("frozen, paused for {} ms", still.as_millis()));
            Ok((made, still))
        }
        Err(source) => {
            let error = take_back(host, request, &dir, source);
            host.guest(request.guest).limit_again(&subject);
            Err(error)
        }
    }
}

/// A guest that can be frozen, the VMM that runs it, and the one that is installed.
struct Prepared {
    subject: Subject,
    origin: SnapshotOrigin,
    here: SnapshotOrigin,
}

/// Finds the guest, and refuses what can be known before it is paused.
fn prepare(host: &LinuxHost, request: &SnapshotRequest<'_>) -> Result<Prepared, ApplyError> {
    let layout = &host.layout;
    // Whoever else would have frozen it is gone: this process alone may change the host.
    if matches!(host.guest(request.guest).paused(), Ok(Some(Paused::Unfinished))) {
        host.guest(request.guest).unpause(PAUSE_LIMIT)?;
    }
    let subject = host.guest(request.guest).subject()?;
    if !vmm::of(subject.machine.vmm).can_freeze(&subject.machine) {
        return Err(SnapshotError::HugePages(request.guest.clone()).into());
    }
    match shelf::find(layout, request.name) {
        Err(ApplyError::Snapshot(SnapshotError::NotFound(_))) => {}
        Err(error) => return Err(error),
        Ok(_) => return Err(SnapshotError::Exists(request.name.clone()).into()),
    }
    shelf::clear(layout)?;
    // One that cannot be counted is not made.
    if !request.core {
        HeldLedger::open(layout)?;
    }
    let here = origin::here(subject.machine.vmm)?;
    let origin = origin::of_process(&here, subject.process.id.pid)?;
    let taken = subject.disk.metadata().map_or(0, |disk| files::allocated(&disk));
    let memories = if request.core { 2 } else { 1 };
    preflight::check_room_for(layout, (subject.machine.memory_mib << 20) * memories + taken)?;
    Ok(Prepared { subject, origin, here })
}

/// Writes the manifest of a snapshot whose files are there, and gives the snapshot its name.
fn describe(
    host: &LinuxHost,
    request: &SnapshotRequest<'_>,
    FrozenFiles { subject, origin, here, dir }: FrozenFiles<'_>,
    task: &dyn Task,
) -> Result<MadeSnapshot, ApplyError> {
    let manifest = SnapshotManifest {
        id: Some(new_id().map_err(FileError::when("read", RANDOM))?),
        guest: request.guest.clone(),
        created: now(),
        machine: Machine { restored_from: None, ..subject.machine.clone() },
        host_key: subject.ready.host_key.clone(),
        containers: subject.ready.containers.clone(),
        origin,
        files: seal(dir, task)?,
        given_disk_size: host.guest(request.guest).given_disk_size(subject),
    };
    host.check_signals()?;
    record::write_synced(&dir.join(MANIFEST), &manifest)?;
    let (snapshot, guest) = (request.name.clone(), request.guest.clone());
    HeldLedger::open(&host.layout)?.add(LedgerEvent::Made { id: manifest.id(), snapshot, guest })?;
    put_away(&host.layout, request.name, dir)?;
    Ok(MadeSnapshot { manifest, here })
}

/// One that no other snapshot has, anywhere.
fn new_id() -> std::io::Result<SnapshotId> {
    let mut bytes = [0; 32];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(SnapshotId(Sha256(bytes)))
}

impl GuestHandle<'_> {
    fn subject(self) -> Result<Subject, ApplyError> {
        let (host, guest) = (self.host, self.name);
        let layout = &host.layout;
        let not_running = || SnapshotError::NotRunning(guest.clone());
        let process = self.vmm().ok_or_else(not_running)?;
        let machine: Machine = self.machine()?.ok_or_else(not_running)?;
        let ready = self.ready(Some(&process))?;
        let ready = ready.ok_or_else(|| SnapshotError::NotReady(guest.clone()))?;
        if self.dir().freezing().exists() {
            return Err(SnapshotError::Paused(guest.clone()).into());
        }
        let root = self.jail_root(&process)?;
        let disk = self.open_disk(&machine, &process)?;
        let limits = host.hierarchy.limits(&layout.cgroup(guest));
        Ok(Subject { process, machine, ready, root, disk, limits })
    }

    /// How many bytes the host gave a disk that is kept, where that is known.
    fn given_disk_size(self, subject: &Subject) -> Option<u64> {
        let length = subject.disk.metadata().ok()?.len();
        (subject.machine.disk == MachineDisk::Kept).then(|| self.given_size(length))
    }

    /// Has the guest write its files back, so that the disk alone is worth something too. It is the guest's user that asks:
    /// freezing its file systems would take root in it. A guest that cannot be asked is frozen as it is.
    fn quiesce(self, subject: &Subject, task: &dyn Task, report: &dyn Report) {
        let guest = self.name;
        task.detail("sync");
        let Ok(Some(target)) = self.ssh_target(&subject.ready) else { return };
        let synced = ssh::run_within(&target, &["sync".to_owned()], b"", SYNC_LIMIT);
        if !synced.is_ok_and(|finished| finished.code == 0) {
            report.note(&format!(
                "{guest} did not run `sync` successfully; the snapshot has its disk as \
          it is"
            ));
        }
    }
}

/// Pauses the guest and writes everything; a guest that is not to stop goes on at once. Gives how long it stood still.
fn write_all(
    host: &LinuxHost,
    request: &SnapshotRequest<'_>,
    (subject, origin): (&Subject, &SnapshotOrigin),
    dir: &Path,
    task: &dyn Task,
) -> Result<Duration, ApplyError> {
    let (layout, machine) = (&host.layout, &subject.machine);
    files::create_private_dir(dir)?;
    let (state, memory) = open_state_and_memory(host, subject, dir)?;
    host.guest(request.guest).loosen(subject)?;

    let mut control = control::connect(&subject.root, machine, &subject.process, PATIENCE)?;
    let marker = Freezing { snapshot: request.name.clone(), stop: request.stop };
    record::write(&layout.guest(request.guest).freezing(), &marker)?;
    let begun = Instant::now();
    task.detail("pause");
    host.check_signals()?;
    control.pause()?;
    task.detail("write memory");
    let limit = parts::time_limit(machine.memory_mib);
    let early = EarlyWriteback::begin(memory);
    save(&mut *control, (machine, origin), &state, limit)?;
    drop(early);
    check_state(request.guest, machine, &state, dir)?;
    if request.core && !vmm::of(machine.vmm).has_snapshot_in_jail() {
        control.write_core(&new_file(dir, CORE)?, limit)?;
    }
    host.check_signals()?;
    task.detail("copy the disk");
    copy_disk(subject, dir)?;
    host.guest(request.guest).copy_session_disk(dir)?;
    let still = begun.elapsed();
    remove_links(&subject.root)?;
    if !request.stop {
        control.resume(PAUSE_LIMIT)?;
        files::remove(&layout.guest(request.guest).freezing())?;
    }
    Ok(still)
}

/// Has the VMM write what it has to.
fn save(
    control: &mut dyn VmmControl,
    (machine, origin): (&Machine, &SnapshotOrigin),
    state: &File,
    limit: Duration,
) -> Result<(), ApplyError> {
    let pages = parts::pages_to_save(machine, origin, may_swap());
    control.save(state, pages, limit)?;
    // Somebody may have switched it on meanwhile.
    if pages == SavedPages::Touched && may_swap() {
        control.save(state, SavedPages::All, limit)?;
    }
    Ok(())
}

/// Whether memory may be in swap; also where that cannot be read.
fn may_swap() -> bool {
    kernel::value("/proc/swaps").is_none_or(|text| !kernel::parse_swaps(&text).is_empty())
}

fn copy_disk(subject: &Subject, dir: &Path) -> Result<(), FileError> {
    let copied = new_file(dir, DISK)?;
    sparse::copy(&subject.disk, &copied).map_err(FileError::when("copy the disk to", dir.join(DISK)))
}

impl GuestHandle<'_> {
    /// Where its session brought one.
    fn copy_session_disk(self, dir: &Path) -> Result<(), ApplyError> {
        let Some((_, held)) = self.session_disk() else { return Ok(()) };
        let disk = held.open_to_read().map_err(FileError::when("open", held.path()))?;
        let copied = sparse::copy(&disk, &new_file(dir, SESSION_DISK)?);
        Ok(copied.map_err(FileError::when("copy the disk to", dir.join(SESSION_DISK)))?)
    }
}

fn new_file(dir: &Path, name: &str) -> Result<File, FileError> {
    let path = dir.join(name);
    File::create_new(&path).map_err(FileError::when("create", &path))
}

/// The limits of a VMM that writes its guest's memory. What it writes counts as its own memory until it is on the disk. On
/// version 2 its limits on block devices hold for that as well, and a guest would stand still for minutes.
fn while_written(limits: &Limits, machine: &Machine) -> Limits {
    let memory = limits.memory.map(|limit| limit.saturating_add(machine.memory_mib << 20));
    Limits { memory, io: BTreeMap::new(), ..limits.clone() }
}

/// Checks whether a VMM that says so has written something at all: all of the memory, and a state.
fn check_state(guest: &GuestName, machine: &Machine, state: &File, dir: &Path) -> Result<(), ApplyError> {
    let length = |file: std::io::Result<fs::Metadata>| file.map_or(0, |meta| meta.len());
    // Otherwise the state holds the memory too, but for what is zero.
    let has_memory = !vmm::of(machine.vmm).has_snapshot_in_jail()
        || length(fs::metadata(dir.join(MEMORY))) == machine.memory_mib << 20;
    if has_memory && length(state.metadata()) > 0 {
        Ok(())
    } else {
        Err(SnapshotError::NothingWritten(guest.clone()).into())
    }
}

/// Files for the state of a guest and for its memory, which are one where the VMM has it so.
fn open_state_and_memory(
    host: &LinuxHost,
    subject: &Subject,
    dir: &Path,
) -> Result<(File, File), ApplyError> {
    let state = open_for_vmm(host, subject, dir, STATE, FROZEN_STATE)?;
    let memory = match vmm::of(subject.machine.vmm).has_snapshot_in_jail() {
        true => open_for_vmm(host, subject, dir, MEMORY, FROZEN_MEMORY)?,
        false => state.try_clone().map_err(FileError::when("open", dir.join(STATE)))?,
    };
    Ok((state, memory))
}

/// Makes a file that the VMM may write. Firecracker finds it in its jail: a second name, so that what the VMM does to its
/// own directory cannot reach the first.
fn open_for_vmm(
    host: &LinuxHost,
    subject: &Subject,
    dir: &Path,
    name: &str,
    in_jail: &str,
) -> Result<File, ApplyError> {
    let path = dir.join(name);
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(FileError::when("create", &path))?;
    if vmm::of(subject.machine.vmm).has_snapshot_in_jail() {
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(FileError::when("set the mode of", &path))?;
        host.scope.chown(&path, subject.machine.uid)?;
        let link = subject.root.join(in_jail);
        clear_name(&link)?;
        fs::hard_link(&path, &link).map_err(FileError::when("link", &link))?;
    }
    Ok(file)
}

impl GuestHandle<'_> {
    /// What holds while the VMM writes the guest's memory.
    fn loosen(self, subject: &Subject) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        if let Some(limits) = &subject.limits {
            host.hierarchy.create(&host.layout.cgroup(guest), &while_written(limits, &subject.machine))?;
        }
        Ok(())
    }

    /// Where that fails, the next `up` finds that the limits are not as they should be.
    fn limit_again(self, subject: &Subject) {
        let (host, guest) = (self.host, self.name);
        let again = |limits| host.hierarchy.create(&host.layout.cgroup(guest), limits);
        let _ = subject.limits.as_ref().map(again);
    }
}

fn remove_links(root: &Path) -> Result<(), ApplyError> {
    [FROZEN_MEMORY, FROZEN_STATE].iter().try_for_each(|name| clear_name(&root.join(name)))
}

/// Removes whatever has a name in a jail, be it a tree that the guest's uid put there.
fn clear_name(path: &Path) -> Result<(), ApplyError> {
    remove_tree(path).into_iter().next().map_or(Ok(()), |left| Err(left.into()))
}

/// Gives a whole snapshot its name.
pub(super) fn put_away(layout: &Layout, name: &SnapshotName, dir: &Path) -> Result<(), ApplyError> {
    let target = layout.ready_snapshot(name);
    files::create_private_dir(&layout.ready_snapshots())?;
    files::sync_dir(dir)?;
    fs::rename(dir, &target).map_err(FileError::when("create", &target))?;
    files::sync_dir(&layout.ready_snapshots())?;
    Ok(files::sync_dir(&layout.snapshots())?)
}

/// Lets the guest go on, and removes what was written.
fn take_back(host: &LinuxHost, request: &SnapshotRequest<'_>, dir: &Path, source: ApplyError) -> ApplyError {
    let guest = request.guest.clone();
    // Before the guest goes on, so that it never runs beside a snapshot that was to end it. What cannot be removed now is by
    // the next command.
    let removed = [dir, &host.layout.ready_snapshot(request.name)].map(files::remove);
    let goes_on = removed[1].is_ok() && host.guest(&guest).unpause(PAUSE_LIMIT).is_ok();
    SnapshotError::NotMade { guest, goes_on, source: Box::new(source) }.into()
}

impl GuestHandle<'_> {
    /// Lets a guest go on that may be paused for a snapshot; its VMM may take as long as `limit`.
    pub(in crate::apply) fn unpause(self, limit: Duration) -> Result<(), ApplyError> {
        let machine: Option<Machine> = self.machine()?;
        let vmm = self.vmm();
        let (Some(machine), Some(vmm)) = (machine, vmm) else { return Ok(()) };
        let root = self.jail_root(&vmm)?;
        if self.dir().freezing().exists() {
            // The connection that failed may be in anybody's hands; another one may do.
            let end = Instant::now() + limit;
            let left = || end.saturating_duration_since(Instant::now());
            let resume = || control::connect(&root, &machine, &vmm, left().min(PATIENCE))?.resume(left());
            let mut resumed = resume();
            for _ in 1..RESUME_ATTEMPTS {
                resumed = resumed.or_else(|error| if left().is_zero() { Err(error) } else { resume() });
            }
            resumed?;
            files::remove(&self.dir().freezing())?;
        }
        remove_links(&root)
    }

    /// Why a guest's VMM stands still, where it does.
    pub(in crate::apply) fn paused(self) -> Result<Option<Paused>, Unreadable> {
        let layout = self.layout();
        let marker: Option<Freezing> = record::read(&self.dir().freezing())?;
        Ok(marker.map(|marker| match marker.stop && layout.ready_snapshot(&marker.snapshot).exists() {
            true => Paused::Frozen,
            false => Paused::Unfinished,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::VmmKind;
    use crate::host::snapshot::tests::manifest;
    use crate::sys::cgroup::{Device, IoLimits};

    #[test]
    fn while_memory_is_written_nothing_slows_the_disk_down() {
        let machine = manifest(VmmKind::Firecracker).machine;
        let io = BTreeMap::from([(
            Device { major: 8, minor: 0 },
            IoLimits { write_bytes: Some(1), ..IoLimits::NONE },
        )]);
        let limits = Limits { memory: Some(1 << 30), io, ..Limits::NONE };
        let lifted = while_written(&limits, &machine);
        assert_eq!((lifted.memory, lifted.io.len()), (Some((1 << 30) + (machine.memory_mib << 20)), 0));
        assert_eq!(Limits { memory: limits.memory, io: limits.io.clone(), ..lifted }, limits);
    }
}
