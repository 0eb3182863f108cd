//! VMMs: started in their cgroup, waited for, asked to stop, and ended.

use crate::apply::VmmError;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::base::{GUEST_USER, GuestName};
use crate::host::console::ConsoleLog;
use crate::host::jail::{MemoryFile, jail};
use crate::host::logs::LogKind::{self, Serial, Vmm};
use crate::host::names::DISK;
use crate::host::observed::Paused;
use crate::host::state::{Machine, MachineDisk};
use crate::host::vmm::{FileLimits, VmmStart, file_limits, of};
use crate::sys::fs::{self as files, FileError};
use crate::sys::launch::{self, InMemory, LaunchRequest};
use crate::sys::log;
use crate::sys::netns::{self, Presence};
use crate::sys::process::{self, ProcessInfo, Signal};
use crate::sys::ssh::Target;
use crate::sys::tool::{self, Tool};

use super::control::PATIENCE;
use super::jail_id::JailId;
use super::keeper::KeeperReason;
use super::linux::GuestHandle;
use super::record::{self, Ready, StartedVmm};
use super::{ApplyError, control};

const POLL: Duration = Duration::from_millis(50);
/// How many pieces of a log are read before another look at the clock.
const AT_ONCE: usize = 256;
/// How soon a new process is looked for in its cgroup again; each time twice as late, up to [`POLL`].
const JOIN_POLL: Duration = Duration::from_millis(2);
/// How long a new process may take to join it, on a machine under load.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the kernel may take to end a process that was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl GuestHandle<'_> {
    /// Starts the VMM of a machine whose jail is laid out.
    pub(super) fn start_vmm(self, machine: &Machine) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        let layout = &host.layout;
        let newest = self.jails()?.pop().filter(|id| id.vmm == machine.vmm);
        let id = newest.ok_or_else(|| VmmError::NoJail(guest.clone()))?;
        // The record first: a VMM that runs is then always known.
        for earlier in self.dir().records_of_vmm() {
            files::remove(&earlier)?;
        }
        host.cache.forget_end(guest);
        record::write(&self.dir().machine(), &machine.as_started())?;
        let input = console(&self.dir().console_input())?;
        let launcher = self.launch_command(id, machine)?;
        let ends = self.start_keeper(machine.vmm, &id.root(layout, guest), KeeperReason::NewVmm)?;
        let started = launch::spawn(&launcher, input, ends.serial, ends.said)?;
        let pid = started.pid;
        self.note_started(pid)?;
        host.launched.lock().unwrap_or_else(PoisonError::into_inner).insert(guest.clone(), started);
        // From here on the cgroup says whether the VMM runs, so it must be in it, or have ended.
        self.await_joining(pid)?;
        // One that does not come up must be known before its snapshot is consumed.
        if machine.restored_from.is_some() { self.await_control(machine).map(drop) } else { Ok(()) }
    }

    /// Puts down which process the VMM is: it may start others, and end before them.
    fn note_started(self, pid: u32) -> Result<(), ApplyError> {
        let Some(vmm) = process::inspect(pid) else { return Ok(()) };
        Ok(record::write(&self.dir().started(), &StartedVmm(vmm.id))?)
    }

    /// Waits until a process that was started is in the guest's cgroup, or has ended.
    fn await_joining(self, pid: u32) -> Result<(), ApplyError> {
        let cgroup = self.layout().cgroup(self.name);
        let (begun, mut pause) = (Instant::now(), JOIN_POLL);
        while !self.host.hierarchy.holds(&cgroup, pid) {
            let Some(vmm) = process::inspect(pid) else { break };
            if begun.elapsed() > JOIN_TIMEOUT {
                self.kill_outside_cgroup(&vmm)?;
                break;
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(POLL);
        }
        Ok(())
    }

    /// What takes all that a VMM needs of its host beside its jail, and becomes the VMM.
    fn launch_command(self, id: JailId, machine: &Machine) -> Result<Tool, ApplyError> {
        let (layout, guest) = (self.layout(), self.name);
        let jailed = of(machine.vmm).jailed_program();
        let executable = jailed.map(|program| tool::find(program).ok_or(ApplyError::NoVmm { program }));
        let vmm = self.vmm_command(id, machine, &executable.transpose()?.unwrap_or_default());
        let argv: Vec<_> = vmm.argv().cloned().collect();
        let (netns, root) = (layout.netns(), id.root(layout, guest));
        let jail = jail(guest, machine, layout);
        let file = jail.memory_files().next().map(|file| (root.join(file.path), file));
        let request = LaunchRequest {
            cgroups: &self.host.hierarchy.join_files(&layout.cgroup(guest)),
            netns: Some(netns.path()),
            // Firecracker's jailer is told itself.
            file_size: jailed.is_none().then(|| self.file_limits_in(id, machine).size),
            starter: Some(std::process::id()),
            in_memory: file.as_ref().map(|(to, MemoryFile { from, size, .. })| InMemory {
                from,
                to,
                size: *size,
                uid: machine.uid,
            }),
            argv: &argv,
        };
        Ok(request.command(&self.host.launcher).dir(root))
    }

    /// What starts the VMM of a machine in the root of its jail, which is laid out; `executable` is Firecracker.
    pub fn vmm_command(self, id: JailId, machine: &Machine, executable: &Path) -> Tool {
        let (layout, guest) = (self.layout(), self.name);
        let files = self.file_limits_in(id, machine);
        let attempt = id.attempt;
        of(machine.vmm).command(&VmmStart { guest, attempt, machine, layout, files, executable })
    }

    fn file_limits_in(self, id: JailId, machine: &Machine) -> FileLimits {
        let (layout, guest) = (self.layout(), self.name);
        if let MachineDisk::Ephemeral { size, in_memory: true, .. } = machine.disk {
            return file_limits(machine, size);
        }
        // Of a jail that is laid out, and in which nothing has run yet.
        let disk = std::fs::symlink_metadata(id.root(layout, guest).join(DISK)).map_or(0, |disk| disk.len());
        let kept = machine.disk == MachineDisk::Kept;
        let given = || self.frozen_disk_size(machine).unwrap_or_else(|| self.given_size(disk));
        file_limits(machine, if kept { given() } else { disk })
    }

    /// Kills a VMM that is not in its cgroup for every controller: nothing would hold what it takes.
    ///
    /// # Errors
    /// [`VmmError::NotInCgroup`] where it was killed.
    fn kill_outside_cgroup(self, vmm: &ProcessInfo) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        let cgroup = host.layout.cgroup(guest);
        if host.hierarchy.holds(&cgroup, vmm.id.pid) || process::inspect(vmm.id.pid).is_none() {
            return Ok(());
        }
        end(guest, vmm)?;
        Err(VmmError::NotInCgroup { guest: guest.clone(), cgroup }.into())
    }

    /// Takes a VMM back into its cgroup. What it took meanwhile is not counted there.
    pub(super) fn take_into_cgroup(self) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        let vmm = self.vmm();
        let vmm = vmm.ok_or_else(|| VmmError::Gone(guest.clone()))?;
        Ok(host.hierarchy.take_in(&host.layout.cgroup(guest), vmm.id.pid)?)
    }

    pub(super) fn continue_vmm_if_there(self) -> Result<(), ApplyError> {
        self.vmm().map_or(Ok(()), |vmm| self.continue_vmm(&vmm))
    }

    /// Lets the process of the VMM run, whoever stopped it.
    fn continue_vmm(self, vmm: &ProcessInfo) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        host.hierarchy.thaw(&host.layout.cgroup(guest))?;
        // One that ended meanwhile is started by the next plan.
        let _ = process::send_signal(vmm.id, Signal::CONT);
        Ok(())
    }
}

/// A pipe that stays open: its reader never sees an end.
fn console(path: &Path) -> Result<File, ApplyError> {
    files::make_pipe(path)?;
    Ok(File::options().read(true).write(true).open(path).map_err(FileError::when("open", path))?)
}

impl GuestHandle<'_> {
    /// Waits until a guest says that it is ready, or its VMM ends, or it takes too long. What it says is read as it comes: a
    /// guest that says much may have pushed its beginning out of the log before long.
    pub(super) fn await_ready(self) -> Result<(), ApplyError> {
        let host = self.host;
        let machine: Option<Machine> = self.machine()?;
        if let Some(machine) = machine.as_ref().filter(|machine| machine.restored_from.is_some()) {
            return self.await_restored(machine);
        }
        let is_it = |vmm: &ProcessInfo| machine.as_ref().is_some_and(|m| process::uid(vmm) == Some(m.uid));
        let mut taken_back = false;
        let begun = Instant::now();
        let (mut serial, mut vmm_log) = (Listener::to(self, Serial)?, Listener::to(self, Vmm)?);
        let mut vmm = None;
        loop {
            host.check_signals()?;
            // Looked for before the log is read, so that the last words of one that ended are seen.
            vmm = vmm.as_ref().and_then(|vmm: &ProcessInfo| process::again(vmm.id)).or_else(|| self.vmm());
            if vmm.is_none() {
                self.end_keeper()?;
            }
            // As soon as whatever lays out the jail has become the VMM. One that is not there yet, or no more, is met below.
            if let Some(vmm) = vmm.as_ref().filter(|vmm| !taken_back && is_it(vmm)) {
                taken_back = self.take_back_root(vmm).is_ok();
            }
            serial.listen(vmm.is_some())?;
            vmm_log.listen(vmm.is_some())?;
            let heard = &serial.heard;
            if let (Some(said), Some(vmm), None) = (heard.ready(), &vmm, heard.failed_services()) {
                // Whoever started it may have moved it since.
                self.kill_outside_cgroup(vmm)?;
                let host_key = said.host_key.clone();
                let ready = Ready { vmm: vmm.id, host_key, containers: Vec::new() };
                self.take_back_jail(vmm)?;
                return Ok(record::write(&self.dir().ready(), &ready)?);
            }
            let may_come = serial.heard.failed_services().is_none() && vmm.is_some();
            if !may_come || begun.elapsed() > host.ready_timeout {
                return Err(self.not_ready(vmm.is_some(), serial.heard, vmm_log.heard));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Why a guest is not ready, from what was heard of it.
    fn not_ready(self, it_lives: bool, serial: ConsoleLog, vmm: ConsoleLog) -> ApplyError {
        let (host, guest) = (self.host, self.name);
        let failed = serial.failed_services().map(str::to_owned);
        let (said, last_lines) = (vmm.last_lines(), serial.last_lines());
        if failed.is_none() && !it_lives {
            return self.why_it_ended(said, last_lines);
        }
        let (guest, last_lines) = (guest.clone(), [said, last_lines].concat());
        match failed {
            Some(services) => VmmError::Services { guest, services, last_lines }.into(),
            None => VmmError::NotReady { guest, after: host.ready_timeout, last_lines }.into(),
        }
    }
}

/// A log of this start, and what was read of it.
struct Listener {
    path: PathBuf,
    reader: Option<log::Reader>,
    heard: ConsoleLog,
}

impl Listener {
    fn to(guest: GuestHandle<'_>, kind: LogKind) -> Result<Self, ApplyError> {
        let path = guest.dir().log(kind);
        let reader = log::Reader::open(&path, log::Start::This).map_err(FileError::when("read", &path))?;
        Ok(Self { path, reader, heard: ConsoleLog::default() })
    }

    /// Reads what came meanwhile. Whoever lives may write faster than it is read, so that not all is read at once.
    fn listen(&mut self, it_lives: bool) -> Result<(), ApplyError> {
        let most = if it_lives { AT_ONCE } else { usize::MAX };
        let Some(reader) = &mut self.reader else { return Ok(()) };
        for _ in 0..most {
            match reader.read().map_err(FileError::when("read", &self.path))? {
                Some((_, bytes)) => self.heard.feed(&bytes),
                None => break,
            }
        }
        Ok(())
    }
}

impl GuestHandle<'_> {
    /// Keeps the logs of a guest that runs, and whose keeper is gone or stopped.
    pub(super) fn keep_logs(self) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        let layout = &host.layout;
        let Some(vmm) = self.vmm() else { return Ok(()) };
        self.wake_keeper();
        let jails = self.jails()?;
        let Some(id) = self.jail_in_use(&jails, &vmm) else { return Ok(()) };
        self.start_keeper(id.vmm, &id.root(layout, guest), KeeperReason::RunningVmm).map(drop)
    }

    /// Asks a guest to shut down where it can hear, waits, and kills what is left.
    pub(super) fn stop_vmm(self) -> Result<(), ApplyError> {
        let host = self.host;
        let mut only_here = None;
        let seen = host.cache.vmm(self.name);
        // What stands still hears nothing, and one that is frozen does not even die.
        let may_stand = seen.as_ref().is_none_or(|seen| seen.halted);
        let vmm = seen.map(|seen| seen.process).or_else(|| self.vmm());
        if let Some(vmm) = &vmm {
            let machine = self.seen_machine().ok().flatten();
            only_here = self.rescue_disk(machine.as_deref(), vmm)?;
            if may_stand || !host.stop_timeout.is_zero() {
                // Where it cannot be let go on, it is killed below.
                let _ = self.continue_vmm(vmm);
            }
            // One that never came up does not listen, and one that does not hear is killed below.
            if let Some(machine) = machine.filter(|_| !host.stop_timeout.is_zero()) {
                self.let_stop(&machine, vmm);
            }
        }
        self.kill_vmm(vmm.as_ref())?;
        host.cache.set_ended(self.name);
        only_here.map_or(Ok(()), |disk| self.copy_back(&disk))
    }

    /// Asks a guest that hears to shut down, and waits for its end, as long as it may take.
    fn let_stop(self, machine: &Machine, vmm: &ProcessInfo) {
        // Of all that it is asked, so that it is killed in time whatever it answers.
        let end_of_patience = Instant::now() + self.host.stop_timeout;
        let left = || end_of_patience.saturating_duration_since(Instant::now());
        let is_ready = self.ready(Some(vmm)).is_ok_and(|ready| ready.is_some());
        let can_hear = match self.paused() {
            Ok(None) => true,
            Ok(Some(Paused::Unfinished)) => self.unpause(left()).is_ok(),
            // It must not run beside its snapshot, which one whose marker cannot be read may have.
            Ok(Some(Paused::Frozen)) | Err(_) => false,
        };
        if is_ready && can_hear && self.ask_to_stop(machine, vmm, left()).is_ok() {
            process::wait_gone(vmm.id, left());
        }
    }
}

impl GuestHandle<'_> {
    /// Ends whatever is left in the guest's cgroup, of which `known` is one, and its VMM wherever it is.
    pub(super) fn kill_vmm(self, known: Option<&ProcessInfo>) -> Result<(), ApplyError> {
        let (host, guest) = (self.host, self.name);
        let _permit = host.stops.acquire();
        let cgroup = host.layout.cgroup(guest);
        // Mostly all that is there.
        if let Some(vmm) = known {
            host.hierarchy.kill_alone(&cgroup, vmm.id.pid);
        }
        host.hierarchy.kill(&cgroup)?;
        // The cgroup is empty by now.
        while let Some(left) = self.vmm_outside_cgroup(&self.jails().unwrap_or_default()) {
            end(guest, &left)?;
        }
        Ok(())
    }
}

fn end(guest: &GuestName, vmm: &ProcessInfo) -> Result<(), ApplyError> {
    // A process that is gone already is what is wanted.
    let _ = process::send_signal(vmm.id, Signal::KILL);
    if process::wait_gone(vmm.id, KILL_TIMEOUT) {
        Ok(())
    } else {
        Err(VmmError::DoesNotEnd(guest.clone()).into())
    }
}

impl GuestHandle<'_> {
    fn ask_to_stop(self, machine: &Machine, vmm: &ProcessInfo, limit: Duration) -> Result<(), ApplyError> {
        let end = Instant::now() + limit;
        let control = control::connect(&self.jail_root(vmm)?, machine, vmm, limit)?;
        control.shut_down(end.saturating_duration_since(Instant::now()))
    }

    /// Tells a running VMM what changed of its machine, and then remembers it as that.
    pub(super) fn adjust_vmm(self, machine: &Machine) -> Result<(), ApplyError> {
        let vmm = self.vmm();
        let vmm = vmm.ok_or_else(|| VmmError::Gone(self.name.clone()))?;
        let root = self.jail_root(&vmm)?;
        let running: Machine = self.machine()?.unwrap_or_else(|| machine.as_started());
        control::connect(&root, machine, &vmm, PATIENCE)?.adjust(&running, machine)?;
        self.host.cache.forget_machine(self.name);
        Ok(record::write(&self.dir().machine(), machine)?)
    }
}

impl GuestHandle<'_> {
    /// How the host reaches a guest's sshd; `None` where it runs none, or nobody recorded its machine.
    pub fn ssh_target(self, ready: &Ready) -> Result<Option<Target>, ApplyError> {
        let layout = self.layout();
        let machine: Option<Machine> = self.machine()?;
        // One that an earlier sisforge started is in the host's own network.
        let netns = Some(layout.netns()).filter(|netns| netns::presence(netns).ok() == Some(Presence::There));
        Ok(machine.zip(ready.host_key.clone()).map(|(machine, host_key)| Target {
            address: machine.ip,
            user: GUEST_USER.to_owned(),
            identity: layout.key(),
            host_key,
            netns,
            machine: Some(ready.vmm),
        }))
    }
}
